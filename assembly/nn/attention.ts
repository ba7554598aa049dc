/**
 * Causal attention with grouped key/value heads. y = softmax(scale * q kᵀ + mask) v, per head;
 * query t sees keys 0 .. offset + t, offset = keys - queries (a cache of earlier keys).
 *
 * Heads h of q share k/v head h * kvHeads / heads (Ainslie et al. 2023). Probabilities are never kept: backward
 * computes them again, some query rows at a time, so their memory does not grow with batch, heads or queries.
 * Products run in sgemm's canonical order, a query's bits do not depend on its neighbours, and a
 * step with cached keys gives the bits of the whole sequence. A masked probability is exactly 0;
 * as 0 * NaN is NaN, a non-finite value in v can reach up to ROWS - 1 earlier rows of its own head.
 * Gradients are added, query blocks ascending, heads of one group ascending.
 */
import { Attention, AttentionBackward, AttentionForward } from "../abi";
import { gemmNN, gemmNT, gemmTN } from "../gemm/sgemm";
import { dot, softmaxRow } from "./softmax";

/** Query rows at a time. */
const ROWS: i32 = 32;

/** Room for the probabilities of these rows. */
export function attentionProbsBytes(keys: f64): f64 {
  return keys * <f64>(ROWS * 4);
}

export function attentionForward(call: AttentionForward): void {
  const queries = call.queries,
    heads = call.heads,
    dim = call.dim;
  const ldq = heads * dim,
    ldk = call.kvHeads * dim,
    group = heads / call.kvHeads;
  for (let b = 0; b < call.batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kv = at(b * call.keys, ldk, (h / group) * dim);
      for (let t = 0; t < queries; t += ROWS) {
        const rows = min(ROWS, queries - t),
          seen = call.keys - queries + t + rows;
        const row = at(b * queries + t, ldq, h * dim);
        causalProbs(call, call.q + row, call.k + kv, rows, seen);
        gemmNN(rows, dim, seen, 1, call.probs, seen, call.v + kv, ldk, 0, call.y + row, ldq, call.scratch);
      }
    }
  }
}

/** dv += Pᵀ dy; dS = P * (dy vᵀ - rowsum(P * dy vᵀ)); dq += scale * dS k; dk += scale * dSᵀ q. */
export function attentionBackward(call: AttentionBackward): void {
  const queries = call.queries,
    heads = call.heads,
    dim = call.dim,
    scale = call.scale,
    dq = call.dq,
    dk = call.dk,
    dv = call.dv,
    probs = call.probs,
    dprobs = call.dprobs,
    scratch = call.scratch;
  const ldq = heads * dim,
    ldk = call.kvHeads * dim,
    group = heads / call.kvHeads;
  for (let b = 0; b < call.batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kv = at(b * call.keys, ldk, (h / group) * dim),
        k = call.k + kv;
      for (let t = 0; t < queries; t += ROWS) {
        const rows = min(ROWS, queries - t),
          seen = call.keys - queries + t + rows;
        const row = at(b * queries + t, ldq, h * dim),
          q = call.q + row,
          dy = call.dy + row;
        causalProbs(call, q, k, rows, seen);
        if (dv != 0) gemmTN(seen, dim, rows, 1, probs, seen, dy, ldq, 1, dv + kv, ldk, scratch);
        if (dq == 0 && dk == 0) continue;
        gemmNT(rows, seen, dim, 1, dy, ldq, call.v + kv, ldk, 0, dprobs, seen, scratch);
        softmaxGradient(dprobs, probs, rows, seen);
        if (dq != 0) gemmNN(rows, dim, seen, scale, dprobs, seen, k, ldk, 1, dq + row, ldq, scratch);
        if (dk != 0) gemmTN(seen, dim, rows, scale, dprobs, seen, q, ldq, 1, dk + kv, ldk, scratch);
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function at(row: i32, ld: i32, column: i32): usize {
  return (<usize>row * <usize>ld + <usize>column) << 2;
}

/** probs [rows, seen]: row i is the softmax over its first seen - rows + i + 1 scores of q's rows, then zeros. */
function causalProbs(call: Attention, q: usize, k: usize, rows: i32, seen: i32): void {
  const dim = call.dim,
    ldq = call.heads * dim,
    ldk = call.kvHeads * dim;
  let probs = call.probs;
  gemmNT(rows, seen, dim, call.scale, q, ldq, k, ldk, 0, probs, seen, call.scratch);
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
