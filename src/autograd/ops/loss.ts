/** Losses, each a mean, of shape []. Kernels: assembly/nn/loss.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkIndices, checkSameShape, checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/**
 * Mean over the rows whose target is not ignoreIndex of logsumexp(row) - row[target], of shape []; NaN if there is none.
 *
 * Source: torch.nn.functional.cross_entropy.
 * @param logits [..., classes]
 * @param targets int32 of logits' shape without its last dimension
 * @throws ArgumentError for a target out of range; ShapeError, DTypeError
 *
 * @example
 * const loss = ops.crossEntropy(zeros([2, 4]), tensor(new Int32Array([3, -100])));
 * console.log(loss.item().toFixed(4)); // 1.3863
 */
export function crossEntropy(logits: Tensor, targets: Tensor, ignoreIndex = -100): Tensor {
  const where = "crossEntropy";
  checkTensor(where, "logits", logits);
  checkTensor(where, "targets", targets, "int32");
  const classes = logits.shape[logits.rank - 1] ?? 0;
  if (classes === 0 || logits.shape.slice(0, -1).join() !== targets.shape.join()) {
    throw new ShapeError(`${where}: targets has shape [${targets.shape}]; expected that of logits [${logits.shape}] without its last dimension.`);
  }
  checkIndices(where, "targets", targets, classes, ignoreIndex);
  const { kernels } = engine();
  const rows = targets.size;
  return allOrNothing(() => {
    const lse = new Tensor([rows]), y = new Tensor([]);
    y.data[0] = kernels.crossEntropyForward(lse.address, logits.address, targets.address, rows, classes, ignoreIndex);
    return record(y, [logits], (dy) =>
      kernels.crossEntropyBackward(gradient(logits), lse.address, logits.address, targets.address, rows, classes, ignoreIndex, dy.item()), [lse]);
  });
}

/**
 * mean((x - target)^2), of shape []; no gradient goes to target.
 *
 * Source: torch.nn.functional.mse_loss.
 * @throws ShapeError unless x and target have equal shapes; DTypeError
 *
 * @example
 * console.log(ops.mseLoss(tensor([1, 2]), tensor([1, 4])).item()); // 2
 */
export function mseLoss(x: Tensor, target: Tensor): Tensor {
  checkTensor("mseLoss", "x", x);
  checkTensor("mseLoss", "target", target);
  checkSameShape("mseLoss", x, target);
  const { kernels } = engine();
  const y = new Tensor([]);
  y.data[0] = kernels.mseForward(x.address, target.address, x.size);
  return record(y, [x], (dy) => kernels.mseBackward(gradient(x), x.address, target.address, x.size, dy.item()));
}
