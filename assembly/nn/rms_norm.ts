/**
 * RMSNorm. y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps), per row.
 * Zhang & Sennrich 2019; torch: x * rsqrt(x.pow(2).mean(-1) + eps) * weight.
 * Backward: g = dy * weight; dx += rstd * (g - x̂ * mean(g * x̂)), x̂ = x * rstd; dWeight += sum over rows of dy * x̂.
 * x, dx, y, dy: [rows, dim] contiguous. weight, dWeight: [dim]. rstd: [rows], kept for backward.
 * Sums along a row run over four lanes, then (0 + 1) + (2 + 3): the order is part of the contract.
 * dWeight adds rows in ascending order, in float32. dx or dWeight null: not wanted.
 */
import { addLanes, dot } from "./softmax";
import { loadLanes } from "../math/lanes";
import { first, last, LINE, part, split } from "../threads";

export function rmsNormForward(y: usize, rstd: usize, x: usize, weight: usize, rows: i32, dim: i32, eps: f32): void {
  const row = (<usize>dim) << 2;
  for (split(rows, <f64>dim); part(); )
    for (let i = <usize>first; i < <usize>last; i++) {
      const from = x + i * row,
        to = y + i * row;
      const scale = <f32>1 / sqrt<f32>(dot(from, from, dim) / <f32>dim + eps);
      store<f32>(rstd + (i << 2), scale);
      const s = f32x4.splat(scale);
      let p: usize = 0;
      for (; p + 16 <= row; p += 16) {
        const hat = f32x4.mul(v128.load(from + p), s); // normalize
        v128.store(to + p, f32x4.mul(hat, v128.load(weight + p))); // scale
      }
      for (; p < row; p += 4) store<f32>(to + p, load<f32>(from + p) * scale * load<f32>(weight + p));
    }
}

export function rmsNormBackward(
  dx: usize,
  dWeight: usize,
  dy: usize,
  x: usize,
  weight: usize,
  rstd: usize,
  rows: i32,
  dim: i32,
): void {
  if (dWeight != 0) for (split(dim, <f64>rows, LINE); part(); ) weightGradient(dWeight, dy, x, rstd, rows, dim);
  if (dx != 0)
    for (split(rows, 2 * <f64>dim); part(); )
      for (let i = <usize>first; i < <usize>last; i++) {
        const at = i * ((<usize>dim) << 2);
        inputGradient(dx + at, dy + at, x + at, weight, load<f32>(rstd + (i << 2)), dim);
      }
}

/** Columns `first` to `last` - 1 of dWeight. */
function weightGradient(dWeight: usize, dy: usize, x: usize, rstd: usize, rows: i32, dim: i32): void {
  const row = (<usize>dim) << 2,
    end = (<usize>last) << 2;
  for (; rows > 0; rows--) {
    const scale = load<f32>(rstd),
      s = f32x4.splat(scale);
    let p = (<usize>first) << 2;
    for (; p + 16 <= end; p += 16) {
      const hat = f32x4.mul(v128.load(x + p), s);
      v128.store(dWeight + p, f32x4.add(v128.load(dWeight + p), f32x4.mul(v128.load(dy + p), hat)));
    }
    for (; p < end; p += 4) {
      const hat = load<f32>(x + p) * scale;
      store<f32>(dWeight + p, load<f32>(dWeight + p) + load<f32>(dy + p) * hat);
    }
    rstd += 4;
    dy += row;
    x += row;
  }
}

/** One row. */
function inputGradient(dx: usize, dy: usize, x: usize, weight: usize, scale: f32, dim: i32): void {
  const row = (<usize>dim) << 2,
    s = f32x4.splat(scale),
    mean = (weightedDot(dy, weight, x, dim) * scale) / <f32>dim,
    m = f32x4.splat(mean);
  let p: usize = 0;
  for (; p + 16 <= row; p += 16) {
    const hat = f32x4.mul(v128.load(x + p), s);
    const g = f32x4.mul(v128.load(dy + p), v128.load(weight + p));
    const d = f32x4.mul(s, f32x4.sub(g, f32x4.mul(hat, m)));
    v128.store(dx + p, f32x4.add(v128.load(dx + p), d));
  }
  for (; p < row; p += 4) {
    const hat = load<f32>(x + p) * scale;
    const g = load<f32>(dy + p) * load<f32>(weight + p);
    store<f32>(dx + p, load<f32>(dx + p) + scale * (g - hat * mean));
  }
}

/** sum of dy * weight * x in the order above. */
function weightedDot(dy: usize, weight: usize, x: usize, n: i32): f32 {
  let sums = f32x4.splat(0),
    i = n;
  for (; i >= 4; i -= 4) {
    const g = f32x4.mul(v128.load(dy), v128.load(weight));
    sums = f32x4.add(sums, f32x4.mul(g, v128.load(x)));
    dy += 16;
    weight += 16;
    x += 16;
  }
  if (i > 0) {
    const g = f32x4.mul(loadLanes(dy, i, 0), loadLanes(weight, i, 0));
    sums = f32x4.add(sums, f32x4.mul(g, loadLanes(x, i, 0)));
  }
  return addLanes(sums);
}
