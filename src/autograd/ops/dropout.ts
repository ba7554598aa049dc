/** Dropout by a counter-based generator: backward makes the mask again, nothing is stored. */
import { type DropoutMask, newMask } from "../../random/seed.js";
import { engine } from "../../runtime/engine.js";
import { checkCount, checkNumber, checkTensor } from "../../tensor/check.js";
import { attempt } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/** floor(p * 2^32) */
const threshold = (p: number): number => (p === 1 ? 0xffffffff : Math.floor(p * 4294967296));
/** What is kept is multiplied by it. */
const factor = (p: number): number => (p === 1 ? 0 : 1 / (1 - p));

/** The kernels with a mask's arguments. @internal */
export const dropoutKernels = {
  forward(y: number, x: number, n: number, { p, seed, stream }: DropoutMask): void {
    engine().kernels.dropoutForward({
      y,
      x,
      n,
      first: 0,
      threshold: threshold(p),
      scale: factor(p),
      seedLo: seed % 4294967296,
      seedHi: Math.floor(seed / 4294967296),
      stream,
    });
  },
  /** dx += mask * dy */
  backward(dx: number, dy: number, n: number, { p, seed, stream }: DropoutMask): void {
    engine().kernels.dropoutBackward({
      dx,
      dy,
      n,
      first: 0,
      threshold: threshold(p),
      scale: factor(p),
      seedLo: seed % 4294967296,
      seedHi: Math.floor(seed / 4294967296),
      stream,
    });
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
