/** Losses, of shape []. Kernels: assembly/nn/loss.ts, bce.ts, assembly/lora/linear_loss.ts. */
import { engine } from "../../runtime/engine.js";
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import {
  checkBias,
  checkCount,
  checkIndices,
  checkInteger,
  checkLastDimension,
  checkSameShape,
  checkTensor,
  checkWeight,
} from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, needsGrad, record } from "../tape.js";

/**
 * Mean over the rows whose target is not ignoreIndex of logsumexp(row) - row[target], of shape []; NaN if there is
 * none. With numItemsInBatch, their sum divided by that: then the losses of a batch's parts add up to that of all.
 *
 * Source: torch.nn.functional.cross_entropy; transformers, loss/loss_utils.py (fixed_cross_entropy).
 * @param logits [..., classes]
 * @param targets int32 of logits' shape without its last dimension
 * @param numItemsInBatch at least 1. Default null: the number of rows that take part
 * @throws ArgumentError for a target or number out of range; ShapeError, DTypeError
 *
 * @example
 * const loss = ops.crossEntropy(zeros([2, 4]), tensor(new Int32Array([3, -100])));
 * console.log(loss.item().toFixed(4)); // 1.3863
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  ignoreIndex = -100,
  numItemsInBatch: number | null = null,
): Tensor {
  const where = "crossEntropy";
  checkCount(where, arguments, 4);
  checkTensor(where, "logits", logits);
  checkTensor(where, "targets", targets, "int32");
  const classes = logits.shape[logits.rank - 1] ?? 0;
  if (classes === 0 || logits.shape.slice(0, -1).join() !== targets.shape.join()) {
    throw new ShapeError(
      `${where}: targets has shape [${targets.shape}]; expected that of logits [${logits.shape}] without its last ` +
        `dimension.`,
    );
  }
  const items = checkTargets(where, targets, classes, ignoreIndex, numItemsInBatch);
  const { kernels } = engine();
  const rows = targets.size;
  return allOrNothing(() => {
    const lse = new Tensor([rows]);
    const y = new Tensor([]);
    const sum = kernels.crossEntropyForward(lse.address, logits.address, targets.address, rows, classes, ignoreIndex);
    y.data[0] = sum / items;
    return record(
      y,
      [logits],
      (dy) =>
        kernels.crossEntropyBackward(
          gradient(logits),
          lse.address,
          logits.address,
          targets.address,
          rows,
          classes,
          ignoreIndex,
          scaleOf(dy.item(), items),
        ),
      [lse],
      [logits, targets],
    );
  });
}

/** @returns what the sum of losses is divided by: numItemsInBatch, or by default the targets that are not ignored */
function checkTargets(
  where: string,
  targets: Tensor,
  classes: number,
  ignoreIndex: number,
  numItemsInBatch: number | null,
): number {
  checkInteger(where, "ignoreIndex", ignoreIndex, -0x80000000, 0x7fffffff);
  checkIndices(where, "targets", targets, classes, ignoreIndex);
  if (numItemsInBatch === null) return targets.indices.reduce((n, target) => n + (target === ignoreIndex ? 0 : 1), 0);
  checkInteger(where, "numItemsInBatch", numItemsInBatch, 1);
  return numItemsInBatch;
}

/** Gradient of each scored row's loss, in float32. */
function scaleOf(dy: number, items: number): number {
  return Math.fround(dy / Math.fround(items));
}

/**
 * `crossEntropy(linear(x, weight, bias), targets)`, with the same bits forward and backward, in memory for the logits
 * of `chunk` rows. If nothing but x requires a gradient, forward computes that too, and backward takes it if the loss
 * has the gradient 1, as that of `loss.backward()`; otherwise backward computes the logits anew.
 *
 * Source: Hsu et al. 2024 (Liger Kernel, fused linear cross-entropy).
 * @param x [..., inFeatures]
 * @param weight [classes, inFeatures]; may be of a half dtype
 * @param bias [classes] or null
 * @param targets int32 of x's shape without its last dimension
 * @param chunk rows whose logits are there at a time, at least 1; it changes no bit. Default 128.
 * @param numItemsInBatch as for `crossEntropy`
 * @throws ArgumentError for a target out of range or a chunk below 1; ShapeError, DTypeError, DisposedError
 *
 * @example
 * const loss = ops.linearCrossEntropy(ones([2, 8]), zeros([4, 8]), null, tensor(new Int32Array([3, -100])));
 * console.log(loss.item().toFixed(4)); // 1.3863
 */
