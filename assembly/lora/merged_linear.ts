/**
 * LoRA on some of the equal blocks of a linear layer's outputs (a fused query, key and value
 * projection). y = x Wᵀ + bias, and for each enabled block j:  y[:, block j] += s * (x̃ A_jᵀ) B_jᵀ,
 * x̃ = dropout(x) (loralib.MergedLinear; there the update is a dense [k, d] matrix, here never).
 *
 * Forward: hs = s * x̃ Aᵀ in one product, then y = bias ⊕ x Wᵀ, whose accumulators go on over hs_j B_jᵀ.
 * Backward: zs_j = s * dy_j B_j; dA += zsᵀ x̃ in one product; dB_j += dy_jᵀ hs_j; dx += [dy | zs] [W ; A].
 * dW and dBias as in linear.ts.
 *
 * The order of sums is linear.ts's.
 */
import { MergedLinearBackward, MergedLinearForward, MergedLinearMerge } from "../abi";
import { threadedNN, threadedNT, threadedTN } from "../gemm/threaded";
import { linearBackward, linearForward } from "./linear";
import { addScaledProduct } from "./merge";

export function mergedLinearForward(call: MergedLinearForward): void {
  const n = call.n,
    d = call.d,
    k = call.k,
    r = call.r,
    y = call.y,
    scratch = call.scratch;
  const width = k / call.blocks,
    rank = r * count(call.enabled, call.blocks);
  threadedNT(n, rank, d, call.s, call.xDropped, d, call.a, d, 0, call.hs, rank, scratch);
  linearForward(n, d, k, call.x, call.weight, call.fanInFanOut, call.bias, y, scratch, call.format);
  let hs = call.hs,
    b = call.b;
  for (let block = 0; block < call.blocks; block++) {
    if (!isEnabled(call.enabled, block)) continue;
    threadedNT(n, width, r, 1, hs, rank, b, r, 1, y + bytes(block * width), k, scratch);
    hs += bytes(r);
    b += bytes(width * r);
  }
}

export function mergedLinearBackward(call: MergedLinearBackward): void {
  const n = call.n,
    d = call.d,
    k = call.k,
    r = call.r,
    dx = call.dx,
    da = call.da,
    db = call.db,
    zs = call.zs,
    scratch = call.scratch;
  const width = k / call.blocks,
    rank = r * count(call.enabled, call.blocks);
  linearBackward(
    n,
    d,
    k,
    call.x,
    call.weight,
    call.fanInFanOut,
    call.dy,
    dx,
    call.dWeight,
    call.dBias,
    scratch,
    call.format,
  );
  let factor: usize = 0,
    column: usize = 0;
  for (let block = 0; block < call.blocks; block++) {
    if (!isEnabled(call.enabled, block)) continue;
    const dy = call.dy + bytes(block * width);
    if (da != 0 || dx != 0) threadedNN(n, r, width, call.s, dy, k, call.b + factor, r, 0, zs + column, rank, scratch);
    if (db != 0) threadedTN(width, r, n, 1, dy, k, call.hs + column, rank, 1, db + factor, r, scratch);
    factor += bytes(width * r);
    column += bytes(r);
  }
  if (da != 0) threadedTN(rank, d, n, 1, zs, rank, call.xDropped, d, 1, da, d, scratch);
  if (call.dxDropped != 0) threadedNN(n, d, rank, 1, zs, rank, call.a, d, 0, call.dxDropped, d, scratch);
  else if (dx != 0) threadedNN(n, d, rank, 1, zs, rank, call.a, d, 1, dx, d, scratch);
}

/** W[block j] += s * B_j A_j in the rows of W (its columns if fanInFanOut), rounded as in merge.ts. */
export function mergedLinearMerge(call: MergedLinearMerge): void {
  const d = call.d,
    k = call.k,
    r = call.r,
    fanInFanOut = call.fanInFanOut,
    ldw = fanInFanOut ? k : d,
    width = k / call.blocks;
  let a = call.a,
    b = call.b;
  for (let block = 0; block < call.blocks; block++) {
    if (!isEnabled(call.enabled, block)) continue;
    const first = bytes(block * width),
      w = call.weight + (fanInFanOut ? first : first * <usize>d);
    addScaledProduct(width, d, r, call.s, w, ldw, fanInFanOut, a, b, call.rows, call.scratch);
    a += bytes(r * d);
    b += bytes(width * r);
  }
}

// @ts-ignore: decorator
@inline
function bytes(elements: i32): usize {
  return (<usize>elements) << 2;
}

// @ts-ignore: decorator
@inline
function isEnabled(enabled: usize, block: i32): bool {
  return load<i32>(enabled + bytes(block)) != 0;
}

function count(enabled: usize, blocks: i32): i32 {
  let g = 0;
  for (let block = 0; block < blocks; block++) g += i32(isEnabled(enabled, block));
  return g;
}
