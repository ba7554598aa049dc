/** Sums, means and the largest along one dimension or over all. Kernels: assembly/nn/{reduce,strided}.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkBoolean, checkTensor } from "../../tensor/check.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";
import { axisOf, strided } from "./strides.js";

type Parts = [outer: number, n: number, inner: number, shape: number[]];

/** x seen as [outer, n, inner], where n is the dimension to reduce, and the result's shape. */
function parts(where: string, x: Tensor, dim: number | undefined, keepdim: boolean): Parts {
  checkTensor(where, "x", x);
  checkBoolean(where, "keepdim", keepdim);
  if (dim === undefined) return [1, x.size, 1, keepdim ? x.shape.map(() => 1) : []];
  // A scalar has one dimension here, as in torch.
  const axis = axisOf(where, "dim", x, dim, true);
  const before = x.shape.slice(0, axis);
  const after = x.shape.slice(axis + 1);
  const shape = [...before, ...(keepdim && x.rank > 0 ? [1] : []), ...after];
  return [sizeOf(before), x.shape[axis] ?? 1, sizeOf(after), shape];
}

/**
 * The sum of all elements, of shape [], or the sums along `dim` (negative: from the end). Added in float64 over four
 * lanes (value j in lane j % 4), then (0 + 1) + (2 + 3), and rounded once, whatever the dimension.
 *
 * Source: torch.sum.
 * @param x of any shape
 * @param dim default: over all dimensions
 * @param keepdim whether the dimension stays, with size 1. Default false.
 * @throws ArgumentError for a dim that x has not; DTypeError, DisposedError
 *
 * @example
 * console.log(ops.sum(tensor([[1, 2], [3, 4]])).item()); // 10
 * console.log(ops.sum(tensor([[1, 2], [3, 4]]), 0).data); // Float32Array(2) [ 4, 6 ]
 */
export function sum(x: Tensor, dim?: number, keepdim = false): Tensor {
  return total("sum", x, dim, keepdim);
}

/**
 * The mean of all elements, of shape [], or the means along `dim`: `sum` divided in float64 and rounded once. Without
 * elements it is NaN, as in torch. Arguments and errors as `sum`.
 *
 * Source: torch.mean.
 *
 * @example
 * const pooled = ops.mean(ones([2, 7, 16]), 1); // [2, 16]
 * console.log(ops.mean(tensor([[1, 2], [3, 5]]), -1).data); // Float32Array(2) [ 1.5, 4 ]
 */
export function mean(x: Tensor, dim?: number, keepdim = false): Tensor {
  return total("mean", x, dim, keepdim);
}

function total(where: "sum" | "mean", x: Tensor, dim: number | undefined, keepdim: boolean): Tensor {
  const [outer, n, inner, shape] = parts(where, x, dim, keepdim);
  const divisor = where === "sum" ? 1 : n;
  const y = new Tensor(shape);
  engine().kernels.axisSum(y.address, x.address, outer, n, inner, divisor);
  return record(
    y,
    [x],
    (dy) => strided(1 / divisor, [outer, n, inner], gradient(x), [n * inner, inner, 1], dy.address, [inner, 0, 1]),
    [],
    [],
  );
}

/**
 * Where the largest element is, int32 [], counted over all; or along `dim`. Of equal ones the first; a NaN is larger
 * than all. No gradient.
 *
 * Source: torch.argmax.
 * @param x of any shape, with at least one element along `dim`
 * @param dim default: over all dimensions
 * @param keepdim whether the dimension stays, with size 1. Default false.
 * @returns int32
 * @throws ShapeError if there is nothing to compare; ArgumentError for a dim that x has not; DTypeError
 *
 * @example
 * console.log(ops.argmax(tensor([[1, 9, 3], [7, 5, 7]]), 1).indices); // Int32Array(2) [ 1, 0 ]
 */
export function argmax(x: Tensor, dim?: number, keepdim = false): Tensor {
  const [outer, n, inner, shape] = parts("argmax", x, dim, keepdim);
  if (n === 0) throw new ShapeError(`argmax: x has shape [${x.shape}]; there is nothing to compare.`);
  const y = new Tensor(shape, "int32");
  engine().kernels.axisMax(y.address, x.address, outer, n, inner);
  return y;
}
