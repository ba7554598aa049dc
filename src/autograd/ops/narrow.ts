/** A run of indices along one dimension. Kernels: assembly/nn/narrow.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkInteger, checkTensor } from "../../tensor/check.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/**
 * x[..., start : start + length, ...] along dimension `dim` (negative: from the end). Copies.
 *
 * Source: torch.narrow.
 * @throws ArgumentError for a run that is not inside x; ShapeError for a scalar; DTypeError
 *
 * @example
 * const y = ops.narrow(zeros([2, 6, 3]), 1, 2, 4); // [2, 4, 3]
 */
export function narrow(x: Tensor, dim: number, start: number, length: number): Tensor {
  const where = "narrow";
  checkTensor(where, "x", x);
  if (x.rank === 0) throw new ShapeError(`${where}: x has shape []; expected at least one dimension.`);
  checkInteger(where, "dim", dim, -x.rank, x.rank - 1);
  const axis = dim < 0 ? dim + x.rank : dim, size = x.shape[axis]!;
  checkInteger(where, "start", start, 0, size);
  checkInteger(where, "length", length, 0, size - start);
  const rows = sizeOf(x.shape.slice(0, axis)), each = sizeOf(x.shape.slice(axis + 1));
  const { kernels } = engine();
  const y = new Tensor([...x.shape.slice(0, axis), length, ...x.shape.slice(axis + 1)]);
  kernels.narrowForward(y.address, x.address, rows, size * each, start * each, length * each);
  return record(y, [x], (dy) => kernels.narrowBackward(gradient(x), dy.address, rows, size * each, start * each, length * each), [], []);
}
