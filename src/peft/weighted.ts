/** One adapter made of several (PEFT's add_weighted_adapter), on the factors of one layer. */
import { show } from "../io/json.js";
import { matmul, transpose } from "../linalg/matrix.js";
import { qr } from "../linalg/qr.js";
import { svd } from "../linalg/svd.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, ShapeError } from "../runtime/errors.js";
import { checkInteger, checkNumber, checkTensor } from "../tensor/check.js";
import { allOrNothing } from "../tensor/scope.js";
import { type Tensor, zeros } from "../tensor/tensor.js";

/** How `LoraModel.addWeightedAdapter` makes one adapter of several. */
export type CombinationType = "cat" | "linear" | "svd";

/** The factors of one adapter in a layer, and how much of it is wanted. */
export interface WeightedFactors {
  /** [r, d], or a convolution's [r, inChannels, ...kernel]. */
  loraA: Tensor;
  /** [k, r], or [k, r, 1, ...]. */
  loraB: Tensor;
  /** s, as the layer multiplies B A. */
  scaling: number;
  /** w; may be negative. */
  weight: number;
}

interface Factors {
  loraA: Tensor;
  loraB: Tensor;
}

/**
 * New factors, to be used with scaling 1, that stand for the sum of w s B A over the adapters.
 *
 * - "cat": A' = the w s A below each other, B' = the B beside each other; exact, of rank sum(r).
 * - "linear": A' = sum of sign(w s) √|w s| A, B' = sum of √|w s| B, for equal ranks. Cheap, but B' A' has cross
 *   terms B_i A_j besides: it is not the sum. (As PEFT defines it.)
 * - "svd": the best approximation of rank `svdRank`, A' = Vᵀ, B' = U diag(S). It is computed from QRs of the
 *   stacked factors and an SVD of their sum(r) x sum(r) core, in float64, without a k x d matrix. PEFT before
 *   0.21 multiplied by s twice here (its delta already has it).
 *
 * Source: PEFT, LoraModel.add_weighted_adapter.
 * @param svdRank rank of "svd"; by default the largest of the adapters'. Beyond the sum's own rank, zeros follow.
 * @returns loraA [r', d], loraB [k, r'] (a convolution's in its shapes)
 * @throws ShapeError if layers or, for "linear", ranks differ; DTypeError; ArgumentError
 *
 * @example
 * const { loraA, loraB } = combineAdapters("cat", [
 *   { loraA: ones([2, 8]), loraB: ones([4, 2]), scaling: 2, weight: 0.7 },
 *   { loraA: ones([1, 8]), loraB: ones([4, 1]), scaling: 2, weight: 0.3 },
 * ]);
 * console.log(loraA.shape, loraB.shape); // [ 3, 8 ] [ 4, 3 ]
 */
export function combineAdapters(
  type: CombinationType,
  adapters: readonly WeightedFactors[],
  svdRank?: number,
): Factors {
  const where = "combineAdapters";
  if (adapters.length === 0) throw new ArgumentError(`${where}: there are no adapters.`);
  const [{ loraA: a0, loraB: b0 }] = adapters as [WeightedFactors];
  checkTensor(where, "adapters[0].loraA", a0);
  checkTensor(where, "adapters[0].loraB", b0);
  if (a0.rank < 2)
    throw new ShapeError(`${where}: adapters[0].loraA has shape [${a0.shape}]; expected at least 2 dimensions.`);
  for (const [i, { loraA, loraB, scaling, weight }] of adapters.entries()) {
    checkTensor(where, `adapters[${i}].loraA`, loraA, "float32", [null, ...a0.shape.slice(1)]);
    checkTensor(where, `adapters[${i}].loraB`, loraB, "float32", [
      b0.shape[0]!,
      loraA.shape[0]!,
      ...a0.shape.slice(2).map(() => 1),
    ]);
    checkInteger(where, `adapters[${i}]'s rank`, loraA.shape[0]!, 1);
    checkNumber(where, `adapters[${i}].scaling`, scaling, -Infinity);
    checkNumber(where, `adapters[${i}].weight`, weight, -Infinity);
  }
  if (svdRank !== undefined) {
    if (type !== "svd")
      throw new ArgumentError(`${where}: svdRank = ${show(svdRank)} is for "svd" only; got ${show(type)}.`);
    checkInteger(where, "svdRank", svdRank, 1);
  }
  const ranks = adapters.map(({ loraA }) => loraA.shape[0]!);
  const factors = (r: number): Factors => ({
    loraA: zeros([r, ...a0.shape.slice(1)]),
    loraB: zeros([b0.shape[0]!, r, ...b0.shape.slice(2)]),
  });
  return allOrNothing(() => {
    switch (type) {
      case "cat":
        return concatenate(adapters, factors(ranks.reduce((sum, r) => sum + r, 0)));
      case "svd":
        return decompose(adapters, factors(svdRank ?? Math.max(...ranks)));
      case "linear":
        if (ranks.some((r) => r !== ranks[0]))
          throw new ShapeError(`${where}: "linear" needs equal ranks; got ${ranks.join(", ")}.`);
        return addUp(adapters, factors(ranks[0]!));
      default:
        throw new ArgumentError(`${where}: type must be "cat", "linear" or "svd"; got ${show(type)}.`);
    }
  });
}

