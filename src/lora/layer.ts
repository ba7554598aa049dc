/** What loralib's layers share: the options, the scaling, and merging that is reversible to the bit. */
import { engine } from "../runtime/engine.js";
import { checkOptions } from "../runtime/options.js";
import { checkBoolean, checkFloat, checkInteger, checkNumber } from "../tensor/check.js";
import * as init from "../nn/init.js";
import { type Module, Parameter } from "../nn/module.js";
import { allOrNothing } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";

/** loralib's common parameters, with its defaults. */
export interface LoraOptions {
  /** Rank; 0 (default) gives the plain, fully trainable layer. */
  r?: number | undefined;
  /** scaling = loraAlpha / r. Default 1. */
  loraAlpha?: number | undefined;
  /** Whether eval() merges and train() unmerges. Default true. */
  mergeWeights?: boolean | undefined;
}

export function checkLoraOptions<Options extends LoraOptions & { loraDropout?: number | undefined }>(
  where: string,
  options: Options,
  others: readonly string[],
) {
  checkOptions(where, options, ["r", "loraAlpha", "mergeWeights", ...others]);
  const { r = 0, loraAlpha = 1, loraDropout = 0, mergeWeights = true, ...base } = options;
  checkInteger(where, "r", r, 0);
  checkFloat(where, "loraAlpha", loraAlpha);
  checkNumber(where, "loraDropout", loraDropout, 0, 1);
  checkBoolean(where, "mergeWeights", mergeWeights);
  return { r, loraAlpha, loraDropout, scaling: r > 0 ? loraAlpha / r : 0, mergeWeights, base };
}

/** loraA and loraB of a layer that has its base by now: where they do not fit, that is freed, too. */
export function makeFactors(
  layer: Module,
  shapeA: readonly number[],
  shapeB: readonly number[],
): [loraA: Parameter, loraB: Parameter] {
  try {
    return allOrNothing(() => [new Parameter(shapeA), new Parameter(shapeB)]);
  } catch (error) {
    layer.dispose();
    throw error;
  }
}

/**
 * loralib's init: A kaimingUniform_(sqrt 5), B zeros. Null before the factors are there: a base's constructor resets,
 * too.
 */
export function resetFactors(loraA: Parameter | null, loraB: Parameter | null): void {
  if (!loraA || !loraB) return;
  init.kaimingUniform_(loraA);
  init.zeros_(loraB);
}

/**
 * Lets a weight hold a low-rank product and takes it back exactly: subtracting would leave rounding
 * behind, so the original values are kept aside while merged.
 */
export class Merge {
  #original: Float32Array | null = null;

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
    const before = weight.data.slice();
    try {
      add();
      check();
    } catch (error) {
      weight.data.set(before);
      throw error;
    }
    this.#original ??= before;
  }

  /** Puts the original values back, if merged. */
  restore(weight: Parameter): void {
    if (this.#original) weight.data.set(this.#original);
    this.#original = null;
  }

  /** Makes what the weight holds now its original. */
  settle(): void {
    this.#original = null;
  }

  /** The weight without the product. */
  originalOf(weight: Parameter): Float32Array {
    return this.#original ?? weight.data;
  }
}

/**
 * weight += scaling * B A, rounded as loralib does. What has more than two dimensions counts as the matrix of its
 * first dimension by all others.
 * @param fanInFanOut whether weight is [d, k] (an embedding's is: d = vocabulary, k = dimension)
 */
export function addProduct(weight: Tensor, loraA: Tensor, loraB: Tensor, scaling: number, fanInFanOut: boolean): void {
  const { kernels, memory, scratch } = engine();
  const r = loraA.shape[0]!;
  const d = loraA.size / r;
  const k = loraB.shape[0]!;
  memory.withBlocks([32 * (fanInFanOut ? k : d) * 4], (rows) =>
    kernels.loraMerge(k, d, r, scaling, weight.address, fanInFanOut, loraA.address, loraB.address, rows!, scratch),
  );
}
