/**
 * sin(x) and cos(x): x = k pi/2 + r, |r| <= pi/4, then the polynomial of sin or cos by k mod 4.
 * Computed in float64, two lanes at a time, and rounded once to float32: the Taylor series to r^11
 * and r^12 are good to 2^-36 there, so no fitted constants are needed.
 * pi/2 is split in two (Cody & Waite 1980): the high part has 25 bits, so k * PIO2_HI is exact.
 * Within 0.51 ulp for |x| <= 2^24 (measured); NaN beyond, for infinities and NaN. sin(-0) = -0.
 * sinForward, cosForward: y, x: [n] contiguous floats; y may be x.
 */
import { loadLanes, storeLanes } from "./lanes";

const TWO_OVER_PI: f64 = 0.6366197723675814;
const PIO2_HI: f64 = 1.5707963109016418;
const PIO2_LO: f64 = 1.5893254773528196e-8;
/** 1.5 * 2^52: adding it rounds to an integer and leaves it in the low bits. */
const SHIFT: f64 = 6755399441055744;
const LIMIT: f32 = 16777216;

/** sin(x + quarter * pi/2) of two float64. */
// @ts-ignore: decorator
@inline
function sinF64x2(x: v128, quarter: i64): v128 {
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

  // k mod 4: bit 0 chooses cos, bit 1 turns the sign.
  const turn = i64x2.add(shifted, i64x2.splat(quarter));
  const odd = i64x2.neg(v128.and(turn, i64x2.splat(1)));
  const sign = i64x2.shl(v128.and(turn, i64x2.splat(2)), 62);
  return v128.xor(v128.bitselect(c, s, odd), sign);
}

// @ts-ignore: decorator
@inline
function sinShifted(x: v128, quarter: i64): v128 {
  const low = f32x4.demote_f64x2_zero(sinF64x2(f64x2.promote_low_f32x4(x), quarter));
  const high = f32x4.demote_f64x2_zero(sinF64x2(f64x2.promote_low_f32x4(v128.shuffle<f32>(x, x, 2, 3, 2, 3)), quarter));
  const y = v128.shuffle<f32>(low, high, 0, 1, 4, 5);
  return v128.bitselect(y, f32x4.splat(NaN), f32x4.le(f32x4.abs(x), f32x4.splat(LIMIT)));
}

// @ts-ignore: decorator
@inline
export function sinF32x4(x: v128): v128 { return sinShifted(x, 0); }

// @ts-ignore: decorator
@inline
export function cosF32x4(x: v128): v128 { return sinShifted(x, 1); }

/** sin(x + quarter * pi/2) of one value, to the same bits. Not inlined: its callers are tables and schedules. */
export function sinOf(x: f32, quarter: i64): f32 {
  return abs(x) <= LIMIT ? <f32>f64x2.extract_lane(sinF64x2(f64x2.splat(<f64>x), quarter), 0) : NaN;
}

export function sinForward(y: usize, x: usize, n: i32): void {
  for (; n >= 4; n -= 4) {
    v128.store(y, sinF32x4(v128.load(x)));
    x += 16;
    y += 16;
  }
  if (n > 0) storeLanes(y, sinF32x4(loadLanes(x, n, 0)), n);
}

export function cosForward(y: usize, x: usize, n: i32): void {
  for (; n >= 4; n -= 4) {
    v128.store(y, cosF32x4(v128.load(x)));
    x += 16;
    y += 16;
  }
  if (n > 0) storeLanes(y, cosF32x4(loadLanes(x, n, 0)), n);
}
