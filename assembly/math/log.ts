/**
 * log(x) = e ln 2 + log(1 + f), x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2).
 * log(1 + f) = f - f^2 / 2 + f^3 p(f); p is the minimax polynomial of degree 7 (Remez, relative
 * error 5.8e-9). ln 2 is split as in exp.ts, so e * LN2_HI is exact.
 * log(0) = -Inf, log(x < 0) = NaN, log(Inf) = Inf; subnormal x are scaled by 2^25 first.
 * Within 1 ulp (measured).
 */

const LN2_HI: f32 = 0.693359375;
const LN2_LO: f32 = -2.1219444e-4;
/** sqrt(1/2) as a float32's bits. */
const SQRT_HALF: i32 = 0x3f3504f3;
const SMALLEST_NORMAL: f32 = 1.17549435e-38;

// @ts-ignore: decorator
@inline
export function logF32x4(x: v128): v128 {
  return log(x);
}

/** Called, not inlined: it is long and no caller is a hot loop. */
function log(x: v128): v128 {
  const subnormal = f32x4.lt(x, f32x4.splat(SMALLEST_NORMAL));
  const bits = v128.bitselect(f32x4.mul(x, f32x4.splat(33554432)), x, subnormal);
  const exponent = i32x4.shr_s(i32x4.sub(bits, i32x4.splat(SQRT_HALF)), 23);
  const f = f32x4.sub(i32x4.sub(bits, i32x4.shl(exponent, 23)), f32x4.splat(1));
  const e = f32x4.convert_i32x4_s(i32x4.sub(exponent, v128.and(subnormal, i32x4.splat(25))));

  let p = f32x4.add(f32x4.mul(f32x4.splat(-0.07634648), f), f32x4.splat(0.12761633));
  p = f32x4.add(f32x4.mul(p, f), f32x4.splat(-0.13160148));
  p = f32x4.add(f32x4.mul(p, f), f32x4.splat(0.14201747));
  p = f32x4.add(f32x4.mul(p, f), f32x4.splat(-0.1662336));
  p = f32x4.add(f32x4.mul(p, f), f32x4.splat(0.20001228));
  p = f32x4.add(f32x4.mul(p, f), f32x4.splat(-0.2500082));
  p = f32x4.add(f32x4.mul(p, f), f32x4.splat(0.3333333));

  // The smallest terms are added first, which loses the fewest bits.
  const square = f32x4.mul(f, f);
  let y = f32x4.add(f32x4.mul(f32x4.mul(square, f), p), f32x4.mul(e, f32x4.splat(LN2_LO)));
  y = f32x4.sub(y, f32x4.mul(square, f32x4.splat(0.5)));
  y = f32x4.add(f32x4.add(f, y), f32x4.mul(e, f32x4.splat(LN2_HI)));

  const positive = f32x4.gt(x, f32x4.splat(0));
  const finite = f32x4.lt(x, f32x4.splat(Infinity));
  const edge = v128.bitselect(f32x4.splat(-Infinity), f32x4.splat(NaN), f32x4.eq(x, f32x4.splat(0)));
  return v128.bitselect(v128.bitselect(y, x, finite), edge, positive);
}
