/**
 * LoRA on some of the equal blocks of a linear layer's outputs (a fused query, key and value
 * projection). y = x Wᵀ + bias, and for each enabled block j:  y[:, block j] += s * (x̃ A_jᵀ) B_jᵀ,
 * x̃ = dropout(x) (loralib.MergedLinear; there the update is a dense [k, d] matrix, here never).
 *
 * Forward: hs = s * x̃ Aᵀ in one product, then y = bias ⊕ x Wᵀ, whose accumulators go on over hs_j B_jᵀ.
 * Backward: zs_j = s * dy_j B_j; dA += zsᵀ x̃ in one product; dB_j += dy_jᵀ hs_j; dx += [dy | zs] [W ; A].
 * dW and dbias as in linear.ts.
 *
 * x, x̃, dx: [n, d]. y, dy: [n, k]. enabled: [blocks] i32, not 0 where a block has factors; g of them.
 * A: [g r, d]. B: [g k / blocks, r]: the factors of the enabled blocks, in order. hs, zs: [n, g r].
 * W: [k, d], or [d, k] if fanInFanOut. All contiguous. g >= 1, r >= 1, blocks divides k.
 * Null pointers, the order of sums and scratch: as in linear.ts.
 */
import { sgemmNN, sgemmNT, sgemmTN } from "../gemm/sgemm";
import { loraLinearBackward, loraLinearForward } from "./linear";
import { addScaledProduct } from "./merge";

export function mergedLinearForward(
  n: i32,
  d: i32,
  k: i32,
  r: i32,
  blocks: i32,
  s: f32,
  enabled: usize,
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
  const width = k / blocks,
    rank = r * count(enabled, blocks);
  sgemmNT(n, rank, d, s, xDropped, d, a, d, 0, hs, rank, scratch);
  loraLinearForward(n, d, k, 0, 0, x, x, w, fanInFanOut, bias, 0, 0, 0, y, scratch);
  for (let block = 0; block < blocks; block++) {
    if (!isEnabled(enabled, block)) continue;
    sgemmNT(n, width, r, 1, hs, rank, b, r, 1, y + bytes(block * width), k, scratch);
    hs += bytes(r);
    b += bytes(width * r);
  }
}

/** dxDropped: as in loraLinearBackward. */
export function mergedLinearBackward(
  n: i32,
  d: i32,
  k: i32,
  r: i32,
  blocks: i32,
  s: f32,
  enabled: usize,
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
  const width = k / blocks,
    rank = r * count(enabled, blocks);
  loraLinearBackward(n, d, k, 0, 0, x, x, w, fanInFanOut, 0, 0, 0, 0, dy, dx, 0, dw, dbias, 0, 0, scratch);
  let factor: usize = 0,
    column: usize = 0;
  for (let block = 0; block < blocks; block++) {
    if (!isEnabled(enabled, block)) continue;
    const dyBlock = dy + bytes(block * width);
    if (da != 0 || dx != 0) sgemmNN(n, r, width, s, dyBlock, k, b + factor, r, 0, zs + column, rank, scratch);
    if (db != 0) sgemmTN(width, r, n, 1, dyBlock, k, hs + column, rank, 1, db + factor, r, scratch);
    factor += bytes(width * r);
    column += bytes(r);
  }
  if (da != 0) sgemmTN(rank, d, n, 1, zs, rank, xDropped, d, 1, da, d, scratch);
  if (dxDropped != 0) sgemmNN(n, d, rank, 1, zs, rank, a, d, 0, dxDropped, d, scratch);
  else if (dx != 0) sgemmNN(n, d, rank, 1, zs, rank, a, d, 1, dx, d, scratch);
}

/**
 * W[block j] += s * B_j A_j in the rows of W (its columns if fanInFanOut), rounded as in merge.ts. rows: as there, for
 * W.
 */
export function mergedLinearMerge(
  d: i32,
  k: i32,
  r: i32,
  blocks: i32,
  s: f32,
  enabled: usize,
  w: usize,
  fanInFanOut: bool,
  a: usize,
  b: usize,
  rows: usize,
  scratch: usize,
): void {
  const width = k / blocks;
  for (let block = 0; block < blocks; block++) {
    if (!isEnabled(enabled, block)) continue;
    const first = bytes(block * width);
    addScaledProduct(
      width,
      d,
      r,
      s,
      w + (fanInFanOut ? first : first * <usize>d),
      fanInFanOut ? k : d,
      fanInFanOut,
      a,
      b,
      rows,
      scratch,
    );
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
