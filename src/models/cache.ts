/** What a decoder keeps of earlier tokens while it generates. */
import { StateError } from "../runtime/errors.js";
import { Tensor } from "../tensor/tensor.js";

/** The sizes of a cache: part of a model's configuration. */
export interface CacheShape {
  numHiddenLayers: number;
  maxPositionEmbeddings: number;
  numKeyValueHeads: number;
  headDim: number;
}

/** Keys and values of the tokens so far, for one sequence: [1, maxPositionEmbeddings, kvHeads, headDim] a layer. */
export class KeyValueCache {
  length = 0;
  readonly layers: { k: Tensor; v: Tensor }[];

  constructor(readonly config: CacheShape) {
    const shape = [1, config.maxPositionEmbeddings, config.numKeyValueHeads, config.headDim];
    this.layers = Array.from({ length: config.numHiddenLayers }, () => ({ k: new Tensor(shape).keep(), v: new Tensor(shape).keep() }));
  }

  /** Appends rows to a layer's cache and returns all rows so far. */
  extend(layer: number, k: Tensor, v: Tensor): [Tensor, Tensor] {
    if (k.requiresGrad || v.requiresGrad) {
      throw new StateError("KeyValueCache: gradients do not flow through cached keys and values; run the model under noGrad().");
    }
    const steps = k.shape[1]!, total = this.length + steps;
    const shape = [1, total, this.config.numKeyValueHeads, this.config.headDim];
    const join = (cache: Tensor, fresh: Tensor): Tensor => {
      cache.data.set(fresh.data, this.length * shape[2]! * shape[3]!);
      const all = new Tensor(shape);
      all.data.set(cache.data.subarray(0, all.size));
      return all;
    };
    const cache = this.layers[layer]!;
    return [join(cache.k, k), join(cache.v, v)];
  }

  dispose(): void {
    for (const { k, v } of this.layers) {
      k.dispose();
      v.dispose();
    }
  }
}
