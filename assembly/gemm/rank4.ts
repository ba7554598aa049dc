/**
 * Updates of rank 4, of two rows of C and of one:
 *   C[i, j] = (C[i, j] or 0) + A[i, 0] B[0, j] + A[i, 1] B[1, j] + A[i, 2] B[2, j] + A[i, 3] B[3, j], in this order
 * Two rows load a row of B once for both.
 *
 * A element (i, p) is at a + i * ars + p * acs; B row p is contiguous at b + p * bs, C row i at c + i * crs. Strides in
 * bytes. n columns, a multiple of 4 and not 0. Compiled in the order written here, like micro.ts; `accumulate` is a
 * compile-time choice in the inlined functions (+2 to 4 %).
 */
import { BF16, lower, SCALED16, upper } from "./half";
import { madd, plus, product } from "./madd";

export function rank4x2(
  n: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  if (accumulate) twoRows(n, a, ars, acs, b, bs, c, crs, true);
  else twoRows(n, a, ars, acs, b, bs, c, crs, false);
}

/** As many updates one after another, each of the next four values of A and rows of B (a call for each: -4 %). */
export function rank4x1(
  updates: i32,
  n: i32,
  a: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  accumulate: bool,
): void {
  if (!accumulate) {
    oneRow(n, a, acs, b, bs, c, false);
    updates--;
    a += acs << 2;
    b += bs << 2;
  }
  for (; updates > 0; updates--) {
    oneRow(n, a, acs, b, bs, c, true);
    a += acs << 2;
    b += bs << 2;
  }
}

// The first row is stored before the second one's sums: V8 up to Node 22 needs more vectors than it has when both are
// made together (40 -> 37 GFLOP/s; newer engines would gain 1 %).
// @ts-ignore: decorator
@inline
function twoRows(
  n: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  const a1 = a + acs,
    a2 = a1 + acs,
    a3 = a2 + acs;
  const s0 = v128.load32_splat(a),
    s1 = v128.load32_splat(a1),
    s2 = v128.load32_splat(a2),
    s3 = v128.load32_splat(a3);
  const t0 = v128.load32_splat(a + ars),
    t1 = v128.load32_splat(a1 + ars),
    t2 = v128.load32_splat(a2 + ars),
    t3 = v128.load32_splat(a3 + ars);
  let b0 = b,
    b1 = b0 + bs,
    b2 = b1 + bs,
    b3 = b2 + bs,
    d = c + crs;
  let x: v128, r0: v128, r1: v128, r2: v128, r3: v128, p: v128, q: v128;
  for (; ; n -= 32) {
    // unroll 8
    r0 = v128.load(b0, 16 * STEP);
    r1 = v128.load(b1, 16 * STEP);
    p = product(s0, r0);
    q = product(s1, r1);
    if (accumulate) x = v128.load(c, 16 * STEP);
    else x = f32x4.splat(0);
    x = plus(x, p, s0, r0);
    x = plus(x, q, s1, r1);
    r2 = v128.load(b2, 16 * STEP);
    r3 = v128.load(b3, 16 * STEP);
    p = product(s2, r2);
    q = product(s3, r3);
    x = plus(x, p, s2, r2);
    x = plus(x, q, s3, r3);
    v128.store(c, x, 16 * STEP);
    p = product(t0, r0);
    q = product(t1, r1);
    if (accumulate) x = v128.load(d, 16 * STEP);
    else x = f32x4.splat(0);
    x = plus(x, p, t0, r0);
    x = plus(x, q, t1, r1);
    p = product(t2, r2);
    q = product(t3, r3);
    x = plus(x, p, t2, r2);
    x = plus(x, q, t3, r3);
    v128.store(d, x, 16 * STEP);
    if (n <= 4 * STEP + 4) break;
    // end of unroll
    c += 16 * 8;
    d += 16 * 8;
    b0 += 16 * 8;
    b1 += 16 * 8;
    b2 += 16 * 8;
    b3 += 16 * 8;
  }
}

// @ts-ignore: decorator
@inline
function oneRow(n: i32, a: usize, acs: usize, b: usize, bs: usize, c: usize, accumulate: bool): void {
  const a1 = a + acs,
    a2 = a1 + acs,
    a3 = a2 + acs;
  const s0 = v128.load32_splat(a),
    s1 = v128.load32_splat(a1),
    s2 = v128.load32_splat(a2),
    s3 = v128.load32_splat(a3);
  let b0 = b,
    b1 = b0 + bs,
    b2 = b1 + bs,
    b3 = b2 + bs;
  let x: v128, r0: v128, r1: v128, p: v128, q: v128;
  for (; ; n -= 16) {
    // unroll 4
    r0 = v128.load(b0, 16 * STEP);
    r1 = v128.load(b1, 16 * STEP);
    p = product(s0, r0);
    q = product(s1, r1);
    if (accumulate) x = v128.load(c, 16 * STEP);
    else x = f32x4.splat(0);
    x = plus(x, p, s0, r0);
    x = plus(x, q, s1, r1);
    r0 = v128.load(b2, 16 * STEP);
    r1 = v128.load(b3, 16 * STEP);
    p = product(s2, r0);
    q = product(s3, r1);
    x = plus(x, p, s2, r0);
    x = plus(x, q, s3, r1);
    v128.store(c, x, 16 * STEP);
    if (n <= 4 * STEP + 4) break;
    // end of unroll
    c += 16 * 4;
    b0 += 16 * 4;
    b1 += 16 * 4;
    b2 += 16 * 4;
    b3 += 16 * 4;
  }
}

/**
 * One row of C += four values of A times four rows of BF16 or SCALED16, which are widened in registers: for a lone row
 * each is used once. Lanes are pairs of columns, so of eight columns C has the even ones first. n: a multiple of 8.
 */
export function rank4x1Half(n: i32, a: usize, acs: usize, b: usize, bs: usize, c: usize, format: i32): void {
  if (format == BF16) oneRowHalf(n, a, acs, b, bs, c, BF16);
  else oneRowHalf(n, a, acs, b, bs, c, SCALED16);
}

// @ts-ignore: decorator
@inline
function oneRowHalf(n: i32, a: usize, acs: usize, b: usize, bs: usize, c: usize, format: i32): void {
  const s0 = v128.load32_splat(a),
    s1 = v128.load32_splat(a + acs),
    s2 = v128.load32_splat(a + 2 * acs),
    s3 = v128.load32_splat(a + 3 * acs);
  for (; n > 0; n -= 8) {
    let x = v128.load(c),
      y = v128.load(c, 16);
    let halves = v128.load(b);
    x = madd(x, s0, lower(halves, format));
    y = madd(y, s0, upper(halves, format));
    halves = v128.load(b + bs);
    x = madd(x, s1, lower(halves, format));
    y = madd(y, s1, upper(halves, format));
    halves = v128.load(b + 2 * bs);
    x = madd(x, s2, lower(halves, format));
    y = madd(y, s2, upper(halves, format));
    halves = v128.load(b + 3 * bs);
    x = madd(x, s3, lower(halves, format));
    y = madd(y, s3, upper(halves, format));
    v128.store(c, x);
    v128.store(c, y, 16);
    b += 16;
    c += 32;
  }
}
