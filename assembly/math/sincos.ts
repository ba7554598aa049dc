/**
 * sin(x) and cos(x): x = k pi/2 + r, |r| <= pi/4, then the polynomial of sin or cos by k mod 4.
 * Computed in float64, two lanes at a time, and rounded once to float32: the Taylor series to r^11
 * and r^12 are good to 2^-36 there, so no fitted constants are needed.
 * pi/2 is split in two (Cody & Waite 1980): the high part has 25 bits, so k * PIO2_HI is exact.
 * Within 0.51 ulp for |x| <= 2^24 (measured); NaN beyond, for infinities and NaN. sin(-0) = -0.
 */

const TWO_OVER_PI: f64 = 0.6366197723675814;
const PIO2_HI: f64 = 1.5707963109016418;
const PIO2_LO: f64 = 1.5893254773528196e-8;
/** 1.5 * 2^52: adding it rounds to an integer and leaves it in the low bits. */
const SHIFT: f64 = 6755399441055744;
const LIMIT: f64 = 16777216;

/** (sin x0, sin x1, cos x0, cos x1) of two float64. Called, not inlined: it is long and no caller is a hot loop. */
function sinCos(x: v128): v128 {
  const shifted = f64x2.add(f64x2.mul(x, f64x2.splat(TWO_OVER_PI)), f64x2.splat(SHIFT));
  const k = f64x2.sub(shifted, f64x2.splat(SHIFT));
  const r = f64x2.sub(f64x2.sub(x, f64x2.mul(k, f64x2.splat(PIO2_HI))), f64x2.mul(k, f64x2.splat(PIO2_LO)));
  const z = f64x2.mul(r, r);

  let s = f64x2.add(f64x2.mul(f64x2.splat(-1.0 / 39916800), z), f64x2.splat(1.0 / 362880));
  s = f64x2.add(f64x2.mul(s, z), f64x2.splat(-1.0 / 5040));
  s = f64x2.add(f64x2.mul(s, z), f64x2.splat(1.0 / 120));
  s = f64x2.add(f64x2.mul(s, z), f64x2.splat(-1.0 / 6));
  s = f64x2.add(f64x2.mul(s, z), f64x2.splat(1));
  s = f64x2.mul(s, r);

  let c = f64x2.add(f64x2.mul(f64x2.splat(1.0 / 479001600), z), f64x2.splat(-1.0 / 3628800));
  c = f64x2.add(f64x2.mul(c, z), f64x2.splat(1.0 / 40320));
  c = f64x2.add(f64x2.mul(c, z), f64x2.splat(-1.0 / 720));
  c = f64x2.add(f64x2.mul(c, z), f64x2.splat(1.0 / 24));
  c = f64x2.add(f64x2.mul(c, z), f64x2.splat(-0.5));
  c = f64x2.add(f64x2.mul(c, z), f64x2.splat(1));

  const both = v128.shuffle<f32>(
    f32x4.demote_f64x2_zero(turned(s, c, shifted)),
    f32x4.demote_f64x2_zero(turned(s, c, i64x2.add(shifted, i64x2.splat(1)))),
    0,
    1,
    4,
    5,
  );
  const inside = f64x2.le(f64x2.abs(x), f64x2.splat(LIMIT));
  return v128.bitselect(both, f32x4.splat(NaN), v128.shuffle<i32>(inside, inside, 0, 2, 0, 2));
}

/** The one of s and c that belongs to quarter turn mod 4, with its sign: bit 0 chooses c, bit 1 turns the sign. */
// @ts-ignore: decorator
@inline
function turned(s: v128, c: v128, turn: v128): v128 {
  const odd = i64x2.neg(v128.and(turn, i64x2.splat(1)));
  const sign = i64x2.shl(v128.and(turn, i64x2.splat(2)), 62);
  return v128.xor(v128.bitselect(c, s, odd), sign);
}

/** (sin x0, sin x1, cos x0, cos x1) of lanes 0 and 1. */
// @ts-ignore: decorator
@inline
export function sinCosLow(x: v128): v128 {
  return sinCos(f64x2.promote_low_f32x4(x));
}

/** (sin x2, sin x3, cos x2, cos x3). */
// @ts-ignore: decorator
@inline
export function sinCosHigh(x: v128): v128 {
  return sinCosLow(v128.shuffle<f32>(x, x, 2, 3, 2, 3));
}
