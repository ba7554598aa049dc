/**
 * ViT: an encoder of images (Dosovitskiy et al. 2020) in Hugging Face's names: patches by a convolution, a class token,
 * learned positions, norms before.
 */
import { add, attentionRanges, concat, embedding, reshape, transpose } from "../../autograd/ops/index.js";
import { configReader } from "../../io/config_reader.js";
import { show } from "../../io/json.js";
import { Conv2d } from "../../nn/conv.js";
import * as init from "../../nn/init.js";
import { LayerNorm, Linear, type Layer } from "../../nn/layers.js";
import { Module, Parameter } from "../../nn/module.js";
import { checkInteger, checkTensor } from "../../tensor/check.js";
import { allOrNothing, graphScope } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { checkLabels, classificationLoss, type Labels } from "../parts/classification.js";
import { ACTIVATIONS, attend, checkEncoderConfig, initWeights, readActivation } from "../parts/encoder.js";
import type { ConfigKeys } from "../parts/encoder.js";
import type { Family, FamilyConfig, Size } from "../parts/family.js";
import { firstTokens } from "../parts/pooling.js";
import { throughLayers } from "../parts/through_layers.js";

/** What config.json says of a ViT. */
export interface ViTConfig extends FamilyConfig {
  /** transformers' model_type. */
  modelType: "vit";
  /** Height and width of the images, in pixels. */
  imageSize: readonly [height: number, width: number];
  /** Height and width of a patch. */
  patchSize: readonly [height: number, width: number];
  /** Colours of a pixel. */
  numChannels: number;
  /** Width of the residual stream, a multiple of numAttentionHeads. */
  hiddenSize: number;
  /** Width of the MLP. */
  intermediateSize: number;
  /** Number of layers. */
  numHiddenLayers: number;
  /** Heads of attention. */
  numAttentionHeads: number;
  /** Activation of the MLP. */
  hiddenAct: string;
  /** Whether query, key and value have biases. */
  qkvBias: boolean;
  /** eps of the norms. */
  layerNormEps: number;
  /** Width of the pooler's answer. */
  poolerOutputSize: number;
  /** Activation of the pooler. */
  poolerAct: string;
  /** Standard deviation of initial weights, a new classifier's too. */
  initializerRange: number;
}

const KEYS: ConfigKeys = {
  counts: ["numChannels", "hiddenSize", "intermediateSize", "numHiddenLayers", "numAttentionHeads", "poolerOutputSize"],
  numbers: ["layerNormEps", "initializerRange"],
  activations: ["hiddenAct", "poolerAct"],
  others: ["imageSize", "patchSize", "qkvBias"],
};

/** Patches of an image; what is left at its right and lower edges is none. */
function patchesOf({ imageSize, patchSize }: ViTConfig): number {
  return Math.floor(imageSize[0] / patchSize[0]) * Math.floor(imageSize[1] / patchSize[1]);
}

/** Patches as vectors. */
export class ViTPatchEmbeddings extends Module {
  /** @internal */ static override readonly className: string = "ViTPatchEmbeddings";
  /** [hiddenSize, numChannels, ...patchSize], with a bias; its windows do not overlap. */
  readonly projection: Layer;

  constructor(c: ViTConfig) {
    super();
    this.projection = new Conv2d(c.numChannels, c.hiddenSize, c.patchSize, { stride: c.patchSize });
  }

  /** x [batch, numChannels, ...imageSize] -> [batch, patches, hiddenSize]. */
  forward(x: Tensor): Tensor {
    return graphScope(() => {
      const y = this.projection.forward(x);
      const [batch, size, rows, columns] = y.shape as [number, number, number, number];
      return transpose(reshape(y, [batch, size, rows * columns]), 1, 2);
    });
  }
}

/** Class token and patches, with their positions. */
export class ViTEmbeddings extends Module {
  /** @internal */ static override readonly className: string = "ViTEmbeddings";
  /** [1, 1, hiddenSize] */
  readonly clsToken: Parameter;
  /** [1, patches + 1, hiddenSize] */
  readonly positionEmbeddings: Parameter;
  /** Of the image. */
  readonly patchEmbeddings: ViTPatchEmbeddings;

  constructor(c: ViTConfig) {
    super();
    [this.clsToken, this.positionEmbeddings, this.patchEmbeddings] = allOrNothing(() => [
      new Parameter([1, 1, c.hiddenSize]),
      new Parameter([1, patchesOf(c) + 1, c.hiddenSize]),
      new ViTPatchEmbeddings(c),
    ]);
    for (const p of this.parameters()) init.normal_(p, 0, c.initializerRange);
  }

