/**
 * The norms of DoRA: c_j = ||W_j + s * (B A)_j||, one for each of k outputs (Liu et al. 2024, eq. 5; PEFT's
 * get_weight_norm). v = W + s * BA (madd.ts) with BA in sgemm's order, then sqrt(sum of v^2), in float64,
 * rounded once. Some rows of W at a time: there is never a second matrix of W's size.
 * W [k, d]: each sum in sumSquares' order (nn/elementwise.ts). W [d, k] (fanInFanOut, or an embedding's table,
 * d = vocabulary, k = dimension): rows of W ascending, in one accumulator a column.
 */
import { DoraNorm } from "../abi";
import { UNIT, widenFrom } from "../gemm/blocks";
import { F32, stored } from "../gemm/half";
import { gemm } from "../gemm/sgemm";
import { ownScratch } from "../gemm/threaded";
import { sumSquares } from "../nn/elementwise";
import { first, last, part, split } from "../threads";
import { ownRows, plusScaled, ROWS } from "./merge";

/** Values of W that are widened at a time, in the working space. */
const WIDENED: i32 = 4096;

export function doraNorm(call: DoraNorm): void {
  const cost = 2 + 0.2 * <f64>call.r;
  if (call.fanInFanOut) for (split(call.k, cost * <f64>call.d, UNIT); part(); ) normsOfColumns(call);
  else for (split((call.k + ROWS - 1) / ROWS, cost * <f64>ROWS * <f64>call.d); part(); ) normsOfRows(call);
}

/** Norms `first` to `last` - 1 of W [d, k]. */
function normsOfColumns(call: DoraNorm): void {
  const r = call.r,
    n = last - first,
    rows = ownRows(call.rows, call.k),
    sums = call.sums + ((<usize>first) << 3),
    norm = call.norm + ((<usize>first) << 2);
  const row = (<usize>n) << 2,
    rRow = (<usize>r) << 2,
    dRow = (<usize>call.d) << 2,
    b = call.b + <usize>first * rRow;
  memory.fill(sums, 0, row << 1);
  for (let i = 0; i < call.d; i += ROWS) {
    const m = min(ROWS, call.d - i),
      a = call.a + ((<usize>i) << 2);
    gemm(m, n, r, 1, a, 4, dRow, b, rRow, true, rows, row, false, ownScratch(call.scratch));
    for (let q = 0; q < m; q++) {
      const v = rows + <usize>q * row;
      addToWeight(v, call, i + q, first, n);
      addSquares(sums, v, n);
    }
  }
  for (let j: usize = 0; j < <usize>n; j++) store<f32>(norm + (j << 2), <f32>sqrt<f64>(load<f64>(sums + (j << 3))));
}

/** Norms of W's rows [k, d], ROWS times `first` to `last` - 1. */
function normsOfRows(call: DoraNorm): void {
  const d = call.d,
    r = call.r,
    end = min(call.k, last * ROWS),
    rows = ownRows(call.rows, d);
  const row = (<usize>d) << 2,
    rRow = (<usize>r) << 2;
  for (let i = first * ROWS; i < end; i += ROWS) {
    const m = min(ROWS, end - i),
      b = call.b + <usize>i * rRow;
    gemm(m, d, r, 1, b, rRow, 4, call.a, row, false, rows, row, false, ownScratch(call.scratch));
    for (let q = 0; q < m; q++) {
      const v = rows + <usize>q * row;
      addToWeight(v, call, i + q, 0, d);
      store<f32>(call.norm + ((<usize>(i + q)) << 2), <f32>sqrt<f64>(sumSquares(v, d)));
    }
  }
}

/** v = W + s * v for n values of one of W's rows, from `column` on. */
function addToWeight(v: usize, call: DoraNorm, row: i32, column: i32, n: i32): void {
  const s = call.s,
    format = call.format,
    w = call.weight + <usize>row * stored(call.fanInFanOut ? call.k : call.d, format);
  if (format == F32) {
    plusScaled(v, w + stored(column, F32), s, v, n);
    return;
  }
  const widened = ownScratch(call.scratch);
  for (let at = 0; at < n; at += WIDENED) {
    const count = min(WIDENED, n - at);
    widenFrom(widened, w, column + at, count, format);
    plusScaled(v, widened, s, v, count);
    v += stored(count, F32);
  }
}

/** sums += p^2, in float64 */
function addSquares(sums: usize, p: usize, n: i32): void {
  for (; n >= 2; n -= 2) {
    const v = f64x2.promote_low_f32x4(v128.load64_zero(p));
    v128.store(sums, f64x2.add(v128.load(sums), f64x2.mul(v, v)));
    sums += 16;
    p += 8;
  }
  if (n > 0) {
    const v = <f64>load<f32>(p);
    store<f64>(sums, load<f64>(sums) + v * v);
  }
}
