/**
 * GPT-NeoX (Black et al. 2022) and Pythia: layer norms, biases, heads that are fused each for itself, attention beside
 * the MLP.
 */
import { add, narrow, reshape } from "../../autograd/ops/index.js";
import { configReader } from "../../io/config_reader.js";
import { asObject } from "../../io/json.js";
import { Embedding, LayerNorm, Linear, type Layer } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import { ACTIVATIONS, readActivation } from "../parts/encoder.js";
import {
  DecoderForCausalLM,
  DecoderModel,
  initialised,
  type Block,
  type DecoderConfig,
  type Pass,
  type Table,
} from "../parts/decoder.js";
import type { Family } from "../parts/family.js";
import { Heads } from "../parts/heads.js";
import { longest, rotaryOf } from "./llama_like.js";
import { parseRope, type RopeParameters, type RotaryEmbedding } from "../parts/rope.js";

/** What config.json says of a GPT-NeoX. */
export interface GptNeoXConfig extends DecoderConfig {
  /** transformers' model_type. */
  modelType: "gpt_neox";
  /** Width of the MLP (intermediate_size). */
  intermediateSize: number;
  /** Heads of attention (num_attention_heads). */
  numAttentionHeads: number;
  /** eps of the norms (layer_norm_eps). */
  layerNormEps: number;
  /** What passes the MLP: transformers' name of it (hidden_act). */
  hiddenAct: string;
  /** Whether MLP and attention look at the same input (use_parallel_residual). */
  useParallelResidual: boolean;
  /** Whether the attention's projections have biases (attention_bias). */
  attentionBias: boolean;
  /** max_position_embeddings where ropeParameters is made for longer texts. Default: maxPositionEmbeddings. */
  originalMaxPositionEmbeddings?: number | undefined;
  /** How positions turn queries and keys. */
  ropeParameters: RopeParameters;
}

class GptNeoXAttention extends Module {
  /** @internal */ static override readonly className: string = "GptNeoXAttention";
  /** Of each head query, key and value: [3 hiddenSize, hiddenSize] */
  readonly queryKeyValue: Layer;
  /** [hiddenSize, hiddenSize] */
  readonly dense: Layer;
  readonly #heads: Heads;

  constructor(c: GptNeoXConfig, layer: number, rotary: RotaryEmbedding) {
    super();
    const { hiddenSize: size, numAttentionHeads: heads, attentionBias: bias } = c;
    this.queryKeyValue = new Linear(size, 3 * size, { bias });
    this.dense = new Linear(size, size, { bias });
    this.#heads = new Heads({ heads, kvHeads: heads, dim: size / heads, layer, rotary });
  }

  forward(x: Tensor, pass: Pass): Tensor {
    const [batch, steps] = x.shape as [number, number];
    const { heads, dim } = this.#heads.options;
    return graphScope(() => {
      const qkv = reshape(this.queryKeyValue.forward(x), [batch, steps, heads, 3 * dim]);
      const [q, k, v] = [0, 1, 2].map((i) => narrow(qkv, 3, i * dim, dim)) as [Tensor, Tensor, Tensor];
      return this.dense.forward(this.#heads.attend(q, k, v, pass));
    });
  }
}

class GptNeoXMLP extends Module {
  /** @internal */ static override readonly className: string = "GptNeoXMLP";
  // The keys in files: camelCase would lose the underscore before a digit.
  /** [intermediateSize, hiddenSize] */
  readonly dense_h_to_4h: Layer;
  /** [hiddenSize, intermediateSize] */
  readonly dense_4h_to_h: Layer;
  readonly #act: (x: Tensor) => Tensor;

  constructor({ hiddenSize, intermediateSize, hiddenAct }: GptNeoXConfig) {
    super();
    this.dense_h_to_4h = new Linear(hiddenSize, intermediateSize);
    this.dense_4h_to_h = new Linear(intermediateSize, hiddenSize);
    this.#act = ACTIVATIONS[hiddenAct]!;
  }