export function linearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  targets: Tensor,
  chunk = CHUNK,
  ignoreIndex = -100,
  numItemsInBatch: number | null = null,
): Tensor {
  const where = "linearCrossEntropy";
  checkWeight(where, "weight", weight, [null, null]);
  const [classes, d] = weight.shape as [number, number];
  checkTensor(where, "x", x);
  checkLastDimension(where, "x", x, d, "inFeatures");
  bias = checkBias(where, bias, classes);
  checkTensor(where, "targets", targets, "int32", x.shape.slice(0, -1));
  if (classes === 0) throw new ShapeError(`${where}: weight has shape [${weight.shape}]; expected at least one class.`);
  const items = checkTargets(where, targets, classes, ignoreIndex, numItemsInBatch);
  checkInteger(where, "chunk", chunk, 1);
  const { kernels, memory, scratch } = engine();
  const n = targets.size;
  const rows = Math.min(chunk, n);
  const run = (g: number, dx: number, dWeight: number, dBias: number): number =>
    memory.withBlocks([n * 8, rows * classes * 4], (losses, logits) =>
      kernels.linearCrossEntropy({
        dx,
        dWeight,
        dBias,
        x: x.address,
        weight: weight.address,
        bias: bias?.address ?? 0,
        targets: targets.address,
        n,
        d,
        classes,
        chunk: rows,
        ignoreIndex,
        scale: scaleOf(g, items),
        format: weight.format,
        losses,
        logits,
        scratch,
      }),
    );
  const onlyX = (): boolean => x.requiresGrad && !weight.requiresGrad && !bias?.requiresGrad;
  return allOrNothing(() => {
    const y = new Tensor([]);
    const ready: Tensor[] = [];
    if (needsGrad([x, weight, bias]) && onlyX()) {
      const dx = new Tensor(x.shape);
      dx.data.fill(0);
      ready.push(dx);
    }
    const sum = run(1, ready[0]?.address ?? 0, 0, 0);
    y.data[0] = sum / items;
    return record(
      y,
      [x, weight, bias],
      (dy) => {
        const g = dy.item();
        // The node frees what is in `ready`: taken out, it lives on as x's gradient.
        if (ready.length > 0 && g === 1 && x.grad === null && onlyX()) x.grad = ready.pop()!;
        else run(g, gradient(x), gradient(weight), gradient(bias));
      },
      ready,
      [x, weight, bias, targets],
    );
  });
}

/**
 * x [1024, 128] and 1024 classes, forward and backward, take 0.95 times as long as with all rows at once (measured).
 */
const CHUNK = 128;

const ONLY_MEAN = " The loss is a mean, without options; for a sum multiply it by the number of elements.";

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
  checkCount("mseLoss", arguments, 2, ONLY_MEAN);
  checkTensor("mseLoss", "x", x);
  checkTensor("mseLoss", "target", target);
  checkSameShape("mseLoss", x, target);
  const { kernels } = engine();
  const y = new Tensor([]);
  y.data[0] = kernels.mseForward(x.address, target.address, x.size);
  return record(
    y,
    [x],
    (dy) => kernels.mseBackward(gradient(x), x.address, target.address, x.size, dy.item()),
    [],
    [x, target],
  );
}

/**
 * Mean of -(target log x + (1 - target) log(1 - x)), of shape []; both logarithms are at least -100, so that a certain
 * mistake costs 100. No gradient goes to target.
 *
 * Source: torch.nn.functional.binary_cross_entropy.
 * @param x probabilities, 0 .. 1, of any shape
 * @param target of x's shape, usually 0 or 1
 * @throws ArgumentError for an x outside 0 .. 1, NaN included; ShapeError, DTypeError
 *
 * @example
 * const loss = ops.binaryCrossEntropy(tensor([0.9, 0.2]), tensor([1, 0]));
 * console.log(loss.item().toFixed(4)); // 0.1643
 */
export function binaryCrossEntropy(x: Tensor, target: Tensor): Tensor {
  const where = "binaryCrossEntropy";
  checkCount(where, arguments, 2, ONLY_MEAN);
  checkTensor(where, "x", x);
  const values = x.data;
  for (let i = 0; i < values.length; i++) {
    const p = values[i]!;
    if (!(p >= 0 && p <= 1)) {
      throw new ArgumentError(
        `${where}: x holds ${p} at position ${i}; expected 0 .. 1. For logits use ${where}WithLogits.`,
      );
    }
  }
  return binaryLoss(where, x, target, false);
}

/**
 * `binaryCrossEntropy(sigmoid(x), target)`, computed without rounding to 0 or 1 on the way.
 *
 * Source: torch.nn.functional.binary_cross_entropy_with_logits.
 * @param x logits of any shape
 * @param target of x's shape, usually 0 or 1
 * @throws ShapeError unless x and target have equal shapes; DTypeError
 *
 * @example
 * const loss = ops.binaryCrossEntropyWithLogits(tensor([0, 100]), tensor([1, 0]));
 * console.log(loss.item().toFixed(4)); // 50.3466
 */
export function binaryCrossEntropyWithLogits(x: Tensor, target: Tensor): Tensor {
  checkCount("binaryCrossEntropyWithLogits", arguments, 2, ONLY_MEAN);
  return binaryLoss("binaryCrossEntropyWithLogits", x, target, true);
}

function binaryLoss(where: string, x: Tensor, target: Tensor, logits: boolean): Tensor {
  checkTensor(where, "x", x);
  checkTensor(where, "target", target);
  checkSameShape(where, x, target);
  const { kernels, memory } = engine();
  const n = x.size;
  return allOrNothing(() => {
    const y = new Tensor([]);
    memory.withBlocks([n * 4], (losses) => {
      kernels.bceForward(losses, x.address, target.address, n, logits);
      y.data[0] = kernels.sum(losses, n) / n;
    });
    return record(
      y,
      [x],
      (dy) => {
        const scale = dy.item() / n;
        const dx = gradient(x);
        if (!logits) return kernels.bceBackward(dx, x.address, target.address, n, scale);
        memory.withBlocks([n * 4], (slopes) => {
          kernels.sigmoidForward(slopes, x.address, n);
          kernels.saxpy(slopes, target.address, n, -1);
          kernels.saxpy(dx, slopes, n, scale);
        });
      },
      [],
      [x, target],
    );
  });
}
