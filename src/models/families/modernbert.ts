/**
 * ModernBERT: an encoder (Warner et al. 2024) in Hugging Face's names: rotary positions, norms before, a gated MLP, and
 * attention that is local in most layers.
 */
import { add, mul, narrow, reshape, rope, attention, type RopeTable } from "../../autograd/ops/index.js";
import { configReader } from "../../io/config_reader.js";
import { show } from "../../io/json.js";
import { Embedding, LayerNorm, Linear, type Layer } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { allOrNothing, graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { SequenceClassifier, type Labels } from "../parts/classification.js";
import {
  ACTIVATIONS,
  checkEncoderConfig,
  checkText,
  initWeights,
  positionsOf,
  rangesOf,
  readActivation,
} from "../parts/encoder.js";
import type { ConfigKeys, EncoderOptions } from "../parts/encoder.js";
import type { Family, FamilyConfig, Size } from "../parts/family.js";
import { checkLayerTypes, readLayerTypes, type LayerType } from "../parts/layer_types.js";
import { firstTokens, meanOfTokens } from "../parts/pooling.js";
import { parseRope, RotaryEmbedding, type RopeParameters } from "../parts/rope.js";
import { throughLayers } from "../parts/through_layers.js";

/** What config.json says of a ModernBERT. */
export interface ModernBertConfig extends FamilyConfig {
  /** transformers' model_type. */
  modelType: "modernbert";
  /** Number of token ids. */
  vocabSize: number;
  /** Width of the residual stream, a multiple of numAttentionHeads. */
  hiddenSize: number;
  /** Width of the MLP. */
  intermediateSize: number;
  /** Number of layers. */
  numHiddenLayers: number;
  /** Heads of attention. */
  numAttentionHeads: number;
  /** Activation of the MLP. */
  hiddenActivation: string;
  /** Longest text. */
  maxPositionEmbeddings: number;
  /** eps of the norms. */
  normEps: number;
  /** Whether norms have biases. */
  normBias: boolean;
  /** Whether attention's projections have biases. */
  attentionBias: boolean;
  /** Whether the MLP's projections have biases. */
  mlpBias: boolean;
  /** What each layer sees. */
  layerTypes: readonly LayerType[];
  /** Width of a neighbourhood: half of it on either side. */
  localAttention: number;
  /** Rotary embeddings of layers that see all. */
  fullRope: RopeParameters;
  /** Of the others. */
  slidingRope: RopeParameters;
  /** What the classifier looks at: the first token, or the mean of all. */
  classifierPooling: "cls" | "mean";
  /** Activation before the classifier. */
  classifierActivation: string;
  /** Whether the layer before the classifier has a bias. */
  classifierBias: boolean;
  /** Fills up shorter texts; its embedding gets no gradient. */
  padTokenId: number;
  /** Standard deviation of initial weights, a new classifier's too. */
  initializerRange: number;
}

const KEYS: ConfigKeys = {
  counts: [
    "vocabSize",
    "hiddenSize",
    "intermediateSize",
    "numHiddenLayers",
    "numAttentionHeads",
    "maxPositionEmbeddings",
    "localAttention",
  ],
  numbers: ["normEps", "initializerRange"],
  activations: ["hiddenActivation", "classifierActivation"],
  others: [
    "normBias",
    "attentionBias",
    "mlpBias",
    "layerTypes",
    "fullRope",
    "slidingRope",
    "classifierPooling",
    "classifierBias",
  ],
};

/** What all layers of one kind share in a forward. */
interface Pass {
  readonly positions: Tensor;
  readonly ranges: Tensor;
  readonly table: RopeTable;
}

function norm(c: ModernBertConfig): LayerNorm {
  return new LayerNorm(c.hiddenSize, c.normEps, c.normBias);
}

/** The tokens' embeddings, normalised. */
export class ModernBertEmbeddings extends Module {
  /** @internal */ static override readonly className: string = "ModernBertEmbeddings";
  /** [vocabSize, hiddenSize]; the row padTokenId gets no gradient. */
  readonly tokEmbeddings: Layer;
  /** Of the embeddings. */
  readonly norm: LayerNorm;

  constructor(c: ModernBertConfig) {
    super();
    this.tokEmbeddings = new Embedding(c.vocabSize, c.hiddenSize, { paddingIdx: c.padTokenId });
    this.norm = norm(c);
  }

  /** ids int32 [batch, steps] -> [batch, steps, hiddenSize]. */
  forward(ids: Tensor): Tensor {
    return graphScope(() => this.norm.forward(this.tokEmbeddings.forward(ids)));
  }
}

/** Attention over a fused projection. */
export class ModernBertAttention extends Module {
  /** @internal */ static override readonly className: string = "ModernBertAttention";
  // The keys in files.
  /** Query, key and value: [3 hiddenSize, hiddenSize]. */
  readonly Wqkv: Layer;
  /** [hiddenSize, hiddenSize] */
  readonly Wo: Layer;
  readonly #heads: number;

  constructor(c: ModernBertConfig) {
    super();
    this.#heads = c.numAttentionHeads;
    this.Wqkv = new Linear(c.hiddenSize, 3 * c.hiddenSize, { bias: c.attentionBias });
    this.Wo = new Linear(c.hiddenSize, c.hiddenSize, { bias: c.attentionBias });
  }

  /** x [batch, steps, hiddenSize] -> x's shape. @internal */
  forward(x: Tensor, { positions, ranges, table }: Pass): Tensor {
    const [batch, steps, size] = x.shape as [number, number, number];
    const heads = this.#heads;
    return graphScope(() => {
      const qkv = reshape(this.Wqkv.forward(x), [batch, steps, 3 * heads, size / heads]);
      const q = rope(narrow(qkv, 2, 0, heads), table, positions);
      const k = rope(narrow(qkv, 2, heads, heads), table, positions);
      const v = narrow(qkv, 2, 2 * heads, heads);
      return this.Wo.forward(reshape(attention(q, k, v, { ranges }), [batch, steps, size]));
    });
  }
}

/** Wo(act(input) * gate), input and gate the halves of Wi(x). */
export class ModernBertMLP extends Module {
  /** @internal */ static override readonly className: string = "ModernBertMLP";
  // The keys in files.
  /** Input and gate: [2 intermediateSize, hiddenSize]. */
  readonly Wi: Layer;
  /** [hiddenSize, intermediateSize] */
  readonly Wo: Layer;
  readonly #act: (x: Tensor) => Tensor;
  readonly #size: number;

  constructor(c: ModernBertConfig) {
    super();
    this.Wi = new Linear(c.hiddenSize, 2 * c.intermediateSize, { bias: c.mlpBias });
    this.Wo = new Linear(c.intermediateSize, c.hiddenSize, { bias: c.mlpBias });
    this.#act = ACTIVATIONS[c.hiddenActivation]!;
    this.#size = c.intermediateSize;
  }

  /** x [..., hiddenSize] -> x's shape. */
  forward(x: Tensor): Tensor {
    return graphScope(() => {
      const both = this.Wi.forward(x);
      const [input, gate] = [narrow(both, -1, 0, this.#size), narrow(both, -1, this.#size, this.#size)];
      return this.Wo.forward(mul(this.#act(input), gate));
    });
  }
}

/** Attention and MLP, each on its normalised input and added to it. */
export class ModernBertLayer extends Module {
  /** @internal */ static override readonly className: string = "ModernBertLayer";
  /** Before the attention; null in the first layer, whose input is normalised already. */
  readonly attnNorm: LayerNorm | null;
  /** Attention. */
  readonly attn: ModernBertAttention;
  /** Before the MLP. */
  readonly mlpNorm: LayerNorm;
  /** MLP. */
  readonly mlp: ModernBertMLP;

  constructor(c: ModernBertConfig, layer: number) {
    super();
    this.attnNorm = layer === 0 ? null : norm(c);
    this.attn = new ModernBertAttention(c);
    this.mlpNorm = norm(c);
    this.mlp = new ModernBertMLP(c);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. @internal */
  forward(x: Tensor, pass: Pass): Tensor {
    return graphScope(() => {
      const h = add(x, this.attn.forward(this.attnNorm ? this.attnNorm.forward(x) : x, pass));
      return add(h, this.mlp.forward(this.mlpNorm.forward(h)));
    });
  }
}

/**
 * A ModernBERT without a head. Weights start random (N(0, initializerRange²), not cut off as Hugging Face's). It has no
 * dropout.
 *
 * Source: Warner et al. 2024; transformers, models/modernbert/modeling_modernbert.py (ModernBertModel).
 *
 * @example
 * const { model } = models.loadModel("modernbert", { head: "none" });
 * const vectors = model.forward(tensor(new Int32Array([2, 45, 46, 3]), [1, 4])); // [1, 4, 40]
 */
export class ModernBertModel extends Module {
  /** @internal */ static override readonly className: string = "ModernBertModel";
  /** Its sizes. */
  readonly config: Readonly<ModernBertConfig>;
  /** Of tokens. */
  readonly embeddings: ModernBertEmbeddings;
  /** First to last. */
  readonly layers: ModernBertLayer[];
  /** After the last layer. */
  readonly finalNorm: LayerNorm;
  /** Whether backward computes each layer's activations again, so that only its input is kept. */
  gradientCheckpointing = false;
  readonly #rope: Readonly<Record<LayerType, RotaryEmbedding>>;

  constructor(config: Readonly<ModernBertConfig>) {
    super();
    checkEncoderConfig("ModernBertModel", config, KEYS);
    const { hiddenSize, numHiddenLayers, numAttentionHeads, maxPositionEmbeddings, layerTypes } = config;
    checkLayerTypes("ModernBertModel", layerTypes, numHiddenLayers);
    this.config = config;
    const rotary = (parameters: RopeParameters): RotaryEmbedding =>
      new RotaryEmbedding(parameters, hiddenSize / numAttentionHeads, maxPositionEmbeddings);
    [this.embeddings, this.layers, this.finalNorm, this.#rope] = allOrNothing(() => [
      new ModernBertEmbeddings(config),
      Array.from({ length: numHiddenLayers }, (_, i) => new ModernBertLayer(config, i)),
      norm(config),
      { full_attention: rotary(config.fullRope), sliding_attention: rotary(config.slidingRope) },
    ]);
    initWeights(this, config.initializerRange);
  }

  /** The table of tokens (transformers' get_input_embeddings). */
  getInputEmbeddings(): Module {
    return this.embeddings.tokEmbeddings;
  }

  /** Without a language-model head there is none. */
  getOutputEmbeddings(): null {
    return null;
  }

  /**
   * @param ids int32 [batch, steps]
   * @param options without tokenTypeIds, which ModernBERT does not have
   * @returns the last layer's vectors, [batch, steps, hiddenSize]; of a padding token nothing is to be expected
   * @throws ArgumentError for an id beyond the vocabulary, or an option that is none; ShapeError beyond
   * maxPositionEmbeddings
   */
  forward(ids: Tensor, options: EncoderOptions = {}): Tensor {
    const where = "ModernBert.forward";
    checkText(where, ids, options, ["attentionMask", "positionIds"]);
    const { attentionMask } = options;
    const { maxPositionEmbeddings, layerTypes, localAttention } = this.config;
    const positions = positionsOf(where, ids, options, maxPositionEmbeddings);
    let steps = 1;
    for (const position of positions.indices) steps = Math.max(steps, position + 1);
    const pass = (type: LayerType, window: number | null): Pass => ({
      positions,
      ranges: rangesOf(ids, attentionMask, window),
      table: this.#rope[type].table(steps),
    });
    const passes = {
      full_attention: pass("full_attention", null),
      sliding_attention: pass("sliding_attention", Math.floor(localAttention / 2)),
    };
    const x = this.embeddings.forward(ids);
    return this.finalNorm.forward(
      throughLayers(this.layers, x, this.gradientCheckpointing, (layer, h, i) =>
        layer.forward(h, passes[layerTypes[i]!]),
      ),
    );
  }

  /** Disposes all parameters and the tables of angles. */
  override dispose(): void {
    super.dispose();
    for (const rotary of Object.values(this.#rope)) rotary.dispose();
  }
}

/** norm(act(dense(x))). */
export class ModernBertPredictionHead extends Module {
  /** @internal */ static override readonly className: string = "ModernBertPredictionHead";
  /** [hiddenSize, hiddenSize] */
  readonly dense: Layer;
  /** After the activation. */
  readonly norm: LayerNorm;
  /** transformers' name of the activation. */
  readonly activation: string;

  constructor(c: ModernBertConfig) {
    super();
    this.dense = new Linear(c.hiddenSize, c.hiddenSize, { bias: c.classifierBias });
    this.norm = norm(c);
    this.activation = c.classifierActivation;
  }

  /** x [batch, hiddenSize] -> x's shape. */
  forward(x: Tensor): Tensor {
    return graphScope(() => this.norm.forward(ACTIVATIONS[this.activation]!(this.dense.forward(x))));
  }
}

/**
 * A ModernBERT that tells classes of texts: head and classifier on the first token or the mean of all.
 *
 * Source: transformers, models/modernbert/modeling_modernbert.py (ModernBertForSequenceClassification).
 *
 * @example
 * const { model } = models.loadModel("modernbert", { head: "sequence-classification" });
 * const logits = model.forward(tensor(new Int32Array([2, 45, 46, 3]), [1, 4])); // [1, 3]
 */
export class ModernBertForSequenceClassification extends SequenceClassifier<ModernBertConfig> {
  /** @internal */ static override readonly className: string = "ModernBertForSequenceClassification";
  /** All but head and classifier. */
  readonly model: ModernBertModel;
  /** Before the classifier. */
  readonly head: ModernBertPredictionHead;
  /** [id2label.length, hiddenSize], with a bias. */
  readonly classifier: Layer;

  constructor(config: Readonly<ModernBertConfig & Labels>) {
    super(config);
    [this.model, this.head, this.classifier] = allOrNothing(() => [
      new ModernBertModel(config),
      new ModernBertPredictionHead(config),
      new Linear(config.hiddenSize, config.id2label.length),
    ]);
    for (const part of [this.head, this.classifier]) initWeights(part, config.initializerRange);
  }

  override get base(): ModernBertModel {
    return this.model;
  }

  override getInputEmbeddings(): Module {
    return this.model.getInputEmbeddings();
  }

  /** ids int32 [batch, steps] -> logits [batch, classes]. Errors as `ModernBertModel.forward`; one text a row. */
  override forward(ids: Tensor, options: EncoderOptions = {}): Tensor {
    const x = this.model.forward(ids, options);
    const pooling = this.config.classifierPooling === "cls" ? firstTokens : meanOfTokens;
    return this.classifier.forward(this.head.forward(pooling("ModernBert.forward", x, options.attentionMask)));
  }
}

/**
 * What the file leaves out has the values of transformers' ModernBertConfig. Its dropout probabilities are not read:
 * these models have no dropout.
 *
 * Source: huggingface/transformers 5, models/modernbert/configuration_modernbert.py.
 * @throws FormatError naming the key that is wrong or asks for what is not supported
 */
export function parseModernBertConfig(json: unknown, name: string): ModernBertConfig {
  const reader = configReader(json, name, "modernbert");
  const { config, fail, count, positive, flag, token } = reader;
  const hiddenSize = count("hidden_size", 768);
  const numAttentionHeads = count("num_attention_heads", 12);
  if (hiddenSize % (2 * numAttentionHeads) !== 0)
    fail(`hidden_size is ${hiddenSize}; expected an even multiple of num_attention_heads = ${numAttentionHeads}`);
  const numHiddenLayers = count("num_hidden_layers", 22);
  const everyN = count("global_attn_every_n_layers", 3);
  const pooling: unknown = config.classifier_pooling ?? "cls";
  const classifierPooling =
    pooling === "cls" || pooling === "mean"
      ? pooling
      : fail(`classifier_pooling is ${show(pooling)}; expected "cls" or "mean"`);
  const vocabSize = count("vocab_size", 50368);
  const padTokenId = token("pad_token_id", 50283) ?? fail("pad_token_id is null; expected a token's number");
  if (padTokenId >= vocabSize) fail(`pad_token_id is ${padTokenId}; vocab_size is ${vocabSize}`);
  const rope = {
    headDim: hiddenSize / numAttentionHeads,
    maxPositionEmbeddings: count("max_position_embeddings", 8192),
  };
  return {
    modelType: "modernbert",
    vocabSize,
    hiddenSize,
    intermediateSize: count("intermediate_size", 1152),
    numHiddenLayers,
    numAttentionHeads,
    hiddenActivation: readActivation(reader, "hidden_activation"),
    maxPositionEmbeddings: rope.maxPositionEmbeddings,
    normEps: positive("norm_eps", 1e-5),
    normBias: flag("norm_bias", false),
    attentionBias: flag("attention_bias", false),
    mlpBias: flag("mlp_bias", false),
    layerTypes:
      readLayerTypes(reader, numHiddenLayers) ??
      // A config of a billion layers is refused when their number is compared with the file's.
      Array.from({ length: Math.min(numHiddenLayers, 10_000) }, (_, i) =>
        i % everyN ? "sliding_attention" : "full_attention",
      ),
    localAttention: count("local_attention", 128),
    fullRope: parseRope(reader, { ...rope, layerType: "full_attention", theta: 160_000 }),
    slidingRope: parseRope(reader, { ...rope, layerType: "sliding_attention", theta: 10_000 }),
    classifierPooling,
    classifierActivation: readActivation(reader, "classifier_activation"),
    classifierBias: flag("classifier_bias", false),
    padTokenId,
    initializerRange: positive("initializer_range", 0.02),
  };
}

/** What the table of families holds. @internal */
export const modernbert: Family<ModernBertConfig> = {
  modelType: "modernbert",
  parseConfig: parseModernBertConfig,
  heads: {
    none: { architectures: ["ModernBertModel"], keys: [], create: (c) => new ModernBertModel(c) },
    "sequence-classification": {
      architectures: ["ModernBertForSequenceClassification"],
      keys: ["head.", "classifier."],
      create: (c) => new ModernBertForSequenceClassification(c as ModernBertConfig & Labels),
      std: (c) => c.initializerRange,
    },
  },
  prefix: "model.",
  layers: "layers.",
  layerCount: "num_hidden_layers",
  headKeys: ["head.", "classifier.", "decoder."],
  isBuffer: (name) => /(^|\.)rotary_emb\.\w*inv_freq$/.test(name),
  sizes: (c): readonly Size[] => [
    ["hidden_size", c.hiddenSize],
    ["intermediate_size", c.intermediateSize],
    ["2 intermediate_size", 2 * c.intermediateSize],
    ["3 hidden_size", 3 * c.hiddenSize],
    ["vocab_size", c.vocabSize],
  ],
};
