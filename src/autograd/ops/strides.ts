/** Elements by strides, which count elements. Kernels: assembly/nn/strided.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import type { Kernels } from "../../runtime/kernels.js";

/** Those of a contiguous tensor. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1);
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * shape[i + 1]!;
  return strides;
}

/** Those of a contiguous tensor of shape `from` seen as one of `shape`: 0 along the dimensions that repeat it. */
export function spreadStrides(from: readonly number[], shape: readonly number[]): number[] {
  const own = stridesOf(from), lead = shape.length - from.length;
  return shape.map((_, i) => (i < lead || from[i - lead] === 1 ? 0 : own[i - lead]!));
}

/** The shape that both can be repeated to (torch's broadcasting). @throws ShapeError */
export function commonShape(where: string, a: readonly number[], b: readonly number[], what = "shapes"): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const m = a[a.length - rank + i] ?? 1, n = b[b.length - rank + i] ?? 1;
    if (m !== n && m !== 1 && n !== 1) {
      throw new ShapeError(`${where}: ${what} [${a}] and [${b}] do not go together: counted from the last, their dimension ${rank - i} is ${m} and ${n}; ` +
        "expected equal sizes, or 1 to be repeated.");
    }
    return m === 1 ? n : m;
  });
}

/** y = x, over `shape`. */
export function copyStrided(shape: readonly number[], y: number, ys: readonly number[], x: number, xs: readonly number[]): void {
  walk(merged(shape, ys, xs), y, x, engine().kernels.stridedCopy);
}

/** y += alpha * x, over `shape`; of elements that a stride of 0 visits again, in the order of the indices. */
export function addStrided(alpha: number, shape: readonly number[], y: number, ys: readonly number[], x: number, xs: readonly number[]): void {
  const { stridedAxpy } = engine().kernels;
  walk(merged(shape, ys, xs), y, x, (...args) => stridedAxpy(alpha, ...args));
}

type Dim = [size: number, ys: number, xs: number];
type Kernel = Kernels["stridedCopy"];

/** The dimensions but those of size 1, and neighbours that are one run as one. */
function merged(shape: readonly number[], ys: readonly number[], xs: readonly number[]): Dim[] {
  const dims: Dim[] = [];
  for (const [i, size] of shape.entries()) {
    const last = dims.at(-1), y = ys[i]!, x = xs[i]!;
    if (size === 1) continue;
    if (last && last[1] === size * y && last[2] === size * x) dims[dims.length - 1] = [last[0] * size, y, x];
    else dims.push([size, y, x]);
  }
  return dims;
}

/** The kernels take three dimensions; those before them are walked here. */
function walk(dims: readonly Dim[], y: number, x: number, run: Kernel): void {
  if (dims.length > 3) {
    const [[size, ys, xs], ...rest] = dims as [Dim, ...Dim[]];
    for (let i = 0; i < size; i++) walk(rest, y + i * ys * 4, x + i * xs * 4, run);
    return;
  }
  const one: Dim = [1, 0, 0], [c = one, b = one, a = one] = [...dims].reverse();
  run(y, x, ...a, ...b, ...c);
}
