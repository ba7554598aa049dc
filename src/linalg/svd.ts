/** Singular value decompositions: exact, and of low rank by random projection. Kernels: assembly/linalg/. */
import { drawNormal } from "../random/seed.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkInteger } from "../tensor/check.js";
import { checkMatrix, matmul, transpose, transposeInto, type Values } from "./matrix.js";
import { qr } from "./qr.js";

/** A = u diag(s) vt, s descending, the columns of u and the rows of vt orthonormal. */
interface Svd {
  u: Float64Array;
  s: Float64Array;
  vt: Float64Array;
}

/**
 * Thin SVD in float64, for any shape and rank; q = min(m, n). Signs of singular vectors are free, so those
 * of torch.linalg.svd may differ; products u diag(s) vt do not. Cost: some 40 q^2 (m + n) operations.
 * @param a [m, n] by rows
 * @returns u [m, q], s [q], vt [q, n]
 * @throws ShapeError; ArgumentError on a value that is not finite (see `checkMatrix`), or if 60 sweeps do not suffice
 *
 * @example
 * const { s } = svd(Float32Array.of(3, 0, 0, -4), 2, 2);
 * console.log(s); // Float64Array(2) [ 4, 3 ]
 */
export function svd(a: Values, m: number, n: number): Svd {
  checkMatrix("svd", a, m, n);
  const { kernels, memory } = engine();
  // The kernel takes a tall matrix by columns: those of Aᵀ are the rows of a wide A.
  const wide = m < n;
  const [rows, q] = wide ? [n, m] : [m, n];
  return memory.withBlocks(
    [m * n * 8, m * n * 8, q * 8, q * q * 8, kernels.svdWorkBytes(q)],
    (pa, long, ps, square, work) => {
      if (wide) memory.f64(pa, m * n).set(a);
      else transposeInto(memory.f64(pa, m * n), a, m, n);
      const sweeps = kernels.svdTall(long, ps, square, pa, rows, q, work);
      if (sweeps < 0) throw new ArgumentError(`svd: a of shape [${m}, ${n}] did not converge.`);
      const left = memory.f64(wide ? square : long, m * q);
      const right = memory.f64(wide ? long : square, q * n);
      return { u: transpose(left, q, m), s: memory.f64(ps, q).slice(), vt: right.slice() };
    },
  );
}

/**
 * The q largest singular values and vectors, nearly (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1):
 * a random projection drawn from the streams of `manualSeed`, improved by `niter` power iterations.
 *
 * Source: torch.svd_lowrank, with its draws: randn(min(m, n), q).
 * @param a [m, n] by rows
 * @param q 1 .. min(m, n)
 * @returns u [m, q], s [q], vt [q, n]
 * @throws ShapeError, ArgumentError
 *
 * @example
 * manualSeed(0);
 * const { u, s, vt } = svdLowrank(new nn.Linear(64, 32).weight.data.slice(), 32, 64, 8, 4);
 * console.log(u.length, s.length, vt.length); // 256 8 512
 */
export function svdLowrank(a: Values, m: number, n: number, q: number, niter = 2): Svd {
  checkMatrix("svdLowrank", a, m, n);
  const wide = m < n;
  const [long, short] = wide ? [n, m] : [m, n];
  checkInteger("svdLowrank", "q", q, 1, short);
  checkInteger("svdLowrank", "niter", niter, 0);
  const { kernels, memory } = engine();
  return memory.withBlocks([m * n * 8, long * q * 8, long * q * 8], (pa, pb, pc) => {
    memory.f64(pa, m * n).set(a);
    /** T x for x [short, q], or Tᵀ x for x [long, q]; T is A or, if wide, Aᵀ. */
    const times = (x: Values, transposed: boolean): Float64Array => {
      const [rows, k] = transposed ? [short, long] : [long, short];
      memory.f64(pb, k * q).set(x);
      kernels.dgemm(pc, pa, pb, rows, q, k, transposed !== wide);
      return memory.f64(pc, rows * q).slice();
    };
    drawNormal(pb, short * q, 0, 1);
    let basis = qr(times(memory.f32(pb, short * q).slice(), false), long, q).q;
    for (let i = 0; i < niter; i++) {
      basis = qr(times(basis, true), short, q).q;
      basis = qr(times(basis, false), long, q).q;
    }
    const inner = svd(times(basis, true), short, q);
    const left = matmul(basis, transpose(inner.vt, q, q), long, q, q);
    return wide
      ? { u: inner.u, s: inner.s, vt: transpose(left, long, q) }
      : { u: left, s: inner.s, vt: transpose(inner.u, short, q) };
  });
}
