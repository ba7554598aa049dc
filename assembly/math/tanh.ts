/**
 * tanh(x) = x + x^3 p(x^2)            for |x| <= 5/8,
 *         = 1 - 2 / (exp(2|x|) + 1)   beyond, with the sign of x.
 * p is the minimax polynomial of degree 4 in x^2 (Remez, relative error of tanh 4.4e-9).
 * |tanh(x)| <= 1, tanh(-x) = -tanh(x) bit for bit, tanh(-0) = -0, NaN stays NaN.
 * Within 1.4 ulp (measured).
 */
import { expm1Remainder, expPower, expShifted } from "./exp";

// @ts-ignore: decorator
@inline
function smallTanh(x: v128): v128 {
  const s = f32x4.mul(x, x);
  let p = f32x4.add(f32x4.mul(f32x4.splat(-0.0057049906), s), f32x4.splat(0.02063909));
  p = f32x4.add(f32x4.mul(p, s), f32x4.splat(-0.053739715));
  p = f32x4.add(f32x4.mul(p, s), f32x4.splat(0.13331442));
  p = f32x4.add(f32x4.mul(p, s), f32x4.splat(-0.3333328));
  return f32x4.add(x, f32x4.mul(f32x4.mul(x, s), p));
}

// @ts-ignore: decorator
@inline
function largeTanh(x: v128): v128 {
  const twice = f32x4.add(x, x);
  const shifted = expShifted(twice);
  const power = expPower(shifted);
  const exp = f32x4.add(f32x4.mul(power, expm1Remainder(twice, shifted)), power);
  return f32x4.sub(f32x4.splat(1), f32x4.div(f32x4.splat(2), f32x4.add(exp, f32x4.splat(1))));
}

// @ts-ignore: decorator
@inline
export function tanhF32x4(x: v128): v128 {
  const sign = v128.and(x, i32x4.splat(0x80000000));
  // From 9.02 on, tanh rounds to 1. pmin keeps a NaN in its first operand.
  const a = f32x4.pmin(v128.xor(x, sign), f32x4.splat(10));
  const small = f32x4.le(a, f32x4.splat(0.625));
  return v128.or(v128.bitselect(smallTanh(a), largeTanh(a), small), sign);
}
