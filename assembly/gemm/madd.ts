/**
 * The one multiply-add of matrix products: c + a * b, four lanes or one.
 *
 * The default build rounds the product, then the sum, as any machine does. The fused build (FUSED is defined) rounds
 * once, by relaxed_madd, which leaves the choice to the machine: fused.ts tells whether it fuses, and init runs the
 * build nowhere else. Whatever part of a sum a kernel computes, in vectors or not, it computes by this: so an element
 * has the same bits in any tile and in any remainder, in either build.
 */
// @ts-ignore: decorator
@inline
export function madd(c: v128, a: v128, b: v128): v128 {
  return isDefined(FUSED) ? f32x4.relaxed_madd(a, b, c) : f32x4.add(c, f32x4.mul(a, b));
}

/** The same of single values. */
// @ts-ignore: decorator
@inline
export function madd1(c: f32, a: f32, b: f32): f32 {
  return isDefined(FUSED) ? f32x4.extract_lane(madd(f32x4.splat(c), f32x4.splat(a), f32x4.splat(b)), 0) : c + a * b;
}

/** The same in two parts, p = product(a, b) and plus(c, p, a, b), for code that orders several of them. */
// @ts-ignore: decorator
@inline
export function product(a: v128, b: v128): v128 {
  return isDefined(FUSED) ? a : f32x4.mul(a, b);
}

// @ts-ignore: decorator
@inline
export function plus(c: v128, p: v128, a: v128, b: v128): v128 {
  return isDefined(FUSED) ? f32x4.relaxed_madd(a, b, c) : f32x4.add(c, p);
}
