/** Attention, and which keys its queries see. Kernel: assembly/nn/attention.ts. */
import { engine } from "../../runtime/engine.js";
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import { checkOptions } from "../../runtime/options.js";
import { checkBoolean, checkFloat, checkInteger, checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

const INT32_MAX = 0x7fffffff;

/** What `attentionRanges` makes ranges of. */
export interface AttentionRangesOptions {
  /** Rows of a batch. */
  batch: number;
  /** Queries of a row: its last positions. */
  queries: number;
  /** Keys of a row, at least `queries`: query t has position keys - queries + t. Default: queries. */
  keys?: number | undefined;
  /** Whether a query sees no later position than its own. Default true. */
  causal?: boolean | undefined;
  /**
   * How far a query sees. Causal: that many positions, its own included. Otherwise: that many to either side, besides
   * its own. Default null: all.
   */
  window?: number | null | undefined;
  /**
   * int32 [batch, keys]: 0 is padding, a run of one positive number is a text. A query sees its own text only, one that
   * is padding sees nothing. Default: each row is one text.
   */
  attentionMask?: Tensor | undefined;
}

/**
 * The keys that each query sees, as intervals from .. to - 1: what a decoder's or an encoder's mask, its window,
 * padding and several texts in a row come to. A model makes it once and gives it to all its layers of a kind. Backward
 * reads it: it must live as long as the graph.
 *
 * Source: transformers, masking_utils.py (causal, sliding-window, bidirectional and packed masks).
 * @returns int32 [batch, queries, 2]; from = to where a query sees nothing
 * @throws ArgumentError for an option out of range, or a mask with a number below 0 or one that stands in two runs;
 * ShapeError, DTypeError for another mask
 *
 * @example
 * const attentionMask = tensor(new Int32Array([1, 1, 2, 0]), [1, 4]);
 * const ranges = ops.attentionRanges({ batch: 1, queries: 4, attentionMask });
 * console.log([...ranges.indices].join()); // 0,1,0,2,2,3,0,0
 */
export function attentionRanges(options: AttentionRangesOptions): Tensor {
  const where = "attentionRanges";
  checkOptions(where, options, ["batch", "queries", "keys", "causal", "window", "attentionMask"]);
  const { batch, queries, keys = queries, causal = true, window = null, attentionMask } = options ?? {};
  checkInteger(where, "batch", batch, 0);
  checkInteger(where, "queries", queries, 0);
  checkInteger(where, "keys", keys, queries, INT32_MAX);
  checkBoolean(where, "causal", causal);
  if (window !== null) checkInteger(where, "window", window, 1);
  if (attentionMask !== undefined) checkTensor(where, "attentionMask", attentionMask, "int32", [batch, keys]);
  const mask = attentionMask?.indices;
  return allOrNothing(() => {
    const ranges = new Tensor([batch, queries, 2], "int32");
    if (!engine().isRehearsal)
      fillRanges(ranges.indices.fill(0), mask, { batch, queries, keys, causal, reach: window ?? keys });
    return ranges;
  });
}

/** Puts in the bounds of each query that sees something. */
function fillRanges(
  values: Int32Array,
  mask: Int32Array | undefined,
  {
    batch,
    queries,
    keys,
    causal,
    reach,
  }: { batch: number; queries: number; keys: number; causal: boolean; reach: number },
): void {
  for (let b = 0; b < batch; b++) {
    const seen = new Set<number>();
    // From text to text, of each of which all queries have the same bounds.
    for (let start = 0, end: number; start < keys; start = end) {
      const text = mask ? mask[b * keys + start]! : 1;
      end = mask ? start + 1 : keys;
      while (end < keys && mask![b * keys + end] === text) end++;
      if (text === 0) continue;
      if (text < 0 || seen.has(text)) {
        throw new ArgumentError(
          `attentionRanges: attentionMask holds ${text} at [${b}, ${start}]` +
            (text < 0
              ? "; expected 0 or more."
              : `, apart from where it was before; a text must be one run of a number.`),
        );
      }
      seen.add(text);
      for (let i = Math.max(start, keys - queries); i < end; i++) {
        const at = (b * queries + i - keys + queries) * 2;
        values[at] = Math.max(start, causal ? i - reach + 1 : i - reach);
        values[at + 1] = Math.min(end, causal ? i + 1 : i + reach + 1);
      }
    }
  }
}

/** Options of `attention`. */
export interface AttentionOptions {
  /** int32 [batch, queries, 2]: the keys that each query sees, from `attentionRanges`. */
  ranges: Tensor;
  /** Factor of the scores. Default 1 / sqrt(dim). */
  scale?: number | undefined;
  /** Scores s become softcap * tanh(s / softcap) before the softmax. Default null: they stay. */
  softcap?: number | null | undefined;
}

/**
 * softmax(scale * q kᵀ) v, each query over the keys in its range; a query that sees none gives zeros, and no gradient.
 * Heads of q share key/value heads evenly. A query's bits depend on nothing but its own text and position in it: not on
 * padding, on other texts of the row, or on whether earlier keys are cached. k and v may have rows that no range names,
 * whose values are not read.
 *
 * Source: Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries); Gemma Team 2024 (softcap); torch
 * scaled_dot_product_attention.
 * @param q [batch, queries, heads, dim]
 * @param k [batch, keys, kvHeads, dim], heads a multiple of kvHeads
 * @param v k's shape
 * @returns q's shape
 * @throws ShapeError, DTypeError, DisposedError; ArgumentError for a range that ends before it begins or behind the
 * keys, or an option out of range
 *
 * @example
 * const k = zeros([1, 6, 2, 8]), v = ones([1, 6, 2, 8]);
 * const ranges = ops.attentionRanges({ batch: 1, queries: 6 });
 * const y = ops.attention(zeros([1, 6, 4, 8]), k, v, { ranges }); // [1, 6, 4, 8]
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const where = "attention";
  checkTensor(where, "q", q, "float32", [null, null, null, null]);
  const [batch, queries, heads, dim] = q.shape as [number, number, number, number];
  checkTensor(where, "k", k, "float32", [batch, null, null, dim]);
  const [, keys, kvHeads] = k.shape as [number, number, number, number];
  checkTensor(where, "v", v, "float32", [batch, keys, kvHeads, dim]);
  if (kvHeads === 0 || heads % kvHeads)
    throw new ShapeError(`${where}: heads = ${heads} must be a multiple of kvHeads = ${kvHeads}.`);
  checkOptions(where, options, ["ranges", "scale", "softcap"]);
  const { ranges, scale = 1 / Math.sqrt(dim), softcap = null } = options ?? {};
  checkTensor(where, "ranges", ranges, "int32", [batch, queries, 2]);
  checkRanges(where, ranges, keys);
  checkFloat(where, "scale", scale);
  if (softcap !== null) checkFloat(where, "softcap", softcap, Number.MIN_VALUE);
  const { kernels, memory, scratch } = engine();
  return allOrNothing(() => {
    const y = new Tensor(q.shape);
    memory.withBlocks([kernels.attentionProbsBytes(keys)], (probs) =>
      kernels.attentionForward({
        y: y.address,
        q: q.address,
        k: k.address,
        v: v.address,
        ranges: ranges.address,
        batch,
        queries,
        keys,
        heads,
        kvHeads,
        dim,
        scale,
        softcap: softcap ?? 0,
        probs,
        scratch,
      }),
    );
    return record(
      y,
      [q, k, v],
      (dy) => {
        const block = kernels.attentionGradientBytes(batch * kvHeads, keys);
        memory.withBlocks([block, block, softcap === null ? 0 : block], (probs, dprobs, tanh) =>
          kernels.attentionBackward({
            dq: gradient(q),
            dk: gradient(k),
            dv: gradient(v),
            dy: dy.address,
            q: q.address,
            k: k.address,
            v: v.address,
            ranges: ranges.address,
            batch,
            queries,
            keys,
            heads,
            kvHeads,
            dim,
            scale,
            softcap: softcap ?? 0,
            probs,
            dprobs,
            tanh,
            scratch,
          }),
        );
      },
      [],
      [q, k, v, ranges],
    );
  });
}

/** The kernel reads and writes where ranges lead it. */
function checkRanges(where: string, ranges: Tensor, keys: number): void {
  const values = ranges.indices;
  for (let i = 0; i < values.length; i += 2) {
    const from = values[i]!;
    const to = values[i + 1]!;
    if (from < 0 || to < from || to > keys) {
      throw new ArgumentError(
        `${where}: query ${(i / 2) % ranges.shape[1]!} of row ${Math.floor(i / 2 / ranges.shape[1]!)} has the range ` +
          `${from} .. ${to}; expected 0 <= from <= to <= ${keys} keys.`,
      );
    }
  }
}
