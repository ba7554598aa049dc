/** Elements by strides, which count elements. Kernels: assembly/nn/strided.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkInteger } from "../../tensor/check.js";
import type { Tensor } from "../../tensor/tensor.js";

type Sizes = readonly number[];

/** Those of a contiguous tensor. */
export function stridesOf(shape: Sizes): number[] {
  const strides = shape.map(() => 1);
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * shape[i + 1]!;
  return strides;
}

/** A shape with another size along `axis`. */
export function resized(shape: Sizes, axis: number, size: number): number[] {
  return shape.map((old, i) => (i === axis ? size : old));
}

/** Those of a contiguous tensor of shape `from` seen as one of `shape`: 0 along the dimensions that repeat it. */
export function spreadStrides(from: Sizes, shape: Sizes): number[] {
  const own = stridesOf(from);
  const lead = shape.length - from.length;
  return shape.map((_, i) => (i < lead || from[i - lead] === 1 ? 0 : own[i - lead]!));
}

export function isSame(a: Sizes, b: Sizes): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

/** The shape that both can be repeated to (torch's broadcasting). @throws ShapeError */
export function commonShape(where: string, a: Sizes, b: Sizes, what = "shapes"): Sizes {
  const rank = Math.max(a.length, b.length);
  return isSame(a, b)
    ? a
    : Array.from({ length: rank }, (_, i) => {
        const m = a[a.length - rank + i] ?? 1;
        const n = b[b.length - rank + i] ?? 1;
        if (m === n || n === 1) return m;
        if (m === 1) return n;
        throw new ShapeError(
          `${where}: ${what} [${a}] and [${b}] do not go together: from the last, dimension ${rank - i} is ${m} ` +
            `and ${n}; ` +
            "expected equal sizes, or 1.",
        );
      });
}

/** The dimension of x from the start; a scalar has none, or one of size 1. @throws ShapeError, ArgumentError */
export function axisOf(where: string, name: string, x: Tensor, dim: number, ofScalar = false): number {
  const rank = ofScalar ? x.rank || 1 : x.rank;
  if (rank === 0) throw new ShapeError(`${where}: x has shape []; expected at least one dimension.`);
  checkInteger(where, name, dim, -rank, rank - 1);
  return dim < 0 ? dim + rank : dim;
}

/**
 * y = x over `shape`, or y += alpha * x, of elements that a stride of 0 visits again in the order of the indices.
 * Dimensions of size 1 are left out, and neighbours that are one run taken as one.
 */
export function strided(alpha: number | null, shape: Sizes, y: number, ys: Sizes, x: number, xs: Sizes): void {
  const dims: number[] = [];
  for (let i = 0; i < shape.length; i++) {
    const size = shape[i]!;
    const end = dims.length;
    if (size === 1) continue;
    if (end > 0 && dims[end - 2] === size * ys[i]! && dims[end - 1] === size * xs[i]!) {
      dims.splice(end - 3, 3, dims[end - 3]! * size, ys[i]!, xs[i]!);
    } else {
      dims.push(size, ys[i]!, xs[i]!);
    }
  }
  while (dims.length < 9) dims.unshift(1, 0, 0);
  walk(alpha, y, x, dims);
}

/** The kernels take three dimensions; those before them are walked here. */
function walk(alpha: number | null, y: number, x: number, dims: number[]): void {
  if (dims.length > 9) {
    const [size, ys, xs, ...rest] = dims;
    for (let i = 0; i < size!; i++) walk(alpha, y + i * ys! * 4, x + i * xs! * 4, rest);
    return;
  }
  const { kernels } = engine();
  const [n, ys, xs, n1, ys1, xs1, n2, ys2, xs2] = dims as Nine;
  if (alpha === null) kernels.stridedCopy({ y, x, n, ys, xs, n1, ys1, xs1, n2, ys2, xs2 });
  else kernels.stridedAxpy({ y, x, n, ys, xs, n1, ys1, xs1, n2, ys2, xs2, alpha });
}

type Nine = [number, number, number, number, number, number, number, number, number];
