/**
 * What the many families after Llama share: embeddings, layers of attention and a gated MLP with RMSNorms, a last norm.
 * A family's file says how its layers differ.
 */
import { add, scale } from "../../autograd/ops/index.js";
import { configReader } from "../../io/config_reader.js";
import { Embedding, RMSNorm, type Layer } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { CacheShape } from "../parts/cache.js";
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
import type { SelfAttentionOptions } from "../parts/heads.js";
import { readLayerTypes, type LayerType } from "../parts/layer_types.js";
import { parseRope, RotaryEmbedding, type RopeParameters } from "../parts/rope.js";

/** What every configuration of these families says. */
export interface LlamaLikeConfig extends DecoderConfig {
  /** Width of the MLP (intermediate_size). */
  intermediateSize: number;
  /** Heads of queries (num_attention_heads). */
  numAttentionHeads: number;
  /** Heads of keys and values; divides numAttentionHeads (num_key_value_heads). */
  numKeyValueHeads: number;
  /** Values of a head, even (head_dim). */
  headDim: number;
  /** eps of the norms (rms_norm_eps). */
  rmsNormEps: number;
  /** max_position_embeddings where ropeParameters is made for longer texts. Default: maxPositionEmbeddings. */
  originalMaxPositionEmbeddings?: number | undefined;
  /** How positions turn queries and keys (rope_parameters; in older files rope_theta and rope_scaling). */
  ropeParameters: RopeParameters;
}

/** What transformers' configuration class has where a file says nothing. */
export interface Defaults {
  hiddenSize: number;
  intermediateSize: number;
  numHiddenLayers: number;
  numAttentionHeads: number;
  /** null: as many as numAttentionHeads. */
  numKeyValueHeads: number | null;
  /** null: hiddenSize / numAttentionHeads. */
  headDim?: number | null | undefined;
  vocabSize: number;
  maxPositionEmbeddings: number;
  rmsNormEps: number;
  ropeTheta?: number | undefined;
  /** Whether a part of each head may be left as it is. Default: no. */
  partialRotary?: boolean | undefined;
  /** Whether layers with a window have positions of their own; these are the others'. Default: no. */
  perLayerType?: boolean | undefined;
  tieWordEmbeddings?: boolean | undefined;
  bosTokenId?: number | null | undefined;
  eosTokenId?: number | null | undefined;
}

/** Reads config.json's keys. */
export type Reader = ReturnType<typeof configReader>;

/**
 * What these families' files say in common. It is for the caller to refuse what its family has not. Dropout
 * probabilities are not read: these models have no dropout.
 */
export function readLlamaLike(reader: Reader, defaults: Defaults): LlamaLikeConfig {
  const { config, fail, count, positive, flag, token, tokens } = reader;
  const hiddenSize = count("hidden_size", defaults.hiddenSize);
  const numAttentionHeads = count("num_attention_heads", defaults.numAttentionHeads);
  const numKeyValueHeads = count("num_key_value_heads", defaults.numKeyValueHeads ?? numAttentionHeads);
  const isDerived = config["head_dim"] == null && defaults.headDim == null;
  if (isDerived && hiddenSize % numAttentionHeads !== 0)
    fail(`hidden_size is ${hiddenSize}; expected a multiple of num_attention_heads = ${numAttentionHeads}`);
  const headDim = count("head_dim", defaults.headDim ?? hiddenSize / numAttentionHeads);
  if (headDim % 2 !== 0) fail(`head_dim is ${headDim}; expected an even number`);
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    fail(
      `num_attention_heads is ${numAttentionHeads}; expected a multiple of num_key_value_heads = ${numKeyValueHeads}`,
    );
  }
  const positions = count("max_position_embeddings", defaults.maxPositionEmbeddings);
  const ropeParameters = parseRope(reader, {
    headDim,
    maxPositionEmbeddings: positions,
    theta: defaults.ropeTheta,
    ...(defaults.perLayerType ? { layerType: "full_attention" } : {}),
  });
  if (ropeParameters.partialRotaryFactor !== undefined && !defaults.partialRotary)
    fail(`partial_rotary_factor is ${ropeParameters.partialRotaryFactor}; only 1 is supported`);
  return {
    modelType: config["model_type"] as string,
    hiddenSize,
    intermediateSize: count("intermediate_size", defaults.intermediateSize),
    numHiddenLayers: count("num_hidden_layers", defaults.numHiddenLayers),
    numAttentionHeads,
    numKeyValueHeads,
    headDim,
    vocabSize: count("vocab_size", defaults.vocabSize),
    ...longest(positions, ropeParameters),
    rmsNormEps: positive("rms_norm_eps", defaults.rmsNormEps),
    ropeParameters,
    tieWordEmbeddings: flag("tie_word_embeddings", defaults.tieWordEmbeddings ?? false),
    bosTokenId: token("bos_token_id", defaults.bosTokenId ?? null),
    eosTokenId: tokens("eos_token_id", defaults.eosTokenId ?? null),
  };
}

