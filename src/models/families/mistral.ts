/** Mistral (Jiang et al. 2023): a Llama whose tokens see a window of those before them. */
import { GatedMLP } from "../parts/gated_mlp.js";
import { SelfAttention } from "../parts/heads.js";
import {
  headsOf,
  llamaLike,
  LlamaLikeModel,
  PreNormLayer,
  readLlamaLike,
  readWindows,
  rotaryOf,
  windowOf,
  type LlamaLikeConfig,
  type Windows,
} from "./llama_like.js";

/** What config.json says of a Mistral. */
export interface MistralConfig extends LlamaLikeConfig, Windows {
  /** transformers' model_type. */
  modelType: "mistral";
}

/** What the table of families holds. Source: transformers, models/mistral. @internal */
export const mistral = llamaLike<MistralConfig>({
  modelType: "mistral",
  name: "Mistral",
  read: (reader) => {
    reader.only("hidden_act", "silu");
    const shared = readLlamaLike(reader, {
      hiddenSize: 4096,
      intermediateSize: 14336,
      numHiddenLayers: 32,
      numAttentionHeads: 32,
      numKeyValueHeads: 8,
      vocabSize: 32000,
      maxPositionEmbeddings: 131072,
      rmsNormEps: 1e-6,
      bosTokenId: 1,
      eosTokenId: 2,
    });
    return { ...shared, ...readWindows(reader, shared.numHiddenLayers, 4096), modelType: "mistral" };
  },
  base: (c) => {
    const rotary = rotaryOf(c);
    return new LlamaLikeModel(c, {
      rotaries: [rotary],
      window: (i) => windowOf(c, i, true),
      layer: (i, window) =>
        new PreNormLayer(c, new SelfAttention({ ...headsOf(c, i, rotary), window }), new GatedMLP(c)),
    });
  },
});
