/** Qwen3 (Yang et al. 2025): a Llama with a norm on each head of query and key, and heads of a size of their own. */
import { RMSNorm } from "../../nn/layers.js";
import { GatedMLP } from "../parts/gated_mlp.js";
import { SelfAttention } from "../parts/heads.js";
import {
  headsOf,
  llamaLike,
  LlamaLikeModel,
  PreNormLayer,
  readLlamaLike,
  rotaryOf,
  windowOf,
  type LlamaLikeConfig,
} from "./llama_like.js";
import { readQwenWindows, type QwenWindows } from "./qwen2.js";

/** What config.json says of a Qwen3. */
export interface Qwen3Config extends LlamaLikeConfig, QwenWindows {
  /** transformers' model_type. */
  modelType: "qwen3";
  /** Whether the attention's projections have biases (attention_bias). */
  attentionBias: boolean;
}

/** What the table of families holds. Source: transformers, models/qwen3. @internal */
export const qwen3 = llamaLike<Qwen3Config>({
  modelType: "qwen3",
  name: "Qwen3",
  read: (reader) => {
    reader.only("hidden_act", "silu");
    const shared = readLlamaLike(reader, {
      hiddenSize: 4096,
      intermediateSize: 22016,
      numHiddenLayers: 32,
      numAttentionHeads: 32,
      numKeyValueHeads: 32,
      headDim: 128,
      vocabSize: 151936,
      maxPositionEmbeddings: 32768,
      rmsNormEps: 1e-6,
    });
    return {
      ...shared,
      ...readQwenWindows(reader, shared.numHiddenLayers),
      modelType: "qwen3",
      attentionBias: reader.flag("attention_bias", false),
    };
  },
  base: (c) => {
    const rotary = rotaryOf(c);
    const norm = { of: "heads" as const, make: (size: number) => new RMSNorm(size, c.rmsNormEps) };
    return new LlamaLikeModel(c, {
      rotaries: [rotary],
      window: (i) => windowOf(c, i, i >= c.maxWindowLayers),
      layer: (i, window) => {
        const attention = new SelfAttention({ ...headsOf(c, i, rotary), window, bias: c.attentionBias, norm });
        return new PreNormLayer(c, attention, new GatedMLP(c));
      },
    });
  },
});
