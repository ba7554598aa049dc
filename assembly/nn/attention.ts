/**
 * Causal attention with grouped key/value heads. y = softmax(scale * q kᵀ + mask) v, per head;
 * query t sees keys 0 .. offset + t, offset = keys - queries (a cache of earlier keys).
 *
 * q, y: [batch, queries, heads, dim]. k, v: [batch, keys, kvHeads, dim]; heads h of q share k/v head
 * h * kvHeads / heads (Ainslie et al. 2023). Probabilities are never kept: backward computes them
 * again, 32 query rows at a time, so memory is 32 x keys floats whatever the batch and head count.
 * Products run in sgemm's canonical order, a query's bits do not depend on its neighbours, and a
 * step with cached keys gives the bits of the whole sequence. A masked probability is exactly 0;
 * as 0 * NaN is NaN, a non-finite value in v can reach up to 31 earlier rows of its own head.
 *
 * probs, dprobs: room for 32 x keys floats each. Gradients are added, query blocks ascending, heads
 * of one group ascending; null: not wanted.
 */
import { sgemmNN, sgemmNT, sgemmTN } from "../gemm/sgemm";
import { dot, softmaxRow } from "./softmax";

const ROWS: i32 = 32;

export function attentionForward(
  y: usize,
  q: usize,
  k: usize,
  v: usize,
  batch: i32,
  queries: i32,
  keys: i32,
  heads: i32,
  kvHeads: i32,
  dim: i32,
  scale: f32,
  probs: usize,
  scratch: usize,
): void {
  const ldq = heads * dim,
    ldk = kvHeads * dim,
    group = heads / kvHeads;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kv = at(b * keys, ldk, (h / group) * dim);
      for (let t = 0; t < queries; t += ROWS) {
        const rows = min(ROWS, queries - t),
          seen = keys - queries + t + rows;
        const row = at(b * queries + t, ldq, h * dim);
        causalProbs(probs, q + row, ldq, k + kv, ldk, rows, seen, dim, scale, scratch);
        sgemmNN(rows, dim, seen, 1, probs, seen, v + kv, ldk, 0, y + row, ldq, scratch);
      }
    }
  }
}

/** dv += Pᵀ dy; dS = P * (dy vᵀ - rowsum(P * dy vᵀ)); dq += scale * dS k; dk += scale * dSᵀ q. */
export function attentionBackward(
  dq: usize,
  dk: usize,
  dv: usize,
  dy: usize,
  q: usize,
  k: usize,
  v: usize,
  batch: i32,
  queries: i32,
  keys: i32,
  heads: i32,
  kvHeads: i32,
  dim: i32,
  scale: f32,
  probs: usize,
  dprobs: usize,
  scratch: usize,
): void {
  const ldq = heads * dim,
    ldk = kvHeads * dim,
    group = heads / kvHeads;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kv = at(b * keys, ldk, (h / group) * dim);
      for (let t = 0; t < queries; t += ROWS) {
        const rows = min(ROWS, queries - t),
          seen = keys - queries + t + rows;
        const row = at(b * queries + t, ldq, h * dim);
        causalProbs(probs, q + row, ldq, k + kv, ldk, rows, seen, dim, scale, scratch);
        if (dv != 0) sgemmTN(seen, dim, rows, 1, probs, seen, dy + row, ldq, 1, dv + kv, ldk, scratch);
        if (dq == 0 && dk == 0) continue;
        sgemmNT(rows, seen, dim, 1, dy + row, ldq, v + kv, ldk, 0, dprobs, seen, scratch);
        softmaxGradient(dprobs, probs, rows, seen);
        if (dq != 0) sgemmNN(rows, dim, seen, scale, dprobs, seen, k + kv, ldk, 1, dq + row, ldq, scratch);
        if (dk != 0) sgemmTN(seen, dim, rows, scale, dprobs, seen, q + row, ldq, 1, dk + kv, ldk, scratch);
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function at(row: i32, ld: i32, column: i32): usize {
  return (<usize>row * <usize>ld + <usize>column) << 2;
}

/** probs [rows, seen]: row i is the softmax over its first seen - rows + i + 1 scores, then zeros. */
function causalProbs(
  probs: usize,
  q: usize,
  ldq: i32,
  k: usize,
  ldk: i32,
  rows: i32,
  seen: i32,
  dim: i32,
  scale: f32,
  scratch: usize,
): void {
  sgemmNT(rows, seen, dim, scale, q, ldq, k, ldk, 0, probs, seen, scratch);
  for (let i = 0; i < rows; i++) {
    const own = seen - rows + i + 1;
    softmaxRow(probs, probs, own);
    memory.fill(probs + ((<usize>own) << 2), 0, (<usize>(seen - own)) << 2);
    probs += (<usize>seen) << 2;
  }
}

function softmaxGradient(dprobs: usize, probs: usize, rows: i32, dim: i32): void {
  const row = (<usize>dim) << 2;
  for (let i = 0; i < rows; i++) {
    const mean = dot(probs, dprobs, dim);
    const m = f32x4.splat(mean);
    let p: usize = 0;
    for (; p + 16 <= row; p += 16)
      v128.store(dprobs + p, f32x4.mul(v128.load(probs + p), f32x4.sub(v128.load(dprobs + p), m)));
    for (; p < row; p += 4) store<f32>(dprobs + p, load<f32>(probs + p) * (load<f32>(dprobs + p) - mean));
    probs += row;
    dprobs += row;
  }
}
