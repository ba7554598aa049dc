/** Gemma (Gemma Team 2024): a Llama with scaled embeddings, a GELU gate and norms whose weights begin at 0. */
import { GatedMLP } from "./gated_mlp.js";
import { SelfAttention } from "./heads.js";
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

/** What config.json says of a Gemma. */
export interface GemmaConfig extends LlamaLikeConfig {
  /** transformers' model_type. */
  modelType: "gemma";
  /** Whether the attention's projections have biases (attention_bias). */
  attentionBias: boolean;
}

/** Factor of the embeddings, as float32 has it. */
export function embeddingScale({ hiddenSize }: { readonly hiddenSize: number }): number {
  return Math.fround(Math.sqrt(hiddenSize));
}

/** The gate is GELU in its tanh form; "gelu", which the first files said, meant that too. */
export function onlyGeluTanh({ config, only }: Reader): void {
  only("hidden_activation", "gelu_pytorch_tanh");
  if (config["hidden_act"] !== "gelu") only("hidden_act", "gelu_pytorch_tanh");
}

/** What the table of families holds. Source: transformers, models/gemma. @internal */
export const gemma = llamaLike<GemmaConfig>({
  modelType: "gemma",
  name: "Gemma",
  read: (reader) => {
    onlyGeluTanh(reader);
    if (reader.config["use_bidirectional_attention"]) reader.only("use_bidirectional_attention", false);
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
        return new PreNormLayer(c, attention, new GatedMLP(c, { act: "geluTanh" }), { offset: 1 });
      },
    });
  },
});
