/** What generation and training ask of a language model, whatever its architecture. */
import { crossEntropy, linear, linearCrossEntropy } from "../autograd/ops/index.js";
import { Linear, type Layer } from "../nn/layers.js";
import type { Module, Parameter } from "../nn/module.js";
import { adopt } from "../random/seed.js";
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
  /** Whether backward computes each layer's activations again instead of keeping them; see `gradientCheckpoint`. */
  gradientCheckpointing: boolean;
  /** ids int32 [batch, steps] -> logits [batch, steps, vocabSize]; with a cache, the next ids of its one sequence. */
  forward(ids: Tensor, cache?: KeyValueCache): Tensor;
  /** Mean cross-entropy, of shape [], of predicting `targets` (int32 [batch, steps]; -100 is ignored) from `ids`. */
  loss(ids: Tensor, targets: Tensor): Tensor;
  /** An empty cache for `forward`. */
  newCache(): KeyValueCache;
}

/** A module around a language model that is called like it, as a LoraModel is. */
export interface WrappedLM extends Module {
  /** The language model. */
  readonly model: CausalLM;
}

/**
 * A head on the table's weight. While adapters are on a tied model, its head is such a layer, so that they can act on
 * table and head each for itself. @internal
 */
export function tiedHead(model: Module, table: { readonly weight: Parameter }): Linear {
  const { weight } = table;
  const [outFeatures, inFeatures] = weight.shape;
  // Made without its constructor, which would allocate and draw a weight of its own.
  const head = Object.assign(Object.create(Linear.prototype) as Linear, {
    training: model.training,
    inFeatures,
    outFeatures,
    fanInFanOut: false,
    weight,
    bias: null,
  });
  adopt(head, model);
  return head;
}

/** Without adapters: null where the head is on the table's weight, else the head. @internal */
export function untiedHead(head: Layer | null, table: { readonly weight: Parameter }): Layer | null {
  return head?.constructor === Linear && (head as Linear).weight === table.weight ? null : head;
}

/** The head's logits; without a head the embedding table is it. @internal */
export function logitsOf(x: Tensor, head: Layer | null, table: { readonly weight: Parameter }): Tensor {
  return head ? head.forward(x) : linear(x, table.weight);
}

/**
 * Their mean cross-entropy. A plain head's logits are never there all at once: they can be larger than all else.
 * @internal
 */
export function lossOf(x: Tensor, head: Layer | null, table: { readonly weight: Parameter }, targets: Tensor): Tensor {
  if (head === null) return linearCrossEntropy(x, table.weight, null, targets);
  // Exactly this class: what extends or wraps it adds to its product.
  if (head.constructor === Linear)
    return linearCrossEntropy(x, (head as Linear).weight, (head as Linear).bias, targets);
  return crossEntropy(head.forward(x), targets);
}
