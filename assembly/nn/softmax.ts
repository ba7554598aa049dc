/**
 * Softmax over the last dimension and its logarithm, per row.
 *
 *   softmax      y = exp(x - max) / sum exp(x - max)           dx += y * (dy - sum(y * dy))
 *   logSoftmax   y = (x - max) - log(sum exp(x - max))         dx += dy - exp(y) * sum(dy)
 *
 * x, y, dy, dx: [rows, dim] contiguous. Sums run over four lanes (value j in lane j % 4), then
 * (0 + 1) + (2 + 3): the order is part of the contract. That of dy in logSoftmax is `sum`, in float64 and rounded.
 */
import { expF32x4 } from "../math/exp";
import { loadLanes, storeLanes } from "../math/lanes";
import { logF32x4 } from "../math/log";
import { first, last, part, split } from "../threads";
import { addToValues, sum } from "./elementwise";

export function softmaxForward(y: usize, x: usize, rows: i32, dim: i32): void {
  const row = (<usize>dim) << 2;
  for (split(rows, 5 * <f64>dim); part(); )
    for (let i = first; i < last; i++) softmaxRow(y + <usize>i * row, x + <usize>i * row, dim);
}

export function softmaxBackward(dx: usize, dy: usize, y: usize, rows: i32, dim: i32): void {
  const row = (<usize>dim) << 2;
  for (split(rows, 2 * <f64>dim); part(); )
    for (let i = <usize>first * row; i < <usize>last * row; i += row) {
      const mean = dot(y + i, dy + i, dim);
      for (let p = i; p < i + row; p += 4) {
        const d = load<f32>(y + p) * (load<f32>(dy + p) - mean);
        store<f32>(dx + p, load<f32>(dx + p) + d);
      }
    }
}

export function logSoftmaxForward(y: usize, x: usize, rows: i32, dim: i32): void {
  const row = (<usize>dim) << 2;
  for (split(rows, 5 * <f64>dim); part(); )
    for (let i = <usize>first * row; i < <usize>last * row; i += row) {
      memory.copy(y + i, x + i, row);
      addToValues(y + i, dim, -rowMax(x + i, dim));
      addToValues(y + i, dim, -logSumExp(y + i, dim));
    }
}

export function logSoftmaxBackward(dx: usize, dy: usize, y: usize, rows: i32, dim: i32): void {
  const row = (<usize>dim) << 2;
  for (split(rows, 5 * <f64>dim); part(); )
    for (let i = <usize>first * row; i < <usize>last * row; i += row) {
      const total = f32x4.splat(<f32>sum(dy + i, dim)),
        end = i + row;
      let p = i;
      for (; p + 16 <= end; p += 16) {
        const d = logSlope(v128.load(dy + p), v128.load(y + p), total);
        v128.store(dx + p, f32x4.add(v128.load(dx + p), d));
      }
      for (; p < end; p += 4) {
        const d = logSlope(v128.load32_splat(dy + p), v128.load32_splat(y + p), total);
        store<f32>(dx + p, load<f32>(dx + p) + f32x4.extract_lane(d, 0));
      }
    }
}

/** dy - exp(y) * total. Called, not inlined: it is long, and stands in two loops. */
function logSlope(dy: v128, y: v128, total: v128): v128 {
  return f32x4.sub(dy, f32x4.mul(expF32x4(y), total));
}

/** One row; y may be x. */
export function softmaxRow(y: usize, x: usize, n: i32): void {
  const shift = f32x4.splat(rowMax(x, n));
  let sums = f32x4.splat(0),
    i = n,
    p = y;
  for (; i >= 4; i -= 4) {
    const e = expF32x4(f32x4.sub(v128.load(x), shift));
    v128.store(p, e);
    sums = f32x4.add(sums, e);
    x += 16;
    p += 16;
  }
  if (i > 0) {
    const e = expF32x4(f32x4.sub(loadLanes(x, i, -Infinity), shift));
    storeLanes(p, e, i);
    sums = f32x4.add(sums, e);
  }
  const total = addLanes(sums),
    divisor = f32x4.splat(total);
  p = y;
  for (i = n; i >= 4; i -= 4) {
    v128.store(p, f32x4.div(v128.load(p), divisor));
    p += 16;
  }
  for (; i > 0; i--) {
    store<f32>(p, load<f32>(p) / total);
    p += 4;
  }
}

function rowMax(x: usize, n: i32): f32 {
  let m = f32x4.splat(-Infinity),
    i = n;
  for (; i >= 4; i -= 4) {
    m = f32x4.max(m, v128.load(x));
    x += 16;
  }
  if (i > 0) m = f32x4.max(m, loadLanes(x, i, -Infinity));
  return max(
    max(f32x4.extract_lane(m, 0), f32x4.extract_lane(m, 1)),
    max(f32x4.extract_lane(m, 2), f32x4.extract_lane(m, 3)),
  );
}

export function logSumExp(x: usize, n: i32): f32 {
  const m = rowMax(x, n),
    shift = f32x4.splat(m);
  let sums = f32x4.splat(0),
    i = n;
  for (; i >= 4; i -= 4) {
    sums = f32x4.add(sums, expF32x4(f32x4.sub(v128.load(x), shift)));
    x += 16;
  }
  if (i > 0) sums = f32x4.add(sums, expF32x4(f32x4.sub(loadLanes(x, i, -Infinity), shift)));
  return m + f32x4.extract_lane(logF32x4(f32x4.splat(addLanes(sums))), 0);
}

// @ts-ignore: decorator
@inline
export function addLanes(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** sum of a * b in the order above. */
export function dot(a: usize, b: usize, n: i32): f32 {
  let sums = f32x4.splat(0),
    i = n;
  for (; i >= 4; i -= 4) {
    sums = f32x4.add(sums, f32x4.mul(v128.load(a), v128.load(b)));
    a += 16;
    b += 16;
  }
  if (i > 0) sums = f32x4.add(sums, f32x4.mul(loadLanes(a, i, 0), loadLanes(b, i, 0)));
  return addLanes(sums);
}
