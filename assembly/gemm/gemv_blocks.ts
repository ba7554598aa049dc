/**
 * gemvT for a B in blocks (blocks.ts). Eight rows of it at a time are read as codes, some values of each; codes of four
 * rows are transposed as bytes, four times as many in a register as floats, and become floats of the four rows after
 * that. Two accumulators go on in turn, since each waits for its last sum. Rows that make no eight, and those of NF4,
 * whose table has four bytes for a code, become floats first, in the first-level cache.
 */
import { CODES, OFFSETS, records, RECORDS, SCALES, units } from "./blocks";
import { F32, hasOffsets, NF4 } from "./half";
import { madd } from "./madd";
import { highFours, lowFours, lowPairs } from "./shuffle";
import { gemvT } from "./tiles";

/** Values of a row at a time, where rows become floats. */
const RUN: i32 = CODES;
const RUN_ROW: usize = (<usize>RUN + 16) * 4;

/** c[j] (+)= sum over p of a[p] * B[j, column + p], j < n, p < k; scratch: room for eight rows of floats. */
export function gemvBlocks(
  n: i32,
  k: i32,
  a: usize,
  b: usize,
  bcs: usize,
  column: i32,
  c: usize,
  accumulate: bool,
  scratch: usize,
  format: i32,
): void {
  for (; n >= 8 && format != NF4; n -= 8) {
    for (let p = 0; p < k; p += CODES) {
      const run = min(CODES, k - p),
        x = a + ((<usize>p) << 2),
        isFirst = !accumulate && p == 0;
      for (let j = 0; j < 8; j++) records(scratch + <usize>j * RECORDS, b + <usize>j * bcs, column + p, run, format);
      if (hasOffsets(format)) offsetCodes(run, x, scratch, c, isFirst);
      else codes(run, x, scratch, c, isFirst, false);
    }
    b += bcs << 3;
    c += 32;
  }
  for (; n > 0; n -= 8) {
    const rows = min(n, 8);
    for (let p = 0; p < k; p += RUN) {
      const run = min(RUN, k - p);
      for (let j = 0; j < rows; j++)
        units(scratch + <usize>j * RUN_ROW, 128, 64, b + <usize>j * bcs, column + p, run, format);
      gemvT(rows, run, a + ((<usize>p) << 2), scratch, RUN_ROW, c, accumulate || p > 0, F32);
    }
    b += bcs << 3;
    c += 32;
  }
}

/** The same float of four rows. */
// @ts-ignore: decorator
@inline
function ofFour(p: usize): v128 {
  return v128.load32_lane(
    p + 3 * RECORDS,
    v128.load32_lane(p + 2 * RECORDS, v128.load32_lane(p + RECORDS, v128.load32_zero(p), 1), 2),
    3,
  );
}

/** Eight bytes of a row and eight of the next in turn. */
// @ts-ignore: decorator
@inline
function pairs(p: usize): v128 {
  return lowPairs(v128.load64_zero(p), v128.load64_zero(p + RECORDS));
}

// @ts-ignore: decorator
@inline
function value(codes: v128, s: v128, o: v128, isOffset: bool): v128 {
  const product = f32x4.mul(s, f32x4.convert_i32x4_s(codes));
  return isOffset ? f32x4.add(product, o) : product;
}

function offsetCodes(k: i32, x: usize, at: usize, c: usize, isFirst: bool): void {
  codes(k, x, at, c, isFirst, true);
}

/** c[0 .. 7] (+)= k of the row times as many values of eight rows. */
// @ts-ignore: decorator
@inline
function codes(k: i32, x: usize, at: usize, c: usize, isFirst: bool, isOffset: bool): void {
  let c0 = f32x4.splat(0),
    c1 = c0,
    o0 = c0,
    o1 = c0;
  if (!isFirst) {
    c0 = v128.load(c);
    c1 = v128.load(c, 16);
  }
  let scale = at + SCALES;
  for (; k > 0; k -= 16) {
    const s0 = ofFour(scale),
      s1 = ofFour(scale + 4 * RECORDS);
    if (isOffset) {
      o0 = ofFour(scale + (OFFSETS - SCALES));
      o1 = ofFour(scale + (4 * RECORDS + OFFSETS - SCALES));
    }
    scale += 4;
    for (let i = 0; i < 2; i++) {
      let left = pairs(at),
        right = pairs(at + 2 * RECORDS);
      const t = lowFours(left, right),
        u = highFours(left, right);
      left = pairs(at + 4 * RECORDS);
      right = pairs(at + 6 * RECORDS);
      const v = lowFours(left, right),
        w = highFours(left, right);
      let q = i16x8.extend_low_i8x16_s(t),
        r = i16x8.extend_low_i8x16_s(v),
        a = v128.load32_splat(x);
      c0 = madd(c0, a, value(i32x4.extend_low_i16x8_s(q), s0, o0, isOffset));
      c1 = madd(c1, a, value(i32x4.extend_low_i16x8_s(r), s1, o1, isOffset));
      a = v128.load32_splat(x, 4);
      c0 = madd(c0, a, value(i32x4.extend_high_i16x8_s(q), s0, o0, isOffset));
      c1 = madd(c1, a, value(i32x4.extend_high_i16x8_s(r), s1, o1, isOffset));
      q = i16x8.extend_high_i8x16_s(t);
      r = i16x8.extend_high_i8x16_s(v);
      a = v128.load32_splat(x, 8);
      c0 = madd(c0, a, value(i32x4.extend_low_i16x8_s(q), s0, o0, isOffset));
      c1 = madd(c1, a, value(i32x4.extend_low_i16x8_s(r), s1, o1, isOffset));
      a = v128.load32_splat(x, 12);
      c0 = madd(c0, a, value(i32x4.extend_high_i16x8_s(q), s0, o0, isOffset));
      c1 = madd(c1, a, value(i32x4.extend_high_i16x8_s(r), s1, o1, isOffset));
      q = i16x8.extend_low_i8x16_s(u);
      r = i16x8.extend_low_i8x16_s(w);
      a = v128.load32_splat(x, 16);
      c0 = madd(c0, a, value(i32x4.extend_low_i16x8_s(q), s0, o0, isOffset));
      c1 = madd(c1, a, value(i32x4.extend_low_i16x8_s(r), s1, o1, isOffset));
      a = v128.load32_splat(x, 20);
      c0 = madd(c0, a, value(i32x4.extend_high_i16x8_s(q), s0, o0, isOffset));
      c1 = madd(c1, a, value(i32x4.extend_high_i16x8_s(r), s1, o1, isOffset));
      q = i16x8.extend_high_i8x16_s(u);
      r = i16x8.extend_high_i8x16_s(w);
      a = v128.load32_splat(x, 24);
      c0 = madd(c0, a, value(i32x4.extend_low_i16x8_s(q), s0, o0, isOffset));
      c1 = madd(c1, a, value(i32x4.extend_low_i16x8_s(r), s1, o1, isOffset));
      a = v128.load32_splat(x, 28);
      c0 = madd(c0, a, value(i32x4.extend_high_i16x8_s(q), s0, o0, isOffset));
      c1 = madd(c1, a, value(i32x4.extend_high_i16x8_s(r), s1, o1, isOffset));
      at += 8;
      x += 32;
    }
  }
  v128.store(c, c0);
  v128.store(c, c1, 16);
}
