/**
 * gemvT for a B in blocks (blocks.ts). Eight rows of it at a time are read as codes, some values of each; codes of four
 * rows are transposed as bytes, four times as many in a register as floats, and become floats of the four rows after
 * that. Rows that make no eight become floats first, in the first-level cache.
 */
import { lowerHalves, RECORD, units, upperHalves } from "./blocks";
import { F32, NF4 } from "./half";
import { madd } from "./madd";
import { highFours, highPairs, lowFours, lowPairs } from "./shuffle";
import { gemvT } from "./tiles";

/** Values of a row at a time. */
const RUN: i32 = 256;
const RUN_ROW: usize = (<usize>RUN + 16) * 4;
/** From row to row of its records. */
const RECORDS: usize = (<usize>RUN / 32) * RECORD;

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
  for (; n >= 8; n -= 8) {
    let c0 = f32x4.splat(0),
      c1 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c, 16);
    }
    let x = a;
    for (let p = 0; p < k; p += RUN) {
      const run = min(RUN, k - p);
      for (let j = 0; j < 8; j++)
        units(scratch + <usize>j * RECORDS, RECORD, 0, b + <usize>j * bcs, column + p, run, format);
      const end = scratch + <usize>(run >> 5) * RECORD;
      if (format == NF4) {
        for (let at = scratch; at < end; at += RECORD) {
          c0 = sixteen4(c0, x, at, at + 32);
          c1 = sixteen4(c1, x, at + 4 * RECORDS, at + (4 * RECORDS + 32));
          c0 = sixteen4(c0, x + 64, at + 16, at + 32);
          c1 = sixteen4(c1, x + 64, at + (4 * RECORDS + 16), at + (4 * RECORDS + 32));
          x += 128;
        }
      } else {
        for (let at = scratch; at < end; at += RECORD) {
          c0 = sixteen(c0, x, at, at + 32);
          c1 = sixteen(c1, x, at + 4 * RECORDS, at + (4 * RECORDS + 32));
          c0 = sixteen(c0, x + 64, at + 16, at + 40);
          c1 = sixteen(c1, x + 64, at + (4 * RECORDS + 16), at + (4 * RECORDS + 40));
          x += 128;
        }
      }
    }
    v128.store(c, c0);
    v128.store(c, c1, 16);
    b += bcs << 3;
    c += 32;
  }
  for (let p = 0; n > 0 && p < k; p += RUN) {
    const run = min(RUN, k - p);
    for (let j = 0; j < n; j++)
      units(scratch + <usize>j * RUN_ROW, 128, 64, b + <usize>j * bcs, column + p, run, format);
    gemvT(n, run, a + ((<usize>p) << 2), scratch, RUN_ROW, c, accumulate || p > 0, F32);
  }
}

/** The same value of four rows' records. */
// @ts-ignore: decorator
@inline
function ofFour(p: usize): v128 {
  return v128.load32_lane(
    p + 3 * RECORDS,
    v128.load32_lane(p + 2 * RECORDS, v128.load32_lane(p + RECORDS, v128.load32_zero(p), 1), 2),
    3,
  );
}

/** c += 16 of the row times 16 values of four rows, whose codes, scales and offsets stand there. */
function sixteen(c: v128, x: usize, codes: usize, scales: usize): v128 {
  const s = ofFour(scales),
    o = ofFour(scales + 4);
  const r0 = v128.load(codes),
    r1 = v128.load(codes + RECORDS),
    r2 = v128.load(codes + 2 * RECORDS),
    r3 = v128.load(codes + 3 * RECORDS);
  const low01 = lowPairs(r0, r1),
    low23 = lowPairs(r2, r3);
  c = four(c, x, lowFours(low01, low23), s, o);
  c = four(c, x + 16, highFours(low01, low23), s, o);
  const high01 = highPairs(r0, r1),
    high23 = highPairs(r2, r3);
  c = four(c, x + 32, lowFours(high01, high23), s, o);
  return four(c, x + 48, highFours(high01, high23), s, o);
}

/** c += four of the row times as many values of four rows, the rows' codes beside each other. */
// @ts-ignore: decorator
@inline
function four(c: v128, x: usize, codes: v128, s: v128, o: v128): v128 {
  const low = i16x8.extend_low_i8x16_s(codes),
    high = i16x8.extend_high_i8x16_s(codes);
  c = one(c, x, i32x4.extend_low_i16x8_s(low), s, o);
  c = one(c, x + 4, i32x4.extend_high_i16x8_s(low), s, o);
  c = one(c, x + 8, i32x4.extend_low_i16x8_s(high), s, o);
  return one(c, x + 12, i32x4.extend_high_i16x8_s(high), s, o);
}

// @ts-ignore: decorator
@inline
function one(c: v128, x: usize, codes: v128, s: v128, o: v128): v128 {
  return madd(c, v128.load32_splat(x), f32x4.add(f32x4.mul(s, f32x4.convert_i32x4_s(codes)), o));
}

/** sixteen for NF4. */
function sixteen4(c: v128, x: usize, codes: usize, scales: usize): v128 {
  const s = ofFour(scales);
  const r0 = v128.load(codes),
    r1 = v128.load(codes + RECORDS),
    r2 = v128.load(codes + 2 * RECORDS),
    r3 = v128.load(codes + 3 * RECORDS);
  const low01 = lowPairs(r0, r1),
    low23 = lowPairs(r2, r3);
  c = fourOfTable(c, x, lowFours(low01, low23), s);
  c = fourOfTable(c, x + 16, highFours(low01, low23), s);
  const high01 = highPairs(r0, r1),
    high23 = highPairs(r2, r3);
  c = fourOfTable(c, x + 32, lowFours(high01, high23), s);
  return fourOfTable(c, x + 48, highFours(high01, high23), s);
}

function fourOfTable(c: v128, x: usize, codes: v128, s: v128): v128 {
  let low = lowerHalves(codes, true),
    high = upperHalves(codes, true);
  c = madd(c, v128.load32_splat(x), f32x4.mul(s, lowFours(low, high)));
  c = madd(c, v128.load32_splat(x, 4), f32x4.mul(s, highFours(low, high)));
  low = lowerHalves(codes, false);
  high = upperHalves(codes, false);
  c = madd(c, v128.load32_splat(x, 8), f32x4.mul(s, lowFours(low, high)));
  return madd(c, v128.load32_splat(x, 12), f32x4.mul(s, highFours(low, high)));
}
