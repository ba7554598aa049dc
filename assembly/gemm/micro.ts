/**
 * Register tiles. C[i, j] (+)= sum over p of A[i, p] * B[p, j], for the tiles of some rows of C one below the other.
 *
 * Every element has one accumulator and p ascends: c = f32(c + f32(a * b)). `accumulate` starts
 * the accumulators from C instead of zero, so a sum that is cut into k-blocks has the same bits as
 * one that is not.
 *
 * A element (i, p) is at a + i * ars + p * acs; b is a packed panel, [k][NR], k > 0; C row i is at c + i * crs.
 * All strides in bytes. NR columns of C are read and written, in the first m rows rounded down to whole tiles.
 *
 * This file is a module of its own, which scripts/build-wasm.mjs compiles in the order written here and merges in:
 * Binaryen's optimiser moves each product to its sum, and mixes the steps of an unrolled loop until they spill.
 * Engines keep the order they are given, and Zen 4 wants two products, then two sums: in turn, they crowd the same
 * pipes (4x8 in assembly: 46 and 55 GFLOP/s).
 *
 * 2x16 and 4x8 (8 accumulators, B, one or two splats, two products) fit the 15 vectors that V8 keeps in registers on
 * x64; 6x8 spills and loses half (measured). A core takes six instructions a cycle, so k goes in eights with one move
 * of b; "unroll" is for scripts/asc-unrolled.mjs. The way out between two steps is what keeps them apart: V8 up to
 * Node 22 sinks every product to its last use otherwise, across all eight (Node 20: 28 GFLOP/s, in single steps 46, so
 * 49). Every load of A is without an offset, which JavaScriptCore takes through a general register (38, so 50).
 */
import { madd, plus, product } from "./madd";

/**
 * For contiguous rows of A, acs = 4: with a variable one SpiderMonkey is out of general registers (54 -> 49 GFLOP/s).
 */
export function micro2x16(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  for (; m >= 2; m -= 2) {
    const d = c + crs;
    let c0 = f32x4.splat(0),
      c1 = c0,
      c2 = c0,
      c3 = c0;
    let d0 = c0,
      d1 = c0,
      d2 = c0,
      d3 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c, 16);
      c2 = v128.load(c, 32);
      c3 = v128.load(c, 48);
      d0 = v128.load(d);
      d1 = v128.load(d, 16);
      d2 = v128.load(d, 32);
      d3 = v128.load(d, 48);
    }
    let a0 = a,
      a1 = a0 + ars,
      r = b;
    let s: v128, t: v128, v: v128, p: v128, q: v128;
    for (let left = k; ; left -= 8) {
      // unroll 8
      s = v128.load32_splat(a0);
      t = v128.load32_splat(a1);
      v = v128.load(r, 64 * STEP);
      p = product(s, v);
      q = product(t, v);
      c0 = plus(c0, p, s, v);
      d0 = plus(d0, q, t, v);
      v = v128.load(r, 64 * STEP + 16);
      p = product(s, v);
      q = product(t, v);
      c1 = plus(c1, p, s, v);
      d1 = plus(d1, q, t, v);
      v = v128.load(r, 64 * STEP + 32);
      p = product(s, v);
      q = product(t, v);
      c2 = plus(c2, p, s, v);
      d2 = plus(d2, q, t, v);
      v = v128.load(r, 64 * STEP + 48);
      p = product(s, v);
      q = product(t, v);
      c3 = plus(c3, p, s, v);
      d3 = plus(d3, q, t, v);
      if (left <= STEP + 1) break;
      a0 += 4;
      a1 += 4;
      // end of unroll
      r += 64 * 8;
    }
    v128.store(c, c0);
    v128.store(c, c1, 16);
    v128.store(c, c2, 32);
    v128.store(c, c3, 48);
    v128.store(d, d0);
    v128.store(d, d1, 16);
    v128.store(d, d2, 32);
    v128.store(d, d3, 48);
    a += 2 * ars;
    c += 2 * crs;
  }
}

export function micro1x16(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  const end = b + <usize>k * 64;
  for (; m > 0; m--) {
    let c0 = f32x4.splat(0),
      c1 = c0,
      c2 = c0,
      c3 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c, 16);
      c2 = v128.load(c, 32);
      c3 = v128.load(c, 48);
    }
    let a0 = a,
      r = b;
    do {
      const s = v128.load32_splat(a0);
      c0 = madd(c0, s, v128.load(r));
      c1 = madd(c1, s, v128.load(r, 16));
      c2 = madd(c2, s, v128.load(r, 32));
      c3 = madd(c3, s, v128.load(r, 48));
      a0 += acs;
      r += 64;
    } while (r != end);
    v128.store(c, c0);
    v128.store(c, c1, 16);
    v128.store(c, c2, 32);
    v128.store(c, c3, 48);
    a += ars;
    c += crs;
  }
}

