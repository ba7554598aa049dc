/**
 * GPT-2: a decoder-only transformer (Radford et al. 2019) in Hugging Face's names, composed of public
 * parts only: learned positions, layer norms, causal attention over a fused projection, GELU.
 */
import { add, geluTanh, narrow, reshape } from "../../autograd/ops/index.js";
import { configReader } from "../../io/config_reader.js";
import { Embedding, LayerNorm, Linear, type Layer } from "../../nn/layers.js";
import { Module, type Parameter } from "../../nn/module.js";
import * as init from "../../nn/init.js";
import { graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { checkConfig, type ConfigOf } from "../parts/config.js";
import {
  DecoderForCausalLM,
  DecoderModel,
  initialised,
  type Block,
  type DecoderConfig,
  type Pass,
  type Table,
} from "../parts/decoder.js";
import type { Family, Size } from "../parts/family.js";
import { Heads } from "../parts/heads.js";

/** What config.json says of a GPT-2, in the names of LlamaConfig. */
export interface Gpt2Config extends DecoderConfig {
  /** transformers' model_type. */
  modelType: "gpt2";
  /** Width of the residual stream, a multiple of numAttentionHeads (n_embd). */
  hiddenSize: number;
  /** Width of the MLP: 4 hiddenSize unless n_inner says otherwise. */
  intermediateSize: number;
  /** Number of blocks (n_layer). */
  numHiddenLayers: number;
  /** Heads of attention (n_head). */
  numAttentionHeads: number;
  /** Number of token ids (vocab_size). */
  vocabSize: number;
  /** Longest sequence (n_positions). */
  maxPositionEmbeddings: number;
  /** eps of the norms (layer_norm_epsilon). */
  layerNormEpsilon: number;
  /** Whether the embedding table is the head too (tie_word_embeddings). */
  tieWordEmbeddings: boolean;
  /** Begins a text; null: the model has none. */
  bosTokenId: number | null;
  /** Ends a text, each of several; null: the model has none. What generation ends at: `data.specialTokens`. */
  eosTokenId: number | readonly number[] | null;
}

/** A projection whose weight is stored [in, out], as Hugging Face's Conv1D has it. */
function linearInOut(inFeatures: number, outFeatures: number): Linear {
  return new Linear(inFeatures, outFeatures, { fanInFanOut: true });
}

/** Attention over a fused projection. Weights are stored [in, out]. */
export class Gpt2Attention extends Module {
  /** @internal */ static override readonly className: string = "Gpt2Attention";
  /** Query, key and value: weight [hiddenSize, 3 hiddenSize]. */
  cAttn: Layer;
  /** Weight [hiddenSize, hiddenSize]. */
  cProj: Layer;
  readonly #heads: Heads;

  constructor({ hiddenSize: size, numAttentionHeads: heads }: Gpt2Config, layer: number) {
    super();
    this.cAttn = linearInOut(size, 3 * size);
    this.cProj = linearInOut(size, size);
    this.#heads = new Heads({ heads, kvHeads: heads, dim: size / heads, layer, rotary: null });
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    const [batch, steps] = x.shape as [number, number];
    const { heads, dim } = this.#heads.options;
    return graphScope(() => {
      const qkv = reshape(this.cAttn.forward(x), [batch, steps, 3 * heads, dim]);
      const [q, k, v] = [0, 1, 2].map((i) => narrow(qkv, 2, i * heads, heads)) as [Tensor, Tensor, Tensor];
      return this.cProj.forward(this.#heads.attend(q, k, v, pass));
    });
  }
}

/** c_proj(gelu(c_fc(x))). Weights are stored [in, out]. */
export class Gpt2MLP extends Module {
  /** @internal */ static override readonly className: string = "Gpt2MLP";
  /** Weight [hiddenSize, intermediateSize]. */
  cFc: Layer;
  /** Weight [intermediateSize, hiddenSize]. */
  cProj: Layer;

  constructor(c: Gpt2Config) {
    super();
    this.cFc = linearInOut(c.hiddenSize, c.intermediateSize);
    this.cProj = linearInOut(c.intermediateSize, c.hiddenSize);
  }

  /** x [..., hiddenSize] -> x's shape. */
  forward(x: Tensor): Tensor {
    return graphScope(() => this.cProj.forward(geluTanh(this.cFc.forward(x))));
  }
}

/** Attention and MLP, each on its normalised input and added to it. */
export class Gpt2Block extends Module implements Block {
  /** @internal */ static override readonly className: string = "Gpt2Block";
  // The key in files: camelCase would lose the underscore before a digit.
  /** Before the attention. */
  readonly ln_1: LayerNorm;
  /** Attention. */
  readonly attn: Gpt2Attention;
  /** Before the MLP. */
  readonly ln_2: LayerNorm;
  /** MLP. */
  readonly mlp: Gpt2MLP;

  constructor(c: Gpt2Config, layer: number) {
    super();
    this.ln_1 = new LayerNorm(c.hiddenSize, c.layerNormEpsilon);
    this.attn = new Gpt2Attention(c, layer);
    this.ln_2 = new LayerNorm(c.hiddenSize, c.layerNormEpsilon);
    this.mlp = new Gpt2MLP(c);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    return graphScope(() => {
      const h = add(x, this.attn.forward(this.ln_1.forward(x), pass));
      return add(h, this.mlp.forward(this.ln_2.forward(h)));
    });
  }
}

/** A GPT-2 without its head. */
export class Gpt2Model extends DecoderModel<Gpt2Config> {
  /** @internal */ static override readonly className: string = "Gpt2Model";
  /** Of tokens, [vocabSize, hiddenSize]: an nn.Embedding, or what wraps it; so is wpe. */
  readonly wte: Table;
  /** Of positions, [maxPositionEmbeddings, hiddenSize]. */
  readonly wpe: Layer;
  /** First block to last. */
  readonly h: Gpt2Block[];
  /** After the last block. */
  readonly lnF: LayerNorm;

  constructor(c: Readonly<Gpt2Config>) {
    super(c);
    this.wte = new Embedding(c.vocabSize, c.hiddenSize);
    this.wpe = new Embedding(c.maxPositionEmbeddings, c.hiddenSize);
    this.h = Array.from({ length: c.numHiddenLayers }, (_, i) => new Gpt2Block(c, i));
    this.lnF = new LayerNorm(c.hiddenSize, c.layerNormEpsilon);
  }

  override get table(): Table {
    return this.wte;
  }

  override get blocks(): readonly Gpt2Block[] {
    return this.h;
  }

  override get lastNorm(): LayerNorm {
    return this.lnF;
  }

  override embed(ids: Tensor, { positions }: Pass): Tensor {
    return graphScope(() => add(this.wte.forward(ids), this.wpe.forward(positions)));
  }

  override initParameter(name: string, parameter: Parameter): void {
    if (name.endsWith("c_proj.weight")) init.normal_(parameter, 0, 0.02 / Math.sqrt(2 * this.config.numHiddenLayers));
    else super.initParameter(name, parameter);
  }
}

/**
 * A GPT-2 with its language-model head; keys are Hugging Face's ("transformer.h.0.attn.c_attn.weight").
 * Weights start random as there: N(0, 0.02²), into the residual stream N(0, 0.02² / (2 layers)), biases
 * zero; load others with `loadStateDict` or `models.loadModel`, and add LoRA with `peft.getLoraModel`. It has
 * no dropout.
 *
 * Source: Radford et al. 2019; transformers, models/gpt2/modeling_gpt2.py.
 * @throws ArgumentError on a size out of range
 *
 * @example
 * const config = {
 *   vocabSize: 61, hiddenSize: 32, intermediateSize: 128, numHiddenLayers: 2, numAttentionHeads: 2,
 *   maxPositionEmbeddings: 17, layerNormEpsilon: 1e-5, tieWordEmbeddings: true, bosTokenId: null, eosTokenId: null,
 * };
 * const model = new models.Gpt2(config);
 * const logits = model.forward(tensor(new Int32Array([3, 1, 4]), [1, 3])); // [1, 3, 61]
 */
export class Gpt2 extends DecoderForCausalLM<Gpt2Config> {
  /** @internal */ static override readonly className: string = "Gpt2";
  /** All but the head. */
  declare readonly transformer: Gpt2Model;
  /**
   * null when tied: then the embedding table is the head. While adapters are on the model: a layer on the table's
   * weight.
   */
  declare lmHead: Layer | null;

  constructor(config: ConfigOf<Gpt2Config>) {
    checkConfig(
      "Gpt2",
      "gpt2",
      config,
      ["vocabSize", "hiddenSize", "intermediateSize", "numHiddenLayers", "numAttentionHeads", "maxPositionEmbeddings"],
      ["layerNormEpsilon"],
    );
    super({ ...config, modelType: "gpt2" }, (c) => new Gpt2Model(c), { base: "transformer", head: "lmHead" });
  }
}

/**
 * What the file leaves out has the values of transformers' GPT2Config. Its dropout probabilities are not read: Gpt2
 * has no dropout.
 *
 * Source: huggingface/transformers 5, models/gpt2/configuration_gpt2.py.
 * @param json of config.json
 * @param name of the file, for errors
 * @throws FormatError naming the key that is wrong or asks for what is not supported
 */
export function parseGpt2Config(json: unknown, name: string): Gpt2Config {
  const { fail, count, positive, flag, only, token, tokens } = configReader(json, name, "gpt2");
  only("activation_function", "gelu_new");
  only("scale_attn_weights", true);
  only("scale_attn_by_inverse_layer_idx", false);
  only("add_cross_attention", false);
  const hiddenSize = count("n_embd", 768);
  const numAttentionHeads = count("n_head", 12);
  if (hiddenSize % numAttentionHeads !== 0)
    fail(`n_embd is ${hiddenSize}; expected a multiple of n_head = ${numAttentionHeads}`);
  return {
    modelType: "gpt2",
    hiddenSize,
    intermediateSize: count("n_inner", 4 * hiddenSize),
    numHiddenLayers: count("n_layer", 12),
    numAttentionHeads,
    vocabSize: count("vocab_size", 50257),
    maxPositionEmbeddings: count("n_positions", 1024),
    layerNormEpsilon: positive("layer_norm_epsilon", 1e-5),
    tieWordEmbeddings: flag("tie_word_embeddings", true),
    bosTokenId: token("bos_token_id", 50256),
    eosTokenId: tokens("eos_token_id", 50256),
  };
}

/** What the table of families holds. @internal */
export const gpt2: Family<Gpt2Config> = {
  modelType: "gpt2",
  parseConfig: parseGpt2Config,
  heads: {
    "causal-lm": { architectures: ["GPT2LMHeadModel"], keys: ["lm_head."], create: (config) => new Gpt2(config) },
    none: { architectures: ["GPT2Model"], keys: [], create: (config) => initialised(new Gpt2Model(config)) },
  },
  prefix: "transformer.",
  layers: "h.",
  layerCount: "n_layer",
  tied: { table: "transformer.wte.weight", head: "lm_head.weight" },
  headKeys: ["lm_head.", "score."],
  isBuffer: (name) => /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/.test(name),
  sizes: (c): readonly Size[] => [
    ["n_embd", c.hiddenSize],
    ["n_inner (4 n_embd where it is left out)", c.intermediateSize],
    ["vocab_size", c.vocabSize],
    ["n_positions", c.maxPositionEmbeddings],
    ["3 n_embd", 3 * c.hiddenSize],
  ],
};
