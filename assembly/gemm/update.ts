/**
 * C (+)= A * B by updates of rank 4, for few rows or a short k: B is read where it lies, along its rows, and nothing is
 * packed. The order is the tiles': one accumulator an element, p ascending; between two updates it waits in C.
 *
 * A element (i, p) is at a + i * ars + p * acs; B row p is n contiguous floats at b + p * bs; C row i at c + i * crs.
 * Strides in bytes. Updates of rank 8 need more addresses than V8 has registers (35 -> 30 GFLOP/s, measured).
 */
import { madd } from "./madd";
import { rank4x2 } from "./tiles";

/** Columns at a time: four rows of B and one of C, 20 KB, stay in the first-level cache for all rows of A. */
const STRIP: i32 = 1024;

export function gemmByUpdates(m: i32, n: i32, k: i32, a: usize, ars: usize, acs: usize, b: usize, bs: usize, c: usize, crs: usize, accumulate: bool): void {
  for (; n > 0; n -= STRIP) {
    const width = min(n, STRIP);
    let x = a, r = b, p = k;
    for (; p >= 4; p -= 4) {
      const more = accumulate || p < k;
      let i = 0;
      for (; i + 2 <= m; i += 2) twoRows(width, x + <usize>i * ars, ars, acs, r, bs, c + <usize>i * crs, crs, more);
      for (; i < m; i++) rank4(width, x + <usize>i * ars, acs, r, bs, c + <usize>i * crs, more);
      x += acs << 2;
      r += bs << 2;
    }
    for (; p > 0; p--) {
      for (let i = 0; i < m; i++) {
        rank1(width, x + <usize>i * ars, r, c + <usize>i * crs, accumulate || p < k);
      }
      x += acs;
      r += bs;
    }
    b += <usize>STRIP << 2;
    c += <usize>STRIP << 2;
  }
}

/** The accumulators' start; a compile-time choice in the inlined callers. */
// @ts-ignore: decorator
@inline
function start(accumulate: bool, c: usize): v128 {
  return accumulate ? v128.load(c) : f32x4.splat(0);
}

// @ts-ignore: decorator
@inline
function madd4(c: v128, s0: v128, s1: v128, s2: v128, s3: v128, b0: usize, b1: usize, b2: usize, b3: usize): v128 {
  return madd(madd(madd(madd(c, s0, v128.load(b0)), s1, v128.load(b1)), s2, v128.load(b2)), s3, v128.load(b3));
}

/** Two rows of C, of which rank4x2 takes the columns that fill vectors. */
function twoRows(n: i32, a: usize, ars: usize, acs: usize, b: usize, bs: usize, c: usize, crs: usize, accumulate: bool): void {
  const whole = n & ~3, at = <usize>whole << 2;
  if (whole > 0) rank4x2(whole, a, ars, acs, b, bs, c, crs, accumulate);
  if (n > whole) {
    rank4(n - whole, a, acs, b + at, bs, c + at, accumulate);
    rank4(n - whole, a + ars, acs, b + at, bs, c + crs + at, accumulate);
  }
}

/** One row of C (+)= four values of A times four rows of B. */
function rank4(n: i32, a: usize, acs: usize, b: usize, bs: usize, c: usize, accumulate: bool): void {
  if (accumulate) row4(n, a, acs, b, bs, c, true);
  else row4(n, a, acs, b, bs, c, false);
}

// @ts-ignore: decorator
@inline
function row4(n: i32, a: usize, acs: usize, b0: usize, bs: usize, c: usize, accumulate: bool): void {
  const a1 = a + acs, a2 = a1 + acs, a3 = a2 + acs;
  let b1 = b0 + bs, b2 = b1 + bs, b3 = b2 + bs;
  const s0 = v128.load32_splat(a), s1 = v128.load32_splat(a1), s2 = v128.load32_splat(a2), s3 = v128.load32_splat(a3);
  for (; n >= 16; n -= 16) {
    v128.store(c, madd4(start(accumulate, c), s0, s1, s2, s3, b0, b1, b2, b3));
    v128.store(c, madd4(start(accumulate, c + 16), s0, s1, s2, s3, b0 + 16, b1 + 16, b2 + 16, b3 + 16), 16);
    v128.store(c, madd4(start(accumulate, c + 32), s0, s1, s2, s3, b0 + 32, b1 + 32, b2 + 32, b3 + 32), 32);
    v128.store(c, madd4(start(accumulate, c + 48), s0, s1, s2, s3, b0 + 48, b1 + 48, b2 + 48, b3 + 48), 48);
    c += 64; b0 += 64; b1 += 64; b2 += 64; b3 += 64;
  }
  for (; n > 0; n--) {
    let sum = accumulate ? load<f32>(c) : <f32>0;
    sum += load<f32>(a) * load<f32>(b0);
    sum += load<f32>(a1) * load<f32>(b1);
    sum += load<f32>(a2) * load<f32>(b2);
    sum += load<f32>(a3) * load<f32>(b3);
    store<f32>(c, sum);
    c += 4; b0 += 4; b1 += 4; b2 += 4; b3 += 4;
  }
}

/** One row of C (+)= one value of A times one row of B. */
function rank1(n: i32, a: usize, b: usize, c: usize, accumulate: bool): void {
  if (accumulate) row1(n, a, b, c, true);
  else row1(n, a, b, c, false);
}

// @ts-ignore: decorator
@inline
function row1(n: i32, a: usize, b: usize, c: usize, accumulate: bool): void {
  const s = v128.load32_splat(a);
  for (; n >= 16; n -= 16) {
    v128.store(c, madd(start(accumulate, c), s, v128.load(b)));
    v128.store(c, madd(start(accumulate, c + 16), s, v128.load(b, 16)), 16);
    v128.store(c, madd(start(accumulate, c + 32), s, v128.load(b, 32)), 32);
    v128.store(c, madd(start(accumulate, c + 48), s, v128.load(b, 48)), 48);
    c += 64; b += 64;
  }
  for (; n > 0; n--) {
    store<f32>(c, (accumulate ? load<f32>(c) : <f32>0) + load<f32>(a) * load<f32>(b));
    c += 4; b += 4;
  }
}
