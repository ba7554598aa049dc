/**
 * Llama: a decoder-only transformer (Touvron et al. 2023) in Hugging Face's names, composed of public
 * parts only: RMSNorm, rotary embedding, causal attention with grouped heads, SwiGLU.
 */
import {
  add,
  attention,
  reshape,
  rope,
  ropeFrequencies,
  ropeTable,
  siluMul,
  type RopeTable,
} from "../autograd/ops/index.js";
import { configReader } from "../io/config_reader.js";
import { asObject, show } from "../io/json.js";
import { Embedding, Linear, RMSNorm, type Layer } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import { graphScope, scope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import type { CacheShape } from "./cache.js";
import { checkConfig, type ConfigOf } from "./config.js";
import {
  DecoderForCausalLM,
  DecoderModel,
  initialised,
  type Block,
  type DecoderConfig,
  type Pass,
  type Table,
} from "./decoder.js";
import type { Family, Size } from "./family.js";
import { loadFamily, readConfig, type LoadedModel } from "./load.js";

/** What config.json says of a Llama. */
export interface LlamaConfig extends DecoderConfig {
  /** transformers' model_type. */
  modelType: "llama";
  /** Width of the residual stream (hidden_size). */
  hiddenSize: number;
  /** Width of the MLP (intermediate_size). */
  intermediateSize: number;
  /** Number of layers (num_hidden_layers). */
  numHiddenLayers: number;
  /** Heads of queries (num_attention_heads). */
  numAttentionHeads: number;
  /** Heads of keys and values; divides numAttentionHeads (num_key_value_heads). */
  numKeyValueHeads: number;
  /** Values of a head, even (head_dim). */
  headDim: number;
  /** Number of token ids (vocab_size). */
  vocabSize: number;
  /** Longest sequence (max_position_embeddings). */
  maxPositionEmbeddings: number;
  /** eps of the norms (rms_norm_eps). */
  rmsNormEps: number;
  /** Base of the rotary frequencies (rope_theta). */
  ropeTheta: number;
  /** Whether the embedding table is the head too (tie_word_embeddings). */
  tieWordEmbeddings: boolean;
  /** Begins a text; null: the model has none. */
  bosTokenId: number | null;
  /** Ends a text, each of several; null: the model has none. What generation ends at: `data.specialTokens`. */
  eosTokenId: number | readonly number[] | null;
}

/** Positions whose angles are made with a model; more as texts need them. */
const FIRST_POSITIONS = 2048;

/** What the layers of one forward share: the angles, too. */
interface LlamaPass extends Pass {
  readonly table: RopeTable;
}

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
  forward(x: Tensor, { table, positions, ranges, cache }: LlamaPass): Tensor {
    const [batch, steps] = x.shape as [number, number];
    return graphScope(() => {
      const q = rope(reshape(this.qProj.forward(x), [batch, steps, this.#heads, this.#dim]), table, positions);
      let k = rope(reshape(this.kProj.forward(x), [batch, steps, this.#kvHeads, this.#dim]), table, positions);
      let v = reshape(this.vProj.forward(x), [batch, steps, this.#kvHeads, this.#dim]);
      if (cache) [k, v] = cache.extend(this.layer, k, v);
      return this.oProj.forward(reshape(attention(q, k, v, { ranges }), [batch, steps, this.#heads * this.#dim]));
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
export class LlamaLayer extends Module implements Block<LlamaPass> {
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
  forward(x: Tensor, pass: LlamaPass): Tensor {
    return graphScope(() => {
      const h = add(x, this.selfAttn.forward(this.inputLayernorm.forward(x), pass));
      return add(h, this.mlp.forward(this.postAttentionLayernorm.forward(h)));
    });
  }
}

/** A Llama without its head. */
export class LlamaModel extends DecoderModel<LlamaConfig, LlamaPass> {
  /** @internal */ static override readonly className: string = "LlamaModel";
  /** An nn.Embedding, or what wraps it. */
  readonly embedTokens: Table;
  /** First to last. */
  readonly layers: LlamaLayer[];
  /** After the last layer. */
  readonly norm: RMSNorm;
  /** Angles of positions so far: each table has those before it, which what awaits backward may still read. */
  readonly #tables: RopeTable[] = [];

  constructor(c: Readonly<LlamaConfig>) {
    super(c);
    this.embedTokens = new Embedding(c.vocabSize, c.hiddenSize);
    this.layers = Array.from({ length: c.numHiddenLayers }, (_, i) => new LlamaLayer(c, i));
    this.norm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
    this.#tableOf(Math.min(c.maxPositionEmbeddings, FIRST_POSITIONS));
  }

  override get table(): Table {
    return this.embedTokens;
  }

  override get blocks(): readonly LlamaLayer[] {
    return this.layers;
  }

  override newLayer(_source: number, index: number): LlamaLayer {
    return new LlamaLayer(this.config, index);
  }

  override get lastNorm(): RMSNorm {
    return this.norm;
  }

  override get cacheShape(): CacheShape {
    return this.config;
  }

  override embed(ids: Tensor): Tensor {
    return this.embedTokens.forward(ids);
  }

  override passOf(pass: Pass, reach: number): LlamaPass {
    return { ...pass, table: this.#tableOf(reach) };
  }

  /** The angles of at least so many positions. What a model is made for may be far more than any text has. */
  #tableOf(positions: number): RopeTable {
    const { maxPositionEmbeddings, headDim, ropeTheta } = this.config;
    const last = this.#tables.at(-1);
    const there = last?.cos.shape[0] ?? 0;
    if (last && positions <= there) return last;
    const table = scope(() =>
      ropeTable(Math.min(maxPositionEmbeddings, Math.max(positions, 2 * there)), ropeFrequencies(headDim, ropeTheta)),
    );
    table.cos.keep();
    table.sin.keep();
    this.#tables.push(table);
    return table;
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

/**
 * A Llama with its language-model head. Weights start random (N(0, 0.02²) as Hugging Face's); load
 * others with `loadStateDict` or `models.loadLlama`, and add LoRA with `peft.getLoraModel`.
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
export class Llama extends DecoderForCausalLM<LlamaConfig> {
  /** @internal */ static override readonly className: string = "Llama";
  /** All but the head. */
  declare readonly model: LlamaModel;
  /**
   * null when tied: then the embedding table is the head. While adapters are on the model: a layer on the table's
   * weight.
   */
  declare lmHead: Layer | null;

  constructor(config: ConfigOf<LlamaConfig>) {
    checkConfig(
      "Llama",
      "llama",
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
    super({ ...config, modelType: "llama" }, (c) => new LlamaModel(c));
  }
}

/**
 * What the file leaves out has the values of transformers' LlamaConfig.
 *
 * Source: huggingface/transformers 5, models/llama/configuration_llama.py.
 * @param json of config.json
 * @param name of the file, for errors
 * @throws FormatError naming the key that is wrong or asks for what is not supported
 */
export function parseLlamaConfig(json: unknown, name: string): LlamaConfig {
  const { config, fail, count, positive, flag, only, token, tokens } = configReader(json, name, "llama");
  only("attention_dropout", 0);
  only("hidden_act", "silu");
  only("attention_bias", false);
  only("mlp_bias", false);
  only("partial_rotary_factor", 1);
  // Since transformers 5 theta stands in rope_parameters, beside the kind of scaling.
  const [rope] = ["rope_parameters", "rope_scaling"].map((name) => {
    const parameters =
      config[name] == null
        ? {}
        : (asObject(config[name]) ?? fail(`${name} is ${show(config[name])}; expected an object`));
    // The kind of scaling is judged first, since the other keys only follow from it.
    for (const [key, value] of Object.entries(parameters).sort(
      ([a], [b]) => Number(b.endsWith("type")) - Number(a.endsWith("type")),
    )) {
      const plain =
        key === "rope_theta" ||
        ((key === "rope_type" || key === "type") && value === "default") ||
        ((key === "partial_rotary_factor" || key === "factor") && value === 1) ||
        value === null;
      if (!plain) fail(`${name} has ${key} ${show(value)}; only rope_type "default" is supported`);
    }
    return parameters;
  });
  const hiddenSize = count("hidden_size", 4096);
  const numAttentionHeads = count("num_attention_heads", 32);
  if (config.head_dim == null && hiddenSize % numAttentionHeads !== 0) {
    fail(
      `hidden_size is ${hiddenSize}; without head_dim it must be a multiple of num_attention_heads = ` +
        `${numAttentionHeads}`,
    );
  }
  const headDim = count("head_dim", hiddenSize / numAttentionHeads);
  if (headDim % 2 !== 0) fail(`head_dim is ${headDim}; rotary embeddings need an even number`);
  const numKeyValueHeads = count("num_key_value_heads", numAttentionHeads);
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    fail(
      `num_attention_heads is ${numAttentionHeads}; expected a multiple of num_key_value_heads = ${numKeyValueHeads}`,
    );
  }
  return {
    modelType: "llama",
    hiddenSize,
    intermediateSize: count("intermediate_size", 11008),
    numHiddenLayers: count("num_hidden_layers", 32),
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    vocabSize: count("vocab_size", 32000),
    maxPositionEmbeddings: count("max_position_embeddings", 2048),
    rmsNormEps: positive("rms_norm_eps", 1e-6),
    ropeTheta: rope!.rope_theta == null ? positive("rope_theta", 10000) : positive("rope_theta", undefined, rope),
    tieWordEmbeddings: flag("tie_word_embeddings", false),
    bosTokenId: token("bos_token_id", 1),
    eosTokenId: tokens("eos_token_id", 2),
  };
}

/** What the table of families holds. @internal */
export const llama: Family<LlamaConfig> = {
  modelType: "llama",
  parseConfig: parseLlamaConfig,
  heads: {
    "causal-lm": { architectures: ["LlamaForCausalLM"], keys: ["lm_head."], create: (config) => new Llama(config) },
    none: { architectures: ["LlamaModel"], keys: [], create: (config) => initialised(new LlamaModel(config)) },
  },
  prefix: "model.",
  layers: "layers.",
  layerCount: "num_hidden_layers",
  tied: { table: "model.embed_tokens.weight", head: "lm_head.weight" },
  headKeys: ["lm_head.", "score."],
  isBuffer: (name) => /(^|\.)rotary_emb\.inv_freq$/.test(name),
  sizes: (c): readonly Size[] => [
    ["hidden_size", c.hiddenSize],
    ["intermediate_size", c.intermediateSize],
    ["vocab_size", c.vocabSize],
    ["num_attention_heads * head_dim", c.numAttentionHeads * c.headDim],
    ["num_key_value_heads * head_dim", c.numKeyValueHeads * c.headDim],
  ],
};

/**
 * A Llama from a folder with config.json and model.safetensors (or its shards), F32, F16 or BF16. Whether the embedding
 * table is the head too is what the weights say: a head that differs from the table is a head of its own, whatever
 * config.json says.
 *
 * Source: transformers, LlamaForCausalLM.from_pretrained.
 * @throws FileError, FormatError naming what is missing, unknown or of another shape than config.json says
 *
 * @example
 * const { model, config } = models.loadLlama("models/base");
 * const logits = noGrad(() => model.forward(tensor(new Int32Array([5, 6, 7]), [1, 3])));
 * console.log(logits.shape[2] === config.vocabSize); // true
 */
export function loadLlama(directory: string): LoadedModel<Llama, LlamaConfig> {
  return loadFamily<LlamaConfig, Llama, "causal-lm">(llama, directory, readConfig("loadLlama", directory), {
    head: "causal-lm",
  });
}
