/**
 * Binary cross-entropy of each element, from probabilities or from logits, over n contiguous floats.
 *
 *   of p         l = -(t log p + (1 - t) log(1 - p)), both logarithms at least -100
 *                dl/dp = (p - t) / max((1 - p) p, 1e-12)
 *   of logits x  l = max(x, 0) - x t + log(1 + exp(-|x|))
 *                dl/dx = sigmoid(x) - t, which the op takes of sigmoidForward
 *
 * torch.nn.functional.binary_cross_entropy and binary_cross_entropy_with_logits, whose mean the op takes of l.
 * bceBackward: dx += scale * dl/dp. log(1 + e) is log(u) e / (u - 1), u = 1 + e rounded, so that small e keep their
 * bits (Kahan; HP-15C Advanced Functions Handbook 1982).
 * l, x, t, dx: [n]; t is the target, x the probabilities or logits.
 */
import { expF32x4 } from "../math/exp";
import { pad, storePadded } from "../math/lanes";
import { logF32x4 } from "../math/log";
import { aside, first, here, last, LINE, part, split } from "../threads";

/** log(1 + e), e >= -1. */
function log1p(e: v128): v128 {
  const one = f32x4.splat(1),
    u = f32x4.add(one, e),
    d = f32x4.sub(u, one);
  return v128.bitselect(e, f32x4.mul(logF32x4(u), f32x4.div(e, d)), f32x4.eq(d, f32x4.splat(0)));
}

// @ts-ignore: decorator
@inline
function ofProbability(p: v128, t: v128): v128 {
  const least = f32x4.splat(-100);
  const yes = f32x4.max(logF32x4(p), least),
    no = f32x4.max(log1p(f32x4.neg(p)), least);
  // torch's order: (t - 1) log(1 - p) - t log p.
  return f32x4.sub(f32x4.mul(f32x4.sub(t, f32x4.splat(1)), no), f32x4.mul(t, yes));
}

// @ts-ignore: decorator
@inline
function ofLogit(x: v128, t: v128): v128 {
  const e = expF32x4(f32x4.neg(f32x4.abs(x)));
  return f32x4.add(f32x4.sub(f32x4.max(x, f32x4.splat(0)), f32x4.mul(x, t)), log1p(e));
}

export function bceForward(l: usize, x: usize, t: usize, n: i32, logits: bool): void {
  for (split(n, 10, LINE); part(); ) bceValues(here(l), here(x), here(t), last - first, logits);
}

function bceValues(l: usize, x: usize, t: usize, n: i32, logits: bool): void {
  for (; n >= 4; n -= 4) {
    const a = v128.load(x),
      b = v128.load(t);
    v128.store(l, logits ? ofLogit(a, b) : ofProbability(a, b));
    l += 16;
    x += 16;
    t += 16;
  }
  if (n > 0) {
    pad(l, x, t, t, n);
    bceValues(aside, aside + 16, aside + 32, 4, logits);
    storePadded(l, n);
  }
}

export function bceBackward(dx: usize, x: usize, t: usize, n: i32, scale: f32): void {
  for (split(n, 2, LINE); part(); ) bceGradients(here(dx), here(x), here(t), last - first, scale);
}

function bceGradients(dx: usize, x: usize, t: usize, n: i32, scale: f32): void {
  const s = f32x4.splat(scale),
    one = f32x4.splat(1),
    least = f32x4.splat(1e-12);
  for (; n >= 4; n -= 4) {
    const p = v128.load(x),
      variance = f32x4.max(f32x4.mul(f32x4.sub(one, p), p), least);
    v128.store(dx, f32x4.add(v128.load(dx), f32x4.mul(s, f32x4.div(f32x4.sub(p, v128.load(t)), variance))));
    dx += 16;
    x += 16;
    t += 16;
  }
  if (n > 0) {
    pad(dx, x, t, t, n);
    bceGradients(aside, aside + 16, aside + 32, 4, scale);
    storePadded(dx, n);
  }
}
