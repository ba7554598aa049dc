/**
 * Register tiles. C[i, j] (+)= sum over p of A[i, p] * B[p, j], for one tile of C.
 *
 * Every element has one accumulator and p ascends: c = f32(c + f32(a * b)). `accumulate` starts
 * the accumulators from C instead of zero, so a sum that is cut into k-blocks has the same bits as
 * one that is not.
 *
 * A element (i, p) is at a + i * ars + p * acs; B row p is NR contiguous floats at b + p * bs;
 * C row i is at c + i * crs. All strides in bytes. NR columns of C are read and written.
 *
 * V8 on x64 keeps 15 vectors in registers: 2x16 and 4x8 (8 accumulators, B, one splat, one product)
 * fit, 6x8 spills and loses half (measured). k is not unrolled: it is slower in nearly every tile
 * that fits (measured).
 */

// @ts-ignore: decorator
@inline
function start(accumulate: bool, c: usize): v128 {
  return accumulate ? v128.load(c) : f32x4.splat(0);
}

// @ts-ignore: decorator
@inline
function madd(c: v128, a: v128, b: v128): v128 {
  return f32x4.add(c, f32x4.mul(a, b));
}

export function micro2x16(k: i32, a: usize, ars: usize, acs: usize, b: usize, bs: usize, c: usize, crs: usize, accumulate: bool): void {
  const d = c + crs;
  let c0 = start(accumulate, c), c1 = start(accumulate, c + 16), c2 = start(accumulate, c + 32), c3 = start(accumulate, c + 48);
  let d0 = start(accumulate, d), d1 = start(accumulate, d + 16), d2 = start(accumulate, d + 32), d3 = start(accumulate, d + 48);
  let a1 = a + ars;
  for (; k > 0; k--) {
    const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(b, 32), b3 = v128.load(b, 48);
    let s = v128.load32_splat(a);
    c0 = madd(c0, s, b0);
    c1 = madd(c1, s, b1);
    c2 = madd(c2, s, b2);
    c3 = madd(c3, s, b3);
    s = v128.load32_splat(a1);
    d0 = madd(d0, s, b0);
    d1 = madd(d1, s, b1);
    d2 = madd(d2, s, b2);
    d3 = madd(d3, s, b3);
    a += acs;
    a1 += acs;
    b += bs;
  }
  v128.store(c, c0); v128.store(c, c1, 16); v128.store(c, c2, 32); v128.store(c, c3, 48);
  v128.store(d, d0); v128.store(d, d1, 16); v128.store(d, d2, 32); v128.store(d, d3, 48);
}

export function micro1x16(k: i32, a: usize, acs: usize, b: usize, bs: usize, c: usize, accumulate: bool): void {
  let c0 = start(accumulate, c), c1 = start(accumulate, c + 16), c2 = start(accumulate, c + 32), c3 = start(accumulate, c + 48);
  for (; k > 0; k--) {
    const s = v128.load32_splat(a);
    c0 = madd(c0, s, v128.load(b));
    c1 = madd(c1, s, v128.load(b, 16));
    c2 = madd(c2, s, v128.load(b, 32));
    c3 = madd(c3, s, v128.load(b, 48));
    a += acs;
    b += bs;
  }
  v128.store(c, c0); v128.store(c, c1, 16); v128.store(c, c2, 32); v128.store(c, c3, 48);
}

export function micro4x8(k: i32, a: usize, ars: usize, acs: usize, b: usize, bs: usize, c: usize, crs: usize, accumulate: bool): void {
  const d = c + crs, e = d + crs, f = e + crs;
  let c0 = start(accumulate, c), c1 = start(accumulate, c + 16);
  let d0 = start(accumulate, d), d1 = start(accumulate, d + 16);
  let e0 = start(accumulate, e), e1 = start(accumulate, e + 16);
  let f0 = start(accumulate, f), f1 = start(accumulate, f + 16);
  let a1 = a + ars, a2 = a1 + ars, a3 = a2 + ars;
  for (; k > 0; k--) {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
    let s = v128.load32_splat(a);
    c0 = madd(c0, s, b0);
    c1 = madd(c1, s, b1);
    s = v128.load32_splat(a1);
    d0 = madd(d0, s, b0);
    d1 = madd(d1, s, b1);
    s = v128.load32_splat(a2);
    e0 = madd(e0, s, b0);
    e1 = madd(e1, s, b1);
    s = v128.load32_splat(a3);
    f0 = madd(f0, s, b0);
    f1 = madd(f1, s, b1);
    a += acs;
    a1 += acs;
    a2 += acs;
    a3 += acs;
    b += bs;
  }
  v128.store(c, c0); v128.store(c, c1, 16);
  v128.store(d, d0); v128.store(d, d1, 16);
  v128.store(e, e0); v128.store(e, e1, 16);
  v128.store(f, f0); v128.store(f, f1, 16);
}

export function micro1x8(k: i32, a: usize, acs: usize, b: usize, bs: usize, c: usize, accumulate: bool): void {
  let c0 = start(accumulate, c), c1 = start(accumulate, c + 16);
  for (; k > 0; k--) {
    const s = v128.load32_splat(a);
    c0 = madd(c0, s, v128.load(b));
    c1 = madd(c1, s, v128.load(b, 16));
    a += acs;
    b += bs;
  }
  v128.store(c, c0); v128.store(c, c1, 16);
}

export function micro8x4(k: i32, a: usize, ars: usize, acs: usize, b: usize, bs: usize, c: usize, crs: usize, accumulate: bool): void {
  const d = c + 4 * crs;
  let c0 = start(accumulate, c), c1 = start(accumulate, c + crs), c2 = start(accumulate, c + 2 * crs), c3 = start(accumulate, c + 3 * crs);
  let d0 = start(accumulate, d), d1 = start(accumulate, d + crs), d2 = start(accumulate, d + 2 * crs), d3 = start(accumulate, d + 3 * crs);
  const ars2 = ars << 1, ars3 = ars2 + ars;
  let a4 = a + 4 * ars;
  for (; k > 0; k--) {
    const b0 = v128.load(b);
    c0 = madd(c0, v128.load32_splat(a), b0);
    c1 = madd(c1, v128.load32_splat(a + ars), b0);
    c2 = madd(c2, v128.load32_splat(a + ars2), b0);
    c3 = madd(c3, v128.load32_splat(a + ars3), b0);
    d0 = madd(d0, v128.load32_splat(a4), b0);
    d1 = madd(d1, v128.load32_splat(a4 + ars), b0);
    d2 = madd(d2, v128.load32_splat(a4 + ars2), b0);
    d3 = madd(d3, v128.load32_splat(a4 + ars3), b0);
    a += acs;
    a4 += acs;
    b += bs;
  }
  v128.store(c, c0); v128.store(c + crs, c1); v128.store(c + 2 * crs, c2); v128.store(c + 3 * crs, c3);
  v128.store(d, d0); v128.store(d + crs, d1); v128.store(d + 2 * crs, d2); v128.store(d + 3 * crs, d3);
}

export function micro1x4(k: i32, a: usize, acs: usize, b: usize, bs: usize, c: usize, accumulate: bool): void {
  let c0 = start(accumulate, c);
  for (; k > 0; k--) {
    c0 = madd(c0, v128.load32_splat(a), v128.load(b));
    a += acs;
    b += bs;
  }
  v128.store(c, c0);
}
