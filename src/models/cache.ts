/** What a decoder keeps of earlier tokens while it generates. */
import { ShapeError, StateError } from "../runtime/errors.js";
import { checkInteger } from "../tensor/check.js";
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
 * `forward` fills it. It takes no linear memory.
 *
 * @example
 * const { model } = models.loadLlama("models/base");
 * const cache = model.newCache();
 * noGrad(() => model.forward(tensor(new Int32Array([5, 6, 7]), [1, 3]), { cache }));
 * const logits = noGrad(() => model.forward(tensor(new Int32Array([8]), [1, 1]), { cache })); // [1, 1, 1024]
 * console.log(cache.length); // 4
 */
export class KeyValueCache {
  /** @internal */ static readonly className: string = "KeyValueCache";
  /** Steps so far. */
  length = 0;
  /** One pair a layer, in the model's order; outside linear memory, in arrays that grow with the text. */
  readonly layers: {
    /** Keys, [steps, kvHeads, headDim]; the first `length` steps count. */
    k: Float32Array;
    /** Values, in k's shape. */
    v: Float32Array;
  }[];

  constructor(
    /** Its sizes. */
    readonly config: CacheShape,
  ) {
    for (const size of ["numHiddenLayers", "maxPositionEmbeddings", "numKeyValueHeads", "headDim"] as const)
      checkInteger("KeyValueCache", size, config?.[size], 1);
    this.layers = Array.from({ length: config.numHiddenLayers }, () => ({
      k: new Float32Array(0),
      v: new Float32Array(0),
    }));
  }

  /**
   * Appends rows to a layer's cache and returns all rows so far. The model advances `length` once, after its last
   * layer.
   * @param k [1, steps, kvHeads, headDim]
   * @param v k's shape
   * @returns keys and values, each [1, length + steps, kvHeads, headDim]
   * @throws StateError if k or v carries a gradient: call the model under noGrad(); ShapeError for another model's
   */
  extend(layer: number, k: Tensor, v: Tensor): [Tensor, Tensor] {
    if (k.requiresGrad || v.requiresGrad) {
      throw new StateError(
        "KeyValueCache: gradients do not flow through cached keys and values; run the model under noGrad().",
      );
    }
    const { numKeyValueHeads, headDim, maxPositionEmbeddings } = this.config;
    const row = numKeyValueHeads * headDim;
    const heads = [1, k.shape[1], numKeyValueHeads, headDim].join();
    if (k.shape.join() !== heads || v.shape.join() !== heads || !this.layers[layer]) {
      throw new ShapeError(
        `KeyValueCache: layer ${layer} gives keys of shape [${k.shape}] and values of shape [${v.shape}]; ` +
          `this cache has ${this.layers.length} layers of [1, steps, ${numKeyValueHeads}, ${headDim}]: make one ` +
          `with the model's own newCache().`,
      );
    }
    const start = this.length * row;
    const shape = [1, this.length + k.shape[1]!, numKeyValueHeads, headDim];
    const join = (name: "k" | "v", fresh: Tensor): Tensor => {
      const all = new Tensor(shape);
      const pair = this.layers[layer]!;
      if (pair[name].length < all.size) {
        const larger = new Float32Array(
          Math.max(all.size, Math.min(2 * pair[name].length, maxPositionEmbeddings * row)),
        );
        larger.set(pair[name].subarray(0, start));
        pair[name] = larger;
      }
      pair[name].set(fresh.data, start);
      all.data.set(pair[name].subarray(0, all.size));
      return all;
    };
    return [join("k", k), join("v", v)];
  }

  /** Drops keys and values; then it is as new. */
  dispose(): void {
    this.length = 0;
    for (const pair of this.layers) pair.k = pair.v = new Float32Array(0);
  }
}
