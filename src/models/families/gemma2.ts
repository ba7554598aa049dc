/**
 * Gemma 2 (Gemma Team 2024): norms before and after attention and MLP, bounded scores and logits, windows in every
 * other layer.
 */
import { add } from "../../autograd/ops/index.js";
import { RMSNorm } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Block, Pass } from "../parts/decoder.js";
import { GatedMLP } from "../parts/gated_mlp.js";
import { embeddingScale } from "./gemma.js";
import { SelfAttention } from "../parts/heads.js";
import {
  headsOf,
  llamaLike,
  LlamaLikeModel,
  readLlamaLike,
  readWindows,
  rotaryOf,
  windowOf,
  type LlamaLikeConfig,
  type LlamaLikeOptions,
  type Reader,
  type Windows,
} from "./llama_like.js";

/** What configurations of Gemma 2 and 3 say beside. */
export interface SoftcappedConfig extends LlamaLikeConfig, Windows {
  /** The scores are multiplied by 1 / sqrt of it (query_pre_attn_scalar). */
  queryPreAttnScalar: number;
  /** Bound of the logits; null: none (final_logit_softcapping). */
  finalLogitSoftcapping: number | null;
  /** Whether the attention's projections have biases (attention_bias). */
  attentionBias: boolean;
}

/** What config.json says of a Gemma 2. */
export interface Gemma2Config extends SoftcappedConfig {
  /** transformers' model_type. */
  modelType: "gemma2";
  /** Bound of the scores; null: none (attn_logit_softcapping). */
  attnLogitSoftcapping: number | null;
}

/** A bound that null takes away. @param fallback what it is where the file says nothing */
function readBound({ config, positive }: Reader, key: string, fallback: number | null): number | null {
  const isNone = config[key] === null || (config[key] === undefined && fallback === null);
  return isNone ? null : positive(key, fallback ?? undefined);
}

/** What the files of Gemma 2 and 3 say in common. @param logits the default of the logits' bound */
export function readSoftcapped(reader: Reader, shared: LlamaLikeConfig, logits: number | null): SoftcappedConfig {
  const { positive, flag, only } = reader;
  only("hidden_activation", "gelu_pytorch_tanh");
  only("use_bidirectional_attention", false);
  return {
    ...shared,
    ...readWindows(reader, shared.numHiddenLayers, 4096),
    queryPreAttnScalar: positive("query_pre_attn_scalar", 256),
    finalLogitSoftcapping: readBound(reader, "final_logit_softcapping", logits),
    attentionBias: flag("attention_bias", false),
  };
}

/** Attention and MLP, each on its normalised input, its norm added to it. */
export class FourNormLayer extends Module implements Block {
  /** @internal */ static override readonly className: string = "FourNormLayer";
  readonly selfAttn: SelfAttention;
  readonly mlp: GatedMLP;
  readonly inputLayernorm: RMSNorm;
  readonly postAttentionLayernorm: RMSNorm;
  readonly preFeedforwardLayernorm: RMSNorm;
  readonly postFeedforwardLayernorm: RMSNorm;

  constructor(c: LlamaLikeConfig, selfAttn: SelfAttention) {
    super();
    const norm = (): RMSNorm => new RMSNorm(c.hiddenSize, c.rmsNormEps, 1);
    this.selfAttn = selfAttn;
    this.mlp = new GatedMLP(c, { act: "gelu_pytorch_tanh" });
    this.inputLayernorm = norm();
    this.postAttentionLayernorm = norm();
    this.preFeedforwardLayernorm = norm();
    this.postFeedforwardLayernorm = norm();
  }

  forward(x: Tensor, pass: Pass): Tensor {
    return graphScope(() => {
      const y = this.selfAttn.forward(this.inputLayernorm.forward(x), pass);
      const h = add(x, this.postAttentionLayernorm.forward(y));
      const z = this.mlp.forward(this.preFeedforwardLayernorm.forward(h));
      return add(h, this.postFeedforwardLayernorm.forward(z));
    });
  }
}

/** A Gemma 2 or 3 without its head. */
export class SoftcappedModel<C extends SoftcappedConfig> extends LlamaLikeModel<C, FourNormLayer> {
  /** @internal */ static override readonly className: string = "SoftcappedModel";

  constructor(c: Readonly<C>, options: Pick<LlamaLikeOptions<FourNormLayer>, "layer" | "rotaries" | "window">) {
    super(c, { ...options, offset: 1, embeddingScale: embeddingScale(c) });
  }

  override get logitsSoftcap(): number | null {
    return this.config.finalLogitSoftcapping;
  }
}

/** What the table of families holds. Source: transformers, models/gemma2. @internal */
export const gemma2 = llamaLike<Gemma2Config>({
  modelType: "gemma2",
  name: "Gemma2",
  read: (reader) => {
    const shared = readLlamaLike(reader, {
      hiddenSize: 2304,
      intermediateSize: 9216,
      numHiddenLayers: 26,
      numAttentionHeads: 8,
      numKeyValueHeads: 4,
      headDim: 256,
      vocabSize: 256000,
      maxPositionEmbeddings: 8192,
      rmsNormEps: 1e-6,
      tieWordEmbeddings: true,
      bosTokenId: 2,
      eosTokenId: 1,
    });
    return {
      ...readSoftcapped(reader, shared, 30),
      modelType: "gemma2",
      attnLogitSoftcapping: readBound(reader, "attn_logit_softcapping", 50),
    };
  },
  base: (c) => {
    const rotary = rotaryOf(c);
    return new SoftcappedModel(c, {
      rotaries: [rotary],
      window: (i) => windowOf(c, i, i % 2 === 0),
      layer: (i, window) =>
        new FourNormLayer(
          c,
          new SelfAttention({
            ...headsOf(c, i, rotary),
            window,
            bias: c.attentionBias,
            scale: 1 / Math.sqrt(c.queryPreAttnScalar),
            softcap: c.attnLogitSoftcapping,
          }),
        ),
    });
  },
});
