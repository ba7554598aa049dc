/** What loralib's layers share: the options, the scaling and the factors. */
import { checkOptions } from "../runtime/options.js";
import { checkBoolean, checkFloat, checkInteger, checkNumber } from "../tensor/check.js";
import * as init from "../nn/init.js";
import { type Module, Parameter } from "../nn/module.js";
import { allOrNothing } from "../tensor/scope.js";

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
