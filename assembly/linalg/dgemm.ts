/**
 * float64 products, row-major. C [m, n] = op(A) B, B [k, n], op(A) = A [m, k], or Aᵀ for A [k, m].
 * One accumulator an element, p ascending: c = f64(c + f64(op(A)[i, p] * B[p, j])), from 0. All contiguous.
 */
import { first, last, part, split } from "../threads";

export function dgemm(c: usize, a: usize, b: usize, m: i32, n: i32, k: i32, transposed: bool): void {
  let down = (<usize>k) << 3,
    along: usize = 8;
  if (transposed) {
    down = 8;
    along = (<usize>m) << 3;
  }
  for (split(m, <f64>n * <f64>k); part(); )
    for (let i = <usize>first; i < <usize>last; i++) oneRow(c + ((i * <usize>n) << 3), a + i * down, b, n, k, along);
}

function oneRow(c: usize, a: usize, b: usize, n: i32, k: i32, along: usize): void {
  let j = n,
    panel = b;
  for (; j >= 8; j -= 8, panel += 64, c += 64) row8(c, a, panel, k, along, (<usize>n) << 3);
  for (; j > 0; j--, panel += 8, c += 8) {
    let sum: f64 = 0,
      x = a,
      y = panel;
    for (let p = 0; p < k; p++, x += along, y += (<usize>n) << 3) sum += load<f64>(x) * load<f64>(y);
    store<f64>(c, sum);
  }
}

/** Eight columns of one row. */
function row8(c: usize, a: usize, b: usize, k: i32, along: usize, row: usize): void {
  let c0 = f64x2.splat(0),
    c1 = c0,
    c2 = c0,
    c3 = c0;
  for (; k > 0; k--, a += along, b += row) {
    const x = v128.load64_splat(a);
    c0 = f64x2.add(c0, f64x2.mul(x, v128.load(b)));
    c1 = f64x2.add(c1, f64x2.mul(x, v128.load(b, 16)));
    c2 = f64x2.add(c2, f64x2.mul(x, v128.load(b, 32)));
    c3 = f64x2.add(c3, f64x2.mul(x, v128.load(b, 48)));
  }
  v128.store(c, c0);
  v128.store(c, c1, 16);
  v128.store(c, c2, 32);
  v128.store(c, c3, 48);
}
