/**
 * Normal f32 by Box & Muller 1958: sqrt(-2 log u1) * (cos, sin)(2 pi u2) * std + mean.
 * torch: normal_kernel in aten/src/ATen/native/cpu/DistributionTemplates.h, which has two ways:
 *   n >= 16  f32 uniforms fill the output; each 16 of them become 16 normals, value j paired with
 *            j + 8; when n is no multiple of 16, the last 16 are drawn again as one more group.
 *   n < 16   f64, one pair at a time: the cosine is given out and the sine kept in the state for the
 *            next call of this way (calls of the other way leave it there).
 * out: [n]. state: see mt19937.ts.
 */
import { log64 } from "../math/double";
import { logF32x4 } from "../math/log";
import { sinCosHigh, sinCosLow } from "../math/sincos";
import { HAS_NORMAL, mtNext, NEXT_NORMAL } from "./mt19937";
import { uniformFill } from "./uniform";

const GROUP: i32 = 16;
const TWO_PI: f64 = 6.283185307179586;

export function normalFill(out: usize, state: usize, n: i32, mean: f64, std: f64): void {
  if (n < GROUP) {
    for (; n > 0; n--, out += 4) store<f32>(out, <f32>(nextNormal(state) * std + mean));
    return;
  }
  uniformFill(out, state, n, 0, 1);
  const end = out + ((<usize>n) << 2);
  for (let p = out; p + 64 <= end; p += 64) normalGroup(p, <f32>mean, <f32>std);
  if (n % GROUP != 0) {
    uniformFill(end - 64, state, GROUP, 0, 1);
    normalGroup(end - 64, <f32>mean, <f32>std);
  }
}

/** Sixteen uniforms become sixteen normals. */
function normalGroup(p: usize, mean: f32, std: f32): void {
  normalPairs(p, mean, std);
  normalPairs(p + 16, mean, std);
}

/** Four pairs, (p, p + 32 bytes). 1 - u turns [0, 1) into (0, 1] for the logarithm. */
// @ts-ignore: decorator
@inline
function normalPairs(p: usize, mean: f32, std: f32): void {
  const u1 = f32x4.sub(f32x4.splat(1), v128.load(p));
  const radius = f32x4.sqrt(f32x4.mul(f32x4.splat(-2), logF32x4(u1)));
  const theta = f32x4.mul(f32x4.splat(<f32>TWO_PI), v128.load(p, 32));
  const low = sinCosLow(theta),
    high = sinCosHigh(theta);
  const cos = v128.shuffle<f32>(low, high, 2, 3, 6, 7),
    sin = v128.shuffle<f32>(low, high, 0, 1, 4, 5);
  const s = f32x4.splat(std),
    m = f32x4.splat(mean);
  v128.store(p, f32x4.add(f32x4.mul(f32x4.mul(radius, cos), s), m));
  v128.store(p, f32x4.add(f32x4.mul(f32x4.mul(radius, sin), s), m), 32);
}

/** A standard normal: the kept one if there is one. Here the angle is drawn before the radius. */
function nextNormal(state: usize): f64 {
  if (load<u32>(state, HAS_NORMAL)) {
    store<u32>(state, 0, HAS_NORMAL);
    return load<f64>(state, NEXT_NORMAL);
  }
  const theta = TWO_PI * uniform53(state);
  // torch's log1p(-u): 1 - u is exact, u being a multiple of 2^-53.
  const radius = sqrt(-2.0 * log64(1.0 - uniform53(state)));
  NativeMath.sincos(theta);
  store<f64>(state, radius * NativeMath.sincos_sin, NEXT_NORMAL);
  store<u32>(state, 1, HAS_NORMAL);
  return radius * NativeMath.sincos_cos;
}

/** 53 random bits in [0, 1) from two words, the high one first. */
function uniform53(state: usize): f64 {
  const high = <u64>mtNext(state);
  const bits = (high << 32) | <u64>mtNext(state);
  return <f64>(bits & 0x1fffffffffffff) * (1.0 / 9007199254740992.0);
}
