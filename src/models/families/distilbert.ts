/** DistilBERT: half of BERT's layers, no pooler, no pairs of texts (Sanh et al. 2019), in Hugging Face's names. */
import { add, relu } from "../../autograd/ops/index.js";
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
} from "../parts/encoder.js";
import type { ConfigKeys, EncoderOptions } from "../parts/encoder.js";
import type { Family, FamilyConfig, Size } from "../parts/family.js";
import { firstTokens } from "../parts/pooling.js";
import { throughLayers } from "../parts/through_layers.js";

/** What config.json says of a DistilBERT, in the names of BertConfig. */
export interface DistilBertConfig extends FamilyConfig {
  /** transformers' model_type. */
  modelType: "distilbert";
  /** Number of token ids. */
  vocabSize: number;
  /** Width of the residual stream, a multiple of numAttentionHeads (dim). */
  hiddenSize: number;
  /** Width of the MLP (hidden_dim). */
  intermediateSize: number;
  /** Number of layers (n_layers). */
  numHiddenLayers: number;
  /** Heads of attention (n_heads). */
  numAttentionHeads: number;
  /** Activation of the MLP: "gelu" or "relu" (activation). */
  hiddenAct: string;
  /** Longest text. */
  maxPositionEmbeddings: number;
  /** Fills up shorter texts; its embedding gets no gradient. */
  padTokenId: number;
  /** Standard deviation of initial weights, a new classifier's too. */
  initializerRange: number;
}

const EPS = 1e-12;
const KEYS: ConfigKeys = {
  counts: [
    "vocabSize",
    "hiddenSize",
    "intermediateSize",
    "numHiddenLayers",
    "numAttentionHeads",
    "maxPositionEmbeddings",
  ],
  numbers: ["initializerRange"],
  activations: ["hiddenAct"],
};

/** The sum of the embeddings of token and position, normalised. */
export class DistilBertEmbeddings extends Module {
  /** @internal */ static override readonly className: string = "DistilBertEmbeddings";
  /** [vocabSize, hiddenSize]; the row padTokenId gets no gradient. */
  readonly wordEmbeddings: Layer;
  /** [maxPositionEmbeddings, hiddenSize] */
  readonly positionEmbeddings: Layer;
  // The key in files.
  /** Of the sum. */
  readonly LayerNorm: LayerNorm;

  constructor(c: DistilBertConfig) {
    super();
    this.wordEmbeddings = new Embedding(c.vocabSize, c.hiddenSize, { paddingIdx: c.padTokenId });
    this.positionEmbeddings = new Embedding(c.maxPositionEmbeddings, c.hiddenSize);
    this.LayerNorm = new LayerNorm(c.hiddenSize, EPS);
  }

  /** Two of int32 [batch, steps] -> [batch, steps, hiddenSize]. */
  forward(ids: Tensor, positions: Tensor): Tensor {
    return graphScope(() =>
      this.LayerNorm.forward(add(this.wordEmbeddings.forward(ids), this.positionEmbeddings.forward(positions))),
    );
  }
}

/** Self-attention. */
export class DistilBertAttention extends Module {
  /** @internal */ static override readonly className: string = "DistilBertAttention";
  /** [hiddenSize, hiddenSize], with a bias; so are the others. */
  readonly qLin: Layer;
  /** As qLin. */
  readonly kLin: Layer;
  /** As qLin. */
  readonly vLin: Layer;
  /** As qLin. */
  readonly outLin: Layer;
  readonly #heads: number;

  constructor(c: DistilBertConfig) {
    super();
    const size = c.hiddenSize;
    this.#heads = c.numAttentionHeads;
    this.qLin = new Linear(size, size);
    this.kLin = new Linear(size, size);
    this.vLin = new Linear(size, size);
    this.outLin = new Linear(size, size);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, ranges: Tensor): Tensor {
    return graphScope(() =>
      this.outLin.forward(
        attend(this.qLin.forward(x), this.kLin.forward(x), this.vLin.forward(x), this.#heads, ranges),
      ),
    );
  }
}

/** lin2(act(lin1(x))). */
export class DistilBertMLP extends Module {
  /** @internal */ static override readonly className: string = "DistilBertMLP";
  /** [intermediateSize, hiddenSize], with a bias. */
  readonly lin1: Layer;
  /** [hiddenSize, intermediateSize], with a bias. */
  readonly lin2: Layer;
  readonly #act: (x: Tensor) => Tensor;

