/**
 * Elementwise sums and products over n contiguous floats, and the reductions built on them.
 * Each works in place (y may be a or b). What other kernels call within their parts is `*Values`, the work of one
 * thread. Reductions are of one thread: each has one order along all values.
 */
import { first, here, last, LINE, part, split } from "../threads";

/** Cycles for a value, about. */
const COST: f64 = 0.5;

/** y = a + b */
export function addForward(y: usize, a: usize, b: usize, n: i32): void {
  for (split(n, COST, LINE); part(); ) addValues(here(y), here(a), here(b), last - first);
}

export function addValues(y: usize, a: usize, b: usize, n: i32): void {
  let i = n;
  for (; i >= 4; i -= 4) {
    v128.store(y, f32x4.add(v128.load(a), v128.load(b)));
    y += 16;
    a += 16;
    b += 16;
  }
  for (; i > 0; i--) {
    store<f32>(y, load<f32>(a) + load<f32>(b));
    y += 4;
    a += 4;
    b += 4;
  }
}

/** y = a * b */
export function mulForward(y: usize, a: usize, b: usize, n: i32): void {
  for (split(n, COST, LINE); part(); ) mulValues(here(y), here(a), here(b), last - first);
}

export function mulValues(y: usize, a: usize, b: usize, n: i32): void {
  let i = n;
  for (; i >= 4; i -= 4) {
    v128.store(y, f32x4.mul(v128.load(a), v128.load(b)));
    y += 16;
    a += 16;
    b += 16;
  }
  for (; i > 0; i--) {
    store<f32>(y, load<f32>(a) * load<f32>(b));
    y += 4;
    a += 4;
    b += 4;
  }
}

/** da += dy * b: the gradient of a product with respect to one factor. */
export function mulBackward(da: usize, dy: usize, b: usize, n: i32): void {
  for (split(n, COST, LINE); part(); ) addProductValues(here(da), here(dy), here(b), last - first);
}

export function addProductValues(da: usize, dy: usize, b: usize, n: i32): void {
  let i = n;
  for (; i >= 4; i -= 4) {
    v128.store(da, f32x4.add(v128.load(da), f32x4.mul(v128.load(dy), v128.load(b))));
    da += 16;
    dy += 16;
    b += 16;
  }
  for (; i > 0; i--) {
    store<f32>(da, load<f32>(da) + load<f32>(dy) * load<f32>(b));
    da += 4;
    dy += 4;
    b += 4;
  }
}

/** y = a / b */
export function divForward(y: usize, a: usize, b: usize, n: i32): void {
  for (split(n, 2 * COST, LINE); part(); ) divValues(here(y), here(a), here(b), last - first);
}

function divValues(y: usize, a: usize, b: usize, n: i32): void {
  for (; n >= 4; n -= 4) {
    v128.store(y, f32x4.div(v128.load(a), v128.load(b)));
    y += 16;
    a += 16;
    b += 16;
  }
  for (; n > 0; n--, y += 4, a += 4, b += 4) store<f32>(y, load<f32>(a) / load<f32>(b));
}

/** da += dy / b: the gradient of a quotient with respect to its dividend. */
export function divBackward(da: usize, dy: usize, b: usize, n: i32): void {
  for (split(n, 2 * COST, LINE); part(); ) addQuotientValues(here(da), here(dy), here(b), last - first);
}

function addQuotientValues(da: usize, dy: usize, b: usize, n: i32): void {
  for (; n >= 4; n -= 4) {
    v128.store(da, f32x4.add(v128.load(da), f32x4.div(v128.load(dy), v128.load(b))));
    da += 16;
    dy += 16;
    b += 16;
  }
  for (; n > 0; n--, da += 4, dy += 4, b += 4) store<f32>(da, load<f32>(da) + load<f32>(dy) / load<f32>(b));
}

/** x *= alpha: BLAS's sscal(n, alpha, x), with the arguments in this house's order. */
export function sscal(x: usize, n: i32, alpha: f32): void {
  for (split(n, COST, LINE); part(); ) scaleValues(here(x), last - first, alpha);
}

