/** Dropout by a counter-based generator: backward makes the mask again, nothing is stored. */
import { type DropoutMask, newMask } from "../../random/seed.js";
import type { Dropout } from "../../runtime/abi.js";
import { engine } from "../../runtime/engine.js";
import { checkCount, checkNumber, checkTensor } from "../../tensor/check.js";
import { attempt } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/** The kernels' arguments for n elements under a mask. */
function masked(n: number, { p, seed, stream }: DropoutMask): Dropout {
  return {
    n,
    first: 0,
    threshold: p === 1 ? 0xffffffff : Math.floor(p * 4294967296),
    scale: p === 1 ? 0 : 1 / (1 - p),
    seedLo: seed % 4294967296,
    seedHi: Math.floor(seed / 4294967296),
    stream,
  };
}

/** Forward and backward of one mask, on addresses. @internal */
export const dropoutKernels = {
  forward(y: number, x: number, n: number, mask: DropoutMask): void {
    engine().kernels.dropoutForward({ ...masked(n, mask), y, x });
  },
  /** dx += mask * dy */
  backward(dx: number, dy: number, n: number, mask: DropoutMask): void {
    engine().kernels.dropoutBackward({ ...masked(n, mask), dx, dy });
  },
};

/**
 * y = keep ? x / (1 - p) : 0, each element kept with probability 1 - p (inverted dropout). Every call has the next
 * mask of the `manualSeed` before it, whichever run that was of; masks are ours, not torch's.
 *
 * Source: torch.nn.functional.dropout in training; Salmon et al. 2011 (Philox).
 * @param x of any shape
 * @param p 0 .. 1
 * @throws DTypeError; ArgumentError for p
 *
 * @example
 * const y = ops.dropout(ones([4]), 0.5); // [4]
 * console.log(y.data.every((v) => v === 0 || v === 2)); // true
 */
export function dropout(x: Tensor, p: number): Tensor {
  checkCount("dropout", arguments, 2, " For evaluation leave it out, or use nn.Dropout.");
  checkTensor("dropout", "x", x);
  checkNumber("dropout", "p", p, 0, 1);
  return attempt(() => dropoutBy(x, newMask(p)));
}

/** dropout with a given mask, as a module draws it. @internal */
export function dropoutBy(x: Tensor, mask: DropoutMask): Tensor {
  const y = new Tensor(x.shape);
  dropoutKernels.forward(y.address, x.address, x.size, mask);
  return record(y, [x], (dy) => dropoutKernels.backward(gradient(x), dy.address, x.size, mask), [], []);
}
