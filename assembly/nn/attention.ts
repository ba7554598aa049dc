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
import { ownScratch } from "../gemm/threaded";
import { first, last, own, part, split, threadCount } from "../threads";
import { tanhValues } from "./activation";
import { scaleValues } from "./elementwise";
import { dot, softmaxRow } from "./softmax";

/** Query rows at a time. */
const ROWS: i32 = 32;
/** Cycles of a query and a key, about: for each product of theirs and each of its terms, and for softmax. */
const COST: f64 = 0.2;
const SOFTMAX: f64 = 6;

/** Blocks of rows at a time, for each thread, and keys of a strip, where backward goes by these. */
const AT_A_TIME: i32 = 3;
const STRIP: i32 = 32;
/** It does if whole heads would keep the threads less busy: blocks are 6 % more work, and keep them 90 to 94 % busy. */
const LEAST_BUSY: f64 = 0.85;

/** Room for the probabilities of a block of rows. */
// @ts-ignore: decorator
@inline
function roomOf(keys: i32): usize {
  return <usize>keys * <usize>(ROWS * 4);
}

/** Bytes of `probs` for forward, for all threads. */
export function attentionProbsBytes(keys: f64): f64 {
  return <f64>threadCount() * keys * <f64>(ROWS * 4);
}

/** Of `probs`, `dprobs` and `tanh` for backward. kvHeads: of all rows of the batch. */
export function attentionGradientBytes(kvHeads: f64, keys: f64): f64 {
  return attentionProbsBytes(keys) * (isByBlocks(kvHeads, keys) ? <f64>AT_A_TIME : 1);
}

/** Whether backward goes by blocks: whole heads would leave threads idle, and there are strips of keys for all. */
function isByBlocks(kvHeads: f64, keys: f64): bool {
  const threads = <f64>threadCount(),
    turns = ceil(kvHeads / threads);
  return kvHeads < LEAST_BUSY * threads * turns && keys >= 2 * <f64>STRIP * threads;
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
    const begin = load<i32>(ranges),
      end = load<i32>(ranges, 4);
    ranges += rangeStep;
    if (begin == end) continue;
    if (from == to) {
      from = begin;
      to = end;
    }
    if (begin >= to || end <= from) break;
    from = min(from, begin);
    to = max(to, end);
  }
}

/** By blocks of ROWS query rows of a head; where these see different texts, by more than one product. */
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
    headStep = single ? group * dim : dim,
    blocks = (rowsOfHead + ROWS - 1) / ROWS,
    probs = own(call.probs, roomOf(call.keys)),
    scratch = ownScratch(call.scratch);
  rangeStep = single ? 0 : 8;
  const pairs = <f64>min(rowsOfHead, ROWS) * <f64>call.keys;
  for (split(call.batch * heads * blocks, pairs * (2 * COST * <f64>dim + SOFTMAX)); part(); )
    for (let unit = first; unit < last; unit++) {
      const b = unit / (heads * blocks),
        h = (unit / blocks) % heads,
        end = min(rowsOfHead, ((unit % blocks) + 1) * ROWS);
      for (let t = (unit % blocks) * ROWS; t < end; t += rows) {
        const ranges = call.ranges + ((<usize>(b * queries)) << 3) + <usize>t * rangeStep;
        nextBlock(ranges, end - t);
        const seen = to - from,
          row = at(b * queries, call.heads * dim, h * headStep) + at(t, ldq, 0),
          kv = at(b * call.keys + from, ldk, (h / headsOfKey) * dim);
        probabilities(call, call.q + row, ldq, call.k + kv, ranges, seen, probs, 0, scratch);
        gemmNN(rows, dim, seen, 1, probs, seen, call.v + kv, ldk, 0, call.y + row, ldq, scratch);
      }
    }
}

/**
 * dv += Pᵀ dy; dS = P * (dy vᵀ - rowsum(P * dy vᵀ)); dq += scale * dS k; dk += scale * dSᵀ q. By heads of k and v, each
 * of whose sums is of all heads of the group and all queries; or else some blocks of query rows at a time: P, dS and dq
 * by blocks, then dk and dv by keys.
 */
export function attentionBackward(call: AttentionBackward): void {
  const kvHeads = call.batch * call.kvHeads,
    ofHead = (call.heads / call.kvHeads) * blocksOf(call),
    keys = call.keys,
    pairs = <f64>min(call.queries, ROWS) * <f64>keys,
    product = COST * <f64>call.dim;
  rangeStep = 8;
  if (!isByBlocks(kvHeads, keys)) {
    for (split(kvHeads, <f64>ofHead * pairs * (5 * product + 2 * SOFTMAX)); part(); )
      for (let unit = first * ofHead; unit < last * ofHead; unit++)
        blockBackward(call, unit, own(0, roomOf(keys)), true, 0, keys);
    return;
  }
  const units = kvHeads * ofHead,
    most = AT_A_TIME * threadCount();
  for (let unit = 0; unit < units; unit += most) {
    const count = min(most, units - unit);
    // Later queries see more keys: theirs come first, so that the threads end together.
    for (split(count, pairs * (3 * product + 2 * SOFTMAX)); part(); )
      for (let i = count - 1 - first; i >= count - last; i--)
        blockBackward(call, unit + i, <usize>i * roomOf(keys), true, 0, 0);
    if (call.dk == 0 && call.dv == 0) continue;
    for (split((keys + STRIP - 1) / STRIP, <f64>count * <f64>(ROWS * STRIP) * 2 * product); part(); )
      for (let i = 0; i < count; i++)
        blockBackward(call, unit + i, <usize>i * roomOf(keys), false, first * STRIP, min(keys, last * STRIP));
  }
}

