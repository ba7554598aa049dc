/** Initialisation in place, with torch's bits after the same `manualSeed` (torch.nn.init); normals agree to 2e-6. */
import { kaimingUniformBound } from "../random/generator.js";
import { drawNormal, drawUniform } from "../random/seed.js";
import { ShapeError } from "../runtime/errors.js";
import { checkInteger, checkNumber, checkTensor, checkWeight } from "../tensor/check.js";
import { Tensor } from "../tensor/tensor.js";
import { isInitSkipped } from "./skip_init.js";

/** Whether t is to be filled now; a half tensor becomes float32 first. @throws DTypeError, OutOfMemoryError */
function isFilled(where: string, t: Tensor): boolean {
  if (isInitSkipped()) return false;
  if (t instanceof Tensor) t.widen();
  checkTensor(where, "t", t);
  return true;
}

/**
 * U(low, high), defaults 0 and 1 (torch.nn.init.uniform_). Returns t.
 * @throws DTypeError; ArgumentError unless low and high are finite and low <= high
 *
 * @example
 * const w = nn.uniform_(zeros([2, 3]), -1, 1); // [2, 3]
 */
export function uniform_(t: Tensor, low = 0, high = 1): Tensor {
  checkNumber("uniform_", "low", low, -Infinity);
  checkNumber("uniform_", "high", high, low);
  if (isFilled("uniform_", t)) drawUniform(t.address, t.size, low, high);
  return t;
}

/**
 * N(mean, std^2), defaults 0 and 1 (torch.nn.init.normal_). Returns t.
 * @throws DTypeError; ArgumentError unless mean is finite and std a finite number of at least 0
 *
 * @example
 * const w = nn.normal_(zeros([2, 3]), 0, 0.02); // [2, 3]
 */
export function normal_(t: Tensor, mean = 0, std = 1): Tensor {
  checkNumber("normal_", "mean", mean, -Infinity);
  checkNumber("normal_", "std", std, 0);
  if (isFilled("normal_", t)) drawNormal(t.address, t.size, mean, std);
  return t;
}

/**
 * U(-bound, bound), bound = sqrt(6 / ((1 + a^2) fanIn)) (He et al. 2015). Defaults: a = sqrt 5, as
 * torch's layers have it, and fanIn = size / shape[0]; a weight stored [in, out] must say its own. Returns t.
 *
 * Source: torch.nn.init.kaiming_uniform_.
 * @throws ShapeError for a tensor of less than two dimensions; DTypeError, ArgumentError
 *
 * @example
 * const w = nn.kaimingUniform_(zeros([4, 16]));
 * console.log(w.data.every((v) => Math.abs(v) <= 0.25)); // true
 */
export function kaimingUniform_(t: Tensor, a = Math.sqrt(5), fanIn?: number): Tensor {
  checkWeight("kaimingUniform_", "t", t);
  if (t.rank < 2)
    throw new ShapeError(`kaimingUniform_: t has shape [${t.shape}]; at least 2 dimensions are needed for a fan-in.`);
  checkNumber("kaimingUniform_", "a", a, -Infinity);
  if (fanIn !== undefined) checkInteger("kaimingUniform_", "fanIn", fanIn, 1);
  const bound = kaimingUniformBound(fanIn ?? t.size / t.shape[0]!, a);
  return uniform_(t, -bound, bound);
}

/**
 * Zeros. Returns t.
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(nn.zeros_(ones([2])).data); // Float32Array(2) [ 0, 0 ]
 */
export function zeros_(t: Tensor): Tensor {
  return constant_("zeros_", t, 0);
}

/** Ones. Returns t. @internal */
export function ones_(t: Tensor): Tensor {
  return constant_("ones_", t, 1);
}

function constant_(where: string, t: Tensor, value: number): Tensor {
  if (isFilled(where, t)) t.data.fill(value);
  return t;
}
