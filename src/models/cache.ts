/** What a decoder keeps of earlier tokens while it generates. */
import { StateError } from "../runtime/errors.js";
import { allOrNothing } from "../tensor/scope.js";
import { Tensor } from "../tensor/tensor.js";

/** The sizes of a cache: part of a model's configuration. */
export interface CacheShape {
  /** Number of layers. */
  numHiddenLayers: number;
  /** Steps that the cache holds at most. */
  maxPositionEmbeddings: number;
  /** Heads of keys and values. */
  numKeyValueHeads: number;
  /** Values of a head. */
  headDim: number;
}

/**
 * Keys and values of the tokens so far, for one sequence. `model.newCache()` makes one of the model's sizes; a model's
 * `forward` fills it.
 *
 * @example
 * const { model } = models.loadLlama("models/base");
 * const cache = model.newCache();
 * noGrad(() => model.forward(tensor(new Int32Array([5, 6, 7]), [1, 3]), cache));
 * const logits = noGrad(() => model.forward(tensor(new Int32Array([8]), [1, 1]), cache)); // [1, 1, 1024]
 * console.log(cache.length); // 4
 * cache.dispose();
 */
export class KeyValueCache {
  /** Steps so far. */
  length = 0;
  /** One pair a layer, in the model's order. */
  readonly layers: {
    /** Keys, [1, maxPositionEmbeddings, kvHeads, headDim]; the first `length` steps count. */
    k: Tensor;
    /** Values, in k's shape. */
    v: Tensor;
  }[];

  constructor(
    /** Its sizes. */
    readonly config: CacheShape,
  ) {
    const shape = [1, config.maxPositionEmbeddings, config.numKeyValueHeads, config.headDim];
    this.layers = allOrNothing(() =>
      Array.from({ length: config.numHiddenLayers }, () => ({ k: new Tensor(shape).keep(), v: new Tensor(shape).keep() })));
  }

  /**
   * Appends rows to a layer's cache and returns all rows so far. The model advances `length` once, after its last layer.
   * @param k [1, steps, kvHeads, headDim]
   * @param v k's shape
   * @returns keys and values, each [1, length + steps, kvHeads, headDim]
   * @throws StateError if k or v carries a gradient: call the model under noGrad()
   */
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

  /** Frees keys and values. */
  dispose(): void {
    for (const { k, v } of this.layers) {
      k.dispose();
      v.dispose();
    }
  }
}
