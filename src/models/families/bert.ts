/**
 * BERT: an encoder (Devlin et al. 2018) in Hugging Face's names, composed of public parts only: three embeddings,
 * layers whose norms come after the sums, a pooler on the first token, a classifier on it. RoBERTa is made of the same
 * parts.
 */
import { add, tanh } from "../../autograd/ops/index.js";
import { configReader } from "../../io/config_reader.js";
import { Embedding, LayerNorm, Linear, type Layer } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { allOrNothing, graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { SequenceClassifier, type Labels } from "../parts/classification.js";
import {
  ACTIVATIONS,
  attend,
  checkEncoderConfig,
  checkText,
  initWeights,
  positionsOf,
  rangesOf,
  readActivation,
  zerosLike,
} from "../parts/encoder.js";
import type { ConfigKeys, EncoderOptions } from "../parts/encoder.js";
import type { Family, FamilyConfig, Size } from "../parts/family.js";
import { LayeredModel } from "../parts/layered_model.js";
import { firstTokens } from "../parts/pooling.js";
import { throughLayers } from "../parts/through_layers.js";

/** What config.json says of a BERT or a RoBERTa. */
export interface BertConfig extends FamilyConfig {
  /** transformers' model_type. */
  modelType: "bert" | "roberta";
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
  /** Activation of the MLP, in transformers' names: "gelu", "relu", "gelu_new", "silu". */
  hiddenAct: string;
  /** Rows of the table of positions. A RoBERTa's texts are padTokenId + 1 shorter. */
  maxPositionEmbeddings: number;
  /** Texts that a token may be told to belong to. */
  typeVocabSize: number;
  /** eps of the norms. */
  layerNormEps: number;
  /** Fills up shorter texts; its embedding gets no gradient. */
  padTokenId: number;
  /** Standard deviation of initial weights, a new classifier's too. */
  initializerRange: number;
}

const OPTIONS = ["attentionMask", "positionIds", "tokenTypeIds"];
const KEYS: ConfigKeys = {
  counts: [
    "vocabSize",
    "hiddenSize",
    "intermediateSize",
    "numHiddenLayers",
    "numAttentionHeads",
    "maxPositionEmbeddings",
    "typeVocabSize",
  ],
  numbers: ["layerNormEps", "initializerRange"],
  activations: ["hiddenAct"],
};

/** The sum of the embeddings of token, position and text, normalised. */
export class BertEmbeddings extends Module {
  /** @internal */ static override readonly className: string = "BertEmbeddings";
  /** [vocabSize, hiddenSize]; the row padTokenId gets no gradient. */
  readonly wordEmbeddings: Layer;
  /** [maxPositionEmbeddings, hiddenSize] */
  readonly positionEmbeddings: Layer;
  /** [typeVocabSize, hiddenSize] */
  readonly tokenTypeEmbeddings: Layer;
  // The key in files.
  /** Of the sum. */
  readonly LayerNorm: LayerNorm;

  constructor(c: BertConfig) {
    super();
    this.wordEmbeddings = new Embedding(c.vocabSize, c.hiddenSize, { paddingIdx: c.padTokenId });
    this.positionEmbeddings = new Embedding(
      c.maxPositionEmbeddings,
      c.hiddenSize,
      c.modelType === "roberta" ? { paddingIdx: c.padTokenId } : {},
    );
    this.tokenTypeEmbeddings = new Embedding(c.typeVocabSize, c.hiddenSize);
    this.LayerNorm = new LayerNorm(c.hiddenSize, c.layerNormEps);
  }

  /** Three of int32 [batch, steps] -> [batch, steps, hiddenSize]. */
  forward(ids: Tensor, positions: Tensor, types: Tensor): Tensor {
    return graphScope(() => {
      const x = add(this.wordEmbeddings.forward(ids), this.tokenTypeEmbeddings.forward(types));
      return this.LayerNorm.forward(add(x, this.positionEmbeddings.forward(positions)));
    });
  }
}

/** Query, key and value, and attention over them. */
export class BertSelfAttention extends Module {
  /** @internal */ static override readonly className: string = "BertSelfAttention";
  /** [hiddenSize, hiddenSize], with a bias; so are key and value. */
  readonly query: Layer;
  /** As query. */
  readonly key: Layer;
  /** As query. */
  readonly value: Layer;
  readonly #heads: number;

  constructor(c: BertConfig) {
    super();
    const size = c.hiddenSize;
    this.#heads = c.numAttentionHeads;
    this.query = new Linear(size, size);
    this.key = new Linear(size, size);
    this.value = new Linear(size, size);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, ranges: Tensor): Tensor {
    return graphScope(() =>
      attend(this.query.forward(x), this.key.forward(x), this.value.forward(x), this.#heads, ranges),
    );
  }
}

/** A projection, added to what the block began with and normalised. */
export class BertOutput extends Module {
  /** @internal */ static override readonly className: string = "BertOutput";
  /** To hiddenSize, with a bias. */
  readonly dense: Layer;
  // The key in files.
  /** Of the sum. */
  readonly LayerNorm: LayerNorm;

  constructor(c: BertConfig, inFeatures: number) {
    super();
    this.dense = new Linear(inFeatures, c.hiddenSize);
    this.LayerNorm = new LayerNorm(c.hiddenSize, c.layerNormEps);
  }

  /** x [..., inFeatures] and `before`, [..., hiddenSize] -> before's shape. */
  forward(x: Tensor, before: Tensor): Tensor {
    return this.LayerNorm.forward(add(this.dense.forward(x), before));
  }
}

/** Self-attention, its projection and its norm. */
export class BertAttention extends Module {
  /** @internal */ static override readonly className: string = "BertAttention";
  /** Attention. */
  readonly self: BertSelfAttention;
  /** Projection and norm. */
  readonly output: BertOutput;

  constructor(c: BertConfig) {
    super();
    this.self = new BertSelfAttention(c);
    this.output = new BertOutput(c, c.hiddenSize);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, ranges: Tensor): Tensor {
    return graphScope(() => this.output.forward(this.self.forward(x, ranges), x));
  }
}

/** The MLP's first half: act(dense(x)). */
export class BertIntermediate extends Module {
  /** @internal */ static override readonly className: string = "BertIntermediate";
  /** [intermediateSize, hiddenSize], with a bias. */
  readonly dense: Layer;
  readonly #act: (x: Tensor) => Tensor;

  constructor(c: BertConfig) {
    super();
    this.dense = new Linear(c.hiddenSize, c.intermediateSize);
    this.#act = ACTIVATIONS[c.hiddenAct]!;
  }

  /** x [..., hiddenSize] -> [..., intermediateSize]. */
  forward(x: Tensor): Tensor {
    return this.#act(this.dense.forward(x));
  }
}

/** Attention and MLP, each added to its input and normalised after that. */
export class BertLayer extends Module {
  /** @internal */ static override readonly className: string = "BertLayer";
  /** Attention. */
  readonly attention: BertAttention;
  /** The MLP's first half. */
  readonly intermediate: BertIntermediate;
  /** Its second half. */
  readonly output: BertOutput;

  constructor(c: BertConfig) {
    super();
    this.attention = new BertAttention(c);
    this.intermediate = new BertIntermediate(c);
    this.output = new BertOutput(c, c.intermediateSize);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, ranges: Tensor): Tensor {
    return graphScope(() => {
      const h = this.attention.forward(x, ranges);
      return this.output.forward(this.intermediate.forward(h), h);
    });
  }
}

/** The layers. */
export class BertEncoder extends Module {
  /** @internal */ static override readonly className: string = "BertEncoder";
  /** First to last. */
  readonly layer: BertLayer[];

  constructor(c: BertConfig) {
    super();
    this.layer = Array.from({ length: c.numHiddenLayers }, () => new BertLayer(c));
  }
}

/** tanh(dense(the first token)). */
export class BertPooler extends Module {
  /** @internal */ static override readonly className: string = "BertPooler";
  /** [hiddenSize, hiddenSize], with a bias. */
  readonly dense: Layer;

  constructor(c: BertConfig) {
    super();
    this.dense = new Linear(c.hiddenSize, c.hiddenSize);
  }

  /** x [batch, hiddenSize], the first tokens' vectors -> x's shape. */
  forward(x: Tensor): Tensor {
    return tanh(this.dense.forward(x));
  }
}

/**
 * A BERT or a RoBERTa without a head: what makes embeddings of texts. Weights start random (N(0, initializerRange²), as
 * Hugging Face's). It has no dropout.
 *
 * Source: Devlin et al. 2018; transformers, models/bert/modeling_bert.py (BertModel) and models/roberta.
 * @throws ArgumentError for a key of config that is missing, unknown or out of range; so all encoders do
 *
 * @example
 * const { model } = models.loadModel("minilm", { head: "none" });
 * const ids = tensor(new Int32Array([2, 45, 46, 3]), [1, 4]);
 * const vectors = model.forward(ids); // [1, 4, 40]
 */
export class BertModel extends LayeredModel<BertConfig> {
  /** @internal */ static override readonly className: string = "BertModel";
  /** Of tokens, positions and texts. */
  readonly embeddings: BertEmbeddings;
  /** The layers. */
  readonly encoder: BertEncoder;
  /** On the first token; null where nothing is made of it. */
  readonly pooler: BertPooler | null;

  constructor(config: Readonly<BertConfig>, pooler = true) {
    super(config);
    checkEncoderConfig("BertModel", config, KEYS);
    [this.embeddings, this.encoder, this.pooler] = allOrNothing(() => [
      new BertEmbeddings(config),
      new BertEncoder(config),
      pooler ? new BertPooler(config) : null,
    ]);
    initWeights(this, config.initializerRange);
  }

  override getLayers(): readonly BertLayer[] {
    return this.encoder.layer;
  }

  /** Another layer. @internal */
  newLayer(): BertLayer {
    return new BertLayer(this.config);
  }

  /** Tokens of the longest text: a RoBERTa counts positions from padTokenId + 1. */
  get longestText(): number {
    const { modelType, padTokenId, maxPositionEmbeddings } = this.config;
    return modelType === "roberta" ? maxPositionEmbeddings - padTokenId - 1 : maxPositionEmbeddings;
  }

  /** The table of tokens (transformers' get_input_embeddings). */
  getInputEmbeddings(): Module {
    return this.embeddings.wordEmbeddings;
  }

  /** Without a language-model head there is none. */
  getOutputEmbeddings(): null {
    return null;
  }

  /**
   * @param ids int32 [batch, steps]
   * @returns the last layer's vectors, [batch, steps, hiddenSize]; of a padding token nothing is to be expected
   * @throws ArgumentError for an id beyond the vocabulary, or an option that is none; ShapeError beyond
   * maxPositionEmbeddings
   */
  forward(ids: Tensor, options: EncoderOptions = {}): Tensor {
    const where = this.config.modelType === "bert" ? "Bert.forward" : "Roberta.forward";
    checkText(where, ids, options, OPTIONS);
    const { modelType, padTokenId, maxPositionEmbeddings } = this.config;
    const { attentionMask, tokenTypeIds } = options;
    const isRoberta = modelType === "roberta";
    const positions = isRoberta
      ? positionsOf(where, ids, options, maxPositionEmbeddings, padTokenId + 1, padTokenId)
      : positionsOf(where, ids, options, maxPositionEmbeddings);
    const ranges = rangesOf(ids, attentionMask);
    const x = this.embeddings.forward(ids, positions, tokenTypeIds ?? zerosLike(ids));
    return throughLayers(this.encoder.layer, x, this.gradientCheckpointing, (layer, h) => layer.forward(h, ranges));
  }
}

/**
 * A BERT that tells classes of texts: the pooler's answer to the first token, and a linear classifier.
 *
 * Source: transformers, models/bert/modeling_bert.py (BertForSequenceClassification).
 *
 * @example
 * const { model } = models.loadModel("bert", { head: "sequence-classification" });
 * const adapted = peft.getLoraModel(model, { taskType: "SEQ_CLS", targetModules: ["query", "value"] });
 * const ids = tensor(new Int32Array([2, 45, 46, 3]), [1, 4]);
 * adapted.loss(ids, tensor(new Int32Array([1]))).backward();
 */
export class BertForSequenceClassification extends SequenceClassifier<BertConfig> {
  /** @internal */ static override readonly className: string = "BertForSequenceClassification";
  /** All but the classifier. */
  readonly bert: BertModel;
  /** [id2label.length, hiddenSize], with a bias. */
  readonly classifier: Layer;

  constructor(config: Readonly<BertConfig & Labels>) {
    super(config);
    [this.bert, this.classifier] = allOrNothing(() => [
      new BertModel(config),
      new Linear(config.hiddenSize, config.id2label.length),
    ]);
    initWeights(this.classifier, config.initializerRange);
  }

  override get base(): BertModel {
    return this.bert;
  }

  override getInputEmbeddings(): Module {
    return this.bert.getInputEmbeddings();
  }

  /** ids int32 [batch, steps] -> logits [batch, classes]. Errors as `BertModel.forward`; one text a row. */
  override forward(ids: Tensor, options: EncoderOptions = {}): Tensor {
    const x = this.bert.forward(ids, options);
    return this.classifier.forward(this.bert.pooler!.forward(firstTokens("Bert.forward", x, options.attentionMask)));
  }
}

/**
 * What the file leaves out has the values of transformers' BertConfig or RobertaConfig. Its dropout probabilities are
 * not read: these models have no dropout.
 *
 * Source: huggingface/transformers 5, models/bert/configuration_bert.py, models/roberta/configuration_roberta.py.
 * @throws FormatError naming the key that is wrong or asks for what is not supported
 */
export function parseBertConfig(json: unknown, name: string, modelType: "bert" | "roberta"): BertConfig {
  const reader = configReader(json, name, modelType);
  const { fail, count, positive, only, token } = reader;
  only("position_embedding_type", "absolute");
  only("is_decoder", false);
  only("add_cross_attention", false);
  const hiddenSize = count("hidden_size", 768);
  const numAttentionHeads = count("num_attention_heads", 12);
  if (hiddenSize % numAttentionHeads !== 0)
    fail(`hidden_size is ${hiddenSize}; expected a multiple of num_attention_heads = ${numAttentionHeads}`);
  const isBert = modelType === "bert";
  const vocabSize = count("vocab_size", isBert ? 30522 : 50265);
  const padTokenId = token("pad_token_id", isBert ? 0 : 1) ?? fail("pad_token_id is null; expected a token's number");
  if (padTokenId >= vocabSize) fail(`pad_token_id is ${padTokenId}; vocab_size is ${vocabSize}`);
  return {
    modelType,
    vocabSize,
    hiddenSize,
    intermediateSize: count("intermediate_size", 3072),
    numHiddenLayers: count("num_hidden_layers", 12),
    numAttentionHeads,
    hiddenAct: readActivation(reader, "hidden_act"),
    maxPositionEmbeddings: count("max_position_embeddings", 512),
    typeVocabSize: count("type_vocab_size", 2),
    layerNormEps: positive("layer_norm_eps", 1e-12),
    padTokenId,
    initializerRange: positive("initializer_range", 0.02),
  };
}

/** Names of old files: norms' gamma and beta; the rest is as it is. @internal */
export function renameBert(name: string): string {
  return name.replace(/\.gamma$/, ".weight").replace(/\.beta$/, ".bias");
}

/** @internal */
export function bertSizes(c: BertConfig): readonly Size[] {
  return [
    ["hidden_size", c.hiddenSize],
    ["intermediate_size", c.intermediateSize],
    ["vocab_size", c.vocabSize],
    ["max_position_embeddings", c.maxPositionEmbeddings],
    ["type_vocab_size", c.typeVocabSize],
  ];
}

/** What the table of families holds. @internal */
export const bert: Family<BertConfig> = {
  modelType: "bert",
  parseConfig: (json, name) => parseBertConfig(json, name, "bert"),
  heads: {
    none: { architectures: ["BertModel"], keys: [], create: (c, has) => new BertModel(c, has?.("pooler.")) },
    "sequence-classification": {
      architectures: ["BertForSequenceClassification"],
      keys: ["classifier.", "bert.pooler."],
      create: (c) => new BertForSequenceClassification(c as BertConfig & Labels),
      std: (c) => c.initializerRange,
    },
  },
  prefix: "bert.",
  layers: "encoder.layer.",
  layerCount: "num_hidden_layers",
  headKeys: ["classifier.", "cls.", "qa_outputs."],
  isBuffer: (name) => /(^|\.)embeddings\.(position_ids|token_type_ids)$/.test(name),
  rename: renameBert,
  sizes: bertSizes,
};
