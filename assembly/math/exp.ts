/**
 * exp(x) = 2^n * exp(r), n = nearest(x / ln 2), r = x - n ln 2, |r| <= ln(2) / 2.
 * ln 2 is split in two (Cody & Waite 1980): the high part has 9 bits, so n * LN2_HI is exact.
 * exp(r) - 1 = r + r^2 q(r); q is the minimax polynomial of degree 4 (Remez, relative error 3.1e-9).
 * Overflow gives +Inf; subnormal results are rounded once; exp(-Inf) = 0; NaN stays NaN.
 * Within 1 ulp (measured).
 */

const LOG2E: f32 = 1.44269504;
const LN2_HI: f32 = 0.693359375;
const LN2_LO: f32 = -2.1219444e-4;
/** 1.5 * 2^23 + 254: adding it rounds to an integer n and leaves n + 254 in the low bits. */
const SHIFT: f32 = 12583166;

/** n + SHIFT, where n is the integer nearest to x / ln 2. */
// @ts-ignore: decorator
@inline
export function expShifted(x: v128): v128 {
  return f32x4.add(f32x4.mul(x, f32x4.splat(LOG2E)), f32x4.splat(SHIFT));
}

/** exp(r) - 1 for the r that `shifted` leaves of x. */
// @ts-ignore: decorator
@inline
export function expm1Remainder(x: v128, shifted: v128): v128 {
  const n = f32x4.sub(shifted, f32x4.splat(SHIFT));
  const r = f32x4.sub(f32x4.sub(x, f32x4.mul(n, f32x4.splat(LN2_HI))), f32x4.mul(n, f32x4.splat(LN2_LO)));
  let q = f32x4.add(f32x4.mul(f32x4.splat(0.0013814338), r), f32x4.splat(0.008368851));
  q = f32x4.add(f32x4.mul(q, r), f32x4.splat(0.0416684));
  q = f32x4.add(f32x4.mul(q, r), f32x4.splat(0.1666652));
  q = f32x4.add(f32x4.mul(q, r), f32x4.splat(0.49999994));
  return f32x4.add(r, f32x4.mul(f32x4.mul(r, r), q));
}

/** 2^n, for -126 <= n <= 127. */
// @ts-ignore: decorator
@inline
export function expPower(shifted: v128): v128 {
  return i32x4.shl(i32x4.sub(shifted, i32x4.splat(127)), 23);
}

// @ts-ignore: decorator
@inline
export function expF32x4(x: v128): v128 {
  // Beyond these limits the result is 0 or +Inf. pmin and pmax keep a NaN in their first operand.
  x = f32x4.pmax(f32x4.pmin(x, f32x4.splat(89)), f32x4.splat(-104));
  const shifted = expShifted(x);
  const p = f32x4.add(expm1Remainder(x, shifted), f32x4.splat(1));
  // 2^n by two factors, since n goes from -150 to 128. Low bits: n + 254 = (h + 127) + (n - h + 127);
  // the shift left drops what SHIFT has above them.
  const half = i32x4.shr_u(shifted, 1);
  const rest = i32x4.sub(shifted, half);
  return f32x4.mul(f32x4.mul(p, i32x4.shl(half, 23)), i32x4.shl(rest, 23));
}
