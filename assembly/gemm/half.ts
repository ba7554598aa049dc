/**
 * The formats that a weight may be stored in, and how values of 16 bits become float32, each to the bit:
 *   F32   float32
 *   BF16  bfloat16, the upper half of a float32 whose lower half is zeros
 *   F16   IEEE 754's binary16: sign, 5 bits of exponent (bias 15), 10 of mantissa
 * The others are formats of blocks (blocks.ts).
 *
 * What reads a weight takes its format, and turns it into a constant of inlined functions before its loops. A format
 * says how many bytes values of one row take (`stored`) and how to read them.
 */

export const F32: i32 = 0;
export const BF16: i32 = 1;
export const F16: i32 = 2;
/**
 * F16 without infinity and NaN, which products read faster (1 x 768 x 768: 1.45 -> 1.03 of float32's time). Whoever
 * asks for it has looked (`isFinite16`).
 */
export const FINITE16: i32 = 3;
/** How products read FINITE16 fastest: as its values times 2^-112, their other factor having been `scaledUp`. */
export const SCALED16: i32 = 4;
/** What sets the bias of the exponent right: 2^(127 - 15). */
const UP: f32 = reinterpret<f32>((112 + 127) << 23);
/** Sign, exponent and mantissa of F16 where float32 has them. */
const PLACES: i32 = 0x8fffe000;

/** Formats of blocks (blocks.ts) are numbered from here on: those of 32 values, of 64 and of 256. */
export const BLOCKS: i32 = 8;
export const Q8_0: i32 = 8;
export const Q4_0: i32 = 9;
export const Q4_1: i32 = 10;
export const Q5_0: i32 = 11;
export const Q5_1: i32 = 12;
export const IQ4_NL: i32 = 13;
export const NF4: i32 = 14;
export const Q2_K: i32 = 15;
export const Q3_K: i32 = 16;
export const Q4_K: i32 = 17;
export const Q5_K: i32 = 18;
export const Q6_K: i32 = 19;
export const IQ4_XS: i32 = 20;

/**
 * Bytes of so many values that lie in one row; of a format of blocks, of whole blocks. What begins within a block is
 * told by the row and the number of its first value.
 */
// @ts-ignore: decorator
@inline
export function stored(elements: i32, format: i32): usize {
  return format < BLOCKS ? (<usize>elements) << (format == F32 ? 2 : 1) : storedBlocks(elements, format);
}

function storedBlocks(elements: i32, format: i32): usize {
  return <usize>(elements >> (5 + unitsShift(format))) * blockBytes(format);
}

/** Whether values of a format have offsets beside their scales. */
export function hasOffsets(format: i32): bool {
  return format == Q4_1 || format == Q5_1 || format == Q2_K || format == Q4_K || format == Q5_K;
}

/** A block has 2 to the power of that times 32 values. */
export function unitsShift(format: i32): i32 {
  return format < NF4 ? 0 : format == NF4 ? 1 : 3;
}

export function blockBytes(format: i32): usize {
  switch (format) {
    case Q8_0:
      return 34;
    case Q4_1:
      return 20;
    case Q5_0:
      return 22;
    case Q5_1:
      return 24;
    case NF4:
      return 36;
    case Q2_K:
      return 84;
    case Q3_K:
      return 110;
    case Q4_K:
      return 144;
    case Q5_K:
      return 176;
    case Q6_K:
      return 210;
    case IQ4_XS:
      return 136;
    default:
      return 18;
  }
}

/**
 * Four values that stand in the upper halves of four lanes; the lower halves do not count.
 *
 * F16: sign, exponent and mantissa go where float32 has them, and a product with 2^112 sets the bias right. It is
 * exact, also for a subnormal, which is one of float32's before and becomes normal. What has the largest exponent gets
 * all bits of float32's: infinity, or a NaN with its bits.
 */
