/**
 * Losses.
 *
 * Cross-entropy: the sum over rows with target != ignoreIndex of (logsumexp(x) - x[target])
 * (torch.nn.functional.cross_entropy, reduction "sum"); the caller divides it.
 * Backward: dx += scale * (softmax(x) - onehot(target)), nothing for ignored rows.
 * x, dx: [rows, classes]. targets: [rows] i32 in 0 .. classes - 1, or ignoreIndex. lse: [rows], not written for ignored
 * rows. A row's sum of exponentials runs over four lanes, then (0 + 1) + (2 + 3); rows are added in
 * ascending order, in float64.
 *
 * Mean squared error: loss = mean((x - target)^2), added in ascending order in float64, by one thread;
 * dx += g * 2 / n * (x - target).
 */
import { expF32x4 } from "../math/exp";
import { first, last, LINE, part, split } from "../threads";
import { logSumExp } from "./softmax";

export function crossEntropyForward(
  lse: usize,
  x: usize,
  targets: usize,
  rows: i32,
  classes: i32,
  ignoreIndex: i32,
): f64 {
  const row = (<usize>classes) << 2;
  for (split(rows, 4 * <f64>classes); part(); )
    for (let i = <usize>first; i < <usize>last; i++)
      if (load<i32>(targets + (i << 2)) != ignoreIndex) store<f32>(lse + (i << 2), logSumExp(x + i * row, classes));
  let total: f64 = 0;
  for (let i: usize = 0; i < <usize>rows; i++) {
    const target = load<i32>(targets + (i << 2));
    if (target != ignoreIndex)
      total += <f64>(load<f32>(lse + (i << 2)) - load<f32>(x + i * row + ((<usize>target) << 2)));
  }
  return total;
}

export function crossEntropyBackward(
  dx: usize,
  lse: usize,
  x: usize,
  targets: usize,
  rows: i32,
  classes: i32,
  ignoreIndex: i32,
  scale: f32,
): void {
  const row = (<usize>classes) << 2;
  for (split(rows, 4 * <f64>classes); part(); )
    for (let i = <usize>first; i < <usize>last; i++) {
      const target = load<i32>(targets + (i << 2)),
        to = dx + i * row;
      if (target != ignoreIndex) addRowGradient(to, to, x + i * row, load<f32>(lse + (i << 2)), target, classes, scale);
    }
}

/** One row: dx = before + scale * (softmax(x) - onehot(target)). dx may be x; a null `before` is zeros. */
export function addRowGradient(
  dx: usize,
  before: usize,
  x: usize,
  lse: f32,
  target: i32,
  classes: i32,
  scale: f32,
): void {
  const shift = f32x4.splat(lse),
    s = f32x4.splat(scale),
    row = (<usize>classes) << 2;
  let p: usize = 0;
  for (; p + 16 <= row; p += 16) {
    const d = f32x4.mul(s, expF32x4(f32x4.sub(v128.load(x + p), shift)));
    v128.store(dx + p, f32x4.add(before != 0 ? v128.load(before + p) : f32x4.splat(0), d));
  }
  for (; p < row; p += 4) {
    const d = f32x4.mul(s, expF32x4(f32x4.sub(v128.load32_splat(x + p), shift)));
    store<f32>(dx + p, (before != 0 ? load<f32>(before + p) : 0) + f32x4.extract_lane(d, 0));
  }
  const own = dx + ((<usize>target) << 2);
  store<f32>(own, load<f32>(own) - scale);
}

export function mseForward(x: usize, target: usize, n: i32): f32 {
  let total: f64 = 0;
  for (let p: usize = 0; p < (<usize>n) << 2; p += 4) {
    const d = <f64>(load<f32>(x + p) - load<f32>(target + p));
    total += d * d;
  }
  return <f32>(total / <f64>n);
}

export function mseBackward(dx: usize, x: usize, target: usize, n: i32, g: f32): void {
  const scale = (g * 2) / <f32>n;
  for (split(n, 1, LINE); part(); )
    for (let p = (<usize>first) << 2, end = (<usize>last) << 2; p < end; p += 4) {
      const d = load<f32>(x + p) - load<f32>(target + p);
      store<f32>(dx + p, load<f32>(dx + p) + scale * d);
    }
}