/** A times w, then times s, as PEFT rounds. */
function concatenate(adapters: readonly WeightedFactors[], to: Factors): Factors {
  const { kernels } = engine();
  let rows = 0;
  for (const { loraA, loraB, weight, scaling } of adapters) {
    const start = rows * (loraA.size / loraA.shape[0]!);
    to.loraA.data.set(loraA.data, start);
    kernels.sscal(to.loraA.address + start * 4, loraA.size, weight);
    kernels.sscal(to.loraA.address + start * 4, loraA.size, scaling);
    placeColumns(to.loraB.data, to.loraB.shape[1]!, loraB.data, loraB.shape[1]!, rows);
    rows += loraA.shape[0]!;
  }
  return to;
}

/** to[i, first + j] = from[i, j] */
function placeColumns(
  to: Float32Array | Float64Array,
  width: number,
  from: Float32Array,
  columns: number,
  first: number,
): void {
  for (let i = 0; i * columns < from.length; i++)
    to.set(from.subarray(i * columns, (i + 1) * columns), i * width + first);
}

function addUp(adapters: readonly WeightedFactors[], to: Factors): Factors {
  const { kernels } = engine();
  for (const { loraA, loraB, weight, scaling } of adapters) {
    const root = Math.sqrt(Math.abs(weight * scaling));
    kernels.saxpy(to.loraA.address, loraA.address, loraA.size, weight * scaling < 0 ? -root : root);
    kernels.saxpy(to.loraB.address, loraB.address, loraB.size, root);
  }
  return to;
}

/**
 * [B ...] = Q_B R_B, [w s A; ...]ᵀ = Q_A R_A; then the sum is Q_B (R_B R_Aᵀ) Q_Aᵀ, and the core's SVD gives the rest.
 */
function decompose(adapters: readonly WeightedFactors[], to: Factors): Factors {
  const all = adapters.reduce((sum, { loraA }) => sum + loraA.shape[0]!, 0);
  const k = to.loraB.shape[0]!;
  const r = to.loraA.shape[0]!;
  const d = to.loraA.size / r;
  const a = new Float64Array(all * d);
  const b = new Float64Array(k * all);
  let rows = 0;
  for (const { loraA, loraB, weight, scaling } of adapters) {
    a.set(
      Float64Array.from(loraA.data, (v) => v * weight * scaling),
      rows * d,
    );
    placeColumns(b, all, loraB.data, loraB.shape[1]!, rows);
    rows += loraA.shape[0]!;
  }
  const left = qr(b, k, all);
  const right = qr(transpose(a, all, d), d, all);
  const p = Math.min(k, all);
  const q = Math.min(d, all);
  const rank = Math.min(p, q);
  const { u, s, vt } = svd(matmul(left.r, transpose(right.r, q, all), p, all, q), p, q);
  const newB = matmul(left.q, u, k, p, rank);
  const newA = matmul(vt, transpose(right.q, d, q), rank, q, d);
  const kept = Math.min(r, rank);
  to.loraA.data.set(newA.subarray(0, kept * d));
  const out = to.loraB.data;
  for (let i = 0; i < k; i++) for (let j = 0; j < kept; j++) out[i * r + j] = newB[i * rank + j]! * s[j]!;
  return to;
}
