/** What was written against what it was written from: the updates themselves, in float64. */
import { matmul } from "../linalg/matrix.js";
import { StateError } from "../runtime/errors.js";
import type { Update } from "./source.js";

/** How far a written adapter is from its source. */
export interface Comparison {
  /** The largest magnitude of (s' B' A' - s B A), of all elements of all modules; NaN if one is none. */
  largestDifference: number;
  /** The largest magnitude of s B A. */
  largestUpdate: number;
}

/** Elements of a product that are looked at together. */
const STRIPE = 1 << 20;

/** @param written what was read back, in the same order */
export function compareUpdates(where: string, source: readonly Update[], written: readonly Update[]): Comparison {
  if (written.length !== source.length)
    throw new StateError(`${where}: ${written.length} modules were read back of ${source.length} that were written.`);
  let largestDifference = 0;
  let largestUpdate = 0;
  for (const [i, from] of source.entries()) {
    const to = written[i]!;
    if (to.path !== from.path || to.inputs !== from.inputs || to.outputs !== from.outputs)
      throw new StateError(`${where}: ${to.path} was read back where ${from.path} was written.`);
    largestUpdate = Math.max(largestUpdate, largest(from.inputs, from.outputs, [from]));
    const isEqual = to.scaling === from.scaling && areEqual(to.a, from.a) && areEqual(to.b, from.b);
    if (!isEqual)
      largestDifference = Math.max(
        largestDifference,
        largest(from.inputs, from.outputs, [to, { ...from, scaling: -from.scaling }]),
      );
  }
  return { largestDifference, largestUpdate };
}

function areEqual(a: Float32Array, b: Float32Array): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** The largest magnitude of a sum of updates. */
function largest(inputs: number, outputs: number, terms: readonly Update[]): number {
  const rank = terms.reduce((sum, term) => sum + term.rank, 0);
  const a = new Float64Array(rank * inputs);
  let row = 0;
  for (const term of terms) {
    a.set(term.a, row * inputs);
    row += term.rank;
  }
  let most = 0;
  const rows = Math.max(1, Math.floor(STRIPE / inputs));
  for (let first = 0; first < outputs; first += rows) {
    const count = Math.min(rows, outputs - first);
    const b = new Float64Array(count * rank);
    let column = 0;
    for (const { rank: r, b: values, scaling } of terms) {
      for (let i = 0; i < count; i++)
        for (let j = 0; j < r; j++) b[i * rank + column + j] = scaling * values[(first + i) * r + j]!;
      column += r;
    }
    for (const value of matmul(b, a, count, rank, inputs)) most = Math.max(most, Math.abs(value));
  }
  return most;
}
