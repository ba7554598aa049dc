/**
 * Merge. W += s * B A, rounded as loralib does: the product first, times s, then the sum.
 * If fanInFanOut the product is transposed; the same layout serves an embedding, whose weight is
 * [vocabulary = d, dimension = k].
 */
import { LoraMerge } from "../abi";
import { madd, madd1 } from "../gemm/madd";
import { gemm } from "../gemm/sgemm";
import { ownScratch } from "../gemm/threaded";
import { first, last, own, part, split, threadCount } from "../threads";

/** Rows of W at a time. */
export const ROWS: i32 = 32;

/** Working space for a weight of so many columns, for all threads. */
export function mergeRowsBytes(columns: f64): f64 {
  return <f64>threadCount() * columns * <f64>(ROWS * 4);
}

/** This thread's own. */
export function ownRows(room: usize, columns: i32): usize {
  return own(room, <usize>columns * <usize>(ROWS * 4));
}

export function loraMerge(call: LoraMerge): void {
  const k = call.k,
    d = call.d,
    fanInFanOut = call.fanInFanOut,
    ldw = fanInFanOut ? k : d;
  addScaledProduct(k, d, call.r, call.s, call.weight, ldw, fanInFanOut, call.a, call.b, call.rows, call.scratch);
}

/** The same where the rows of W are ldw elements apart. */
export function addScaledProduct(
  k: i32,
  d: i32,
  r: i32,
  s: f32,
  w: usize,
  ldw: i32,
  fanInFanOut: bool,
  a: usize,
  b: usize,
  rows: usize,
  scratch: usize,
): void {
  const height = fanInFanOut ? d : k,
    width = fanInFanOut ? k : d;
  const wRow = (<usize>ldw) << 2,
    row = (<usize>width) << 2,
    rRow = (<usize>r) << 2,
    dRow = (<usize>d) << 2;
  rows = ownRows(rows, width);
  scratch = ownScratch(scratch);
  for (split((height + ROWS - 1) / ROWS, <f64>ROWS * <f64>width * (1 + 0.2 * <f64>r)); part(); )
    for (let i = first * ROWS; i < min(height, last * ROWS); i += ROWS) {
      const m = min(ROWS, height - i);
      if (fanInFanOut) gemm(m, width, r, 1, a + ((<usize>i) << 2), 4, dRow, b, rRow, true, rows, row, false, scratch);
      else gemm(m, width, r, 1, b + <usize>i * rRow, rRow, 4, a, dRow, false, rows, row, false, scratch);
      for (let q = 0; q < m; q++) {
        const out = w + <usize>(i + q) * wRow,
          product = rows + <usize>q * row;
        plusScaled(out, out, s, product, width);
      }
    }
}

/** to = w + s * p, n values; to may be either. */
export function plusScaled(to: usize, w: usize, s: f32, p: usize, n: i32): void {
  const ss = f32x4.splat(s);
  for (; n >= 4; n -= 4) {
    v128.store(to, madd(v128.load(w), ss, v128.load(p)));
    to += 16;
    w += 16;
    p += 16;
  }
  for (; n > 0; n--) {
    store<f32>(to, madd1(load<f32>(w), s, load<f32>(p)));
    to += 4;
    w += 4;
    p += 4;
  }
}