  /** x [batch, numChannels, ...imageSize] -> [batch, patches + 1, hiddenSize]. */
  forward(x: Tensor): Tensor {
    return graphScope(() => {
      const patches = this.patchEmbeddings.forward(x);
      const [batch, , size] = patches.shape as [number, number, number];
      const first = new Tensor([batch, 1], "int32");
      first.indices.fill(0);
      const cls = embedding(first, reshape(this.clsToken, [1, size]));
      return add(concat([cls, patches], 1), this.positionEmbeddings);
    });
  }
}

/** Self-attention. */
export class ViTAttention extends Module {
  /** @internal */ static override readonly className: string = "ViTAttention";
  /** [hiddenSize, hiddenSize]; so are the others. */
  readonly qProj: Layer;
  /** As qProj. */
  readonly kProj: Layer;
  /** As qProj. */
  readonly vProj: Layer;
  /** As qProj, with a bias. */
  readonly oProj: Layer;
  readonly #heads: number;

  constructor(c: ViTConfig) {
    super();
    const size = c.hiddenSize;
    this.#heads = c.numAttentionHeads;
    this.qProj = new Linear(size, size, { bias: c.qkvBias });
    this.kProj = new Linear(size, size, { bias: c.qkvBias });
    this.vProj = new Linear(size, size, { bias: c.qkvBias });
    this.oProj = new Linear(size, size);
  }

  /** x [batch, patches + 1, hiddenSize] -> x's shape. */
  forward(x: Tensor, ranges: Tensor): Tensor {
    return graphScope(() =>
      this.oProj.forward(
        attend(this.qProj.forward(x), this.kProj.forward(x), this.vProj.forward(x), this.#heads, ranges),
      ),
    );
  }
}

/** fc2(act(fc1(x))). */
export class ViTMLP extends Module {
  /** @internal */ static override readonly className: string = "ViTMLP";
  /** [intermediateSize, hiddenSize], with a bias. */
  readonly fc1: Layer;
  /** [hiddenSize, intermediateSize], with a bias. */
  readonly fc2: Layer;
  readonly #act: (x: Tensor) => Tensor;

  constructor(c: ViTConfig) {
    super();
    this.fc1 = new Linear(c.hiddenSize, c.intermediateSize);
    this.fc2 = new Linear(c.intermediateSize, c.hiddenSize);
    this.#act = ACTIVATIONS[c.hiddenAct]!;
  }

