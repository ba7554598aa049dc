/**
 * One row times a transposed matrix, without packing: c[j] (+)= sum over p of a[p] * B[j, p].
 * a: [k] contiguous, B: row-major [n, k] of a format (half.ts) with row stride bcs bytes, c: [n] contiguous.
 * Same canonical order as the tiles (one accumulator an element, p ascending): eight rows of B are read four values at
 * a time and transposed in registers, never summed along k by lanes. Halves are transposed in pairs, as lanes of two
 * values, and widened after that: it takes half of the shuffles (eight values of each at a time: V8 spills, +30 %). Of
 * FINITE16, a is scaled up (half.ts); F16 is not read.
 *
 * Compiled in the order written here, like micro.ts. V8 could hold sixteen columns, JavaScriptCore spills them
 * (eight: 4 -> 9 GFLOP/s there; Node 20 16 -> 18, Node 26 the same).
 */
import { BF16, F32, SCALED16, lower, one, stored, upper } from "./half";
import { madd, madd1 } from "./madd";
import { even, odd } from "./shuffle";

/** Four halves of a row and four of the next. */
// @ts-ignore: decorator
@inline
function twoRows(r: usize, bcs: usize): v128 {
  return v128.load64_lane(r + bcs, v128.load64_zero(r), 1);
}

export function gemvT(n: i32, k: i32, a: usize, b: usize, bcs: usize, c: usize, accumulate: bool, format: i32): void {
  if (format == F32) gemv(n, k, a, b, bcs, c, accumulate, F32);
  else halves(n, k, a, b, bcs, c, accumulate, format);
}

function halves(n: i32, k: i32, a: usize, b: usize, bcs: usize, c: usize, accumulate: bool, format: i32): void {
  if (format == BF16) gemv(n, k, a, b, bcs, c, accumulate, BF16);
  else gemv(n, k, a, b, bcs, c, accumulate, SCALED16);
}

/** Rows one by one: those that fill no vector. */
function lastRows(n: i32, k: i32, a: usize, b: usize, bcs: usize, c: usize, accumulate: bool, format: i32): void {
  for (; n > 0; n--) {
    let sum = accumulate ? load<f32>(c) : <f32>0;
    for (let p = 0; p < k; p++) sum = madd1(sum, load<f32>(a + stored(p, F32)), one(b + stored(p, format), format));
    store<f32>(c, sum);
    b += bcs;
    c += 4;
  }
}

/** The same value of four rows. */
// @ts-ignore: decorator
@inline
function gather(r: usize, bcs: usize, format: i32): v128 {
  if (format != F32) {
    let lanes = i32x4.splat(load<u16>(r));
    lanes = i32x4.replace_lane(lanes, 1, load<u16>(r + bcs));
    lanes = i32x4.replace_lane(lanes, 2, load<u16>(r + 2 * bcs));
    lanes = i32x4.replace_lane(lanes, 3, load<u16>(r + 3 * bcs));
    return lower(lanes, format);
  }
  return f32x4.replace_lane(
    f32x4.replace_lane(f32x4.replace_lane(v128.load32_splat(r), 1, load<f32>(r + bcs)), 2, load<f32>(r + 2 * bcs)),
    3,
    load<f32>(r + 3 * bcs),
  );
}

/** Four steps of k for four rows, in c: one lane a row. */
// @ts-ignore: decorator
@inline
function fourSteps(c: v128, x: usize, r: usize, bcs: usize, format: i32): v128 {
  if (format == F32) {
    const r0 = v128.load(r),
      r1 = v128.load(r + bcs),
      r2 = v128.load(r + 2 * bcs),
      r3 = v128.load(r + 3 * bcs);
    const e01 = even(r0, r1),
      o01 = odd(r0, r1),
      e23 = even(r2, r3),
      o23 = odd(r2, r3);
    c = madd(c, v128.load32_splat(x), even(e01, e23));
    c = madd(c, v128.load32_splat(x, 4), even(o01, o23));
    c = madd(c, v128.load32_splat(x, 8), odd(e01, e23));
    return madd(c, v128.load32_splat(x, 12), odd(o01, o23));
  }
  const r01 = twoRows(r, bcs),
    r23 = twoRows(r + 2 * bcs, bcs);
  const u = even(r01, r23),
    v = odd(r01, r23);
  c = madd(c, v128.load32_splat(x), lower(u, format));
  c = madd(c, v128.load32_splat(x, 4), upper(u, format));
  c = madd(c, v128.load32_splat(x, 8), lower(v, format));
  return madd(c, v128.load32_splat(x, 12), upper(v, format));
}

/**
 * Of rows up to so many bytes, lines of the next eight are asked for while eight are read: one walk through memory,
 * which a prefetcher follows better than eight short ones (1 x 576 x 49152 of bfloat16: 7.7 -> 3.7 ms). Twice eight fit
 * a first-level cache of 32 KB; longer ones would drive each other out (1 x 2048 x 2048: 0.7 -> 1.2 ms).
 */
const NEAR: usize = 1536;

/**
 * So many times sixteen rows side by side, where two sums wait for each other: a fused multiply-add takes four cycles
 * (1 x 768 x 768 in Node 26: 14 -> 21 GFLOP/s, in Node 24 -> 20). A product, then a sum, gains nothing by it, and loses
 * a third in Node 20. The ways out, which are never taken, keep apart what V8 up to Node 22 mixes (12 -> 14).
 */
