/**
 * Llama: a decoder-only transformer (Touvron et al. 2023) in Hugging Face's names, composed of public
 * parts only: RMSNorm, rotary embedding, causal attention with grouped heads, SwiGLU.
 */
import { add, causalAttention, reshape, rope, ropeTable, siluMul, type RopeTable } from "../autograd/ops/index.js";
import { gradientCheckpoint } from "../autograd/gradient_checkpoint.js";
import { configReader } from "../io/config_reader.js";
import { asObject, show } from "../io/json.js";
import { Embedding, Linear, RMSNorm, type Layer } from "../nn/layers.js";
import { Module, type Parameter } from "../nn/module.js";
import * as init from "../nn/init.js";
import { checkTensor } from "../tensor/check.js";
import { ShapeError } from "../runtime/errors.js";
import { allOrNothing, graphScope } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { KeyValueCache } from "./cache.js";
import { logitsOf, lossOf, tiedHead, untiedHead } from "./causal_lm.js";
import { checkConfig, type ConfigOf } from "./config.js";
import type { Dimension, Family } from "./family.js";
import { loadFamily, readConfig, type LoadedModel } from "./load.js";

/** What config.json says of a Llama. */
export interface LlamaConfig {
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
export class Llama extends Module {
  /** @internal */ static override readonly className: string = "Llama";
  /** Its sizes. tieWordEmbeddings becomes false where adapters that are merged part the head from the table. */
  config: Readonly<LlamaConfig>;
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

  constructor(config: ConfigOf<LlamaConfig>) {
    super();
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
    this.config = { ...config, modelType: "llama" };
    [this.model, this.lmHead] = allOrNothing(() => {
      const model = new LlamaModel(this.config);
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

  /** Gives a tied head a layer of its own, so that adapters can act on it apart from the table. @internal */
  showHead(): void {
    this.lmHead ??= tiedHead(this, this.model.embedTokens);
  }

  /** Takes that layer away again, unless an adapter has made its weight another than the table's. @internal */
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

/** Every key of a Llama, with the keys of config.json that say its shape. */
function* llamaShapes(c: LlamaConfig): Generator<readonly [string, readonly Dimension[]]> {
  const hidden: Dimension = ["hidden_size", c.hiddenSize];
  const vocab: Dimension = ["vocab_size", c.vocabSize];
  const mlp: Dimension = ["intermediate_size", c.intermediateSize];
  const heads: Dimension = ["num_attention_heads * head_dim", c.numAttentionHeads * c.headDim];
  const kv: Dimension = ["num_key_value_heads * head_dim", c.numKeyValueHeads * c.headDim];
  yield ["model.embed_tokens.weight", [vocab, hidden]];
  yield ["model.norm.weight", [hidden]];
  if (!c.tieWordEmbeddings) yield ["lm_head.weight", [vocab, hidden]];
  for (let i = 0; i < c.numHiddenLayers; i++) {
    const at = `model.layers.${i}.`;
    yield [`${at}self_attn.q_proj.weight`, [heads, hidden]];
    for (const name of ["k", "v"]) yield [`${at}self_attn.${name}_proj.weight`, [kv, hidden]];
    yield [`${at}self_attn.o_proj.weight`, [hidden, heads]];
    for (const name of ["gate", "up"]) yield [`${at}mlp.${name}_proj.weight`, [mlp, hidden]];
    yield [`${at}mlp.down_proj.weight`, [hidden, mlp]];
    for (const name of ["input", "post_attention"]) yield [`${at}${name}_layernorm.weight`, [hidden]];
  }
}

/** What the table of families holds. @internal */
export const llama: Family<LlamaConfig, Llama> = {
  modelType: "llama",
  parseConfig: parseLlamaConfig,
  create: (config) => new Llama(config),
  prefix: "model.",
  table: "model.embed_tokens.weight",
  head: "lm_head.weight",
  layers: "model.layers.",
  layerCount: "num_hidden_layers",
  isBuffer: (name) => /(^|\.)rotary_emb\.inv_freq$/.test(name),
  shapes: llamaShapes,
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
  return loadFamily(llama, directory, readConfig("loadLlama", directory));
}