/** What configurations of models with windows say. */
export interface Windows {
  /** Tokens that a token sees in layers with a window, itself included; null: no layer has one (sliding_window). */
  slidingWindow: number | null;
  /** Of each layer (layer_types). Left out: as the family has it. */
  layerTypes?: readonly LayerType[] | undefined;
}

/** sliding_window and layer_types. @param window the default of sliding_window */
export function readWindows(reader: Reader, layers: number, window: number | null = null): Windows {
  const { config, count } = reader;
  const given = config["sliding_window"];
  const slidingWindow =
    given === null || (given === undefined && window === null) ? null : count("sliding_window", window ?? undefined);
  const layerTypes = readLayerTypes(reader, layers);
  return { slidingWindow, ...(layerTypes ? { layerTypes } : {}) };
}

/** readWindows where there is a window only if use_sliding_window says so. */
export function readOptionalWindows(reader: Reader, layers: number, window: number | null = null): Windows {
  const windows = readWindows(reader, layers, window);
  return reader.flag("use_sliding_window", false) ? windows : { ...windows, slidingWindow: null };
}

/** Whether layer_types gives a layer a window. @param slides what the family has where layer_types says nothing */
export function isSliding({ layerTypes }: Windows, layer: number, slides: boolean): boolean {
  return layerTypes ? layerTypes[layer] === "sliding_attention" : slides;
}

/** A layer's window; null: it has none. @param slides as isSliding */
export function windowOf(c: Windows, layer: number, slides: boolean): number | null {
  return isSliding(c, layer, slides) ? c.slidingWindow : null;
}

/** What attention takes of a configuration. */
export function headsOf(
  c: LlamaLikeConfig,
  layer: number,
  rotary: RotaryEmbedding | null,
): Pick<SelfAttentionOptions, "hiddenSize" | "heads" | "kvHeads" | "dim" | "layer" | "rotary"> {
  const { hiddenSize, numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim: dim } = c;
  return { hiddenSize, heads, kvHeads, dim, layer, rotary };
}

/** Attention: what a layer calls. */
export interface AttentionModule extends Module {
  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, pass: Pass): Tensor;
}

