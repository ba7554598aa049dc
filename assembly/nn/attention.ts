/**
 * Attention with grouped key/value heads: y = softmax(scale * q kᵀ) v per head, each query over its own interval of
 * keys (ranges), which says all that causality, windows, padding and texts in one row come to.
 *
 * Heads h of q share k/v head h * kvHeads / heads (Ainslie et al. 2023). Probabilities are never kept: backward
 * computes them again, some query rows at a time, so their memory does not grow with batch, heads or queries.
 * Products run in sgemm's canonical order, and sums along a row begin at the row's own first key. What lies outside of
 * its interval counts as exact zeros, so a query's bits depend neither on its neighbours nor on what stands before
 * or behind its text: a step with cached keys, a padded text and a packed one give the bits of the text alone.
 * As 0 * NaN is NaN, a non-finite value in v can reach up to ROWS - 1 rows of its own head and text that do not see it.
 * Gradients are added, queries ascending, heads of one group ascending.
 *
 * softcap c > 0: scores s become c * tanh(s / c) first (Gemma Team 2024).
 */
import { Attention, AttentionBackward, AttentionForward } from "../abi";
import { gemmNN, gemmNT, gemmTN } from "../gemm/sgemm";
import { tanhForward } from "./activation";
import { sscal } from "./elementwise";
import { dot, softmaxRow } from "./softmax";

/** Query rows at a time. */
const ROWS: i32 = 32;

/** Room for the probabilities of these rows. */
export function attentionProbsBytes(keys: f64): f64 {
  return keys * <f64>(ROWS * 4);
}

/** What `nextBlock` found: query rows, and the keys from .. to - 1 that they see. */
let rows: i32 = 0,
  from: i32 = 0,
  to: i32 = 0;
/** From the range of a row to that of the next: 8, or 0 where the rows are heads of one query. */
let rangeStep: usize = 0;

/**
 * The next rows, of at most `left`. A row that sees none of the keys that those before it see begins another block:
 * texts in one row do not meet in a product.
 */
function nextBlock(ranges: usize, left: i32): void {
  from = to = 0;
  left = min(left, ROWS);
  for (rows = 0; rows < left; rows++) {
    const first = load<i32>(ranges),
      end = load<i32>(ranges, 4);
    ranges += rangeStep;
    if (first == end) continue;
    if (from == to) {
      from = first;
      to = end;
    }
    if (first >= to || end <= from) break;
    from = min(from, first);
    to = max(to, end);
  }
}

export function attentionForward(call: AttentionForward): void {
  const queries = call.queries,
    dim = call.dim,
    ldk = call.kvHeads * dim,
    group = call.heads / call.kvHeads,
    // The heads of a group are the rows of a single query: keys are packed once for all of them (3 heads over 2,048
    // keys: 1.9 times as fast).
    single = queries == 1,
    heads = single ? call.kvHeads : call.heads,
    rowsOfHead = single ? group : queries,
    headsOfKey = single ? 1 : group,
    ldq = single ? dim : heads * dim,
    headStep = single ? group * dim : dim;
  rangeStep = single ? 0 : 8;
  for (let b = 0; b < call.batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let t = 0; t < rowsOfHead; t += rows) {
        const ranges = call.ranges + ((<usize>(b * queries)) << 3) + <usize>t * rangeStep;
        nextBlock(ranges, rowsOfHead - t);
        const seen = to - from,
          row = at(b * queries, call.heads * dim, h * headStep) + at(t, ldq, 0),
          kv = at(b * call.keys + from, ldk, (h / headsOfKey) * dim);
        probabilities(call, call.q + row, ldq, call.k + kv, ranges, seen, 0);
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
  rangeStep = 8;
  for (let b = 0; b < call.batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let t = 0; t < queries; t += rows) {
        const ranges = call.ranges + ((<usize>(b * queries + t)) << 3);
        nextBlock(ranges, queries - t);
        const seen = to - from,
          row = at(b * queries + t, ldq, h * dim),
          kv = at(b * call.keys + from, ldk, (h / group) * dim),
          q = call.q + row,
          k = call.k + kv,
          dy = call.dy + row;
        probabilities(call, q, ldq, k, ranges, seen, call.tanh);
        if (dv != 0) gemmTN(seen, dim, rows, 1, probs, seen, dy, ldq, 1, dv + kv, ldk, scratch);
        if (dq == 0 && dk == 0) continue;
        gemmNT(rows, seen, dim, 1, dy, ldq, call.v + kv, ldk, 0, dprobs, seen, scratch);
        softmaxGradient(dprobs, probs, ranges, seen);
        if (call.softcap != 0) capGradient(dprobs, call.tanh, rows * seen);
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

/**
 * probs [rows, seen]: row i is the softmax over its own interval of the scores of q's rows, between zeros. With a
 * softcap, tanh (unless null) gets tanh(scores / softcap), of the same shape.
 */
function probabilities(call: Attention, q: usize, ldq: i32, k: usize, ranges: usize, seen: i32, tanh: usize): void {
  const dim = call.dim,
    ldk = call.kvHeads * dim,
    cap = call.softcap,
    scale = cap == 0 ? call.scale : call.scale / cap;
  let probs = call.probs;
  gemmNT(rows, seen, dim, scale, q, ldq, k, ldk, 0, probs, seen, call.scratch);
  if (cap != 0) {
    const n = rows * seen;
    tanhForward(probs, probs, n);
    if (tanh != 0) memory.copy(tanh, probs, (<usize>n) << 2);
    sscal(probs, n, cap);
  }
  for (let i = 0; i < rows; i++) {
    const own = keepOwn(probs, ranges, seen);
    softmaxRow(own, own, load<i32>(ranges, 4) - load<i32>(ranges));
    probs += (<usize>seen) << 2;
    ranges += rangeStep;
  }
}

/** Zeros what the row holds outside of its interval; where that begins. */
function keepOwn(row: usize, ranges: usize, seen: i32): usize {
  const first = load<i32>(ranges),
    end = load<i32>(ranges, 4);
  if (first == end) {
    memory.fill(row, 0, (<usize>seen) << 2);
    return row;
  }
  const own = row + ((<usize>(first - from)) << 2);
  memory.fill(row, 0, own - row);
  memory.fill(row + ((<usize>(end - from)) << 2), 0, (<usize>(to - end)) << 2);
  return own;
}

/** dprobs = probs * (dprobs - rowsum(probs * dprobs)), of each row's interval; zeros elsewhere. */
function softmaxGradient(dprobs: usize, probs: usize, ranges: usize, seen: i32): void {
  for (let i = 0; i < rows; i++) {
    const own = keepOwn(dprobs, ranges, seen),
      n = load<i32>(ranges, 4) - load<i32>(ranges),
      row = (<usize>n) << 2,
      y = probs + (own - dprobs);
    const mean = dot(y, own, n);
    const m = f32x4.splat(mean);
    let p: usize = 0;
    for (; p + 16 <= row; p += 16) v128.store(own + p, f32x4.mul(v128.load(y + p), f32x4.sub(v128.load(own + p), m)));
    for (; p < row; p += 4) store<f32>(own + p, load<f32>(y + p) * (load<f32>(own + p) - mean));
    probs += (<usize>seen) << 2;
    dprobs += (<usize>seen) << 2;
    ranges += rangeStep;
  }
}

/** d *= 1 - tanh², the slope of the softcap. */
function capGradient(d: usize, tanh: usize, n: i32): void {
  for (; n > 0; n--) {
    const t = load<f32>(tanh);
    store<f32>(d, load<f32>(d) * (<f32>1 - t * t));
    d += 4;
    tanh += 4;
  }
}