/**
 * A block of query rows, counted within a head, and heads within the batch: P and dS, which lie from `room` on in what
 * call has for them, and dq, if they are new; dk and dv of the keys begin .. until - 1.
 */
function blockBackward(call: AttentionBackward, unit: i32, room: usize, isNew: bool, begin: i32, until: i32): void {
  const queries = call.queries,
    heads = call.heads,
    dim = call.dim,
    scale = call.scale,
    dq = call.dq,
    dk = call.dk,
    dv = call.dv,
    blocks = blocksOf(call),
    b = unit / (heads * blocks),
    h = (unit / blocks) % heads,
    column = (h / (heads / call.kvHeads)) * dim,
    end = min(queries, ((unit % blocks) + 1) * ROWS),
    ldq = heads * dim,
    ldk = call.kvHeads * dim,
    scratch = ownScratch(call.scratch);
  for (let t = (unit % blocks) * ROWS; t < end; t += rows) {
    const ranges = call.ranges + ((<usize>(b * queries + t)) << 3);
    nextBlock(ranges, end - t);
    const seen = to - from,
      row = at(b * queries + t, ldq, h * dim),
      kv = at(b * call.keys + from, ldk, column),
      probs = call.probs + room,
      dprobs = call.dprobs + room,
      dy = call.dy + row;
    if (isNew) {
      const tanh = call.softcap == 0 ? <usize>0 : call.tanh + room;
      probabilities(call, call.q + row, ldq, call.k + kv, ranges, seen, probs, tanh, scratch);
      if (dq != 0 || dk != 0) {
        gemmNT(rows, seen, dim, 1, dy, ldq, call.v + kv, ldk, 0, dprobs, seen, scratch);
        softmaxGradient(dprobs, probs, ranges, seen);
        if (tanh != 0) capGradient(dprobs, tanh, rows * seen);
      }
      if (dq != 0) gemmNN(rows, dim, seen, scale, dprobs, seen, call.k + kv, ldk, 1, dq + row, ldq, scratch);
    }
    const skipped = max(0, begin - from),
      met = min(to, until) - from - skipped,
      there = kv + at(skipped, ldk, 0),
      p = (<usize>skipped) << 2;
    if (met > 0 && dv != 0) gemmTN(met, dim, rows, 1, probs + p, seen, dy, ldq, 1, dv + there, ldk, scratch);
    if (met > 0 && dk != 0)
      gemmTN(met, dim, rows, scale, dprobs + p, seen, call.q + row, ldq, 1, dk + there, ldk, scratch);
    room += (<usize>rows * <usize>seen) << 2;
  }
}

/** Blocks of a head's query rows. */
// @ts-ignore: decorator
@inline
function blocksOf(call: Attention): i32 {
  return (call.queries + ROWS - 1) / ROWS;
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
function probabilities(
  call: Attention,
  q: usize,
  ldq: i32,
  k: usize,
  ranges: usize,
  seen: i32,
  probs: usize,
  tanh: usize,
  scratch: usize,
): void {
  const dim = call.dim,
    ldk = call.kvHeads * dim,
    cap = call.softcap,
    scale = cap == 0 ? call.scale : call.scale / cap;
  gemmNT(rows, seen, dim, scale, q, ldq, k, ldk, 0, probs, seen, scratch);
  if (cap != 0) {
    const n = rows * seen;
    tanhValues(probs, probs, n);
    if (tanh != 0) memory.copy(tanh, probs, (<usize>n) << 2);
    scaleValues(probs, n, cap);
  }
  for (let i = 0; i < rows; i++) {
    const p = keepOwn(probs, ranges, seen);
    softmaxRow(p, p, load<i32>(ranges, 4) - load<i32>(ranges));
    probs += (<usize>seen) << 2;
    ranges += rangeStep;
  }
}

/** Zeros what the row holds outside of its interval; where that begins. */
function keepOwn(row: usize, ranges: usize, seen: i32): usize {
  const begin = load<i32>(ranges),
    end = load<i32>(ranges, 4);
  if (begin == end) {
    memory.fill(row, 0, (<usize>seen) << 2);
    return row;
  }
  const interval = row + ((<usize>(begin - from)) << 2);
  memory.fill(row, 0, interval - row);
  memory.fill(row + ((<usize>(end - from)) << 2), 0, (<usize>(to - end)) << 2);
  return interval;
}

/** dprobs = probs * (dprobs - rowsum(probs * dprobs)), of each row's interval; zeros elsewhere. */
function softmaxGradient(dprobs: usize, probs: usize, ranges: usize, seen: i32): void {
  for (let i = 0; i < rows; i++) {
    const d = keepOwn(dprobs, ranges, seen),
      n = load<i32>(ranges, 4) - load<i32>(ranges),
      row = (<usize>n) << 2,
      y = probs + (d - dprobs);
    const mean = dot(y, d, n);
    const m = f32x4.splat(mean);
    let p: usize = 0;
    for (; p + 16 <= row; p += 16) v128.store(d + p, f32x4.mul(v128.load(y + p), f32x4.sub(v128.load(d + p), m)));
    for (; p < row; p += 4) store<f32>(d + p, load<f32>(y + p) * (load<f32>(d + p) - mean));
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
