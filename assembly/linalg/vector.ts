/**
 * float64 vectors, n contiguous values each: what QR and SVD are made of. Names are BLAS's, the order of arguments is
 * this house's: outputs, inputs, sizes, scalars.
 * A sum gives value i to lane i % 4 and adds the lanes as (0 + 1) + (2 + 3).
 */

/** A sum of squares below it counts as 0: its terms may have lost bits to underflow. */
export const ZERO_SQUARED: f64 = 1e-280;

// @ts-ignore: decorator
@inline
function addLanes(lanes01: v128, lanes23: v128, t0: f64, t1: f64, t2: f64): f64 {
  return (
    f64x2.extract_lane(lanes01, 0) +
    t0 +
    (f64x2.extract_lane(lanes01, 1) + t1) +
    (f64x2.extract_lane(lanes23, 0) + t2 + f64x2.extract_lane(lanes23, 1))
  );
}

/** sum of x[i] * y[i] */
export function ddot(x: usize, y: usize, n: i32): f64 {
  let lanes01 = f64x2.splat(0),
    lanes23 = lanes01;
  for (; n >= 4; n -= 4) {
    lanes01 = f64x2.add(lanes01, f64x2.mul(v128.load(x), v128.load(y)));
    lanes23 = f64x2.add(lanes23, f64x2.mul(v128.load(x, 16), v128.load(y, 16)));
    x += 32;
    y += 32;
  }
  return addLanes(
    lanes01,
    lanes23,
    n > 0 ? load<f64>(x) * load<f64>(y) : 0,
    n > 1 ? load<f64>(x, 8) * load<f64>(y, 8) : 0,
    n > 2 ? load<f64>(x, 16) * load<f64>(y, 16) : 0,
  );
}

/** y += alpha * x */
export function daxpy(y: usize, x: usize, n: i32, alpha: f64): void {
  const a = f64x2.splat(alpha);
  for (; n >= 4; n -= 4) {
    v128.store(y, f64x2.add(v128.load(y), f64x2.mul(a, v128.load(x))));
    v128.store(y, f64x2.add(v128.load(y, 16), f64x2.mul(a, v128.load(x, 16))), 16);
    x += 32;
    y += 32;
  }
  for (; n > 0; n--, x += 8, y += 8) store<f64>(y, load<f64>(y) + alpha * load<f64>(x));
}

/** x *= alpha */
export function dscal(x: usize, n: i32, alpha: f64): void {
  for (; n > 0; n--, x += 8) store<f64>(x, load<f64>(x) * alpha);
}

/** toX, toY = c * x - s * y, s * x + c * y. The outputs may be the inputs, in either order. */
export function drot(toX: usize, toY: usize, x: usize, y: usize, n: i32, c: f64, s: f64): void {
  const cc = f64x2.splat(c),
    ss = f64x2.splat(s);
  for (; n >= 2; n -= 2) {
    const a = v128.load(x),
      b = v128.load(y);
    v128.store(toX, f64x2.sub(f64x2.mul(cc, a), f64x2.mul(ss, b)));
    v128.store(toY, f64x2.add(f64x2.mul(ss, a), f64x2.mul(cc, b)));
    x += 16;
    y += 16;
    toX += 16;
    toY += 16;
  }
  if (n > 0) {
    const a = load<f64>(x),
      b = load<f64>(y);
    store<f64>(toX, c * a - s * b);
    store<f64>(toY, s * a + c * b);
  }
}
