/**
 * Formats of blocks: ggml's, and bitsandbytes' NF4. A block is some values of one row that share scales; rows lie one
 * after another, as they do in files. Every format is read 32 values at a time, as codes of 8 bits and, for each half
 * of them, a scale and an offset:
 *   value = f32(f32(scale * code) + offset)
 * as gguf-py's quants.py and ggml's dequantize_row_* round it. What has no offset has -0, which changes no value. NF4's
 * codes are places in a table of floats: value = f32(absmax * table[code]), as bitsandbytes has it.
 *
 *   format   values  bytes  what lies where
 *   Q8_0        32     34   d f16, 32 i8
 *   Q4_0        32     18   d f16, 16 B: values 0 to 15 in the lower halves of bytes, 16 to 31 in the upper ones; - 8
 *   Q4_1        32     20   d f16, m f16, 16 B
 *   Q5_0        32     22   d f16, 4 B: fifth bits, 16 B; - 16
 *   Q5_1        32     24   d f16, m f16, 4 B, 16 B
 *   IQ4_NL      32     18   d f16, 16 B: places in LEVELS
 *   NF4         64     36   absmax f32, 32 B as bitsandbytes has them: the first value in the upper half of a byte
 *   Q2_K       256     84   16 B: scales and, above, minima of 16 values; 64 B of two bits; d f16, dmin f16
 *   Q3_K       256    110   32 B: third bits; 64 B of two bits; 12 B: 16 scales of 6 bits; d f16
 *   Q4_K       256    144   d f16, dmin f16, 12 B: eight scales and eight minima of 6 bits, 128 B of four bits
 *   Q5_K       256    176   the same, with 32 B of fifth bits before the four
 *   Q6_K       256    210   128 B of four bits, 64 B of two more, 16 scales i8, d f16; - 32
 *   IQ4_XS     256    136   d f16, 2 B: upper bits of eight scales, 4 B: lower ones, 128 B: places in LEVELS
 */
import {
  BLOCKS,
  blockBytes,
  F16,
  F32,
  half,
  IQ4_NL,
  NF4,
  Q2_K,
  Q3_K,
  Q4_1,
  Q4_K,
  Q5_0,
  Q5_1,
  Q5_K,
  Q6_K,
  Q8_0,
  stored,
  unitsShift,
  widenHalves,
} from "./half";
import { first, here, last, part, split } from "../threads";
import { highFours, highPairs, lowFours, lowPairs } from "./shuffle";

/** Values that are read at a time, of every format. */
export const UNIT: i32 = 32;
/** Codes of a row that `records` makes at a time, at most, */
export const CODES: i32 = 256;
/** and where the scale of each 16 of them lies behind them, and the offset; bytes of all. */
export const SCALES: usize = <usize>CODES;
export const OFFSETS: usize = SCALES + (<usize>CODES >> 2);
export const RECORDS: usize = OFFSETS + (<usize>CODES >> 2);

/**
 * y = count values of a row, from number `first` on: both are multiples of UNIT where the format is one of blocks. Not
 * for F32.
 */
export function widenFrom(y: usize, row: usize, first: i32, count: i32, format: i32): void {
  if (format < BLOCKS) widenHalves(y, row + stored(first, format), count, format);
  else units(y, 128, 64, row, first, count, format);
}

/** The same from the row's first value on, by all threads; by one where y is written over x. */
export function widen(y: usize, x: usize, count: i32, format: i32): void {
  if (x < y + stored(count, F32) && y < x + stored(count, format)) widenFrom(y, x, 0, count, format);
  else
    for (split(count, format < BLOCKS ? 0.5 : 2, MOST_VALUES); part(); )
      widenFrom(here(y), x, first, last - first, format);
}
/** Values of the longest block. */
const MOST_VALUES: i32 = 256;

