/** The heads of a decoder's attention, and the projections that most families have around them. */
import { attention, reshape, rope } from "../../autograd/ops/index.js";
import { Linear, type Layer } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Pass } from "./decoder.js";
import type { RotaryEmbedding } from "./rope.js";

/** What sets a layer's heads apart. */
export interface HeadsOptions {
  /** Heads of queries. */
  heads: number;
  /** Heads of keys and values; divides heads. */
  kvHeads: number;
  /** Values of a head. */
  dim: number;
  /** The layer's place in the cache. */
  layer: number;
  /** Positions; null: none are told. */
  rotary: RotaryEmbedding | null;
  /** Tokens that a token sees, itself included; null: all before it. Default null. */
  window?: number | null | undefined;
  /** Factor of the scores. Default 1 / sqrt(dim). */
  scale?: number | undefined;
  /** Bound of the scores. Default null: none. */
  softcap?: number | null | undefined;
}

/** What a layer's queries see of the keys and values so far. */
export class Heads {
  constructor(readonly options: Readonly<HeadsOptions>) {}

  /**
   * @param q [batch, steps, heads, dim], not rotated yet
   * @param k [batch, steps, kvHeads, dim]
   * @param v k's shape
   * @returns [batch, steps, heads * dim]
   */
  attend(q: Tensor, k: Tensor, v: Tensor, { positions, ranges, tables, cache }: Pass): Tensor {
    const { heads, dim, layer, rotary, window = null, scale, softcap } = this.options;
    const [batch, steps] = q.shape as [number, number];
    if (rotary) {
      const table = tables.get(rotary)!;
      q = rope(q, table, positions);
      k = rope(k, table, positions);
    }
    if (cache) [k, v] = cache.extend(layer, k, v);
    const y = attention(q, k, v, { ranges: ranges.get(window)!, scale, softcap });
    return reshape(y, [batch, steps, heads * dim]);
  }
}

/** What sets a layer's attention apart. */
export interface SelfAttentionOptions extends HeadsOptions {
  /** Width of the residual stream. */
  hiddenSize: number;
  /** Whether query, key and value have biases. Default false. */
  bias?: boolean | undefined;
  /** Whether the output has one. Default: as `bias`. */
  outputBias?: boolean | undefined;
  /** Norms of queries and keys: of each head, or of a whole projection. Default: there are none. */
  norm?: { of: "heads" | "projection"; make: (size: number) => Layer };
}

/** Attention whose query, key and value have a projection each. */
export class SelfAttention extends Module {
  /** @internal */ static override readonly className: string = "SelfAttention";
  /** [heads * dim, hiddenSize] */
  readonly qProj: Layer;
  /** [kvHeads * dim, hiddenSize] */
  readonly kProj: Layer;
  /** [kvHeads * dim, hiddenSize] */
  readonly vProj: Layer;
  /** [hiddenSize, heads * dim] */
  readonly oProj: Layer;
  /** Of queries; null: there is none. */
  readonly qNorm: Layer | null;
  /** Of keys; null: there is none. */
  readonly kNorm: Layer | null;
  readonly #heads: Heads;
  readonly #isNormOfHeads: boolean;

  constructor(options: SelfAttentionOptions) {
    super();
    const { hiddenSize, heads, kvHeads, dim, bias = false, outputBias = bias, norm } = options;
    this.qProj = new Linear(hiddenSize, heads * dim, { bias });
    this.kProj = new Linear(hiddenSize, kvHeads * dim, { bias });
    this.vProj = new Linear(hiddenSize, kvHeads * dim, { bias });
    this.oProj = new Linear(heads * dim, hiddenSize, { bias: outputBias });
    this.#isNormOfHeads = norm?.of === "heads";
    this.qNorm = norm?.make(this.#isNormOfHeads ? dim : heads * dim) ?? null;
    this.kNorm = norm?.make(this.#isNormOfHeads ? dim : kvHeads * dim) ?? null;
    this.#heads = new Heads(options);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    const [batch, steps] = x.shape as [number, number];
    const { heads, kvHeads, dim } = this.#heads.options;
    const split = (t: Tensor, count: number, norm: Layer | null): Tensor => {
      if (norm && !this.#isNormOfHeads) t = norm.forward(t);
      t = reshape(t, [batch, steps, count, dim]);
      return norm && this.#isNormOfHeads ? norm.forward(t) : t;
    };
    return graphScope(() => {
      const q = split(this.qProj.forward(x), heads, this.qNorm);
      const k = split(this.kProj.forward(x), kvHeads, this.kNorm);
      const v = split(this.vProj.forward(x), kvHeads, null);
      return this.oProj.forward(this.#heads.attend(q, k, v, pass));
    });
  }
}
