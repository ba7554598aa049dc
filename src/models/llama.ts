/**
 * Llama: a decoder-only transformer (Touvron et al. 2023) in Hugging Face's names, composed of public
 * parts only: RMSNorm, rotary embedding, causal attention with grouped heads, SwiGLU.
 */
import { add, causalAttention, crossEntropy, linear, reshape, rope, ropeTable, siluMul, type RopeTable } from "../autograd/ops/index.js";
import type { LlamaConfig } from "../io/huggingface.js";
import * as lora from "../lora/index.js";
import { Embedding, Linear, RMSNorm } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import { init } from "../nn/index.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkTensor } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { KeyValueCache } from "./cache.js";

/** LoRA for the linear layers whose last name is in targetModules ("q_proj", "v_proj", ...). */
export interface LlamaLora {
  r: number;
  loraAlpha: number;
  loraDropout?: number;
  targetModules: readonly string[];
}

/** Names that `targetModules` may hold. */
export const LLAMA_LINEAR_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;

type AnyLinear = Linear | lora.Linear;

function makeLinear(name: string, inFeatures: number, outFeatures: number, options?: LlamaLora): AnyLinear {
  if (!options?.targetModules.includes(name)) return new Linear(inFeatures, outFeatures, { bias: false });
  const { r, loraAlpha, loraDropout } = options;
  return new lora.Linear(inFeatures, outFeatures, { r, loraAlpha, loraDropout, bias: false });
}

class LlamaAttention extends Module {
  readonly qProj: AnyLinear;
  readonly kProj: AnyLinear;
  readonly vProj: AnyLinear;
  readonly oProj: AnyLinear;
  readonly #heads: number;
  readonly #kvHeads: number;
  readonly #dim: number;