/** The same, of which the first 16 of each 32 values go to y and the others `gap` bytes behind them; then `step` on. */
export function units(y: usize, step: usize, gap: usize, row: usize, first: i32, count: i32, format: i32): void {
  const shift = unitsShift(format),
    last = (1 << shift) - 1,
    bytes = blockBytes(format);
  let at = row + <usize>(first >> (5 + shift)) * bytes,
    sub = (first >> 5) & last;
  // The two that most weights have, without a call for each unit.
  if (format == Q8_0) {
    for (; count > 0; count -= UNIT) {
      const d = f16(at);
      put16(y, v128.load(at, 2), d, -0);
      put16(y + gap, v128.load(at, 18), d, -0);
      y += step;
      at += 34;
    }
    return;
  }
  if (format == Q4_K) {
    for (; count > 0; at += 144) {
      const units = min(8 - sub, count >> 5);
      someOf4(y, step, gap, at, sub, units);
      y += step * units;
      count -= units << 5;
      sub = 0;
    }
    return;
  }
  for (; count > 0; count -= UNIT) {
    unit(y, gap, 0, at, sub, format);
    y += step;
    if (sub == last) {
      sub = 0;
      at += bytes;
    } else sub++;
  }
}

/**
 * `count` values of a row as codes, from number `first` on, both multiples of UNIT; scales and offsets of each 16
 * behind them. Where there are no offsets they are left out, or -0.
 */
export function records(to: usize, row: usize, first: i32, count: i32, format: i32): void {
  const shift = unitsShift(format),
    last = (1 << shift) - 1,
    bytes = blockBytes(format);
  let at = row + <usize>(first >> (5 + shift)) * bytes,
    sub = (first >> 5) & last,
    scales = to + SCALES;
  if (format == Q8_0) {
    for (; count > 0; count -= UNIT) {
      v128.store(to, v128.load(at, 2));
      v128.store(to, v128.load(at, 18), 16);
      v128.store64_lane(scales, f32x4.splat(f16(at)), 0);
      to += 32;
      scales += 8;
      at += 34;
    }
    return;
  }
  for (; count > 0; count -= UNIT) {
    if (sub == 0 && count >= 256 && (format == Q4_K || format == Q6_K)) {
      if (format == Q4_K) whole4(to, scales, at);
      else whole6(to, scales, at);
      return;
    }
    unit(to, 0, scales, at, sub, format);
    to += 32;
    scales += 8;
    if (sub == last) {
      sub = 0;
      at += bytes;
    } else sub++;
  }
}

/** Unit `sub` of the block at `at`: as floats, or, where `scales` is an address, as codes. */
function unit(to: usize, gap: usize, scales: usize, at: usize, sub: i32, format: i32): void {
  if (format == Q8_0) {
    const d = f16(at);
    put(to, gap, scales, v128.load(at, 2), v128.load(at, 18), d, -0, d, -0);
  } else if (format == Q4_K) k4(to, gap, scales, at, at + 16, sub, 0);
  else if (format == Q6_K) k6(to, gap, scales, at, sub);
  else if (format == NF4) nf4(to, gap, scales, at, sub);
  else if (format == Q5_K) k4(to, gap, scales, at, at + 48, sub, at + 16);
  else if (format <= Q5_1) nibbles(to, gap, scales, at, format);
  else if (format == Q3_K) k3(to, gap, scales, at, sub);
  else if (format == Q2_K) k2(to, gap, scales, at, sub);
  else levels(to, gap, scales, at, sub, format);
}

// @ts-ignore: decorator
@inline
function f16(p: usize): f32 {
  return half(p, F16);
}

/** The lower four bits of each byte, and the upper ones. */
// @ts-ignore: decorator
@inline
function lowNibbles(bytes: v128): v128 {
  return v128.and(bytes, i8x16.splat(15));
}
// @ts-ignore: decorator
@inline
function highNibbles(bytes: v128): v128 {
  return v128.and(i16x8.shr_u(bytes, 4), i8x16.splat(15));
}

