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
 * is exact, also for a subnormal, which was one of float32's and becomes normal. What had the largest exponent is then
 * at least 2^16, and gets all bits of the exponent: infinity, or a NaN with its bits.
 */
// @ts-ignore: decorator
@inline
export function upper(lanes: v128, format: i32): v128 {
  if (format == BF16) return v128.and(lanes, i32x4.splat(0xffff0000));
  const value = f32x4.mul(
    v128.and(i32x4.shr_s(lanes, 3), i32x4.splat(0x8fffe000)),
    f32x4.splat(reinterpret<f32>((112 + 127) << 23)),
  );
  const isSpecial = f32x4.ge(f32x4.abs(value), f32x4.splat(65536));
  return v128.or(value, v128.and(isSpecial, i32x4.splat(0x7f800000)));
}

/** Four values that stand in the lower halves of four lanes. */
// @ts-ignore: decorator
@inline
export function lower(lanes: v128, format: i32): v128 {
  const moved = i32x4.shl(lanes, 16);
  return format == BF16 ? moved : upper(moved, format);
}

/** Four values from p on. */
// @ts-ignore: decorator
@inline
export function four(p: usize, format: i32): v128 {
  return format == F32 ? v128.load(p) : lower(v128.load_ext<u16>(p), format);
}

/** The value at p. */
// @ts-ignore: decorator
@inline
export function one(p: usize, format: i32): f32 {
  return format == F32 ? load<f32>(p) : f32x4.extract_lane(upper(v128.load_splat<u16>(p), format), 0);
}

/** y = x as float32, n values in a row; not for F32. */
export function widen(y: usize, x: usize, n: i32, format: i32): void {
  if (format == BF16) widenAs(y, x, n, BF16);
  else widenAs(y, x, n, F16);
}

// @ts-ignore: decorator
@inline
function widenAs(y: usize, x: usize, n: i32, format: i32): void {
  for (; n >= 8; n -= 8) {
    v128.store(y, four(x, format));
    v128.store(y, four(x + stored(4, format), format), 16);
    y += 32;
    x += stored(8, format);
  }
  for (; n > 0; n--) {
    store<f32>(y, one(x, format));
    y += 4;
    x += stored(1, format);
  }
}
