/**
 * The one multiply-add of the GEMM kernels: c + a * b, four lanes.
 *
 * The default build rounds the product, then the sum, as any machine does: the same bits everywhere. The relaxed build
 * (RELAXED is defined) leaves it to the machine, which fuses the two where it can and rounds once.
 */
// @ts-ignore: decorator
@inline
export function madd(c: v128, a: v128, b: v128): v128 {
  return isDefined(RELAXED) ? f32x4.relaxed_madd(a, b, c) : f32x4.add(c, f32x4.mul(a, b));
}

/** The same in two parts, p = product(a, b) and plus(c, p, a, b), for code that orders several of them. */
// @ts-ignore: decorator
@inline
export function product(a: v128, b: v128): v128 {
  return isDefined(RELAXED) ? a : f32x4.mul(a, b);
}

// @ts-ignore: decorator
@inline
export function plus(c: v128, p: v128, a: v128, b: v128): v128 {
  return isDefined(RELAXED) ? f32x4.relaxed_madd(a, b, c) : f32x4.add(c, p);
}
