/** Phi-3 and Phi-4-mini (Abdin et al. 2024): a Llama with fused projections that may rotate a part of each head. */
import { narrow, reshape } from "../../autograd/ops/index.js";
import { Linear, type Layer } from "../../nn/layers.js";
import { Module } from "../../nn/module.js";
import { graphScope } from "../../tensor/scope.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Pass } from "../parts/decoder.js";
import { gated } from "../parts/gated_mlp.js";
import { Heads, type HeadsOptions } from "../parts/heads.js";
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

/** What config.json says of a Phi-3. */
export interface Phi3Config extends LlamaLikeConfig, Windows {
  /** transformers' model_type. */
  modelType: "phi3";
}

/** Attention over one projection: query, key and value below each other. */
class Phi3Attention extends Module {
  /** @internal */ static override readonly className: string = "Phi3Attention";
  /** [heads * dim, hiddenSize] */
  readonly oProj: Layer;
  /** [(heads + 2 kvHeads) * dim, hiddenSize] */
  readonly qkvProj: Layer;
  readonly #heads: Heads;

  constructor(hiddenSize: number, options: HeadsOptions) {
    super();
    const { heads, kvHeads, dim } = options;
    this.oProj = new Linear(heads * dim, hiddenSize, { bias: false });
    this.qkvProj = new Linear(hiddenSize, (heads + 2 * kvHeads) * dim, { bias: false });
    this.#heads = new Heads(options);
  }

  forward(x: Tensor, pass: Pass): Tensor {
    const [batch, steps] = x.shape as [number, number];
    const { heads, kvHeads, dim } = this.#heads.options;
    return graphScope(() => {
      const qkv = reshape(this.qkvProj.forward(x), [batch, steps, heads + 2 * kvHeads, dim]);
      const q = narrow(qkv, 2, 0, heads);
      const k = narrow(qkv, 2, heads, kvHeads);
      const v = narrow(qkv, 2, heads + kvHeads, kvHeads);
      return this.oProj.forward(this.#heads.attend(q, k, v, pass));
    });
  }
}

/** down(silu(gate(x)) * up(x)), with gate and up in one projection. */
class Phi3MLP extends Module {
  /** @internal */ static override readonly className: string = "Phi3MLP";
  /** [2 intermediateSize, hiddenSize] */
  readonly gateUpProj: Layer;
  /** [hiddenSize, intermediateSize] */
  readonly downProj: Layer;
  readonly #size: number;

  constructor({ hiddenSize, intermediateSize }: Phi3Config) {
    super();
    this.gateUpProj = new Linear(hiddenSize, 2 * intermediateSize, { bias: false });
    this.downProj = new Linear(intermediateSize, hiddenSize, { bias: false });
    this.#size = intermediateSize;
  }

  forward(x: Tensor): Tensor {
    return graphScope(() => {
      const both = this.gateUpProj.forward(x);
      const gate = narrow(both, -1, 0, this.#size);
      return this.downProj.forward(gated(gate, narrow(both, -1, this.#size, this.#size), "silu"));
    });
  }
}

const phi3Like = llamaLike<Phi3Config>({
  modelType: "phi3",
  name: "Phi3",
  read: (reader) => {
    reader.only("hidden_act", "silu");
    reader.only("attention_bias", false);
    const shared = readLlamaLike(reader, {
      hiddenSize: 3072,
      intermediateSize: 8192,
      numHiddenLayers: 32,
      numAttentionHeads: 32,
      numKeyValueHeads: null,
      vocabSize: 32064,
      maxPositionEmbeddings: 4096,
      rmsNormEps: 1e-5,
      partialRotary: true,
      bosTokenId: 1,
      eosTokenId: 32000,
    });
    return {
      ...shared,
      ...readWindows(reader, shared.numHiddenLayers),
      modelType: "phi3",
    };
  },
  base: (c) => {
    const rotary = rotaryOf(c);
    return new LlamaLikeModel(c, {
      rotaries: [rotary],
      window: (i) => windowOf(c, i, true),
      layer: (i, window) => {
        const attention = new Phi3Attention(c.hiddenSize, { ...headsOf(c, i, rotary), window });
        return new PreNormLayer(c, attention, new Phi3MLP(c));
      },
    });
  },
});

/** What the table of families holds. Source: transformers, models/phi3. @internal */
export const phi3: typeof phi3Like = {
  ...phi3Like,
  sizes: (c) => [
    ...phi3Like.sizes(c),
    ["2 intermediate_size", 2 * c.intermediateSize],
    [
      "(num_attention_heads + 2 num_key_value_heads) * head_dim",
      (c.numAttentionHeads + 2 * c.numKeyValueHeads) * c.headDim,
    ],
  ],
};
