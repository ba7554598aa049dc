/** Plain row-major matrices in and out of linear memory, in float64. Kernels: assembly/linalg/. */
import { engine } from "../runtime/engine.js";
import { ArgumentError, ShapeError } from "../runtime/errors.js";
import { checkInteger } from "../tensor/check.js";

/**
 * Values of a matrix, row by row. They must not be a view on linear memory, which is detached when memory grows: give
 * `tensor.data.slice()`, not `tensor.data`.
 */
export type Values = Float32Array | Float64Array;

const LARGEST = 1e100;

/**
 * Throws unless a holds m x n finite values whose largest magnitude is 0 or within 1e-100 .. 1e100, so that squares
 * neither overflow nor vanish. Every float32 qualifies.
 */
export function checkMatrix(where: string, a: Values, m: number, n: number): void {
  checkInteger(where, "m", m, 1);
  checkInteger(where, "n", n, 1);
  if (a.length !== m * n) throw new ShapeError(`${where}: a has ${a.length} values; expected m * n = ${m} * ${n}.`);
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const v = Math.abs(a[i]!);
    if (!(v <= LARGEST))
      throw new ArgumentError(
        `${where}: a holds ${a[i]} at [${Math.floor(i / n)}, ${i % n}]; expected a finite number of at most ` +
          `${LARGEST}.`,
      );
    largest = Math.max(largest, v);
  }
  if (largest > 0 && largest < 1 / LARGEST)
    throw new ArgumentError(`${where}: a's largest magnitude is ${largest}; scale it to at least ${1 / LARGEST}.`);
}

/** to = the transpose of `from`, [rows, columns]; `to` may be a view on linear memory. */
export function transposeInto(to: Float64Array, from: Values, rows: number, columns: number): void {
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j]!;
}

/** The transpose of `from`, [rows, columns]. */
export function transpose(from: Values, rows: number, columns: number): Float64Array {
  const to = new Float64Array(rows * columns);
  transposeInto(to, from, rows, columns);
  return to;
}

/** A B for A [m, k], B [k, n]; sums with p ascending. @throws ShapeError, ArgumentError */
export function matmul(a: Values, b: Values, m: number, k: number, n: number): Float64Array {
  for (const [name, v, rows, columns] of [
    ["a", a, m, k],
    ["b", b, k, n],
  ] as const) {
    if (v.length !== rows * columns)
      throw new ShapeError(`matmul: ${name} has ${v.length} values; expected ${rows} * ${columns}.`);
  }
  const { kernels, memory } = engine();
  return memory.withBlocks([a.length * 8, b.length * 8, m * n * 8], (pa, pb, pc) => {
    memory.f64(pa, a.length).set(a);
    memory.f64(pb, b.length).set(b);
    kernels.dgemm(pc, pa, pb, m, n, k, false);
    return memory.f64(pc, m * n).slice();
  });
}
