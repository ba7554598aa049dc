/**
 * Llama: a decoder-only transformer (Touvron et al. 2023) in Hugging Face's names, composed of public
 * parts only: RMSNorm, rotary embedding, causal attention with grouped heads, SwiGLU.
 */
import { add, causalAttention, reshape, rope, ropeTable, siluMul, type RopeTable } from "../autograd/ops/index.js";
import { gradientCheckpoint } from "../autograd/gradient_checkpoint.js";
import type { LlamaConfig } from "../io/huggingface.js";
import { Embedding, Linear, RMSNorm, type Layer } from "../nn/layers.js";
import { Module, type Parameter } from "../nn/module.js";
import * as init from "../nn/init.js";
import { checkTensor } from "../tensor/check.js";
import { ShapeError } from "../runtime/errors.js";
import { allOrNothing, graphScope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { KeyValueCache } from "./cache.js";
import { logitsOf, lossOf, tiedHead, untiedHead } from "./causal_lm.js";
import { checkConfig } from "./config.js";

/** Positions whose angles are made with a model; more as texts need them. */
const FIRST_POSITIONS = 2048;

/** Attention with rotary positions; heads of q share key/value heads. The projections have no bias. */
export class LlamaAttention extends Module {
  /** @internal */ static override readonly className: string = "LlamaAttention";
  /** [numAttentionHeads * headDim, hiddenSize] */
  readonly qProj: Layer;
  /** [numKeyValueHeads * headDim, hiddenSize] */
  readonly kProj: Layer;
  /** [numKeyValueHeads * headDim, hiddenSize] */
  readonly vProj: Layer;
  /** [hiddenSize, numAttentionHeads * headDim] */
  readonly oProj: Layer;
  readonly #heads: number;
  readonly #kvHeads: number;
  readonly #dim: number;

  constructor(
    c: LlamaConfig,
    /** Its place in the cache. */
    readonly layer: number,
  ) {
    super();
    this.#heads = c.numAttentionHeads;
    this.#kvHeads = c.numKeyValueHeads;
    this.#dim = c.headDim;
    this.qProj = new Linear(c.hiddenSize, this.#heads * this.#dim, { bias: false });
    this.kProj = new Linear(c.hiddenSize, this.#kvHeads * this.#dim, { bias: false });
    this.vProj = new Linear(c.hiddenSize, this.#kvHeads * this.#dim, { bias: false });
    this.oProj = new Linear(this.#heads * this.#dim, c.hiddenSize, { bias: false });
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, table: RopeTable, cache?: KeyValueCache): Tensor {
    const [batch, steps] = x.shape as [number, number];
    const first = cache?.length ?? 0;
    return graphScope(() => {
      const q = rope(reshape(this.qProj.forward(x), [batch, steps, this.#heads, this.#dim]), table, first);
      let k = rope(reshape(this.kProj.forward(x), [batch, steps, this.#kvHeads, this.#dim]), table, first);
      let v = reshape(this.vProj.forward(x), [batch, steps, this.#kvHeads, this.#dim]);
      if (cache) [k, v] = cache.extend(this.layer, k, v);
      return this.oProj.forward(reshape(causalAttention(q, k, v), [batch, steps, this.#heads * this.#dim]));
    });
  }
}

/** down(silu(gate(x)) * up(x)), without biases. */
export class LlamaMLP extends Module {
  /** @internal */ static override readonly className: string = "LlamaMLP";
  /** [intermediateSize, hiddenSize] */
  readonly gateProj: Layer;
  /** [intermediateSize, hiddenSize] */
  readonly upProj: Layer;
  /** [hiddenSize, intermediateSize] */
  readonly downProj: Layer;

  constructor(c: LlamaConfig) {
    super();
    this.gateProj = new Linear(c.hiddenSize, c.intermediateSize, { bias: false });
    this.upProj = new Linear(c.hiddenSize, c.intermediateSize, { bias: false });
    this.downProj = new Linear(c.intermediateSize, c.hiddenSize, { bias: false });
  }

  /** x [..., hiddenSize] -> x's shape. */
  forward(x: Tensor): Tensor {
    return graphScope(() => this.downProj.forward(siluMul(this.gateProj.forward(x), this.upProj.forward(x))));
  }
}

/** Attention and MLP, each on its normalised input and added to it. */
export class LlamaLayer extends Module {
  /** @internal */ static override readonly className: string = "LlamaLayer";
  /** Attention. */
  readonly selfAttn: LlamaAttention;
  /** MLP. */
  readonly mlp: LlamaMLP;
  /** Before the attention. */
  readonly inputLayernorm: RMSNorm;
  /** Before the MLP. */
  readonly postAttentionLayernorm: RMSNorm;

  constructor(c: LlamaConfig, layer: number) {
    super();
    this.selfAttn = new LlamaAttention(c, layer);
    this.mlp = new LlamaMLP(c);
    this.inputLayernorm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
    this.postAttentionLayernorm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, table: RopeTable, cache?: KeyValueCache): Tensor {
    return graphScope(() => {
      const h = add(x, this.selfAttn.forward(this.inputLayernorm.forward(x), table, cache));
      return add(h, this.mlp.forward(this.postAttentionLayernorm.forward(h)));
    });
  }
}

/** A Llama without its head. */
export class LlamaModel extends Module {
  /** @internal */ static override readonly className: string = "LlamaModel";
  /** An nn.Embedding, or what wraps it. */
  readonly embedTokens: Layer & {
    /** The table. */
    readonly weight: Parameter;
  };
  /** First to last. */
  readonly layers: LlamaLayer[];
  /** After the last layer. */
  readonly norm: RMSNorm;

  constructor(c: LlamaConfig) {
    super();
    this.embedTokens = new Embedding(c.vocabSize, c.hiddenSize);
    this.layers = Array.from({ length: c.numHiddenLayers }, (_, i) => new LlamaLayer(c, i));
    this.norm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
  }
}

/**
 * A Llama with its language-model head. Weights start random (N(0, 0.02²) as Hugging Face's); load a
 * checkpoint with `loadStateDict` or `models.loadLlama`, and add LoRA with `peft.getLoraModel`.
 *
 * Source: Touvron et al. 2023; transformers, models/llama/modeling_llama.py.
 * @throws ArgumentError on a size out of range; ShapeError for an odd headDim
 *
 * @example
 * const { model } = models.loadLlama("models/base");
 * const adapted = peft.getLoraModel(model, { r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] });
 * const ids = tensor(new Int32Array([5, 6, 7, 8]), [1, 4]), targets = tensor(new Int32Array([6, 7, 8, 9]), [1, 4]);
 * model.loss(ids, targets).backward();
 */
export class Llama extends Module {
  /** @internal */ static override readonly className: string = "Llama";
  /** All but the head. */
  readonly model: LlamaModel;
  /**
   * null when tied: then the embedding table is the head. While adapters are on the model: a layer on the table's
   * weight.
   */
  lmHead: Layer | null;
  /**
   * Whether backward computes each layer's activations again, so that only its input is kept (Hugging Face:
   * gradient_checkpointing_enable()).
   */
  gradientCheckpointing = false;
  /** Angles of positions so far: each table has those before it, which what awaits backward may still read. */
  readonly #tables: RopeTable[] = [];

  constructor(
    /** Its sizes. tieWordEmbeddings becomes false where adapters that are merged part the head from the table. */
    public config: Readonly<LlamaConfig>,
  ) {
    super();
    checkConfig(
      "Llama",
      config,
      [
        "vocabSize",
        "hiddenSize",
        "intermediateSize",
        "numHiddenLayers",
        "numAttentionHeads",
        "numKeyValueHeads",
        "headDim",
        "maxPositionEmbeddings",
      ],
      ["rmsNormEps", "ropeTheta"],
    );
    [this.model, this.lmHead] = allOrNothing(() => {
      const model = new LlamaModel(config);
      const lmHead = config.tieWordEmbeddings ? null : new Linear(config.hiddenSize, config.vocabSize, { bias: false });
      for (const p of [...model.parameters(), ...(lmHead?.parameters() ?? [])])
        if (p.rank === 2) init.normal_(p, 0, 0.02);
      this.#tableOf(Math.min(config.maxPositionEmbeddings, FIRST_POSITIONS));
      return [model, lmHead];
    });
  }

  /** The angles of at least so many positions. What a model is made for may be far more than any text has. */
  #tableOf(positions: number): RopeTable {
    const { maxPositionEmbeddings, headDim, ropeTheta } = this.config;
    const last = this.#tables.at(-1);
    const there = last?.cos.shape[0] ?? 0;
    if (last && positions <= there) return last;
    if (positions > maxPositionEmbeddings) {
      throw new ShapeError(
        `Llama.forward: positions up to ${positions} are needed; the model has maxPositionEmbeddings = ` +
          `${maxPositionEmbeddings}.`,
      );
    }
    const table = ropeTable(Math.min(maxPositionEmbeddings, Math.max(positions, 2 * there)), headDim, ropeTheta);
    this.#tables.push(table);
    return table;
  }

  /**
   * @param ids int32 [batch, steps]
   * @param cache for one sequence: ids are its next tokens, and the cache takes them in
   * @returns logits [batch, steps, vocabSize]
   * @throws ArgumentError for an id beyond the vocabulary; ShapeError beyond maxPositionEmbeddings
   */
  forward(ids: Tensor, cache?: KeyValueCache): Tensor {
    const logits = logitsOf(this.#hidden(ids, cache), this.lmHead, this.model.embedTokens);
    if (cache) cache.length += ids.shape[1]!;
    return logits;
  }

  /** All but the head: [batch, steps, hiddenSize]. */
  #hidden(ids: Tensor, cache?: KeyValueCache): Tensor {
    checkTensor("Llama.forward", "ids", ids, "int32", [cache ? 1 : null, null]);
    const table = this.#tableOf((cache?.length ?? 0) + ids.shape[1]!);
    let x = this.model.embedTokens.forward(ids);
    for (const layer of this.model.layers) {
      x =
        this.gradientCheckpointing && !cache
          ? gradientCheckpoint((h) => layer.forward(h, table), x)
          : layer.forward(x, table, cache);
    }
    return this.model.norm.forward(x);
  }

  /** Lets adapters see a tied head. @internal */
  showHead(): void {
    this.lmHead ??= tiedHead(this, this.model.embedTokens);
  }

  /** Afterwards: null if it is tied still. @internal */
  hideHead(): void {
    this.lmHead = untiedHead(this.lmHead, this.model.embedTokens);
    if (this.lmHead && this.config.tieWordEmbeddings) this.config = { ...this.config, tieWordEmbeddings: false };
  }

  /** The head; the embedding table where it is both (transformers' get_output_embeddings). */
  getOutputEmbeddings(): Module {
    return this.lmHead ?? this.model.embedTokens;
  }

  /**
   * Mean cross-entropy, of shape [], of predicting `targets` (int32 [batch, steps]; -100 is ignored) from `ids`. Errors
   * as `forward`.
   */
  loss(ids: Tensor, targets: Tensor): Tensor {
    return lossOf(this.#hidden(ids), this.lmHead, this.model.embedTokens, targets);
  }

  /** An empty cache for `forward`. */
  newCache(): KeyValueCache {
    return new KeyValueCache(this.config);
  }

  /** Disposes all parameters and the table of angles. */
  override dispose(): void {
    super.dispose();
    for (const { cos, sin } of this.#tables.splice(0)) {
      cos.dispose();
      sin.dispose();
    }
  }
}
