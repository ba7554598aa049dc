/** OLMo 2 (OLMo et al. 2025): norms after attention and MLP instead of before, and on all of query and key. */
import { add } from "../../autograd/ops/index.js";
import { RMSNorm } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Block, Pass } from "../parts/decoder.js";
import { GatedMLP } from "../parts/gated_mlp.js";
import { SelfAttention } from "../parts/heads.js";
import { headsOf, llamaLike, LlamaLikeModel, readLlamaLike, rotaryOf, type LlamaLikeConfig } from "./llama_like.js";

/** What config.json says of an OLMo 2. */
export interface Olmo2Config extends LlamaLikeConfig {
  /** transformers' model_type. */
  modelType: "olmo2";
  /** Whether the attention's projections have biases (attention_bias). */
  attentionBias: boolean;
}

/** Attention and MLP, the norm of each added to its input. */
class Olmo2Layer extends Module implements Block {
  /** @internal */ static override readonly className: string = "Olmo2Layer";
  readonly selfAttn: SelfAttention;
  readonly mlp: GatedMLP;
  readonly postAttentionLayernorm: RMSNorm;
  readonly postFeedforwardLayernorm: RMSNorm;

  constructor(c: Olmo2Config, selfAttn: SelfAttention) {
    super();
    this.selfAttn = selfAttn;
    this.mlp = new GatedMLP(c);
    this.postAttentionLayernorm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
    this.postFeedforwardLayernorm = new RMSNorm(c.hiddenSize, c.rmsNormEps);
  }

  forward(x: Tensor, pass: Pass): Tensor {
    return graphScope(() => {
      const h = add(x, this.postAttentionLayernorm.forward(this.selfAttn.forward(x, pass)));
      return add(h, this.postFeedforwardLayernorm.forward(this.mlp.forward(h)));
    });
  }
}

/** What the table of families holds. Source: transformers, models/olmo2. @internal */
export const olmo2 = llamaLike<Olmo2Config>({
  modelType: "olmo2",
  name: "Olmo2",
  read: (reader) => {
    reader.only("hidden_act", "silu");
    return {
      ...readLlamaLike(reader, {
        hiddenSize: 4096,
        intermediateSize: 11008,
        numHiddenLayers: 32,
        numAttentionHeads: 32,
        numKeyValueHeads: null,
        vocabSize: 50304,
        maxPositionEmbeddings: 2048,
        rmsNormEps: 1e-5,
        eosTokenId: 50279,
      }),
      modelType: "olmo2",
      attentionBias: reader.flag("attention_bias", false),
    };
  },
  base: (c) => {
    const rotary = rotaryOf(c);
    const norm = { of: "projection" as const, make: (size: number) => new RMSNorm(size, c.rmsNormEps) };
    return new LlamaLikeModel(c, {
      rotaries: [rotary],
      layer: (i) => new Olmo2Layer(c, new SelfAttention({ ...headsOf(c, i, rotary), bias: c.attentionBias, norm })),
    });
  },
});