/** 32 codes with the scales and offsets of both halves. */
function put(to: usize, gap: usize, scales: usize, x: v128, y: v128, s0: f32, o0: f32, s1: f32, o1: f32): void {
  if (scales != 0) {
    v128.store(to, x);
    v128.store(to, y, 16);
    store<f32>(scales, s0);
    store<f32>(scales, s1, 4);
    store<f32>(scales, o0, OFFSETS - SCALES);
    store<f32>(scales, o1, OFFSETS - SCALES + 4);
    return;
  }
  put16(to, x, s0, o0);
  put16(to + gap, y, s1, o1);
}

// @ts-ignore: decorator
@inline
function put16(to: usize, codes: v128, s: f32, o: f32): void {
  const scale = f32x4.splat(s),
    offset = f32x4.splat(o),
    low = i16x8.extend_low_i8x16_s(codes),
    high = i16x8.extend_high_i8x16_s(codes);
  v128.store(to, scaled(i32x4.extend_low_i16x8_s(low), scale, offset));
  v128.store(to, scaled(i32x4.extend_high_i16x8_s(low), scale, offset), 16);
  v128.store(to, scaled(i32x4.extend_low_i16x8_s(high), scale, offset), 32);
  v128.store(to, scaled(i32x4.extend_high_i16x8_s(high), scale, offset), 48);
}

// @ts-ignore: decorator
@inline
function scaled(codes: v128, scale: v128, offset: v128): v128 {
  return f32x4.add(f32x4.mul(scale, f32x4.convert_i32x4_s(codes)), offset);
}

/** Q4_0, Q4_1, Q5_0, Q5_1 */
function nibbles(to: usize, gap: usize, scales: usize, at: usize, format: i32): void {
  const d = f16(at),
    hasMinimum = format == Q4_1 || format == Q5_1,
    hasFifth = format >= Q5_0;
  let p = at + 2,
    offset: f32 = -0;
  if (hasMinimum) {
    offset = f16(p);
    p += 2;
  }
  const bytes = v128.load(p, 0),
    codes = hasFifth ? v128.load(p, 4) : bytes;
  let x = lowNibbles(codes),
    y = highNibbles(codes);
  if (hasFifth) {
    // A byte of the four for each eight values, of which each looks at its own bit.
    const mask = i64x2.splat(<i64>0x8040201008040201),
      sixteen = i8x16.splat(16);
    x = v128.or(x, v128.and(sixteen, i8x16.eq(mask, v128.and(mask, eights(bytes, 0)))));
    y = v128.or(y, v128.and(sixteen, i8x16.eq(mask, v128.and(mask, eights(bytes, 2)))));
  }
  if (!hasMinimum) {
    const zero = i8x16.splat(hasFifth ? 16 : 8);
    x = i8x16.sub(x, zero);
    y = i8x16.sub(y, zero);
  }
  put(to, gap, scales, x, y, d, offset, d, offset);
}