// @ts-ignore: decorator
@inline
export function upper(lanes: v128, format: i32): v128 {
  if (format == BF16) return v128.and(lanes, i32x4.splat(0xffff0000));
  const placed = v128.and(i32x4.shr_s(lanes, 3), i32x4.splat(PLACES));
  if (format == SCALED16) return placed;
  const value = f32x4.mul(placed, f32x4.splat(UP));
  if (format == FINITE16) return value;
  const largest = i32x4.splat(31 << 23),
    isSpecial = i32x4.eq(v128.and(placed, largest), largest);
  return v128.or(value, v128.and(isSpecial, i32x4.splat(0x7f800000)));
}

/** Four values that stand in the lower halves of four lanes. */
// @ts-ignore: decorator
@inline
export function lower(lanes: v128, format: i32): v128 {
  // One product of 16 bits with a sign extends the sign and shifts by 13.
  if (format == SCALED16) return v128.and(i32x4.dot_i16x8_s(lanes, i32x4.splat(0x2000)), i32x4.splat(PLACES));
  const moved = i32x4.shl(lanes, 16);
  return format == BF16 ? moved : upper(moved, format);
}

/** The first four of eight halves. */
// @ts-ignore: decorator
@inline
export function firstFour(halves: v128, format: i32): v128 {
  return lower(i32x4.extend_low_i16x8_u(halves), format);
}

/** The last four of eight halves. */
// @ts-ignore: decorator
@inline
export function lastFour(halves: v128, format: i32): v128 {
  return lower(i32x4.extend_high_i16x8_u(halves), format);
}

/** The value at p. */
// @ts-ignore: decorator
@inline
export function one(p: usize, format: i32): f32 {
  return format == F32 ? load<f32>(p) : half(p, format);
}

export function half(p: usize, format: i32): f32 {
  if (format == BF16) return reinterpret<f32>((<u32>load<u16>(p)) << 16);
  const bits = v128.load_splat<u16>(p);
  return f32x4.extract_lane(format == SCALED16 ? upper(bits, SCALED16) : upper(bits, F16), 0);
}

/** F16 whose bits stand in the upper halves of `count` lanes, as BF16 has them; a multiple of 4. */
export function widenInPlace(p: usize, count: i32): void {
  for (; count > 0; count -= 4) {
    v128.store(p, upper(v128.load(p), F16));
    p += 16;
  }
}

/**
 * to = 2^112 * a, k values acs bytes apart, for products with SCALED16; false if one of them is too large for that (or
 * NaN): then nothing is promised about `to`. Exact, so a product has the bits that it has the other way round.
 */
export function scaledUp(to: usize, a: usize, acs: usize, k: i32): bool {
  for (; k > 0; k--) {
    const value = load<f32>(a);
    if (!(abs(value) < 65536)) return false;
    store<f32>(to, UP * value);
    to += 4;
    a += acs;
  }
  return true;
}

/** Whether n values of F16 that lie in a row are all finite. */
export function isFinite16(x: usize, n: i32): bool {
  let largest = i32x4.splat(0);
  for (; n >= 8; n -= 8) {
    largest = i16x8.max_u(largest, i16x8.shl(v128.load(x), 1));
    x += 16;
  }
  for (; n > 0; n--) {
    largest = i16x8.max_u(largest, i16x8.shl(v128.load_splat<u16>(x), 1));
    x += 2;
  }
  return !v128.any_true(i16x8.ge_u(largest, i16x8.splat(<i16>(31 << 11))));
}

/**
 * y = x as float32, n values in a row, of BF16 or F16. x may be the second half of y's own block: no value is written
 * over one that is still to be read.
 */
export function widenHalves(y: usize, x: usize, n: i32, format: i32): void {
  if (format == BF16) widenAs(y, x, n, BF16);
  else widenAs(y, x, n, F16);
}

// @ts-ignore: decorator
@inline
function widenAs(y: usize, x: usize, n: i32, format: i32): void {
  for (; n >= 8; n -= 8) {
    const halves = v128.load(x);
    v128.store(y, firstFour(halves, format));
    v128.store(y, lastFour(halves, format), 16);
    y += 32;
    x += stored(8, format);
  }
  for (; n > 0; n--) {
    store<f32>(y, one(x, format));
    y += 4;
    x += stored(1, format);
  }
}