  forward(x: Tensor): Tensor {
    return graphScope(() => this.dense_4h_to_h.forward(this.#act(this.dense_h_to_4h.forward(x))));
  }
}

class GptNeoXLayer extends Module implements Block {
  /** @internal */ static override readonly className: string = "GptNeoXLayer";
  readonly inputLayernorm: LayerNorm;
  readonly postAttentionLayernorm: LayerNorm;
  readonly attention: GptNeoXAttention;
  readonly mlp: GptNeoXMLP;
  readonly #isParallel: boolean;

  constructor(c: GptNeoXConfig, layer: number, rotary: RotaryEmbedding) {
    super();
    this.inputLayernorm = new LayerNorm(c.hiddenSize, c.layerNormEps);
    this.postAttentionLayernorm = new LayerNorm(c.hiddenSize, c.layerNormEps);
    this.attention = new GptNeoXAttention(c, layer, rotary);
    this.mlp = new GptNeoXMLP(c);
    this.#isParallel = c.useParallelResidual;
  }

  forward(x: Tensor, pass: Pass): Tensor {
    return graphScope(() => {
      const h = add(x, this.attention.forward(this.inputLayernorm.forward(x), pass));
      const seen = this.#isParallel ? x : h;
      return add(h, this.mlp.forward(this.postAttentionLayernorm.forward(seen)));
    });
  }
}

class GptNeoXModel extends DecoderModel<GptNeoXConfig> {
  /** @internal */ static override readonly className: string = "GptNeoXModel";
  readonly embedIn: Table;
  readonly layers: GptNeoXLayer[];
  readonly finalLayerNorm: LayerNorm;
  readonly #rotary: RotaryEmbedding;

  constructor(c: Readonly<GptNeoXConfig>) {
    super(c);
    const rotary = (this.#rotary = rotaryOf({ ...c, headDim: c.hiddenSize / c.numAttentionHeads }));
    this.embedIn = new Embedding(c.vocabSize, c.hiddenSize);
    this.layers = Array.from({ length: c.numHiddenLayers }, (_, i) => new GptNeoXLayer(c, i, rotary));
    this.finalLayerNorm = new LayerNorm(c.hiddenSize, c.layerNormEps);
  }

  override get table(): Table {
    return this.embedIn;
  }

  override get blocks(): readonly GptNeoXLayer[] {
    return this.layers;
  }

  override get lastNorm(): LayerNorm {
    return this.finalLayerNorm;
  }

  override embed(ids: Tensor): Tensor {
    return this.embedIn.forward(ids);
  }

  override get rotaries(): readonly RotaryEmbedding[] {
    return [this.#rotary];
  }
}

/**
 * What the file leaves out has the values of transformers' GPTNeoXConfig. Older files say rotary_pct and
 * rotary_emb_base.
 */
function parseGptNeoXConfig(json: unknown, name: string): GptNeoXConfig {
  const reader = configReader(json, name, "gpt_neox");
  const { config, fail, count, positive, flag, token, tokens } = reader;
  const hiddenSize = count("hidden_size", 6144);
  const numAttentionHeads = count("num_attention_heads", 64);
  if (hiddenSize % numAttentionHeads !== 0)
    fail(`hidden_size is ${hiddenSize}; expected a multiple of num_attention_heads = ${numAttentionHeads}`);
  const positions = count("max_position_embeddings", 2048);
  const says = config["rotary_pct"] != null || asObject(config["rope_parameters"])?.["partial_rotary_factor"] != null;
  const ropeParameters = parseRope(
    // A quarter of each head is rotated where nothing is said.
    says ? reader : { ...reader, config: { ...config, rotary_pct: 0.25 } },
    { headDim: hiddenSize / numAttentionHeads, maxPositionEmbeddings: positions },
  );
  return {
    modelType: "gpt_neox",
    hiddenSize,
    intermediateSize: count("intermediate_size", 24576),
    numHiddenLayers: count("num_hidden_layers", 44),
    numAttentionHeads,
    vocabSize: count("vocab_size", 50432),
    ...longest(positions, ropeParameters),
    layerNormEps: positive("layer_norm_eps", 1e-5),
    hiddenAct: readActivation(reader, "hidden_act"),
    useParallelResidual: flag("use_parallel_residual", true),
    attentionBias: flag("attention_bias", true),
    ropeParameters,
    tieWordEmbeddings: flag("tie_word_embeddings", false),
    bosTokenId: token("bos_token_id", 0),
    eosTokenId: tokens("eos_token_id", 2),
  };
}

/** What the table of families holds. Source: transformers, models/gpt_neox. @internal */
export const gptNeoX: Family<GptNeoXConfig> = {
  modelType: "gpt_neox",
  parseConfig: parseGptNeoXConfig,
  heads: {
    "causal-lm": {
      architectures: ["GPTNeoXForCausalLM"],
      keys: ["embed_out."],
      create: (config) =>
        new DecoderForCausalLM(config, (c) => new GptNeoXModel(c), { base: "gptNeox", head: "embedOut" }),
    },
    none: { architectures: ["GPTNeoXModel"], keys: [], create: (config) => initialised(new GptNeoXModel(config)) },
  },
  prefix: "gpt_neox.",
  layers: "layers.",
  layerCount: "num_hidden_layers",
  tied: { table: "gpt_neox.embed_in.weight", head: "embed_out.weight" },
  headKeys: ["embed_out.", "score."],
  isBuffer: (key) => /(^|\.)layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/.test(key),
  sizes: (c) => [
    ["hidden_size", c.hiddenSize],
    ["intermediate_size", c.intermediateSize],
    ["vocab_size", c.vocabSize],
    ["3 hidden_size", 3 * c.hiddenSize],
  ],
};
