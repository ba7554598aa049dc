/**
 * Two rows of C (+)= two rows of A, four values each, times four rows of B: a row of B is loaded once for both.
 *   C[i, j] = (C[i, j] or 0) + A[i, 0] B[0, j] + A[i, 1] B[1, j] + A[i, 2] B[2, j] + A[i, 3] B[3, j], in this order
 *
 * A element (i, p) is at a + i * ars + p * acs; B row p is contiguous at b + p * bs, C row i at c + i * crs. Strides in
 * bytes. n columns, a multiple of 4 and not 0. Compiled in the order written here, like micro.ts.
 */
import { plus, product } from "./madd";

export function rank4x2(n: i32, a: usize, ars: usize, acs: usize, b: usize, bs: usize, c: usize, crs: usize, accumulate: bool): void {
  if (accumulate) update(n, a, ars, acs, b, bs, c, crs, true);
  else update(n, a, ars, acs, b, bs, c, crs, false);
}

/** `accumulate` is a compile-time choice (+2 to 4 %). */
// @ts-ignore: decorator
@inline
function update(n: i32, a: usize, ars: usize, acs: usize, b: usize, bs: usize, c: usize, crs: usize, accumulate: bool): void {
  const a1 = a + acs, a2 = a1 + acs, a3 = a2 + acs;
  const s0 = v128.load32_splat(a), s1 = v128.load32_splat(a1), s2 = v128.load32_splat(a2), s3 = v128.load32_splat(a3);
  const t0 = v128.load32_splat(a + ars), t1 = v128.load32_splat(a1 + ars), t2 = v128.load32_splat(a2 + ars), t3 = v128.load32_splat(a3 + ars);
  let b0 = b, b1 = b0 + bs, b2 = b1 + bs, b3 = b2 + bs, d = c + crs;
  let x: v128, y: v128, v: v128, p: v128, q: v128;
  for (; ; n -= 32) {
    // unroll 8
    if (accumulate) {
      x = v128.load(c, 16 * STEP); y = v128.load(d, 16 * STEP);
    } else {
      x = f32x4.splat(0); y = x;
    }
    v = v128.load(b0, 16 * STEP); p = product(s0, v); q = product(t0, v); x = plus(x, p, s0, v); y = plus(y, q, t0, v);
    v = v128.load(b1, 16 * STEP); p = product(s1, v); q = product(t1, v); x = plus(x, p, s1, v); y = plus(y, q, t1, v);
    v = v128.load(b2, 16 * STEP); p = product(s2, v); q = product(t2, v); x = plus(x, p, s2, v); y = plus(y, q, t2, v);
    v = v128.load(b3, 16 * STEP); p = product(s3, v); q = product(t3, v); x = plus(x, p, s3, v); y = plus(y, q, t3, v);
    v128.store(c, x, 16 * STEP); v128.store(d, y, 16 * STEP);
    if (n <= 4 * STEP + 4) break;
    // end of unroll
    c += 16 * 8; d += 16 * 8;
    b0 += 16 * 8; b1 += 16 * 8; b2 += 16 * 8; b3 += 16 * 8;
  }
}
