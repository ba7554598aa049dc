/** Initialisation in place, with torch's bits after the same `manualSeed` (torch.nn.init). */
import { defaultGenerator, kaimingUniformBound } from "../random/generator.js";
import { ShapeError } from "../runtime/errors.js";
import { checkNumber, checkTensor } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";

/** U(low, high) */
export function uniform_(t: Tensor, low = 0, high = 1): Tensor {
  checkTensor("uniform_", "t", t);
  checkNumber("uniform_", "low", low, -Infinity);
  checkNumber("uniform_", "high", high, low);
  defaultGenerator.uniform_(t.address, t.size, low, high);
  return t;
}

/** N(mean, std^2) */
export function normal_(t: Tensor, mean = 0, std = 1): Tensor {
  checkTensor("normal_", "t", t);
  checkNumber("normal_", "mean", mean, -Infinity);
  checkNumber("normal_", "std", std, 0);
  defaultGenerator.normal_(t.address, t.size, mean, std);
  return t;
}

/**
 * U(-bound, bound), bound = sqrt(6 / ((1 + a^2) fanIn)) (He et al. 2015). Defaults: a = sqrt 5, as
 * torch's layers have it, and fanIn = size / shape[0]; a weight stored [in, out] must say its own.
 */
export function kaimingUniform_(t: Tensor, a = Math.sqrt(5), fanIn?: number): Tensor {
  checkTensor("kaimingUniform_", "t", t);
  if (t.rank < 2) throw new ShapeError(`kaimingUniform_: t has shape [${t.shape}]; at least 2 dimensions are needed for a fan-in.`);
  const bound = kaimingUniformBound(fanIn ?? t.size / t.shape[0]!, a);
  return uniform_(t, -bound, bound);
}

export function zeros_(t: Tensor): Tensor {
  checkTensor("zeros_", "t", t);
  t.data.fill(0);
  return t;
}
