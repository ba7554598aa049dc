/**
 * The formats that a weight may be stored in, and how its values become float32, each to the bit:
 *   F32   float32
 *   BF16  bfloat16, the upper half of a float32 whose lower half is zeros
 *   F16   IEEE 754's binary16: sign, 5 bits of exponent (bias 15), 10 of mantissa
 *
 * What reads a weight takes its format, and turns it into a constant of inlined functions before its loops. A format
 * says how many bytes values of one row take (`stored`) and how to read them; a format of blocks adds itself here.
 */

export const F32: i32 = 0;
export const BF16: i32 = 1;
export const F16: i32 = 2;
/** F16 without infinity and NaN: no format that is stored, but a faster way to read one. */
export const FINITE16: i32 = 3;

/** Bytes of so many values that lie in one row. */
// @ts-ignore: decorator
@inline
export function stored(elements: i32, format: i32): usize {
  return (<usize>elements) << (format == F32 ? 2 : 1);
}

/**
 * Four values that stand in the upper halves of four lanes; the lower halves do not count.
 *
 * F16: sign, exponent and mantissa go where float32 has them, and a product with 2^(127 - 15) sets the bias right. It
 * is exact, also for a subnormal, which is one of float32's before and becomes normal. What has the largest exponent
 * gets all bits of float32's: infinity, or a NaN with its bits.
 */
// @ts-ignore: decorator
@inline
export function upper(lanes: v128, format: i32): v128 {
  if (format == BF16) return v128.and(lanes, i32x4.splat(0xffff0000));
  const placed = v128.and(i32x4.shr_s(lanes, 3), i32x4.splat(0x8fffe000)),
    value = f32x4.mul(placed, f32x4.splat(reinterpret<f32>((112 + 127) << 23)));
  if (format == FINITE16) return value;
  const largest = i32x4.splat(31 << 23),
    isSpecial = i32x4.eq(v128.and(placed, largest), largest);
  return v128.or(value, v128.and(isSpecial, i32x4.splat(0x7f800000)));
}

/** Four values that stand in the lower halves of four lanes. */
// @ts-ignore: decorator
@inline
export function lower(lanes: v128, format: i32): v128 {
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

function half(p: usize, format: i32): f32 {
  return format == BF16
    ? reinterpret<f32>((<u32>load<u16>(p)) << 16)
    : f32x4.extract_lane(upper(v128.load_splat<u16>(p), F16), 0);
}

/** F16 whose bits stand in the upper halves of `count` lanes, as BF16 has them; a multiple of 4. */
export function widenInPlace(p: usize, count: i32): void {
  for (; count > 0; count -= 4) {
    v128.store(p, upper(v128.load(p), F16));
    p += 16;
  }
}

/**
 * y = x as float32, n values in a row; not for F32. x may be the second half of y's own block: no value is written over
 * one that is still to be read.
 */
export function widen(y: usize, x: usize, n: i32, format: i32): void {
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
