/**
 * QR by Householder reflections, float64. A = Q R, Q = H_0 H_1 ... H_{q-1}, H_j = I - tau_j v_j v_jᵀ, q = min(m, n).
 * Signs as in LAPACK's dgeqr2 / dlarfg, hence torch.linalg.qr: beta = -sign(alpha) * norm becomes R's
 * diagonal, tau = (beta - alpha) / beta, v = [1, x / (alpha - beta)]; where x = 0 (|x| < 1e-140), H = I and
 * alpha stays. Input: largest magnitude 0, or within 1e-100 .. 1e100.
 *
 * Matrices lie by columns: column j of A [m, n] is m contiguous values at a + j * m. Afterwards its upper
 * triangle holds R and what is below the diagonal the v_j without their 1. tau: [q].
 * Sums: see vector.ts. LAPACK's blocked routines add in another order, so bits differ from torch's.
 */
import { daxpy, ddot, dscal, ZERO_SQUARED } from "./vector";

export function qrFactor(a: usize, tau: usize, m: i32, n: i32): void {
  const column = (<usize>m) << 3;
  for (let j = 0; j < min(m, n); j++) {
    const v = a + <usize>j * column + ((<usize>j) << 3),
      below = m - j - 1;
    const t = reflector(v, below);
    store<f64>(tau + ((<usize>j) << 3), t);
    let c = v;
    for (let i = j + 1; i < n; i++) {
      c += column;
      reflect(c, v, t, below);
    }
  }
}

/** C = Q C for C [m, columns], by columns; q: number of reflections. C = the first columns of I gives those of Q. */
export function qrApply(c: usize, a: usize, tau: usize, m: i32, columns: i32, q: i32): void {
  const column = (<usize>m) << 3;
  for (; columns > 0; columns--, c += column) {
    for (let j = q - 1; j >= 0; j--) {
      const at = (<usize>j) << 3;
      reflect(c + at, a + <usize>j * column + at, load<f64>(tau + at), m - j - 1);
    }
  }
}

/** Turns [alpha, x] at v into [beta, v without its 1]; returns tau. */
function reflector(v: usize, below: i32): f64 {
  const alpha = load<f64>(v),
    squares = ddot(v + 8, v + 8, below);
  if (squares < ZERO_SQUARED) return 0;
  const norm = sqrt<f64>(alpha * alpha + squares),
    beta = alpha < 0 ? norm : -norm;
  dscal(v + 8, below, 1.0 / (alpha - beta));
  store<f64>(v, beta);
  return (beta - alpha) / beta;
}

/** c -= tau * v * (v . c), v = [1, values after its first]. */
// @ts-ignore: decorator
@inline
function reflect(c: usize, v: usize, tau: f64, below: i32): void {
  const t = tau * (load<f64>(c) + ddot(v + 8, c + 8, below));
  store<f64>(c, load<f64>(c) - t);
  daxpy(c + 8, v + 8, below, -t);
}
