/** What generation and training ask of a language model, whatever its architecture. */
import type { Module } from "../nn/module.js";
import type { Tensor } from "../tensor/tensor.js";
import type { KeyValueCache } from "./cache.js";

/** A decoder-only language model: Llama or Gpt2. */
export interface CausalLM extends Module {
  /** What config.json says; at least this. */
  readonly config: {
    /** Number of token ids. */
    vocabSize: number;
    /** Longest sequence. */
    maxPositionEmbeddings: number;
  };
  /** ids int32 [batch, steps] -> logits [batch, steps, vocabSize]; with a cache, the next ids of its one sequence. */
  forward(ids: Tensor, cache?: KeyValueCache): Tensor;
  /** Mean cross-entropy, of shape [], of predicting `targets` (int32 [batch, steps]; -100 is ignored) from `ids`. */
  loss(ids: Tensor, targets: Tensor): Tensor;
  /** An empty cache for `forward`. */
  newCache(): KeyValueCache;
}
