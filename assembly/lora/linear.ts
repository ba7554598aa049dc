/**
 * LoRA linear. y = x Wᵀ + bias + s * (x̃ Aᵀ) Bᵀ, x̃ = dropout(x) (Hu et al. 2021; loralib.Linear).
 *
 * Forward, by k-concatenation: hs = s * x̃ Aᵀ, then y = bias ⊕ [x | hs] [W | B]ᵀ in one accumulator.
 * Backward: zs = s * dy B; dA += zsᵀ x̃; dB += dyᵀ hs; dbias += sum of rows of dy;
 * dx += [dy | zs] [W ; A]; dW += dyᵀ x only where the weight is trained (r = 0, or unfrozen).
 *
 * x, x̃, dx: [n, d]. y, dy: [n, k]. A: [r, d]. B: [k, r]. hs, zs: [n, r]. bias: [k]. All contiguous.
 * W: [k, d], or [d, k] if fanInFanOut. A null pointer means: no bias; or, for a gradient, not wanted.
 * r = 0 is the plain linear layer. Gradients are added to what the buffers hold, rows of the batch in
 * ascending order, so micro-batches accumulate to the bits of the whole batch.
 * A further low-rank term, or one for some rows only, is loraBranch*: y += hs Bᵀ in the accumulators as
 * they stand; dx += zs A.
 * scratch: sgemmScratchBytes().
 */
import { gemm, gemmTwo, sgemmNN, sgemmNT, sgemmTN } from "../gemm/sgemm";

export function loraLinearForward(
  n: i32,
  d: i32,
  k: i32,
  r: i32,
  s: f32,
  x: usize,
  xDropped: usize,
  w: usize,
  fanInFanOut: bool,
  bias: usize,
  a: usize,
  b: usize,
  hs: usize,
  y: usize,
  scratch: usize,
): void {
  if (bias != 0) repeatRow(y, bias, n, k);
  if (r > 0) sgemmNT(n, r, d, s, xDropped, d, a, d, 0, hs, r, scratch);
  const wRow = (<usize>(fanInFanOut ? k : d)) << 2;
  gemmTwo(n, k, d, x, w, wRow, !fanInFanOut, r, hs, b, (<usize>r) << 2, true, y, bias != 0, scratch);
}

/**
 * With dropout (xDropped != x) the two terms of dx part: dx gets dy W, and dxDropped [n, d] is
 * overwritten with zs A for the caller to mask and add. Without, dxDropped is null.
 */
export function loraLinearBackward(
  n: i32,
  d: i32,
  k: i32,
  r: i32,
  s: f32,
  x: usize,
  xDropped: usize,
  w: usize,
  fanInFanOut: bool,
  a: usize,
  b: usize,
  hs: usize,
  zs: usize,
  dy: usize,
  dx: usize,
  dxDropped: usize,
  dw: usize,
  dbias: usize,
  da: usize,
  db: usize,
  scratch: usize,
): void {
  if (dbias != 0) addColumnSums(dbias, dy, n, k);
  if (dw != 0) {
    if (fanInFanOut) sgemmTN(d, k, n, 1, x, d, dy, k, 1, dw, k, scratch);
    else sgemmTN(k, d, n, 1, dy, k, x, d, 1, dw, d, scratch);
  }
  if (r > 0) factorGradients(n, d, k, r, s, xDropped, b, hs, zs, dy, dx != 0, da, db, scratch);
  if (dx == 0) return;
  const wRow = (<usize>(fanInFanOut ? k : d)) << 2;
  const dRow = (<usize>d) << 2;
  if (dxDropped != 0) {
    gemm(n, d, k, 1, dy, (<usize>k) << 2, 4, w, wRow, fanInFanOut, dx, dRow, true, scratch);
    sgemmNN(n, d, r, 1, zs, r, a, d, 0, dxDropped, d, scratch);
  } else {
    gemmTwo(n, d, k, dy, w, wRow, fanInFanOut, r, zs, a, dRow, false, dx, true, scratch);
  }
}

/** y += s * (x̃ Aᵀ) Bᵀ; hs is kept for backward. */
export function loraBranchForward(
  n: i32,
  d: i32,
  k: i32,
  r: i32,
  s: f32,
  xDropped: usize,
  a: usize,
  b: usize,
  hs: usize,
  y: usize,
  scratch: usize,
): void {
  sgemmNT(n, r, d, s, xDropped, d, a, d, 0, hs, r, scratch);
  sgemmNT(n, k, r, 1, hs, r, b, r, 1, y, k, scratch);
}

/** dxDropped as in loraLinearBackward: null adds to dx itself. */
export function loraBranchBackward(
  n: i32,
  d: i32,
  k: i32,
  r: i32,
  s: f32,
  xDropped: usize,
  a: usize,
  b: usize,
  hs: usize,
  zs: usize,
  dy: usize,
  dx: usize,
  dxDropped: usize,
  da: usize,
  db: usize,
  scratch: usize,
): void {
  factorGradients(n, d, k, r, s, xDropped, b, hs, zs, dy, dx != 0, da, db, scratch);
  if (dxDropped != 0) sgemmNN(n, d, r, 1, zs, r, a, d, 0, dxDropped, d, scratch);
  else if (dx != 0) sgemmNN(n, d, r, 1, zs, r, a, d, 1, dx, d, scratch);
}

/** zs = s * dy B where da or dx needs it; dA += zsᵀ x̃; dB += dyᵀ hs. */
function factorGradients(
  n: i32,
  d: i32,
  k: i32,
  r: i32,
  s: f32,
  xDropped: usize,
  b: usize,
  hs: usize,
  zs: usize,
  dy: usize,
  needsDx: bool,
  da: usize,
  db: usize,
  scratch: usize,
): void {
  if (da != 0 || needsDx) sgemmNN(n, r, k, s, dy, k, b, r, 0, zs, r, scratch);
  if (da != 0) sgemmTN(r, d, n, 1, zs, r, xDropped, d, 1, da, d, scratch);
  if (db != 0) sgemmTN(k, r, n, 1, dy, k, hs, r, 1, db, r, scratch);
}

function repeatRow(y: usize, row: usize, n: i32, k: i32): void {
  const size = (<usize>k) << 2;
  for (let i = 0; i < n; i++) {
    memory.copy(y, row, size);
    y += size;
  }
}

/** sums[j] += sum over rows i, ascending, of x[i][j]. x: [n, k]. */
export function addColumnSums(sums: usize, x: usize, n: i32, k: i32): void {
  const row = (<usize>k) << 2;
  let j = k;
  for (; j >= 4; j -= 4) {
    let sum = v128.load(sums),
      p = x;
    for (let i = 0; i < n; i++) {
      sum = f32x4.add(sum, v128.load(p));
      p += row;
    }
    v128.store(sums, sum);
    sums += 16;
    x += 16;
  }
  for (; j > 0; j--) {
    let sum = load<f32>(sums),
      p = x;
    for (let i = 0; i < n; i++) {
      sum += load<f32>(p);
      p += row;
    }
    store<f32>(sums, sum);
    sums += 4;
    x += 4;
  }
}
