/**
 * float32 to blocks (blocks.ts): Q8_0 as ggml's quantize_row_q8_0_ref, NF4 as bitsandbytes' quantize_4bit.
 *
 *   Q8_0   d = max|x| / 127, code = x * f32(1 / d), rounded half away from zero; d is stored as f16, to the nearest
 *   NF4    the place in the table that is nearest to x * f32(1 / max|x|), of two that are the lower one
 *
 * A block of zeros stays one.
 */
import { NF4, stored } from "./half";

/**
 * n values, a multiple of the format's block, to Q8_0 or NF4. False if one of them is not finite, or too large for the
 * format: then nothing is promised about what was written.
 */
export function quantise(to: usize, x: usize, n: i32, format: i32): bool {
  const values = format == NF4 ? 64 : 32;
  for (; n > 0; n -= values) {
    const largest = largestOf(x, values);
    // The largest f16 is 65504, and what is nearer to 65536 than to that is none.
    if (!(largest < (format == NF4 ? <f32>Infinity : <f32>(65520 * 127)))) return false;
    if (format == NF4) nf4(to, x, largest);
    else q8(to, x, largest);
    to += stored(values, format);
    x += (<usize>values) << 2;
  }
  return true;
}

/** The largest absolute value; NaN if there is one. */
function largestOf(x: usize, n: i32): f32 {
  let largest = f32x4.splat(0);
  for (; n > 0; n -= 4) {
    largest = f32x4.max(largest, f32x4.abs(v128.load(x)));
    x += 16;
  }
  return max(
    max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1)),
    max(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3)),
  );
}

function q8(to: usize, x: usize, largest: f32): void {
  const d = largest / 127;
  store<u16>(to, toHalf(d));
  const inverse = f32x4.splat(d == 0 ? 0 : 1 / d);
  to += 2;
  for (let i = 0; i < 32; i += 16) {
    const low = i16x8.narrow_i32x4_s(rounded(inverse, x), rounded(inverse, x + 16)),
      high = i16x8.narrow_i32x4_s(rounded(inverse, x + 32), rounded(inverse, x + 48));
    v128.store(to, i8x16.narrow_i16x8_s(low, high));
    to += 16;
    x += 64;
  }
}

/** Half away from zero. */
function rounded(inverse: v128, x: usize): v128 {
  const value = f32x4.mul(v128.load(x), inverse),
    size = f32x4.abs(value),
    whole = f32x4.floor(size),
    rest = f32x4.sub(size, whole);
  const result = i32x4.trunc_sat_f32x4_s(f32x4.add(whole, f32x4.floor(f32x4.add(rest, rest))));
  return v128.bitselect(i32x4.neg(result), result, i32x4.shr_s(value, 31));
}

/** A value of at least 0 and below 65520 as f16, to the nearest, of two to the even one. */
function toHalf(x: f32): u16 {
  if (x < <f32>0.00006103515625) return <u16>nearest(x * 16777216);
  const bits = reinterpret<u32>(x);
  return <u16>((bits + 0xfff + ((bits >> 13) & 1) - (112 << 23)) >> 13);
}

function nf4(to: usize, x: usize, largest: f32): void {
  store<f32>(to, largest);
  const inverse = f32x4.splat(largest == 0 ? 0 : 1 / largest);
  to += 4;
  for (let i = 0; i < 64; i += 8) {
    const a = nearestLevel(f32x4.mul(v128.load(x), inverse)),
      b = nearestLevel(f32x4.mul(v128.load(x, 16), inverse));
    // Of eight codes, each with its neighbour in one byte, the first one above.
    const codes = i16x8.narrow_i32x4_u(a, b),
      joined = v128.or(i32x4.shl(codes, 4), i32x4.shr_u(codes, 16));
    store<u32>(
      to,
      i32x4.extract_lane(i8x16.shuffle(joined, joined, 0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0),
    );
    to += 4;
    x += 32;
  }
}

// biome-ignore format: a table
const LEVELS: usize = memory.data<f32>([
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
]);

/** Places in the table; the first of those that are equally near. */
function nearestLevel(x: v128): v128 {
  let place = i32x4.splat(0),
    distance = f32x4.abs(f32x4.sub(x, f32x4.splat(-1)));
  for (let i = 1; i < 16; i++) {
    const other = f32x4.abs(f32x4.sub(x, v128.load32_splat(LEVELS + ((<usize>i) << 2)))),
      isNearer = f32x4.lt(other, distance);
    distance = v128.bitselect(other, distance, isNearer);
    place = v128.bitselect(i32x4.splat(i), place, isNearer);
  }
  return place;
}
