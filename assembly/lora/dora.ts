/**
 * The norms of DoRA: c_j = ||W_j + s * (B A)_j||, one for each of k outputs (Liu et al. 2024, eq. 5; PEFT's
 * get_weight_norm). v = W + s * BA (madd.ts) with BA in sgemm's order, then sqrt(sum of v^2), in float64,
 * rounded once. Some rows of W at a time: there is never a second matrix of W's size.
 * W [k, d]: each sum in sumSquares' order (nn/elementwise.ts). W [d, k] (fanInFanOut, or an embedding's table,
 * d = vocabulary, k = dimension): rows of W ascending, in one accumulator a column.
 */
import { DoraNorm } from "../abi";
import { widen } from "../gemm/blocks";
import { F32, stored } from "../gemm/half";
import { gemm } from "../gemm/sgemm";
import { sumSquares } from "../nn/elementwise";
import { plusScaled, ROWS } from "./merge";

/** Values of W that are widened at a time, in the working space. */
const WIDENED: i32 = 4096;

export function doraNorm(call: DoraNorm): void {
  const k = call.k,
    d = call.d,
    r = call.r,
    s = call.s,
    w = call.weight,
    fanInFanOut = call.fanInFanOut,
    format = call.format,
    a = call.a,
    b = call.b,
    norm = call.norm,
    rows = call.rows,
    sums = call.sums,
    scratch = call.scratch;
  const height = fanInFanOut ? d : k,
    width = fanInFanOut ? k : d;
  const wRow = (<usize>width) << 2,
    rRow = (<usize>r) << 2,
    dRow = (<usize>d) << 2;
  if (fanInFanOut) memory.fill(sums, 0, wRow << 1);
  for (let i = 0; i < height; i += ROWS) {
    const m = min(ROWS, height - i);
    if (fanInFanOut) gemm(m, width, r, 1, a + ((<usize>i) << 2), 4, dRow, b, rRow, true, rows, wRow, false, scratch);
    else gemm(m, width, r, 1, b + <usize>i * rRow, rRow, 4, a, dRow, false, rows, wRow, false, scratch);
    const from = w + <usize>i * stored(width, format);
    if (format == F32) plusScaled(rows, from, s, rows, m * width);
    else
      for (let at = 0; at < m * width; at += WIDENED) {
        const count = min(WIDENED, m * width - at);
        widen(scratch, from + stored(at, format), count, format);
        plusScaled(rows + stored(at, F32), scratch, s, rows + stored(at, F32), count);
      }
    for (let q = 0; q < m; q++) {
      const row = rows + <usize>q * wRow;
      if (fanInFanOut) addSquares(sums, row, width);
      else store<f32>(norm + ((<usize>(i + q)) << 2), <f32>sqrt<f64>(sumSquares(row, width)));
    }
  }
  if (!fanInFanOut) return;
  for (let j: usize = 0; j < <usize>k; j++) store<f32>(norm + (j << 2), <f32>sqrt<f64>(load<f64>(sums + (j << 3))));
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