  constructor(c: DistilBertConfig) {
    super();
    this.lin1 = new Linear(c.hiddenSize, c.intermediateSize);
    this.lin2 = new Linear(c.intermediateSize, c.hiddenSize);
    this.#act = ACTIVATIONS[c.hiddenAct]!;
  }

  /** x [..., hiddenSize] -> x's shape. */
  forward(x: Tensor): Tensor {
    return graphScope(() => this.lin2.forward(this.#act(this.lin1.forward(x))));
  }
}

/** Attention and MLP, each added to its input and normalised after that. */
export class DistilBertLayer extends Module {
  /** @internal */ static override readonly className: string = "DistilBertLayer";
  /** Attention. */
  readonly attention: DistilBertAttention;
  /** After the attention. */
  readonly saLayerNorm: LayerNorm;
  /** MLP. */
  readonly ffn: DistilBertMLP;
  /** After the MLP. */
  readonly outputLayerNorm: LayerNorm;

  constructor(c: DistilBertConfig) {
    super();
    this.attention = new DistilBertAttention(c);
    this.saLayerNorm = new LayerNorm(c.hiddenSize, EPS);
    this.ffn = new DistilBertMLP(c);
    this.outputLayerNorm = new LayerNorm(c.hiddenSize, EPS);
  }

  /** x [batch, steps, hiddenSize] -> x's shape. */
  forward(x: Tensor, ranges: Tensor): Tensor {
    return graphScope(() => {
      const h = this.saLayerNorm.forward(add(this.attention.forward(x, ranges), x));
      return this.outputLayerNorm.forward(add(this.ffn.forward(h), h));
    });
  }
}

/** The layers. */
export class DistilBertTransformer extends Module {
  /** @internal */ static override readonly className: string = "DistilBertTransformer";
  /** First to last. */
  readonly layer: DistilBertLayer[];

  constructor(c: DistilBertConfig) {
    super();
    this.layer = Array.from({ length: c.numHiddenLayers }, () => new DistilBertLayer(c));
  }
}

/**
 * A DistilBERT without a head. Weights start random (N(0, initializerRange²), as Hugging Face's). It has no dropout.
 *
 * Source: Sanh et al. 2019; transformers, models/distilbert/modeling_distilbert.py (DistilBertModel).
 *
 * @example
 * const { model } = models.loadModel("distilbert", { head: "none" });
 * const vectors = model.forward(tensor(new Int32Array([2, 45, 46, 3]), [1, 4])); // [1, 4, 40]
 */
export class DistilBertModel extends Module {
  /** @internal */ static override readonly className: string = "DistilBertModel";
  /** Its sizes. */
  readonly config: Readonly<DistilBertConfig>;
  /** Of tokens and positions. */
  readonly embeddings: DistilBertEmbeddings;
  /** The layers. */
  readonly transformer: DistilBertTransformer;
  /** Whether backward computes each layer's activations again, so that only its input is kept. */
  gradientCheckpointing = false;

  constructor(config: Readonly<DistilBertConfig>) {
    super();
    checkEncoderConfig("DistilBertModel", config, KEYS);
    this.config = config;
    [this.embeddings, this.transformer] = allOrNothing(() => [
      new DistilBertEmbeddings(config),
      new DistilBertTransformer(config),
    ]);
    initWeights(this, config.initializerRange);
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
   * @param options without tokenTypeIds, which DistilBERT does not have
   * @returns the last layer's vectors, [batch, steps, hiddenSize]; of a padding token nothing is to be expected
   * @throws ArgumentError for an id beyond the vocabulary, or an option that is none; ShapeError beyond
   * maxPositionEmbeddings
   */
  forward(ids: Tensor, options: EncoderOptions = {}): Tensor {
    const where = "DistilBert.forward";
    checkText(where, ids, options, ["attentionMask", "positionIds"]);
    const { attentionMask } = options;
    const positions = positionsOf(where, ids, options, this.config.maxPositionEmbeddings);
    const ranges = rangesOf(ids, attentionMask);
    const x = this.embeddings.forward(ids, positions);
    return throughLayers(this.transformer.layer, x, this.gradientCheckpointing, (layer, h) => layer.forward(h, ranges));
  }
}

/**
 * A DistilBERT that tells classes of texts: classifier(relu(preClassifier(the first token))).
 *
 * Source: transformers, models/distilbert/modeling_distilbert.py (DistilBertForSequenceClassification).
 *
 * @example
 * const { model } = models.loadModel("distilbert", { head: "sequence-classification" });
 * const logits = model.forward(tensor(new Int32Array([2, 45, 46, 3]), [1, 4])); // [1, 3]
 */
export class DistilBertForSequenceClassification extends SequenceClassifier<DistilBertConfig> {
  /** @internal */ static override readonly className: string = "DistilBertForSequenceClassification";
  /** All but the classifier. */
  readonly distilbert: DistilBertModel;
  /** [hiddenSize, hiddenSize], with a bias. */
  readonly preClassifier: Layer;
  /** [id2label.length, hiddenSize], with a bias. */
  readonly classifier: Layer;

  constructor(config: Readonly<DistilBertConfig & Labels>) {
    super(config);
    [this.distilbert, this.preClassifier, this.classifier] = allOrNothing(() => [
      new DistilBertModel(config),
      new Linear(config.hiddenSize, config.hiddenSize),
      new Linear(config.hiddenSize, config.id2label.length),
    ]);
    for (const part of [this.preClassifier, this.classifier]) initWeights(part, config.initializerRange);
  }

  override get base(): DistilBertModel {
    return this.distilbert;
  }

  override getInputEmbeddings(): Module {
    return this.distilbert.getInputEmbeddings();
  }

  /** ids int32 [batch, steps] -> logits [batch, classes]. Errors as `DistilBertModel.forward`; one text a row. */
  override forward(ids: Tensor, options: EncoderOptions = {}): Tensor {
    const x = this.distilbert.forward(ids, options);
    const first = firstTokens("DistilBert.forward", x, options.attentionMask);
    return this.classifier.forward(relu(this.preClassifier.forward(first)));
  }
}

/**
 * What the file leaves out has the values of transformers' DistilBertConfig. Its dropout probabilities are not read:
 * these models have no dropout.
 *
 * Source: huggingface/transformers 5, models/distilbert/configuration_distilbert.py.
 * @throws FormatError naming the key that is wrong or asks for what is not supported
 */
export function parseDistilBertConfig(json: unknown, name: string): DistilBertConfig {
  const reader = configReader(json, name, "distilbert");
  const { fail, count, positive, token } = reader;
  const hiddenSize = count("dim", 768);
  const numAttentionHeads = count("n_heads", 12);
  if (hiddenSize % numAttentionHeads !== 0)
    fail(`dim is ${hiddenSize}; expected a multiple of n_heads = ${numAttentionHeads}`);
  const vocabSize = count("vocab_size", 30522);
  const padTokenId = token("pad_token_id", 0) ?? fail("pad_token_id is null; expected a token's number");
  if (padTokenId >= vocabSize) fail(`pad_token_id is ${padTokenId}; vocab_size is ${vocabSize}`);
  return {
    modelType: "distilbert",
    vocabSize,
    hiddenSize,
    intermediateSize: count("hidden_dim", 3072),
    numHiddenLayers: count("n_layers", 6),
    numAttentionHeads,
    hiddenAct: readActivation(reader, "activation"),
    maxPositionEmbeddings: count("max_position_embeddings", 512),
    padTokenId,
    initializerRange: positive("initializer_range", 0.02),
  };
}

/** What the table of families holds. @internal */
export const distilbert: Family<DistilBertConfig> = {
  modelType: "distilbert",
  parseConfig: parseDistilBertConfig,
  heads: {
    none: { architectures: ["DistilBertModel"], keys: [], create: (c) => new DistilBertModel(c) },
    "sequence-classification": {
      architectures: ["DistilBertForSequenceClassification"],
      keys: ["pre_classifier.", "classifier."],
      create: (c) => new DistilBertForSequenceClassification(c as DistilBertConfig & Labels),
      std: (c) => c.initializerRange,
    },
  },
  prefix: "distilbert.",
  layers: "transformer.layer.",
  layerCount: "n_layers",
  headKeys: ["pre_classifier.", "classifier.", "vocab_", "qa_outputs."],
  isBuffer: (name) => /(^|\.)embeddings\.position_ids$/.test(name),
  sizes: (c): readonly Size[] => [
    ["dim", c.hiddenSize],
    ["hidden_dim", c.intermediateSize],
    ["vocab_size", c.vocabSize],
    ["max_position_embeddings", c.maxPositionEmbeddings],
  ],
};
