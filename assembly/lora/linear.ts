/**
 * LoRA linear. y = x Wᵀ + bias + s * (x̃ Aᵀ) Bᵀ, x̃ = dropout(x) (Hu et al. 2021; loralib.Linear).
 *
 * Forward, by k-concatenation: hs = s * x̃ Aᵀ, then y = bias ⊕ [x | hs] [W | B]ᵀ in one accumulator.
 * Backward: zs = s * dy B; dA += zsᵀ x̃; dB += dyᵀ hs; dBias += sum of rows of dy;
 * dx += [dy | zs] [W ; A]; dW += dyᵀ x only where the weight is trained (r = 0, or unfrozen).
 * With dropout the two terms of dx part: dx gets dy W, and dxDropped zs A.
 *
 * W may be of any format (gemm/half.ts); everything else, dW too, is float32.
 * r = 0 is the plain linear layer. Gradients add rows of the batch in ascending order, so micro-batches accumulate to
 * the bits of the whole batch. A further low-rank term, or one for some rows only, is loraBranch*: y += hs Bᵀ in the
 * accumulators as they stand; dx += zs A.
 */
import { LoraBranchBackward, LoraBranchForward, LoraLinearBackward, LoraLinearForward, LoraTerm } from "../abi";
import { stored } from "../gemm/half";
import { threaded, threadedTwo, threadedNN, threadedNT, threadedTN } from "../gemm/threaded";
import { first, last, part, split } from "../threads";

export function loraLinearForward(call: LoraLinearForward): void {
  const n = call.n,
    d = call.d,
    k = call.k,
    r = call.r,
    bias = call.bias,
    fanInFanOut = call.fanInFanOut,
    format = call.format;
  if (bias != 0) repeatRow(call.y, bias, n, k);
  if (r > 0) hidden(call);
  const wRow = stored(fanInFanOut ? k : d, format);
  threadedTwo(
    n,
    k,
    d,
    call.x,
    call.weight,
    wRow,
    !fanInFanOut,
    r,
    call.hs,
    call.b,
    bytes(r),
    true,
    call.y,
    bias != 0,
    call.scratch,
    format,
  );
}

export function loraLinearBackward(call: LoraLinearBackward): void {
  const n = call.n,
    d = call.d,
    k = call.k,
    r = call.r,
    a = call.a,
    dy = call.dy,
    dx = call.dx,
    zs = call.zs,
    weight = call.weight,
    fanInFanOut = call.fanInFanOut,
    format = call.format,
    scratch = call.scratch;
  weightGradients(n, d, k, call.x, fanInFanOut, dy, call.dWeight, call.dBias, scratch);
  if (r > 0) factorGradients(call);
  if (dx == 0) return;
  const wRow = stored(fanInFanOut ? k : d, format);
  if (call.dxDropped != 0) {
    threaded(n, d, k, dy, weight, wRow, fanInFanOut, dx, true, scratch, format);
    threadedNN(n, d, r, 1, zs, r, a, d, 0, call.dxDropped, d, scratch);
  } else {
    threadedTwo(n, d, k, dy, weight, wRow, fanInFanOut, r, zs, a, bytes(d), false, dx, true, scratch, format);
  }
}

/** The plain layer, for kernels that are made of it. */
export function linearForward(
  n: i32,
  d: i32,
  k: i32,
  x: usize,
  weight: usize,
  fanInFanOut: bool,
  bias: usize,
  y: usize,
  scratch: usize,
  format: i32,
): void {
  if (bias != 0) repeatRow(y, bias, n, k);
  const wRow = stored(fanInFanOut ? k : d, format);
  threaded(n, k, d, x, weight, wRow, !fanInFanOut, y, bias != 0, scratch, format);
}

/** Its gradients; null: not wanted. */
export function linearBackward(
  n: i32,
  d: i32,
  k: i32,
  x: usize,
  weight: usize,
  fanInFanOut: bool,
  dy: usize,
  dx: usize,
  dWeight: usize,
  dBias: usize,
  scratch: usize,
  format: i32,
): void {
  weightGradients(n, d, k, x, fanInFanOut, dy, dWeight, dBias, scratch);
  const wRow = stored(fanInFanOut ? k : d, format);
  if (dx != 0) threaded(n, d, k, dy, weight, wRow, fanInFanOut, dx, true, scratch, format);
}

/** dBias += sum of rows of dy; dW += dyᵀ x. */
function weightGradients(
  n: i32,
  d: i32,
  k: i32,
  x: usize,
  fanInFanOut: bool,
  dy: usize,
  dWeight: usize,
  dBias: usize,
  scratch: usize,
): void {
  if (dBias != 0) addColumnSums(dBias, dy, n, k);
  if (dWeight == 0) return;
  if (fanInFanOut) threadedTN(d, k, n, 1, x, d, dy, k, 1, dWeight, k, scratch);
  else threadedTN(k, d, n, 1, dy, k, x, d, 1, dWeight, d, scratch);
}

/** y += s * (x̃ Aᵀ) Bᵀ; hs is kept for backward. */
export function loraBranchForward(call: LoraBranchForward): void {
  const k = call.k,
    r = call.r;
  hidden(call);
  threadedNT(call.n, k, r, 1, call.hs, r, call.b, r, 1, call.y, k, call.scratch);
}

export function loraBranchBackward(call: LoraBranchBackward): void {
  const d = call.d,
    r = call.r,
    dropped = call.dxDropped,
    dx = dropped != 0 ? dropped : call.dx;
  factorGradients(call);
  if (dx != 0) threadedNN(call.n, d, r, 1, call.zs, r, call.a, d, dropped != 0 ? 0 : 1, dx, d, call.scratch);
}

/** hs = s * x̃ Aᵀ */
function hidden(call: LoraTerm): void {
  const d = call.d,
    r = call.r;
  threadedNT(call.n, r, d, call.s, call.xDropped, d, call.a, d, 0, call.hs, r, call.scratch);
}

/** zs = s * dy B where dA or dx needs it; dA += zsᵀ x̃; dB += dyᵀ hs. */
function factorGradients(call: LoraBranchBackward): void {
  const n = call.n,
    d = call.d,
    k = call.k,
    r = call.r,
    dy = call.dy,
    zs = call.zs,
    da = call.da,
    db = call.db,
    scratch = call.scratch;
  if (da != 0 || call.dx != 0) threadedNN(n, r, k, call.s, dy, k, call.b, r, 0, zs, r, scratch);
  if (da != 0) threadedTN(r, d, n, 1, zs, r, call.xDropped, d, 1, da, d, scratch);
  if (db != 0) threadedTN(k, r, n, 1, dy, k, call.hs, r, 1, db, r, scratch);
}

function repeatRow(y: usize, row: usize, n: i32, k: i32): void {
  const size = (<usize>k) << 2;
  for (split(n, 0.1 * <f64>k); part(); ) for (let i = first; i < last; i++) memory.copy(y + <usize>i * size, row, size);
}

/** sums[j] += sum over rows i, ascending, of x[i][j]. x: [n, k]. */
function addColumnSums(sums: usize, x: usize, n: i32, k: i32): void {
  for (split(k, 0.25 * <f64>n, 16); part(); )
    addSomeSums(sums + bytes(first), x + bytes(first), n, last - first, bytes(k));
}

function addSomeSums(sums: usize, x: usize, n: i32, columns: i32, row: usize): void {
  let j = columns;
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

// @ts-ignore: decorator
@inline
function bytes(elements: i32): usize {
  return (<usize>elements) << 2;
}