export function scaleValues(x: usize, n: i32, alpha: f32): void {
  const s = f32x4.splat(alpha);
  let i = n;
  for (; i >= 4; i -= 4) {
    v128.store(x, f32x4.mul(s, v128.load(x)));
    x += 16;
  }
  for (; i > 0; i--) {
    store<f32>(x, alpha * load<f32>(x));
    x += 4;
  }
}

/** y += alpha * x: BLAS's saxpy(n, alpha, x, y), with the arguments in this house's order. */
export function saxpy(y: usize, x: usize, n: i32, alpha: f32): void {
  for (split(n, COST, LINE); part(); ) axpyValues(here(y), here(x), last - first, alpha);
}

export function axpyValues(y: usize, x: usize, n: i32, alpha: f32): void {
  const s = f32x4.splat(alpha);
  let i = n;
  for (; i >= 4; i -= 4) {
    v128.store(y, f32x4.add(v128.load(y), f32x4.mul(s, v128.load(x))));
    x += 16;
    y += 16;
  }
  for (; i > 0; i--) {
    store<f32>(y, load<f32>(y) + alpha * load<f32>(x));
    x += 4;
    y += 4;
  }
}

/** x[i] += value: the gradient of a sum. */
export function addScalar(x: usize, n: i32, value: f32): void {
  for (split(n, COST, LINE); part(); ) addToValues(here(x), last - first, value);
}

export function addToValues(x: usize, n: i32, value: f32): void {
  const s = f32x4.splat(value);
  for (; n >= 4; n -= 4, x += 16) v128.store(x, f32x4.add(v128.load(x), s));
  for (; n > 0; n--, x += 4) store<f32>(x, load<f32>(x) + value);
}

/** Sum of x in float64: value i goes to lane i % 4; lanes are added as (0 + 1) + (2 + 3). */
export function sum(x: usize, n: i32): f64 {
  let even = f64x2.splat(0),
    odd = even,
    i = n;
  for (; i >= 4; i -= 4) {
    const v = v128.load(x);
    even = f64x2.add(even, f64x2.promote_low_f32x4(v));
    odd = f64x2.add(odd, f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3)));
    x += 16;
  }
  return addLanes(even, odd, tail(x, i, false), tail(x + 4, i - 1, false), tail(x + 8, i - 2, false));
}

/** Sum of squares of x in float64, in the same order. */
export function sumSquares(x: usize, n: i32): f64 {
  let even = f64x2.splat(0),
    odd = even,
    i = n;
  for (; i >= 4; i -= 4) {
    const v = v128.load(x);
    const lo = f64x2.promote_low_f32x4(v),
      hi = f64x2.promote_low_f32x4(v128.shuffle<f32>(v, v, 2, 3, 2, 3));
    even = f64x2.add(even, f64x2.mul(lo, lo));
    odd = f64x2.add(odd, f64x2.mul(hi, hi));
    x += 16;
  }
  return addLanes(even, odd, tail(x, i, true), tail(x + 4, i - 1, true), tail(x + 8, i - 2, true));
}

/** How many of n values are not finite: for these alone x - x is not 0, but NaN. */
export function countNonFinite(x: usize, n: i32): i32 {
  let counts = i32x4.splat(0),
    i = n;
  for (; i >= 4; i -= 4) {
    const v = v128.load(x);
    counts = i32x4.sub(counts, f32x4.ne(f32x4.sub(v, v), f32x4.splat(0)));
    x += 16;
  }
  let count =
    i32x4.extract_lane(counts, 0) +
    i32x4.extract_lane(counts, 1) +
    i32x4.extract_lane(counts, 2) +
    i32x4.extract_lane(counts, 3);
  for (; i > 0; i--) {
    const v = load<f32>(x);
    if (v - v != 0) count++;
    x += 4;
  }
  return count;
}

function tail(x: usize, left: i32, square: bool): f64 {
  if (left <= 0) return 0;
  const v = <f64>load<f32>(x);
  return square ? v * v : v;
}

function addLanes(lanes01: v128, lanes23: v128, t0: f64, t1: f64, t2: f64): f64 {
  const l0 = f64x2.extract_lane(lanes01, 0) + t0,
    l1 = f64x2.extract_lane(lanes01, 1) + t1;
  const l2 = f64x2.extract_lane(lanes23, 0) + t2,
    l3 = f64x2.extract_lane(lanes23, 1);
  return l0 + l1 + (l2 + l3);
}
