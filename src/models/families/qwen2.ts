/** Qwen2 and Qwen2.5 (Yang et al. 2024): a Llama with biases on query, key and value, and windows in later layers. */
import { GatedMLP } from "../parts/gated_mlp.js";
import { SelfAttention } from "../parts/heads.js";
import {
  headsOf,
  llamaLike,
  LlamaLikeModel,
  PreNormLayer,
  readLlamaLike,
  readOptionalWindows,
  rotaryOf,
  windowOf,
  type LlamaLikeConfig,
  type Reader,
  type Windows,
} from "./llama_like.js";

/** Windows as Qwen's configurations have them. */
export interface QwenWindows extends Windows {
  /** First layer with a window, where there are any (max_window_layers). */
  maxWindowLayers: number;
}

/** What config.json says of a Qwen2. */
export interface Qwen2Config extends LlamaLikeConfig, QwenWindows {
  /** transformers' model_type. */
  modelType: "qwen2";
}

/** Windows of Qwen2 and Qwen3: there are none unless use_sliding_window says so. */
export function readQwenWindows(reader: Reader, layers: number): QwenWindows {
  const { config, fail } = reader;
  const first = config["max_window_layers"] ?? 28;
  if (!Number.isSafeInteger(first) || (first as number) < 0)
    fail(`max_window_layers is ${String(first)}; expected an integer of at least 0`);
  return { ...readOptionalWindows(reader, layers, 4096), maxWindowLayers: first as number };
}

/** What the table of families holds. Source: transformers, models/qwen2. @internal */
export const qwen2 = llamaLike<Qwen2Config>({
  modelType: "qwen2",
  name: "Qwen2",
  read: (reader) => {
    reader.only("hidden_act", "silu");
    const shared = readLlamaLike(reader, {
      hiddenSize: 4096,
      intermediateSize: 22016,
      numHiddenLayers: 32,
      numAttentionHeads: 32,
      numKeyValueHeads: 32,
      vocabSize: 151936,
      maxPositionEmbeddings: 32768,
      rmsNormEps: 1e-6,
    });
    return { ...shared, ...readQwenWindows(reader, shared.numHiddenLayers), modelType: "qwen2" };
  },
  base: (c) => {
    const rotary = rotaryOf(c);
    return new LlamaLikeModel(c, {
      rotaries: [rotary],
      window: (i) => windowOf(c, i, i >= c.maxWindowLayers),
      layer: (i, window) => {
        const attention = new SelfAttention({ ...headsOf(c, i, rotary), window, bias: true, outputBias: false });
        return new PreNormLayer(c, attention, new GatedMLP(c));
      },
    });
  },
});
