/** What loralib's layers share: the options, the scaling, and merging that is reversible to the bit. */
import { engine } from "../runtime/engine.js";
import { checkInteger, checkNumber } from "../tensor/check.js";
import { Parameter } from "../nn/module.js";

/** loralib's common parameters, with its defaults. */
export interface LoraOptions {
  /** Rank; 0 (default) gives the plain, fully trainable layer. */
  r?: number;
  /** scaling = loraAlpha / r. Default 1. */
  loraAlpha?: number;
  /** Whether eval() merges and train() unmerges. Default true. */
  mergeWeights?: boolean;
}

export function checkLoraOptions(where: string, options: LoraOptions & { loraDropout?: number }): { r: number; loraAlpha: number; scaling: number; loraDropout: number; mergeWeights: boolean } {
  const r = options.r ?? 0, loraAlpha = options.loraAlpha ?? 1, loraDropout = options.loraDropout ?? 0;
  checkInteger(where, "r", r, 0);
  checkNumber(where, "loraAlpha", loraAlpha, -Infinity);
  checkNumber(where, "loraDropout", loraDropout, 0, 1);
  return { r, loraAlpha, loraDropout, scaling: r > 0 ? loraAlpha / r : 0, mergeWeights: options.mergeWeights ?? true };
}

/**
 * Adds s * B A to a weight and can take it back exactly: subtracting would leave rounding behind, so
 * the original values are kept aside while merged.
 */
export class Merge {
  #original: Float32Array | null = null;

  get merged(): boolean { return this.#original !== null; }

  /** Merges on eval() and restores on train(); a second call in the same mode changes nothing. */
  follow(training: boolean, weight: Parameter, loraA: Parameter, loraB: Parameter, scaling: number, fanInFanOut: boolean): void {
    if (training && this.merged) this.undo(weight);
    if (!training && !this.merged) this.apply(weight, loraA, loraB, scaling, fanInFanOut);
  }

  /** @param fanInFanOut whether weight is [d, k] (an embedding's is: d = vocabulary, k = dimension) */
  private apply(weight: Parameter, loraA: Parameter, loraB: Parameter, scaling: number, fanInFanOut: boolean): void {
    const { kernels, memory, scratch } = engine();
    const [r, d] = loraA.shape as [number, number], k = loraB.shape[0]!;
    const rows = memory.alloc(32 * (fanInFanOut ? k : d) * 4);
    this.#original = weight.data.slice();
    kernels.loraMerge(k, d, r, scaling, weight.address, fanInFanOut, loraA.address, loraB.address, rows, scratch);
    memory.free(rows);
  }

  private undo(weight: Parameter): void {
    weight.data.set(this.#original!);
    this.#original = null;
  }

  /** The weight without the product. */
  originalOf(weight: Parameter): Float32Array { return this.#original ?? weight.data; }
}