/** Byte i eight times, then byte i + 1. */
// @ts-ignore: decorator
@inline
function eights(bytes: v128, i: i32): v128 {
  return i == 0
    ? i8x16.shuffle(bytes, bytes, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
    : i8x16.shuffle(bytes, bytes, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
}

/** Q4_K and Q5_K: four bits at `from`; fifth bits at `fifths`, 0: there are none. */
function k4(to: usize, gap: usize, scales: usize, at: usize, from: usize, sub: i32, fifths: usize): void {
  const d = f16(at),
    dmin = f16(at + 2),
    s = at + 4 + <usize>(sub & 3);
  const a = load<u8>(s),
    b = load<u8>(s, 4),
    c = load<u8>(s, 8);
  const sc = sub < 4 ? a & 63 : (c & 15) | ((a >> 6) << 4),
    m = sub < 4 ? b & 63 : (c >> 4) | ((b >> 6) << 4);
  const scale = d * <f32>sc,
    offset = -(dmin * <f32>m);
  from += (<usize>(sub >> 1)) << 5;
  const shift = (sub & 1) << 2;
  let x = lowNibbles(i16x8.shr_u(v128.load(from), shift)),
    y = lowNibbles(i16x8.shr_u(v128.load(from, 16), shift));
  if (fifths != 0) {
    const bit = i8x16.splat(1 << (<i8>sub)),
      sixteen = i8x16.splat(16);
    x = v128.or(x, v128.and(sixteen, i8x16.eq(bit, v128.and(bit, v128.load(fifths)))));
    y = v128.or(y, v128.and(sixteen, i8x16.eq(bit, v128.and(bit, v128.load(fifths, 16)))));
  }
  put(to, gap, scales, x, y, scale, offset, scale, offset);
}

/** `count` units of a block of Q4_K, from number `sub` on, as floats. */
function someOf4(y: usize, step: usize, gap: usize, at: usize, sub: i32, count: i32): void {
  const d = f16(at),
    dmin = -f16(at + 2),
    a = load<u32>(at, 4),
    b = load<u32>(at, 8),
    c = load<u32>(at, 12),
    scales = ((<u64>((c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030))) << 32) | (a & 0x3f3f3f3f),
    minima = ((<u64>(((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030))) << 32) | (b & 0x3f3f3f3f);
  for (let end = sub + count; sub < end; sub++) {
    const from = at + 16 + ((<usize>(sub >> 1)) << 5),
      shift = (sub & 1) << 2,
      scale = d * <f32>(<i32>(scales >> (sub << 3)) & 63),
      offset = dmin * <f32>(<i32>(minima >> (sub << 3)) & 63);
    put16(y, lowNibbles(i16x8.shr_u(v128.load(from), shift)), scale, offset);
    put16(y + gap, lowNibbles(i16x8.shr_u(v128.load(from, 16), shift)), scale, offset);
    y += step;
  }
}

/** A whole block of Q6_K as codes. */
function whole6(to: usize, scales: usize, at: usize): void {
  const d = f32x4.splat(f16(at + 208)),
    own = v128.load(at, 192),
    low = i16x8.extend_low_i8x16_s(own),
    high = i16x8.extend_high_i8x16_s(own);
  v128.store(scales, f32x4.mul(d, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low))));
  v128.store(scales, f32x4.mul(d, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low))), 16);
  v128.store(scales, f32x4.mul(d, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high))), 32);
  v128.store(scales, f32x4.mul(d, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high))), 48);
  const zero = i8x16.splat(32);
  // Four bits of a half lie in 64 bytes, of which the first 32 share their two more with the others.
  for (let half = 0; half < 2; half++) {
    for (let i: usize = 0; i < 32; i += 16) {
      const x = v128.load(at + i),
        y = v128.load(at + i, 32),
        bits = v128.load(at + i + 128 - ((<usize>half) << 5));
      sixBits(to + i, lowNibbles(x), i16x8.shl(bits, 4), zero);
      sixBits(to + i + 32, lowNibbles(y), i16x8.shl(bits, 2), zero);
      sixBits(to + i + 64, highNibbles(x), bits, zero);
      sixBits(to + i + 96, highNibbles(y), i16x8.shr_u(bits, 2), zero);
    }
    to += 128;
    at += 64;
  }
}

/** Four bits of each code, and two more where those two stand in `upper`. */
// @ts-ignore: decorator
@inline
function sixBits(to: usize, lower: v128, upper: v128, zero: v128): void {
  v128.store(to, i8x16.sub(v128.or(lower, v128.and(upper, i8x16.splat(0x30))), zero));
}

