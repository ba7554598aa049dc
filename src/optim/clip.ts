/** Gradient clipping. */
import type { Parameter } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkNumber } from "../tensor/check.js";

/**
 * Scales all gradients (float64 squares, parameters added in the given order) so that their joint 2-norm is at most maxNorm; returns the norm before.
 *
 * Source: torch.nn.utils.clip_grad_norm_ (with error_if_nonfinite).
 * @param params those without a gradient are passed over; one that is named twice counts once
 * @throws ArgumentError if maxNorm is not a positive number, or if the norm is not finite: then
 * nothing is changed, so that a bad batch cannot poison the weights.
 *
 * @example
 * const p = new nn.Parameter([2]).set([3, 4]);
 * ops.sum(ops.mul(p, p)).backward();
 * console.log(optim.clipGradNorm_([p], 1)); // 10
 */
export function clipGradNorm_(params: Iterable<Parameter>, maxNorm: number): number {
  checkNumber("clipGradNorm_", "maxNorm", maxNorm, Number.MIN_VALUE);
  const { kernels } = engine();
  const grads = [...new Set(params)].flatMap((p) => (p.grad ? [p.grad] : []));
  let squares = 0;
  for (const g of grads) squares += kernels.sumSquares(g.address, g.size);
  const norm = Math.sqrt(squares);
  if (!Number.isFinite(norm)) {
    throw new ArgumentError(`clipGradNorm_: the gradients' norm is ${norm}; expected a finite number. Lower the learning rate or look at the data.`);
  }
  const coefficient = maxNorm / (norm + 1e-6);
  if (coefficient < 1) for (const g of grads) kernels.sscal(g.size, coefficient, g.address);
  return norm;
}
