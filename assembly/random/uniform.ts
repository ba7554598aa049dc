/**
 * Uniform f32 in [low, high): u = (bits & (2^24 - 1)) * 2^-24, value = fma(u, high - low, low).
 * torch: uniform_real in aten/src/ATen/core/TransformationHelper.h, one draw a value.
 * out: [n]. state: see mt19937.ts.
 *
 * PyTorch's builds contract the last line to a fused multiply-add, and its bits differ from two
 * roundings. f64 gives the fused result: a product of two f32 is exact in it, and so is the sum
 * while |low|, |high| < 16 (high - low), which holds for every interval around or from zero.
 */
import { mtNext } from "./mt19937";

export function uniformFill(out: usize, state: usize, n: i32, low: f32, high: f32): void {
  const range = <f64>(high - low);
  for (; n > 0; n--, out += 4) store<f32>(out, <f32>(uniform24(state) * range + <f64>low));
}

/** 24 random bits in [0, 1). */
// @ts-ignore: decorator
@inline
function uniform24(state: usize): f64 {
  return <f64>(mtNext(state) & 0xffffff) * (1.0 / 16777216.0);
}