/** Attention and MLP, each on its normalised input and added to it. */
export class PreNormLayer<A extends AttentionModule = AttentionModule, M extends Layer = Layer>
  extends Module
  implements Block
{
  /** @internal */ static override readonly className: string = "PreNormLayer";
  /** Attention. */
  readonly selfAttn: A;
  /** MLP. */
  readonly mlp: M;
  /** Before the attention. */
  readonly inputLayernorm: RMSNorm;
  /** Before the MLP. */
  readonly postAttentionLayernorm: RMSNorm;
  readonly #factor: number;

  /**
   * @param offset of the norms' weights: 0, in Gemma 1
   * @param factor of what is added
   */
  constructor(
    c: LlamaLikeConfig,
    selfAttn: A,
    mlp: M,
    { offset = 0, factor = 1 }: { offset?: 0 | 1 | undefined; factor?: number | undefined } = {},
  ) {
    super();
    this.selfAttn = selfAttn;
    this.mlp = mlp;
    this.inputLayernorm = new RMSNorm(c.hiddenSize, c.rmsNormEps, offset);
    this.postAttentionLayernorm = new RMSNorm(c.hiddenSize, c.rmsNormEps, offset);
    this.#factor = factor;
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, pass: Pass): Tensor {
    const added = (y: Tensor): Tensor => (this.#factor === 1 ? y : scale(y, this.#factor));
    return graphScope(() => {
      const h = add(x, added(this.selfAttn.forward(this.inputLayernorm.forward(x), pass)));
      return add(h, added(this.mlp.forward(this.postAttentionLayernorm.forward(h))));
    });
  }
}

/** What sets a base model apart. */
export interface LlamaLikeOptions<L extends Block> {
  /** A layer's window; null: it has none. Default: no layer has one. */
  window?(index: number): number | null;
  /** A layer of the kind of layer `kind`, with its window, whose place in the cache is `place`. */
  layer(place: number, window: number | null, kind: number): L;
  /** The angles that layers ask for; disposed with the model. */
  rotaries: readonly RotaryEmbedding[];
  /** Offset of the last norm's weight. Default 0. */
  offset?: 0 | 1 | undefined;
  /** Factor of the embeddings. Default 1. */
  embeddingScale?: number | undefined;
}

/** A model of these families without its head. */
export class LlamaLikeModel<
  C extends LlamaLikeConfig = LlamaLikeConfig,
  L extends Block = Block,
> extends DecoderModel<C> {
  /** @internal */ static override readonly className: string = "LlamaLikeModel";
  /** An nn.Embedding, or what wraps it. */
  readonly embedTokens: Table;
  /** First to last. */
  readonly layers: L[];
  /** After the last layer. */
  readonly norm: RMSNorm;
  readonly #options: LlamaLikeOptions<L>;
  readonly #windows: readonly (number | null)[];
  readonly #embeddingScale: number;

  constructor(c: Readonly<C>, options: LlamaLikeOptions<L>) {
    super(c);
    const { layer, window = () => null, offset = 0, embeddingScale = 1 } = options;
    this.#options = options;
    const windows = Array.from({ length: c.numHiddenLayers }, (_, i) => window(i));
    this.#windows = [...new Set(windows)];
    this.#embeddingScale = embeddingScale;
    this.embedTokens = new Embedding(c.vocabSize, c.hiddenSize);
    this.layers = windows.map((own, i) => layer(i, own, i));
    this.norm = new RMSNorm(c.hiddenSize, c.rmsNormEps, offset);
  }

  override get table(): Table {
    return this.embedTokens;
  }

  override get blocks(): readonly L[] {
    return this.layers;
  }

  override newLayer(source: number, index: number): L {
    const { layer, window = () => null } = this.#options;
    return layer(index, window(source), source);
  }

  override get lastNorm(): RMSNorm {
    return this.norm;
  }

  override get rotaries(): readonly RotaryEmbedding[] {
    return this.#options.rotaries;
  }

  override get windows(): readonly (number | null)[] {
    return this.#windows;
  }

  override get cachedHeads(): Pick<CacheShape, "numKeyValueHeads" | "headDim"> {
    const { numKeyValueHeads, headDim } = this.config;
    return { numKeyValueHeads, headDim };
  }

  override embed(ids: Tensor): Tensor {
    const x = this.embedTokens.forward(ids);
    return this.#embeddingScale === 1 ? x : scale(x, this.#embeddingScale);
  }
}

/** The angles of a configuration's positions. */
export function rotaryOf(
  c: Pick<LlamaLikeConfig, "headDim" | "maxPositionEmbeddings" | "originalMaxPositionEmbeddings" | "ropeParameters">,
  parameters = c.ropeParameters,
): RotaryEmbedding {
  return new RotaryEmbedding(parameters, c.headDim, c.originalMaxPositionEmbeddings ?? c.maxPositionEmbeddings);
}

/** What is beyond the longest text that a model was trained on, but not beyond what its positions are made for. */
export function longest(
  maxPositionEmbeddings: number,
  rope: RopeParameters,
): { maxPositionEmbeddings: number; originalMaxPositionEmbeddings?: number | undefined } {
  if (rope.ropeType !== "dynamic" && rope.ropeType !== "yarn") return { maxPositionEmbeddings };
  const original = rope.ropeType === "yarn" ? rope.originalMaxPositionEmbeddings : maxPositionEmbeddings;
  const scaled = Math.max(maxPositionEmbeddings, Math.floor(rope.factor * original));
  return { maxPositionEmbeddings: scaled, originalMaxPositionEmbeddings: maxPositionEmbeddings };
}

/** The sizes of tensors by the keys of config.json. */
export function llamaLikeSizes(c: LlamaLikeConfig): readonly Size[] {
  return [
    ["hidden_size", c.hiddenSize],
    ["intermediate_size", c.intermediateSize],
    ["vocab_size", c.vocabSize],
    ["num_attention_heads * head_dim", c.numAttentionHeads * c.headDim],
    ["num_key_value_heads * head_dim", c.numKeyValueHeads * c.headDim],
    ["head_dim", c.headDim],
  ];
}

/** What a family of these says of itself. */
export interface LlamaLikeFamily<C extends LlamaLikeConfig> {
  /** config.json's model_type. */
  modelType: C["modelType"];
  /** What transformers' classes are called, before "Model" and "ForCausalLM". */
  name: string;
  /** Reads what config.json says. */
  read(reader: Reader): C;
  /** The model without its head. */
  base(config: Readonly<C>): DecoderModel<C>;
  /** The model with it. Default: a DecoderForCausalLM of `base`. */
  causalLM?(config: Readonly<C>): DecoderForCausalLM<C>;
}

/** Such a family, for the table. */
export function llamaLike<C extends LlamaLikeConfig>(family: LlamaLikeFamily<C>): Family<C> {
  const { modelType, name, read, base, causalLM = (c) => new DecoderForCausalLM(c, base) } = family;
  return {
    modelType,
    parseConfig: (json, file) => read(configReader(json, file, modelType)),
    heads: {
      "causal-lm": { architectures: [`${name}ForCausalLM`], keys: ["lm_head."], create: (c) => causalLM(c) },
      none: { architectures: [`${name}Model`], keys: [], create: (c) => initialised(base(c)) },
    },
    prefix: "model.",
    layers: "layers.",
    layerCount: "num_hidden_layers",
    tied: { table: "model.embed_tokens.weight", head: "lm_head.weight" },
    headKeys: ["lm_head.", "score."],
    isBuffer: (key) => /(^|\.)rotary_emb\.inv_freq$/.test(key),
    sizes: llamaLikeSizes,
  };
}