/** A whole block of Q4_K as codes. */
function whole4(to: usize, scales: usize, at: usize): void {
  const d = f32x4.splat(f16(at)),
    dmin = f32x4.splat(-f16(at + 2)),
    a = load<u32>(at, 4),
    b = load<u32>(at, 8),
    c = load<u32>(at, 12);
  put8(scales, d, a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030));
  put8(scales + (OFFSETS - SCALES), dmin, b & 0x3f3f3f3f, ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030));
  for (let from = at + 16; from < at + 144; from += 32) {
    const x = v128.load(from),
      y = v128.load(from, 16);
    v128.store(to, lowNibbles(x));
    v128.store(to, lowNibbles(y), 16);
    v128.store(to, highNibbles(x), 32);
    v128.store(to, highNibbles(y), 48);
    to += 64;
  }
}

/** Eight bytes times d, as floats, each twice. */
// @ts-ignore: decorator
@inline
function put8(to: usize, d: v128, low: u32, high: u32): void {
  const bytes = i32x4.replace_lane(i32x4.splat(low), 1, high),
    words = i16x8.extend_low_i8x16_u(bytes),
    x = f32x4.mul(d, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_u(words))),
    y = f32x4.mul(d, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_u(words)));
  v128.store(to, v128.shuffle<i32>(x, x, 0, 0, 1, 1));
  v128.store(to, v128.shuffle<i32>(x, x, 2, 2, 3, 3), 16);
  v128.store(to, v128.shuffle<i32>(y, y, 0, 0, 1, 1), 32);
  v128.store(to, v128.shuffle<i32>(y, y, 2, 2, 3, 3), 48);
}

/** Two bits of each byte, from `shift` on. */
// @ts-ignore: decorator
@inline
function pairs(p: usize, shift: i32): v128 {
  return v128.and(i16x8.shr_u(v128.load(p), shift), i8x16.splat(3));
}

function k6(to: usize, gap: usize, scales: usize, at: usize, sub: i32): void {
  const t = sub & 3,
    upper = at + 128 + ((<usize>(sub >> 2)) << 5),
    from = at + ((<usize>(sub >> 2)) << 6) + ((<usize>(t & 1)) << 5),
    shift = (t >> 1) << 2,
    zero = i8x16.splat(32),
    d = f16(at + 208),
    own = at + 192 + ((<usize>sub) << 1);
  const x = v128.or(lowNibbles(i16x8.shr_u(v128.load(from), shift)), i16x8.shl(pairs(upper, t << 1), 4)),
    y = v128.or(lowNibbles(i16x8.shr_u(v128.load(from, 16), shift)), i16x8.shl(pairs(upper + 16, t << 1), 4));
  const s0 = d * <f32>load<i8>(own),
    s1 = d * <f32>load<i8>(own, 1);
  put(to, gap, scales, i8x16.sub(x, zero), i8x16.sub(y, zero), s0, -0, s1, -0);
}

function k2(to: usize, gap: usize, scales: usize, at: usize, sub: i32): void {
  const from = at + 16 + ((<usize>(sub >> 2)) << 5),
    shift = (sub & 3) << 1,
    d = f16(at + 80),
    dmin = f16(at + 82),
    a = load<u8>(at + ((<usize>sub) << 1)),
    b = load<u8>(at + ((<usize>sub) << 1), 1);
  put(
    to,
    gap,
    scales,
    pairs(from, shift),
    pairs(from + 16, shift),
    d * <f32>(a & 15),
    -(dmin * <f32>(a >> 4)),
    d * <f32>(b & 15),
    -(dmin * <f32>(b >> 4)),
  );
}

function k3(to: usize, gap: usize, scales: usize, at: usize, sub: i32): void {
  const from = at + 32 + ((<usize>(sub >> 2)) << 5),
    shift = (sub & 3) << 1,
    d = f16(at + 108),
    bit = i8x16.splat(1 << (<i8>sub));
  put(
    to,
    gap,
    scales,
    i8x16.sub(pairs(from, shift), lacking(bit, v128.load(at))),
    i8x16.sub(pairs(from + 16, shift), lacking(bit, v128.load(at, 16))),
    d * <f32>scale3(at + 96, sub << 1),
    -0,
    d * <f32>scale3(at + 96, (sub << 1) + 1),
    -0,
  );
}

