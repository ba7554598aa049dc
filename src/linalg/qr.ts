/** QR decomposition. Kernels: assembly/linalg/qr.ts. */
import { engine } from "../runtime/engine.js";
import { checkMatrix, transpose, transposeInto, type Values } from "./matrix.js";

/**
 * A = Q R, Q with orthonormal columns, R upper triangular; float64, Householder. Signs as torch.linalg.qr's.
 * @param a [m, n] by rows
 * @returns q [m, min(m, n)], r [min(m, n), n]
 * @throws ShapeError; ArgumentError on a value that is not finite (see `checkMatrix`)
 *
 * @example
 * const { q, r } = qr(Float64Array.of(3, 4), 2, 1);
 * console.log(q[1], r); // -0.8 Float64Array(1) [ -5 ]
 */
export function qr(a: Values, m: number, n: number): { q: Float64Array; r: Float64Array } {
  checkMatrix("qr", a, m, n);
  const { kernels, memory } = engine();
  const rank = Math.min(m, n);
  return memory.withBlocks([m * n * 8, m * rank * 8, rank * 8], (factors, identity, tau) => {
    transposeInto(memory.f64(factors, m * n), a, m, n);
    kernels.qrFactor(factors, tau, m, n);
    const columns = memory.f64(identity, m * rank).fill(0);
    for (let i = 0; i < rank; i++) columns[i * m + i] = 1;
    kernels.qrApply(identity, factors, tau, m, rank, rank);
    const r = new Float64Array(rank * n);
    const upper = memory.f64(factors, m * n);
    for (let i = 0; i < rank; i++) for (let j = i; j < n; j++) r[i * n + j] = upper[j * m + i]!;
    return { q: transpose(columns, rank, m), r };
  });
}