// @ts-ignore: decorator
@inline
function sixteen(times: i32, k: i32, a: usize, b: usize, bcs: usize, c: usize, accumulate: bool, format: i32): void {
  const group = bcs << 2;
  for (; times > 0; times--) {
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
    let x = a,
      r0 = b,
      r1 = r0 + group,
      r2 = r1 + group,
      r3 = r2 + group,
      p = k;
    for (; p >= 4; p -= 4) {
      c0 = fourSteps(c0, x, r0, bcs, format);
      if (x == 0) break;
      c1 = fourSteps(c1, x, r1, bcs, format);
      if (x == 0) break;
      c2 = fourSteps(c2, x, r2, bcs, format);
      if (x == 0) break;
      c3 = fourSteps(c3, x, r3, bcs, format);
      x += 16;
      r0 += stored(4, format);
      r1 += stored(4, format);
      r2 += stored(4, format);
      r3 += stored(4, format);
    }
    for (; p > 0; p--) {
      const s = v128.load32_splat(x);
      c0 = madd(c0, s, gather(r0, bcs, format));
      c1 = madd(c1, s, gather(r1, bcs, format));
      c2 = madd(c2, s, gather(r2, bcs, format));
      c3 = madd(c3, s, gather(r3, bcs, format));
      x += 4;
      r0 += stored(1, format);
      r1 += stored(1, format);
      r2 += stored(1, format);
      r3 += stored(1, format);
    }
    v128.store(c, c0);
    v128.store(c, c1, 16);
    v128.store(c, c2, 32);
    v128.store(c, c3, 48);
    b += group << 2;
    c += 64;
  }
}

/**
 * Whether sixteen rows go side by side through a first-level cache: not those that lie in few of its sets (1 x 2048 x
 * 2048: 12 -> 7 GFLOP/s), nor the short ones, of which the next are asked for.
 */
// @ts-ignore: decorator
@inline
function apart(bcs: usize): bool {
  return bcs > NEAR && (bcs & 2047) != 0;
}

// @ts-ignore: decorator
@inline
function gemv(n: i32, k: i32, a: usize, b: usize, bcs: usize, c: usize, accumulate: bool, format: i32): void {
  const group = bcs << 2,
    step: usize = bcs <= NEAR ? 64 : 0;
  if (isDefined(FUSED)) {
    if (apart(bcs)) {
      sixteen(n >> 4, k, a, b, bcs, c, accumulate, format);
      b += <usize>(n & ~15) * bcs;
      c += stored(n & ~15, F32);
      n &= 15;
    }
  }
  for (; n >= 8; n -= 8) {
    let c0 = f32x4.splat(0),
      c1 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c, 16);
    }
    let x = a,
      r = b,
      p = k,
      ahead = n >= 16 ? b + (group << 1) : b;
    if (format == F32) {
      for (; p >= 4; p -= 4) {
        load<u8>(ahead);
        ahead += step;
        load<u8>(ahead);
        ahead += step;
        const q = r + group;
        const r0 = v128.load(r),
          r1 = v128.load(r + bcs),
          r2 = v128.load(r + 2 * bcs),
          r3 = v128.load(r + 3 * bcs);
        const re01 = even(r0, r1),
          ro01 = odd(r0, r1),
          re23 = even(r2, r3),
          ro23 = odd(r2, r3);
        const q0 = v128.load(q),
          q1 = v128.load(q + bcs),
          q2 = v128.load(q + 2 * bcs),
          q3 = v128.load(q + 3 * bcs);
        const qe01 = even(q0, q1),
          qo01 = odd(q0, q1),
          qe23 = even(q2, q3),
          qo23 = odd(q2, q3);
        let s = v128.load32_splat(x);
        c0 = madd(c0, s, even(re01, re23));
        c1 = madd(c1, s, even(qe01, qe23));
        s = v128.load32_splat(x, 4);
        c0 = madd(c0, s, even(ro01, ro23));
        c1 = madd(c1, s, even(qo01, qo23));
        s = v128.load32_splat(x, 8);
        c0 = madd(c0, s, odd(re01, re23));
        c1 = madd(c1, s, odd(qe01, qe23));
        s = v128.load32_splat(x, 12);
        c0 = madd(c0, s, odd(ro01, ro23));
        c1 = madd(c1, s, odd(qo01, qo23));
        x += 16;
        r += 16;
      }
    } else {
      for (; p >= 4; p -= 4) {
        const q = r + group;
        const r01 = twoRows(r, bcs),
          r23 = twoRows(r + 2 * bcs, bcs),
          q01 = twoRows(q, bcs),
          q23 = twoRows(q + 2 * bcs, bcs);
        let u = even(r01, r23),
          v = even(q01, q23);
        let s = v128.load32_splat(x);
        c0 = madd(c0, s, lower(u, format));
        c1 = madd(c1, s, lower(v, format));
        s = v128.load32_splat(x, 4);
        c0 = madd(c0, s, upper(u, format));
        c1 = madd(c1, s, upper(v, format));
        u = odd(r01, r23);
        v = odd(q01, q23);
        s = v128.load32_splat(x, 8);
        c0 = madd(c0, s, lower(u, format));
        c1 = madd(c1, s, lower(v, format));
        s = v128.load32_splat(x, 12);
        c0 = madd(c0, s, upper(u, format));
        c1 = madd(c1, s, upper(v, format));
        load<u8>(ahead);
        ahead += step;
        x += 16;
        r += 8;
      }
    }
    for (; p > 0; p--) {
      const s = v128.load32_splat(x);
      c0 = madd(c0, s, gather(r, bcs, format));
      c1 = madd(c1, s, gather(r + group, bcs, format));
      x += 4;
      r += stored(1, format);
    }
    v128.store(c, c0);
    v128.store(c, c1, 16);
    b += group << 1;
    c += 32;
  }
  lastRows(n, k, a, b, bcs, c, accumulate, format);
}