export function micro4x8(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  for (; m >= 4; m -= 4) {
    const d = c + crs,
      e = d + crs,
      f = e + crs;
    let c0 = f32x4.splat(0),
      c1 = c0;
    let d0 = c0,
      d1 = c0;
    let e0 = c0,
      e1 = c0;
    let f0 = c0,
      f1 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c, 16);
      d0 = v128.load(d);
      d1 = v128.load(d, 16);
      e0 = v128.load(e);
      e1 = v128.load(e, 16);
      f0 = v128.load(f);
      f1 = v128.load(f, 16);
    }
    let a0 = a,
      a1 = a0 + ars,
      a2 = a1 + ars,
      a3 = a2 + ars,
      r = b;
    let s: v128, v: v128, w: v128, p: v128, q: v128;
    for (let left = k; ; left -= 8) {
      // unroll 8
      v = v128.load(r, 32 * STEP);
      w = v128.load(r, 32 * STEP + 16);
      s = v128.load32_splat(a0);
      p = product(s, v);
      q = product(s, w);
      c0 = plus(c0, p, s, v);
      c1 = plus(c1, q, s, w);
      s = v128.load32_splat(a1);
      p = product(s, v);
      q = product(s, w);
      d0 = plus(d0, p, s, v);
      d1 = plus(d1, q, s, w);
      s = v128.load32_splat(a2);
      p = product(s, v);
      q = product(s, w);
      e0 = plus(e0, p, s, v);
      e1 = plus(e1, q, s, w);
      s = v128.load32_splat(a3);
      p = product(s, v);
      q = product(s, w);
      f0 = plus(f0, p, s, v);
      f1 = plus(f1, q, s, w);
      if (left <= STEP + 1) break;
      a0 += acs;
      a1 += acs;
      a2 += acs;
      a3 += acs;
      // end of unroll
      r += 32 * 8;
    }
    v128.store(c, c0);
    v128.store(c, c1, 16);
    v128.store(d, d0);
    v128.store(d, d1, 16);
    v128.store(e, e0);
    v128.store(e, e1, 16);
    v128.store(f, f0);
    v128.store(f, f1, 16);
    a += 4 * ars;
    c += 4 * crs;
  }
}

export function micro1x8(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  const end = b + <usize>k * 32;
  for (; m > 0; m--) {
    let c0 = f32x4.splat(0),
      c1 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c, 16);
    }
    let a0 = a,
      r = b;
    do {
      const s = v128.load32_splat(a0);
      c0 = madd(c0, s, v128.load(r));
      c1 = madd(c1, s, v128.load(r, 16));
      a0 += acs;
      r += 32;
    } while (r != end);
    v128.store(c, c0);
    v128.store(c, c1, 16);
    a += ars;
    c += crs;
  }
}

export function micro8x4(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  const end = b + <usize>k * 16;
  const ars2 = ars << 1,
    ars3 = ars2 + ars;
  for (; m >= 8; m -= 8) {
    const d = c + 4 * crs;
    let c0 = f32x4.splat(0),
      c1 = c0,
      c2 = c0,
      c3 = c0;
    let d0 = c0,
      d1 = c0,
      d2 = c0,
      d3 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c + crs);
      c2 = v128.load(c + 2 * crs);
      c3 = v128.load(c + 3 * crs);
      d0 = v128.load(d);
      d1 = v128.load(d + crs);
      d2 = v128.load(d + 2 * crs);
      d3 = v128.load(d + 3 * crs);
    }
    let a0 = a,
      a4 = a + 4 * ars,
      r = b;
    do {
      const b0 = v128.load(r);
      c0 = madd(c0, v128.load32_splat(a0), b0);
      c1 = madd(c1, v128.load32_splat(a0 + ars), b0);
      c2 = madd(c2, v128.load32_splat(a0 + ars2), b0);
      c3 = madd(c3, v128.load32_splat(a0 + ars3), b0);
      d0 = madd(d0, v128.load32_splat(a4), b0);
      d1 = madd(d1, v128.load32_splat(a4 + ars), b0);
      d2 = madd(d2, v128.load32_splat(a4 + ars2), b0);
      d3 = madd(d3, v128.load32_splat(a4 + ars3), b0);
      a0 += acs;
      a4 += acs;
      r += 16;
    } while (r != end);
    v128.store(c, c0);
    v128.store(c + crs, c1);
    v128.store(c + 2 * crs, c2);
    v128.store(c + 3 * crs, c3);
    v128.store(d, d0);
    v128.store(d + crs, d1);
    v128.store(d + 2 * crs, d2);
    v128.store(d + 3 * crs, d3);
    a += 8 * ars;
    c += 8 * crs;
  }
}

export function micro1x4(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  const end = b + <usize>k * 16;
  for (; m > 0; m--) {
    let c0 = f32x4.splat(0);
    if (accumulate) c0 = v128.load(c);
    let a0 = a,
      r = b;
    do {
      c0 = madd(c0, v128.load32_splat(a0), v128.load(r));
      a0 += acs;
      r += 16;
    } while (r != end);
    v128.store(c, c0);
    a += ars;
    c += crs;
  }
}
