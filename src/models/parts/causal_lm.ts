/** What generation and training ask of a language model, whatever its architecture. */
import type { Module } from "../../nn/module.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { KeyValueCache } from "./cache.js";

/** Options of a language model's forward. */
export interface ForwardOptions {
  /**
   * int32 [batch, steps], with a cache [1, all steps]: 0 padding, 1 a token of the text; of several texts in a row each
   * has a positive number of its own. Default: each row is one text.
   */
  attentionMask?: Tensor | undefined;
  /** int32 [batch, steps]. Default: counted from 0 at the start of each text of a row. */
  positionIds?: Tensor | undefined;
  /** Keys and values of one sequence so far: ids are its next tokens, and the cache takes them in. Default: none. */
  cache?: KeyValueCache | undefined;
  /** The logits of so many last steps are computed; 0: of all. Default 0. */
  logitsToKeep?: number | undefined;
}

/** Options of a language model's loss. */
export interface LossOptions extends Pick<ForwardOptions, "attentionMask" | "positionIds"> {
  /**
   * What the sum over scored targets is divided by (transformers' num_items_in_batch): with the number in all of a
   * step's batches, their losses and gradients add up to the step's. Default: the scored targets of this batch.
   */
  numItemsInBatch?: number | undefined;
}

/** A decoder-only language model, as `loadModel` gives it under "causal-lm". */
export interface CausalLM extends Module {
  /** What config.json says; at least this. */
  readonly config: {
    /** Number of token ids. */
    vocabSize: number;
    /** Longest sequence. */
    maxPositionEmbeddings: number;
  };
  /** Whether backward computes each layer's activations again instead of keeping them; see `gradientCheckpoint`. */
  gradientCheckpointing: boolean;
  /** ids int32 [batch, steps] -> logits [batch, steps or logitsToKeep, vocabSize]. */
  forward(ids: Tensor, options?: ForwardOptions): Tensor;
  /** Mean cross-entropy, of shape [], of predicting `targets` (int32 [batch, steps]; -100 is not scored) from `ids`. */
  loss(ids: Tensor, targets: Tensor, options?: LossOptions): Tensor;
  /** An empty cache for `forward`. */
  newCache(): KeyValueCache;
}

/** A module around a language model that is called like it, as a LoraModel is. */
export interface WrappedLM extends Module {
  /** The language model. */
  readonly model: CausalLM;
}