  /** x [..., hiddenSize] -> x's shape. */
  forward(x: Tensor): Tensor {
    return graphScope(() => this.fc2.forward(this.#act(this.fc1.forward(x))));
  }
}

/** Attention and MLP, each on its normalised input and added to it. */
export class ViTLayer extends Module {
  /** @internal */ static override readonly className: string = "ViTLayer";
  /** Before the attention. */
  readonly layernormBefore: LayerNorm;
  /** Attention. */
  readonly attention: ViTAttention;
  /** Before the MLP. */
  readonly layernormAfter: LayerNorm;
  /** MLP. */
  readonly mlp: ViTMLP;

  constructor(c: ViTConfig) {
    super();
    this.layernormBefore = new LayerNorm(c.hiddenSize, c.layerNormEps);
    this.attention = new ViTAttention(c);
    this.layernormAfter = new LayerNorm(c.hiddenSize, c.layerNormEps);
    this.mlp = new ViTMLP(c);
  }

  /** x [batch, patches + 1, hiddenSize] -> x's shape. */
  forward(x: Tensor, ranges: Tensor): Tensor {
    return graphScope(() => {
      const h = add(this.attention.forward(this.layernormBefore.forward(x), ranges), x);
      return add(this.mlp.forward(this.layernormAfter.forward(h)), h);
    });
  }
}

/** act(dense(the class token)). */
export class ViTPooler extends Module {
  /** @internal */ static override readonly className: string = "ViTPooler";
  /** [poolerOutputSize, hiddenSize], with a bias. */
  readonly dense: Layer;
  readonly #act: (x: Tensor) => Tensor;

  constructor(c: ViTConfig) {
    super();
    this.dense = new Linear(c.hiddenSize, c.poolerOutputSize);
    this.#act = ACTIVATIONS[c.poolerAct]!;
  }

  /** x [batch, hiddenSize], the class tokens' vectors -> [batch, poolerOutputSize]. */
  forward(x: Tensor): Tensor {
    return this.#act(this.dense.forward(x));
  }
}

/**
 * A ViT without a head. Weights start random (N(0, initializerRange²), not cut off as Hugging Face's). It has no
 * dropout.
 *
 * Source: Dosovitskiy et al. 2020; transformers, models/vit/modeling_vit.py (ViTModel).
 *
 * @example
 * const { model } = models.loadModel("vit", { head: "none" });
 * const vectors = model.forward(zeros([1, 3, 16, 16])); // [1, 17, 40]
 */
export class ViTModel extends Module {
  /** @internal */ static override readonly className: string = "ViTModel";
  /** Its sizes. */
  readonly config: Readonly<ViTConfig>;
  /** Of patches. */
  readonly embeddings: ViTEmbeddings;
  /** First to last. */
  readonly layers: ViTLayer[];
  /** After the last layer. */
  readonly layernorm: LayerNorm;
  /** On the class token; null where nothing is made of it. */
  readonly pooler: ViTPooler | null;
  /** Whether backward computes each layer's activations again, so that only its input is kept. */
  gradientCheckpointing = false;

  constructor(config: Readonly<ViTConfig>, pooler = true) {
    super();
    checkEncoderConfig("ViTModel", config, KEYS);
    for (const key of ["imageSize", "patchSize"] as const)
      for (const at of [0, 1]) checkInteger("ViTModel", `${key}[${at}]`, (config[key] ?? [])[at]!, 1);
    this.config = config;
    [this.embeddings, this.layers, this.layernorm, this.pooler] = allOrNothing(() => [
      new ViTEmbeddings(config),
      Array.from({ length: config.numHiddenLayers }, () => new ViTLayer(config)),
      new LayerNorm(config.hiddenSize, config.layerNormEps),
      pooler ? new ViTPooler(config) : null,
    ]);
    initWeights(this, config.initializerRange);
  }

  /** Without a language-model head there is none. */
  getOutputEmbeddings(): null {
    return null;
  }

  /**
   * @param pixelValues [batch, numChannels, ...imageSize], normalised as preprocessor_config.json says
   * @returns the last layer's vectors, normalised, [batch, patches + 1, hiddenSize]; the first is the class token's
   * @throws ShapeError for images of another size; DTypeError, DisposedError
   */
  forward(pixelValues: Tensor): Tensor {
    const { numChannels, imageSize } = this.config;
    checkTensor("ViT.forward", "pixelValues", pixelValues, "float32", [null, numChannels, ...imageSize]);
    const x = this.embeddings.forward(pixelValues);
    const [batch, queries] = x.shape as [number, number];
    const ranges = attentionRanges({ batch, queries, causal: false });
    return this.layernorm.forward(
      throughLayers(this.layers, x, this.gradientCheckpointing, (layer, h) => layer.forward(h, ranges)),
    );
  }
}

/**
 * A ViT that tells classes of images: a linear classifier on the class token.
 *
 * Source: transformers, models/vit/modeling_vit.py (ViTForImageClassification).
 *
 * @example
 * const { model } = models.loadModel("vit", { head: "image-classification" });
 * const adapted = peft.getLoraModel(model, { targetModules: ["q_proj", "v_proj"], modulesToSave: ["classifier"] });
 * adapted.loss(zeros([2, 3, 16, 16]), tensor(new Int32Array([0, 2]))).backward();
 */
export class ViTForImageClassification extends Module {
  /** @internal */ static override readonly className: string = "ViTForImageClassification";
  /** Its sizes and classes. */
  readonly config: Readonly<ViTConfig & Labels>;
  /** All but the classifier. */
  readonly vit: ViTModel;
  /** [id2label.length, hiddenSize], with a bias. */
  readonly classifier: Layer;

  constructor(config: Readonly<ViTConfig & Labels>) {
    super();
    checkLabels("ViTForImageClassification", config);
    this.config = config;
    [this.vit, this.classifier] = allOrNothing(() => [
      new ViTModel(config, false),
      new Linear(config.hiddenSize, config.id2label.length),
    ]);
    initWeights(this.classifier, config.initializerRange);
  }

  /** Without a language-model head there is none. */
  getOutputEmbeddings(): null {
    return null;
  }

  /** pixelValues [batch, numChannels, ...imageSize] -> logits [batch, classes]. Errors as `ViTModel.forward`. */
  forward(pixelValues: Tensor): Tensor {
    return this.classifier.forward(firstTokens("ViT.forward", this.vit.forward(pixelValues)));
  }

  /** The mean loss, of shape [], of predicting `labels` from `pixelValues`; see `classificationLoss`. */
  loss(pixelValues: Tensor, labels: Tensor): Tensor {
    return classificationLoss(this.forward(pixelValues), labels, this.config);
  }
}

/**
 * What the file leaves out has the values of transformers' ViTConfig. Its dropout probabilities are not read: these
 * models have no dropout.
 *
 * Source: huggingface/transformers 5, models/vit/configuration_vit.py.
 * @throws FormatError naming the key that is wrong or asks for what is not supported
 */
export function parseViTConfig(json: unknown, name: string): ViTConfig {
  const reader = configReader(json, name, "vit");
  const { config, fail, count, positive, flag } = reader;
  const hiddenSize = count("hidden_size", 768);
  const numAttentionHeads = count("num_attention_heads", 12);
  if (hiddenSize % numAttentionHeads !== 0)
    fail(`hidden_size is ${hiddenSize}; expected a multiple of num_attention_heads = ${numAttentionHeads}`);
  /** A number, or two in a list. */
  const sizes = (key: string, fallback: number): readonly [number, number] => {
    const given: unknown = config[key];
    if (!Array.isArray(given)) {
      const size = count(key, fallback);
      return [size, size];
    }
    const valid = given.length === 2 && given.every((size) => Number.isSafeInteger(size) && size > 0);
    return valid ? (given as [number, number]) : fail(`${key} is ${show(given)}; expected height and width`);
  };
  const imageSize = sizes("image_size", 224);
  const patchSize = sizes("patch_size", 16);
  if (patchSize.some((size, i) => size > imageSize[i]!))
    fail(`patch_size is ${show(patchSize)}; image_size is ${show(imageSize)}`);
  return {
    modelType: "vit",
    imageSize,
    patchSize,
    numChannels: count("num_channels", 3),
    hiddenSize,
    intermediateSize: count("intermediate_size", 3072),
    numHiddenLayers: count("num_hidden_layers", 12),
    numAttentionHeads,
    hiddenAct: readActivation(reader, "hidden_act"),
    qkvBias: flag("qkv_bias", true),
    layerNormEps: positive("layer_norm_eps", 1e-12),
    poolerOutputSize: count("pooler_output_size", hiddenSize),
    poolerAct: readActivation(reader, "pooler_act", "tanh"),
    initializerRange: positive("initializer_range", 0.02),
  };
}

/** Names in files of the parts of a layer, and of the modules: transformers 5 has other ones than its files. */
const PARTS: readonly (readonly [file: string, module: string])[] = [
  ["attention.attention.query.", "attention.q_proj."],
  ["attention.attention.key.", "attention.k_proj."],
  ["attention.attention.value.", "attention.v_proj."],
  ["attention.output.dense.", "attention.o_proj."],
  ["intermediate.dense.", "mlp.fc1."],
  ["output.dense.", "mlp.fc2."],
];

/** @internal */
export function renameViT(name: string): string | null {
  // What masked patches are replaced by: no head here masks any.
  if (name.endsWith("embeddings.mask_token")) return null;
  const [, start, layer, part] = /^(.*?)encoder\.layer\.(\d+)\.(.+)$/.exec(name) ?? [];
  if (part === undefined) return name;
  const known = PARTS.find(([file]) => part.startsWith(file));
  return `${start}layers.${layer}.${known ? part.replace(known[0], known[1]) : part}`;
}

/** The way back. @internal */
export function fileNameOfViT(key: string): string {
  const [, start, layer, part] = /^(.*?)layers\.(\d+)\.(.+)$/.exec(key) ?? [];
  if (part === undefined) return key;
  const known = PARTS.find(([, module]) => part.startsWith(module));
  return `${start}encoder.layer.${layer}.${known ? part.replace(known[1], known[0]) : part}`;
}

/** What the table of families holds. @internal */
export const vit: Family<ViTConfig> = {
  modelType: "vit",
  parseConfig: parseViTConfig,
  heads: {
    none: { architectures: ["ViTModel"], keys: [], create: (c, has) => new ViTModel(c, has?.("pooler.")) },
    "image-classification": {
      architectures: ["ViTForImageClassification"],
      keys: ["classifier."],
      unused: ["vit.pooler."],
      create: (c) => new ViTForImageClassification(c as ViTConfig & Labels),
      std: (c) => c.initializerRange,
    },
  },
  prefix: "vit.",
  layers: "layers.",
  layerCount: "num_hidden_layers",
  headKeys: ["classifier.", "decoder."],
  isBuffer: () => false,
  rename: renameViT,
  fileName: fileNameOfViT,
  sizes: (c): readonly Size[] => [
    ["hidden_size", c.hiddenSize],
    ["intermediate_size", c.intermediateSize],
    ["num_channels", c.numChannels],
    ["(image_size / patch_size)² + 1", patchesOf(c) + 1],
    ["patch_size", c.patchSize[0]],
    ["patch_size", c.patchSize[1]],
  ],
};
