/** Gradient clipping. */
import type { Parameter } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkNumber } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkParameter, gradientOf, listOf } from "./params.js";

/**
 * Scales all gradients (float64 squares, parameters added in the given order) so that their joint 2-norm is at most
 * maxNorm; returns the norm before.
 *
 * Source: torch.nn.utils.clip_grad_norm_ (with error_if_nonfinite).
 * @param params those without a gradient are passed over; one that is named twice counts once
 * @throws ArgumentError if maxNorm is not a positive number, for what is no list of parameters, or if a gradient is not
 * finite: then nothing is changed, so that a bad batch cannot poison the weights; drop it by `zeroGrad()`
 *
 * @example
 * const p = new nn.Parameter([2]).set([3, 4]);
 * ops.sum(ops.mul(p, p)).backward();
 * console.log(optim.clipGradNorm_([p], 1)); // 10
 */
export function clipGradNorm_(params: Iterable<Parameter>, maxNorm: number): number {
  const where = "clipGradNorm_";
  checkNumber(where, "maxNorm", maxNorm, Number.MIN_VALUE);
  const { kernels } = engine();
  const list = listOf(where, params);
  const grads = new Set<Tensor>();
  let squares = 0;
  for (const [i, p] of list.entries()) {
    checkParameter(where, p, i);
    const g = gradientOf(where, p, i);
    if (!g || grads.has(g)) continue;
    grads.add(g);
    squares += kernels.sumSquares(g.address, g.size);
    if (!Number.isFinite(squares)) {
      throw new ArgumentError(
        `${where}: the gradients' norm is ${squares}; expected a finite number. It is so for parameter ${i} of ` +
          `shape [${p.shape}]. Nothing was changed. ` +
          "Lower the learning rate or look at the data; call zeroGrad() before you go on with another batch.",
      );
    }
  }
  const norm = Math.sqrt(squares);
  const coefficient = maxNorm / (norm + 1e-6);
  if (coefficient < 1) for (const g of grads) kernels.sscal(g.address, g.size, coefficient);
  return norm;
}
