/**
 * Reductions along one axis of x [outer, n, inner] to y [outer, inner].
 *
 *   axisSum   y = sum / divisor: value j goes to lane j % 4 in float64, lanes are added as (0 + 1) + (2 + 3), the
 *             quotient is rounded once. The order is that of `sum`, whatever inner is. Backward is stridedAxpy with
 *             alpha = 1 / divisor.
 *   axisMax   y (i32) = the first j with the largest value; NaN is larger than all (torch.argmax). n is at least 1.
 */
import { first, last, LINE, part, split } from "../threads";
import { sum } from "./elementwise";

export function axisSum(y: usize, x: usize, outer: i32, n: i32, inner: i32, divisor: f64): void {
  const row = (<usize>inner) << 2;
  if (inner == 1) {
    for (split(outer, <f64>n); part(); )
      for (let i = <usize>first; i < <usize>last; i++)
        store<f32>(y + (i << 2), <f32>(sum(x + ((i * <usize>n) << 2), n) / divisor));
    return;
  }
  const pairs = (inner + 1) >> 1;
  for (split(outer * pairs, 2 * <f64>n, 8); part(); )
    for (let i = first; i < last; ) {
      // As many pairs as there are left of this row of y.
      const o = <usize>(i / pairs),
        end = min(last, <i32>(o + 1) * pairs),
        at = o * row,
        from = x + at * <usize>n;
      for (let p = (<usize>(i % pairs)) << 3; i < end; i++, p += 8)
        sumColumns(y + at + p, from + p, n, row, p + 4 < row, divisor);
    }
}

/** Two columns, or the last one alone. */
function sumColumns(y: usize, x: usize, n: i32, row: usize, two: bool, divisor: f64): void {
  const zero = f64x2.splat(0);
  let s0 = zero,
    s1 = zero,
    s2 = zero,
    s3 = zero;
  for (; n > 0; n -= 4) {
    s0 = f64x2.add(s0, columns(x, two));
    if (n > 1) s1 = f64x2.add(s1, columns(x + row, two));
    if (n > 2) s2 = f64x2.add(s2, columns(x + (row << 1), two));
    if (n > 3) s3 = f64x2.add(s3, columns(x + row * 3, two));
    x += row << 2;
  }
  const total = f64x2.add(f64x2.add(s0, s1), f64x2.add(s2, s3));
  const sums = f32x4.demote_f64x2_zero(f64x2.div(total, f64x2.splat(divisor)));
  if (two) v128.store64_lane(y, sums, 0);
  else v128.store32_lane(y, sums, 0);
}

// @ts-ignore: decorator
@inline
function columns(p: usize, two: bool): v128 {
  return f64x2.promote_low_f32x4(two ? v128.load64_zero(p) : v128.load32_zero(p));
}

export function axisMax(y: usize, x: usize, outer: i32, n: i32, inner: i32): void {
  const row = (<usize>inner) << 2;
  for (split(outer * inner, 3 * <f64>n, LINE); part(); )
    for (let i = first; i < last; i++) {
      let p = x + <usize>(i / inner) * <usize>n * row + ((<usize>(i % inner)) << 2),
        best = load<f32>(p),
        at = 0;
      for (let j = 1; j < n; j++) {
        p += row;
        const v = load<f32>(p);
        // Not "v > best", which is false of every NaN: the first NaN is the largest.
        if (!(v <= best) && best == best) {
          best = v;
          at = j;
        }
      }
      store<i32>(y + ((<usize>i) << 2), at);
    }
}
