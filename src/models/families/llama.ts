/**
 * Llama: a decoder-only transformer (Touvron et al. 2023) in Hugging Face's names: RMSNorm before attention and MLP,
 * rotary positions, grouped heads, SwiGLU.
 */
import type { Layer } from "../../nn/layers.js";
import { ArgumentError } from "../../runtime/errors.js";
import { checkConfig, type ConfigOf } from "../parts/config.js";
import { DecoderForCausalLM } from "../parts/decoder.js";
import { GatedMLP } from "../parts/gated_mlp.js";
import { SelfAttention } from "../parts/heads.js";
import {
  headsOf,
  llamaLike,
  LlamaLikeModel,
  PreNormLayer,
  readLlamaLike,
  rotaryOf,
  type LlamaLikeConfig,
  type Reader,
} from "./llama_like.js";

/** What config.json says of a Llama. */
export interface LlamaConfig extends LlamaLikeConfig {
  /** transformers' model_type. */
  modelType: "llama";
  /** Whether the attention's projections have biases (attention_bias). Default false. */
  attentionBias?: boolean | undefined;
  /** Whether the MLP's have (mlp_bias). Default false. */
  mlpBias?: boolean | undefined;
}

/** A layer of a Llama. */
export type LlamaLayer = PreNormLayer<SelfAttention, GatedMLP>;

/** A Llama without its head. */
export type LlamaModel = LlamaLikeModel<LlamaConfig, LlamaLayer>;

function llamaModel(c: Readonly<LlamaConfig>): LlamaModel {
  const rotary = rotaryOf(c);
  const { attentionBias: bias = false, mlpBias = false } = c;
  return new LlamaLikeModel(c, {
    rotaries: [rotary],
    layer: (i) =>
      new PreNormLayer(c, new SelfAttention({ ...headsOf(c, i, rotary), bias }), new GatedMLP(c, { bias: mlpBias })),
  });
}

/**
 * A Llama with its language-model head. Weights start random (N(0, 0.02²) as Hugging Face's); load
 * others with `loadStateDict` or `models.loadModel`, and add LoRA with `peft.getLoraModel`.
 *
 * Source: Touvron et al. 2023; transformers, models/llama/modeling_llama.py.
 * @throws ArgumentError on a size out of range; ShapeError for an odd headDim
 *
 * @example
 * const { model } = models.loadModel("models/base");
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

  /**
   * @param config its sizes; `ropeTheta` stands for ropeParameters of the kind "default", as transformers' LlamaConfig
   * has it
   */
  constructor(config: ConfigOf<LlamaConfig> | ConfigOf<Omit<LlamaConfig, "ropeParameters"> & RopeTheta>) {
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
      ["rmsNormEps"],
      ["ropeParameters", "ropeTheta", "originalMaxPositionEmbeddings", "attentionBias", "mlpBias"],
    );
    super({ ...withRopeParameters(config), modelType: "llama" }, llamaModel);
  }
}

/** Angles of the kind "default" by their theta alone. */
export interface RopeTheta {
  /** Base of the frequencies (rope_theta). */
  ropeTheta: number;
}

function withRopeParameters(
  config: ConfigOf<LlamaConfig> | ConfigOf<Omit<LlamaConfig, "ropeParameters"> & RopeTheta>,
): ConfigOf<LlamaConfig> {
  const { ropeTheta, ...rest } = config as ConfigOf<LlamaConfig> & Partial<RopeTheta>;
  if (ropeTheta === undefined) return rest;
  if ((rest as Partial<LlamaConfig>).ropeParameters !== undefined)
    throw new ArgumentError("Llama: ropeTheta and ropeParameters say the same; give one of them.");
  return { ...rest, ropeParameters: { ropeType: "default", ropeTheta } };
}

/**
 * What the file leaves out has the values of transformers' LlamaConfig. Dropout probabilities are not read: these
 * models have no dropout.
 *
 * Source: huggingface/transformers 5, models/llama/configuration_llama.py.
 */
function readLlama(reader: Reader): LlamaConfig {
  const { only, flag } = reader;
  only("hidden_act", "silu");
  return {
    ...readLlamaLike(reader, {
      hiddenSize: 4096,
      intermediateSize: 11008,
      numHiddenLayers: 32,
      numAttentionHeads: 32,
      numKeyValueHeads: null,
      vocabSize: 32000,
      maxPositionEmbeddings: 2048,
      rmsNormEps: 1e-6,
      bosTokenId: 1,
      eosTokenId: 2,
    }),
    modelType: "llama",
    attentionBias: flag("attention_bias", false),
    mlpBias: flag("mlp_bias", false),
  };
}

/** What the table of families holds. @internal */
export const llama = llamaLike<LlamaConfig>({
  modelType: "llama",
  name: "Llama",
  read: readLlama,
  base: llamaModel,
  causalLM: (config) => new Llama(config),
});
