/** Granite (IBM 2024): a Llama with factors on embeddings, scores, what layers add, and logits. */
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
} from "./llama_like.js";

/** What config.json says of a Granite. */
export interface GraniteConfig extends LlamaLikeConfig {
  /** transformers' model_type. */
  modelType: "granite";
  /** Factor of the embeddings (embedding_multiplier). */
  embeddingMultiplier: number;
  /** Factor of the scores (attention_multiplier). */
  attentionMultiplier: number;
  /** Factor of what attention and MLP add (residual_multiplier). */
  residualMultiplier: number;
  /** Divides the logits (logits_scaling). */
  logitsScaling: number;
  /** Whether the attention's projections have biases (attention_bias). */
  attentionBias: boolean;
  /** Whether the MLP's have (mlp_bias). */
  mlpBias: boolean;
}

/** A Granite without its head. */
class GraniteModel extends LlamaLikeModel<GraniteConfig> {
  /** @internal */ static override readonly className: string = "GraniteModel";

  constructor(c: Readonly<GraniteConfig>) {
    const rotary = rotaryOf(c);
    const { attentionBias: bias, attentionMultiplier, residualMultiplier: factor, mlpBias } = c;
    super(c, {
      rotaries: [rotary],
      embeddingScale: c.embeddingMultiplier,
      layer: (i) => {
        const attention = new SelfAttention({ ...headsOf(c, i, rotary), bias, scale: attentionMultiplier });
        return new PreNormLayer(c, attention, new GatedMLP(c, { bias: mlpBias }), { factor });
      },
    });
  }

  override get logitsScale(): number {
    return 1 / this.config.logitsScaling;
  }
}

/** What the table of families holds. Source: transformers, models/granite. @internal */
export const granite = llamaLike<GraniteConfig>({
  modelType: "granite",
  name: "Granite",
  read: (reader) => {
    const { only, positive, flag } = reader;
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
      modelType: "granite",
      embeddingMultiplier: positive("embedding_multiplier", 1),
      attentionMultiplier: positive("attention_multiplier", 1),
      residualMultiplier: positive("residual_multiplier", 1),
      logitsScaling: positive("logits_scaling", 1),
      attentionBias: flag("attention_bias", false),
      mlpBias: flag("mlp_bias", false),
    };
  },
  base: (c) => new GraniteModel(c),
});
