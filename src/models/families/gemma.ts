/** Gemma (Gemma Team 2024): a Llama with scaled embeddings, a GELU gate and norms whose weights begin at 0. */
import { GatedMLP, type Gate } from "../parts/gated_mlp.js";
import { SelfAttention } from "../parts/heads.js";
import {
  headsOf,
  llamaLike,
  LlamaLikeModel,
  PreNormLayer,
  readLlamaLike,
  rotaryOf,
  type LlamaLikeConfig,
} from "./llama_like.js";

/** What config.json says of a Gemma. */
export interface GemmaConfig extends LlamaLikeConfig {
  /** transformers' model_type. */
  modelType: "gemma";
  /** What passes the MLP's gate (hidden_act); hidden_activation, which transformers 4 read, is passed over as by 5. */
  hiddenAct: Gate;
  /** Whether the attention's projections have biases (attention_bias). */
  attentionBias: boolean;
}

/** Factor of the embeddings, as float32 has it. */
export function embeddingScale({ hiddenSize }: { readonly hiddenSize: number }): number {
  return Math.fround(Math.sqrt(hiddenSize));
}

/** What the table of families holds. Source: transformers, models/gemma. @internal */
export const gemma = llamaLike<GemmaConfig>({
  modelType: "gemma",
  name: "Gemma",
  read: (reader) => {
    const hiddenAct = reader.config["hidden_act"] === "gelu" ? "gelu" : "gelu_pytorch_tanh";
    reader.only("hidden_act", hiddenAct);
    reader.only("use_bidirectional_attention", false);
    return {
      ...readLlamaLike(reader, {
        hiddenSize: 3072,
        intermediateSize: 24576,
        numHiddenLayers: 28,
        numAttentionHeads: 16,
        numKeyValueHeads: 16,
        headDim: 256,
        vocabSize: 256000,
        maxPositionEmbeddings: 8192,
        rmsNormEps: 1e-6,
        tieWordEmbeddings: true,
        bosTokenId: 2,
        eosTokenId: 1,
      }),
      modelType: "gemma",
      hiddenAct,
      attentionBias: reader.flag("attention_bias", false),
    };
  },
  base: (c) => {
    const rotary = rotaryOf(c);
    return new LlamaLikeModel(c, {
      rotaries: [rotary],
      offset: 1,
      embeddingScale: embeddingScale(c),
      layer: (i) => {
        const attention = new SelfAttention({ ...headsOf(c, i, rotary), bias: c.attentionBias });
        return new PreNormLayer(c, attention, new GatedMLP(c, { act: c.hiddenAct }), { offset: 1 });
      },
    });
  },
});