  constructor(c: LlamaConfig, readonly layer: number, options?: LlamaLora) {
    super();
    this.#heads = c.numAttentionHeads;
    this.#kvHeads = c.numKeyValueHeads;
    this.#dim = c.headDim;
    this.qProj = makeLinear("q_proj", c.hiddenSize, this.#heads * this.#dim, options);
    this.kProj = makeLinear("k_proj", c.hiddenSize, this.#kvHeads * this.#dim, options);
    this.vProj = makeLinear("v_proj", c.hiddenSize, this.#kvHeads * this.#dim, options);
    this.oProj = makeLinear("o_proj", this.#heads * this.#dim, c.hiddenSize, options);
  }

  forward(x: Tensor, table: RopeTable, cache?: KeyValueCache): Tensor {
    const [batch, steps] = x.shape as [number, number];
    const first = cache?.length ?? 0;
    const q = rope(reshape(this.qProj.forward(x), [batch, steps, this.#heads, this.#dim]), table, first);
    let k = rope(reshape(this.kProj.forward(x), [batch, steps, this.#kvHeads, this.#dim]), table, first);
    let v = reshape(this.vProj.forward(x), [batch, steps, this.#kvHeads, this.#dim]);
    if (cache) [k, v] = cache.extend(this.layer, k, v);
    return this.oProj.forward(reshape(causalAttention(q, k, v), [batch, steps, this.#heads * this.#dim]));
  }
}

class LlamaMLP extends Module {
  readonly gateProj: AnyLinear;
  readonly upProj: AnyLinear;
  readonly downProj: AnyLinear;

  constructor(c: LlamaConfig, options?: LlamaLora) {
    super();
    this.gateProj = makeLinear("gate_proj", c.hiddenSize, c.intermediateSize, options);
    this.upProj = makeLinear("up_proj", c.hiddenSize, c.intermediateSize, options);
    this.downProj = makeLinear("down_proj", c.intermediateSize, c.hiddenSize, options);
  }

  forward(x: Tensor): Tensor { return this.downProj.forward(siluMul(this.gateProj.forward(x), this.upProj.forward(x))); }
}

class LlamaLayer extends Module {
  readonly selfAttn: LlamaAttention;
  readonly mlp: LlamaMLP;
  readonly inputLayernorm: RMSNorm;
  readonly postAttentionLayernorm: RMSNorm;

  constructor(c: LlamaConfig, layer: number, options?: LlamaLora) {
    super();
    this.selfAttn = new LlamaAttention(c, layer, options);
    this.mlp = new LlamaMLP(c, options);
    this.inputLayernorm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
    this.postAttentionLayernorm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
  }

  forward(x: Tensor, table: RopeTable, cache?: KeyValueCache): Tensor {
    const h = add(x, this.selfAttn.forward(this.inputLayernorm.forward(x), table, cache));
    return add(h, this.mlp.forward(this.postAttentionLayernorm.forward(h)));
  }
}

class LlamaModel extends Module {
  readonly embedTokens: Embedding;
  readonly layers: LlamaLayer[];
  readonly norm: RMSNorm;

  constructor(c: LlamaConfig, options?: LlamaLora) {
    super();
    this.embedTokens = new Embedding(c.vocabSize, c.hiddenSize);
    this.layers = Array.from({ length: c.numHiddenLayers }, (_, i) => new LlamaLayer(c, i, options));
    this.norm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
  }
}

/**
 * A Llama with its language-model head. Weights start random (N(0, 0.02²) as Hugging Face's); load a
 * checkpoint with `loadStateDict` or `models.loadLlama`.
 *
 * @param options LoRA on the linear layers named in targetModules; those weights are frozen
 * @throws ArgumentError on an unknown target module
 *
 * @example
 * const { model } = models.loadLlama("models/base", { r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] });
 * lora.markOnlyLoraAsTrainable(model);
 */
export class Llama extends Module {
  readonly model: LlamaModel;
  /** null when tied: then the embedding table is the head. */
  readonly lmHead: Linear | null;
  readonly #table: RopeTable;

  constructor(readonly config: LlamaConfig, options?: LlamaLora) {
    super();
    for (const name of options?.targetModules ?? []) {
      if (!(LLAMA_LINEAR_MODULES as readonly string[]).includes(name)) {
        throw new ArgumentError(`Llama: targetModules holds "${name}"; expected some of ${LLAMA_LINEAR_MODULES.join(", ")}.`);
      }
    }
    this.model = new LlamaModel(config, options);
    this.lmHead = config.tieWordEmbeddings ? null : new Linear(config.hiddenSize, config.vocabSize, { bias: false });
    for (const [name, p] of this.namedParameters()) {
      if (p.rank === 2 && !name.includes("lora_")) init.normal_(p, 0, 0.02);
    }
    this.#table = ropeTable(config.maxPositionEmbeddings, config.headDim, config.ropeTheta);
  }

  /**
   * @param ids int32 [batch, steps]
   * @param cache for one sequence: ids are its next tokens, and the cache takes them in
   * @returns logits [batch, steps, vocabSize]
   * @throws ArgumentError for an id beyond the vocabulary; ShapeError beyond maxPositionEmbeddings
   */
  forward(ids: Tensor, cache?: KeyValueCache): Tensor {
    checkTensor("Llama.forward", "ids", ids, "int32", [cache ? 1 : null, null]);
    let x = this.model.embedTokens.forward(ids);
    for (const layer of this.model.layers) x = layer.forward(x, this.#table, cache);
    if (cache) cache.length += ids.shape[1]!;
    x = this.model.norm.forward(x);
    return this.lmHead ? this.lmHead.forward(x) : linear(x, this.model.embedTokens.weight);
  }

  /** Mean cross-entropy of predicting `targets` [batch, steps] (int32; -100 is ignored) from `ids`. */
  loss(ids: Tensor, targets: Tensor): Tensor { return crossEntropy(this.forward(ids), targets); }

  /** An empty cache for `forward`. */
  newCache(): KeyValueCache { return new KeyValueCache(this.config); }

  override dispose(): void {
    super.dispose();
    this.#table.cos.dispose();
    this.#table.sin.dispose();
  }
}