/** 4 where the bit is not set. */
// @ts-ignore: decorator
@inline
function lacking(bit: v128, bytes: v128): v128 {
  return v128.andnot(i8x16.splat(4), i8x16.eq(bit, v128.and(bit, bytes)));
}

/** Scale i of 16: four bits in the first eight bytes, two more in the last four. */
function scale3(scales: usize, i: i32): i32 {
  const low = <i32>load<u8>(scales + <usize>(i & 7)) >> ((i >> 3) << 2),
    high = <i32>load<u8>(scales + <usize>(i & 3), 8) >> ((i >> 2) << 1);
  return ((low & 15) | ((high & 3) << 4)) - 32;
}

/** IQ4_NL and IQ4_XS: ggml's kvalues_iq4nl. */
function levels(to: usize, gap: usize, scales: usize, at: usize, sub: i32, format: i32): void {
  const table = i8x16(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
  let d = f16(at),
    from = at + 2;
  if (format != IQ4_NL) {
    const low = <i32>load<u8>(at + <usize>(sub >> 1), 4) >> ((sub & 1) << 2),
      high = <i32>load<u16>(at, 2) >> (sub << 1);
    d *= <f32>(((low & 15) | ((high & 3) << 4)) - 32);
    from = at + 8 + ((<usize>sub) << 4);
  }
  const bytes = v128.load(from);
  put(to, gap, scales, i8x16.swizzle(table, lowNibbles(bytes)), i8x16.swizzle(table, highNibbles(bytes)), d, -0, d, -0);
}

function nf4(to: usize, gap: usize, scales: usize, at: usize, sub: i32): void {
  const absmax = load<f32>(at),
    bytes = v128.load(at + ((<usize>sub) << 4), 4),
    low = lowNibbles(bytes),
    high = highNibbles(bytes),
    x = lowPairs(high, low),
    y = highPairs(high, low);
  if (scales != 0) {
    put(to, 0, scales, x, y, absmax, -0, absmax, -0);
    return;
  }
  putNf4(to, x, absmax);
  putNf4(to + gap, y, absmax);
}

// The table's floats by their bytes: four look-ups are woven into floats.
// @ts-ignore: decorator
@inline
function byte0(codes: v128): v128 {
  return i8x16.swizzle(i8x16(0, -79, 48, -96, 77, 63, 113, 0, -1, -29, -35, 58, -72, -85, -77, 0), codes);
}
// @ts-ignore: decorator
@inline
function byte1(codes: v128): v128 {
  return i8x16.swizzle(i8x16(0, 57, 107, 50, -94, 53, 120, 0, -6, -54, 4, 3, -92, 7, 19, 0), codes);
}
// @ts-ignore: decorator
@inline
function byte2(codes: v128): v128 {
  return i8x16.swizzle(i8x16(-128, 50, 6, -54, -111, 61, -70, 0, -94, 36, 124, -83, -31, 16, 57, -128), codes);
}
// @ts-ignore: decorator
@inline
function byte3(codes: v128): v128 {
  return i8x16.swizzle(i8x16(-65, -65, -65, -66, -66, -66, -67, 0, 61, 62, 62, 62, 62, 63, 63, 63), codes);
}

function putNf4(to: usize, codes: v128, absmax: f32): void {
  const s = f32x4.splat(absmax),
    p0 = byte0(codes),
    p1 = byte1(codes),
    p2 = byte2(codes),
    p3 = byte3(codes);
  let low = lowPairs(p0, p1),
    high = lowPairs(p2, p3);
  v128.store(to, f32x4.mul(s, lowFours(low, high)));
  v128.store(to, f32x4.mul(s, highFours(low, high)), 16);
  low = highPairs(p0, p1);
  high = highPairs(p2, p3);
  v128.store(to, f32x4.mul(s, lowFours(low, high)), 32);
  v128.store(to, f32x4.mul(s, highFours(low, high)), 48);
}
