/** A low-rank product in a weight, added and taken back to the bit. */
import { engine } from "../runtime/engine.js";
import { floatsOf, type StoredValues, type Tensor } from "../tensor/tensor.js";
import type { Parameter } from "./module.js";

/**
 * Lets a weight hold a low-rank product and takes it back exactly: subtracting would leave rounding
 * behind, so the original values are kept aside while merged, as they were stored. A half weight is float32 as long.
 */
export class Merge {
  #original: StoredValues | null = null;

  get merged(): boolean {
    return this.#original !== null;
  }

  /** Merges on eval() and restores on train(); a second call in the same mode changes nothing. */
  follow(training: boolean, weight: Parameter, add: () => void): void {
    if (training) this.restore(weight);
    else if (!this.merged) this.apply(weight, add);
  }

  /**
   * Lets `add` change the weight. If it throws, the weight and this are as they were before.
   * @param check called after `add`; may throw too
   */
  apply(weight: Parameter, add: () => void, check: () => void = () => {}): void {
    const before = weight.stored();
    try {
      weight.widen();
      add();
      check();
    } catch (error) {
      weight.restore(before);
      throw error;
    }
    this.#original ??= before;
  }

  /** Puts the original values back, if merged. */
  restore(weight: Parameter): void {
    if (this.#original) weight.restore(this.#original);
    this.#original = null;
  }

  /** Makes what the weight holds now its original. */
  settle(): void {
    this.#original = null;
  }

  /** What the weight was without the product, if merged. */
  get original(): StoredValues | null {
    return this.#original;
  }

  /** The weight without the product: a float32 copy. */
  originalOf(weight: Parameter): Float32Array {
    return this.#original ? floatsOf(this.#original) : weight.toFloat32();
  }
}

/** Lets a weight hold these values for a while, if any; returns what gives it back its own, as they were stored. */
export function setAside(weight: Parameter, values: StoredValues | null): () => void {
  if (!values) return () => {};
  const held = weight.stored();
  weight.set(floatsOf(values));
  return () => weight.restore(held);
}

/**
 * weight += scaling * B A, rounded as loralib does; a half weight becomes float32. What has more than two dimensions
 * counts as the matrix of its first dimension by all others.
 * @param fanInFanOut whether weight is [d, k] (an embedding's is: d = vocabulary, k = dimension)
 */
export function addProduct(weight: Tensor, loraA: Tensor, loraB: Tensor, scaling: number, fanInFanOut: boolean): void {
  const { kernels, memory, scratch } = engine();
  const r = loraA.shape[0]!;
  const d = loraA.size / r;
  const k = loraB.shape[0]!;
  memory.withBlocks([kernels.mergeRowsBytes(fanInFanOut ? k : d)], (rows) => {
    // The last step that may fail, so that a weight is not left wider than it was.
    weight.widen();
    kernels.loraMerge({
      weight: weight.address,
      a: loraA.address,
      b: loraB.address,
      k,
      d,
      r,
      s: scaling,
      fanInFanOut,
      rows,
      scratch,
    });
  });
}
