/** Parts, orders and sequences of dimensions: copies by strides. */
import { ArgumentError } from "../../runtime/errors.js";
import { checkInteger, checkTensor, shown } from "../../tensor/check.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";
import { axisOf, resized, strided, stridesOf } from "./strides.js";

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
  checkTensor("narrow", "x", x);
  const axis = axisOf("narrow", "dim", x, dim);
  const size = x.shape[axis]!;
  checkInteger("narrow", "start", start, 0, size);
  checkInteger("narrow", "length", length, 0, size - start);
  const y = new Tensor(resized(x.shape, axis, length));
  const xs = stridesOf(x.shape);
  const ys = stridesOf(y.shape);
  const first = start * xs[axis]! * 4;
  strided(null, y.shape, y.address, ys, x.address + first, xs);
  return record(y, [x], (dy) => strided(1, y.shape, gradient(x) + first, xs, dy.address, ys), [], []);
}

/**
 * x with two dimensions changed over (negative: from the end). Copies.
 *
 * Source: torch.transpose.
 * @throws ArgumentError for a dimension that x has not; DTypeError
 *
 * @example
 * console.log(ops.transpose(tensor([[1, 2, 3], [4, 5, 6]]), 0, 1).data); // Float32Array(6) [ 1, 4, 2, 5, 3, 6 ]
 */
export function transpose(x: Tensor, dim0: number, dim1: number): Tensor {
  checkTensor("transpose", "x", x);
  const i = axisOf("transpose", "dim0", x, dim0, true);
  const j = axisOf("transpose", "dim1", x, dim1, true);
  const swapped = (all: readonly number[]): number[] => all.map((_, at) => all[at === i ? j : at === j ? i : at]!);
  const y = new Tensor(swapped(x.shape));
  const ys = stridesOf(y.shape);
  const xs = swapped(stridesOf(x.shape));
  strided(null, y.shape, y.address, ys, x.address, xs);
  return record(y, [x], (dy) => strided(1, y.shape, gradient(x), xs, dy.address, ys), [], []);
}

/**
 * The tensors one after another along dimension `dim` (negative: from the end); their other dimensions are equal.
 *
 * Source: torch.cat, torch.concat.
 * @param tensors at least one
 * @throws ShapeError for scalars or other dimensions that differ; ArgumentError for no tensors or a dim out of range;
 * DTypeError
 *
 * @example
 * console.log(ops.concat([tensor([[1, 2]]), tensor([[3, 4]])], 0).data); // Float32Array(4) [ 1, 2, 3, 4 ]
 */
export function concat(tensors: readonly Tensor[], dim = 0): Tensor {
  const where = "concat";
  if (!Array.isArray(tensors) || tensors.length === 0) {
    throw new ArgumentError(`${where}: tensors must be an array of at least one Tensor; got ${shown(tensors)}.`);
  }
  for (const [i, t] of tensors.entries()) checkTensor(where, `tensors[${i}]`, t);
  const [first] = tensors as [Tensor];
  const axis = axisOf(where, "dim", first, dim);
  for (const [i, t] of tensors.entries()) {
    checkTensor(
      where,
      `tensors[${i}]`,
      t,
      "float32",
      first.shape.map((size, at) => (at === axis ? null : size)),
    );
  }
  const total = tensors.reduce((sum, t) => sum + t.shape[axis]!, 0);
  const y = new Tensor(resized(first.shape, axis, total));
  const ys = stridesOf(y.shape);
  let offset = 0;
  const parts = tensors.map((t) => {
    const part = { t, xs: stridesOf(t.shape), offset };
    offset += t.shape[axis]! * ys[axis]! * 4;
    return part;
  });
  for (const { t, xs, offset } of parts) strided(null, t.shape, y.address + offset, ys, t.address, xs);
  return record(
    y,
    tensors,
    (dy) => {
      for (const { t, xs, offset } of parts) {
        const dt = gradient(t);
        if (dt) strided(1, t.shape, dt, xs, dy.address + offset, ys);
      }
    },
    [],
    [],
  );
}
