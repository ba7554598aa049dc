/**
 * Thin SVD of a tall matrix, A = U diag(s) Vᵀ, m >= n, s descending, float64; for any rank, 0 included.
 *
 * A = Q R first (qr.ts), then one-sided Jacobi on X = Rᵀ (Hestenes 1958; Drmač & Veselić 2008 on why the
 * triangle): X is multiplied by plane rotations W until its columns are orthogonal, X W = Y diag(s). Then
 * R = W diag(s) Yᵀ, so V = Y and U = Q W.
 *
 * A pair of columns is rotated while |x . y| > tol |x| |y|, tol = sqrt(n) * 2^-52; the larger column comes
 * first (de Rijk 1989). One sweep takes every pair once: blocks of BLOCK columns against each other, pairs in
 * a block ascending. The order is fixed, and with it the bits. A column counts as zero if its norm is below 1e-140, or
 * 1e-100 of the longest; V's columns for those are completed by Gram and Schmidt.
 * Input: largest magnitude 0, or within 1e-100 .. 1e100.
 *
 * Matrices lie by columns (see qr.ts). a: [m, n], overwritten. u: [m, n]. s: [n]. v: [n, n].
 * work: svdWorkBytes(n). Returns the number of sweeps, or -1 if 60 were not enough.
 */
import { qrApply, qrFactor } from "./qr";
import { daxpy, ddot, drot, dscal, ZERO_SQUARED } from "./vector";

const EPSILON: f64 = 2.220446049250313e-16;
const MAX_SWEEPS: i32 = 60;
/**
 * Two blocks of 16 columns of X and W stay in the second-level cache (measured: 1536 x 1536 in 25 s, unblocked 36 s).
 */
const BLOCK: i32 = 16;

/** Working space for n columns: W, and n values each of tau and of norms. */
export function svdWorkBytes(n: f64): f64 {
  return (n * n + 2 * n) * 8;
}

export function svdTall(u: usize, s: usize, v: usize, a: usize, m: i32, n: i32, work: usize): i32 {
  const column = (<usize>n) << 3,
    tau = work,
    norms = tau + column,
    w = norms + column;
  qrFactor(a, tau, m, n);
  memory.fill(v, 0, column * <usize>n);
  memory.fill(w, 0, column * <usize>n);
  for (let i: usize = 0; i < <usize>n; i++) {
    store<f64>(w + i * column + (i << 3), 1);
    for (let j = i; j < <usize>n; j++) store<f64>(v + i * column + (j << 3), load<f64>(a + ((j * <usize>m + i) << 3)));
  }
  measure(v, norms, n);
  let longest: f64 = 0;
  for (let i = norms; i < w; i += 8) longest = max(longest, load<f64>(i));
  const zero = max(ZERO_SQUARED, 1e-200 * longest);
  const sweeps = orthogonalise(v, w, norms, n, zero);
  sort(v, w, norms, n);
  for (let i = 0; i < n; i++) {
    const y = v + <usize>i * column,
      squared = load<f64>(norms + ((<usize>i) << 3)),
      length = sqrt<f64>(squared);
    store<f64>(s + ((<usize>i) << 3), squared < zero ? 0 : length);
    if (squared < zero) complete(v, i, n);
    else dscal(y, n, 1 / length);
    const out = u + ((<usize>i * <usize>m) << 3);
    memory.copy(out, w + <usize>i * column, column);
    memory.fill(out + column, 0, (<usize>(m - n)) << 3);
  }
  qrApply(u, a, tau, m, n, n);
  return sweeps;
}

/** Squared norms of x's columns. */
function measure(x: usize, norms: usize, n: i32): void {
  const column = (<usize>n) << 3;
  for (let i: usize = 0; i < column; i += 8, x += column) store<f64>(norms + i, ddot(x, x, n));
}

/** zero: squared norms below it count as 0. */
function orthogonalise(x: usize, w: usize, norms: usize, n: i32, zero: f64): i32 {
  const tol = EPSILON * sqrt<f64>(<f64>n);
  for (let sweep = 1; sweep <= MAX_SWEEPS; sweep++) {
    measure(x, norms, n);
    let rotated = false;
    for (let first = 0; first < n; first += BLOCK) {
      for (let second = first; second < n; second += BLOCK) {
        for (let i = first; i < min(first + BLOCK, n); i++) {
          for (let j = max(second, i + 1); j < min(second + BLOCK, n); j++) {
            if (rotate(x, w, norms, i, j, n, zero, tol)) rotated = true;
          }
        }
      }
    }
    if (!rotated) return sweep;
  }
  return -1;
}

/** Makes columns i and j orthogonal, the larger first; false if they are already. */
function rotate(x: usize, w: usize, norms: usize, i: i32, j: i32, n: i32, zero: f64, tol: f64): bool {
  const column = (<usize>n) << 3,
    xi = x + <usize>i * column,
    xj = x + <usize>j * column;
  const ni = norms + ((<usize>i) << 3),
    nj = norms + ((<usize>j) << 3);
  let large = load<f64>(ni),
    small = load<f64>(nj);
  if (large < zero || small < zero) return false;
  const dot = ddot(xi, xj, n);
  if (abs(dot) <= tol * sqrt<f64>(large) * sqrt<f64>(small)) return false;
  const swap = large < small;
  if (swap) {
    const t = large;
    large = small;
    small = t;
  }
  // The smaller root of t^2 + 2 zeta t - 1 = 0 is the tangent of the smaller angle.
  const zeta = (small - large) / (2 * dot);
  const t = (zeta < 0 ? -1.0 : 1.0) / (abs(zeta) + sqrt<f64>(1 + zeta * zeta));
  const c = 1 / sqrt<f64>(1 + t * t),
    s = c * t;
  const wi = w + <usize>i * column,
    wj = w + <usize>j * column;
  drot(xi, xj, swap ? xj : xi, swap ? xi : xj, n, c, s);
  drot(wi, wj, swap ? wj : wi, swap ? wi : wj, n, c, s);
  // The sum of both stays. Where the smaller loses most of its bits, it is summed anew.
  const rest = small + t * dot;
  store<f64>(ni, large - t * dot);
  store<f64>(nj, rest < 0.1 * small ? ddot(xj, xj, n) : rest);
  return true;
}

/** Columns by descending norm; the earlier of equals first. */
function sort(x: usize, w: usize, norms: usize, n: i32): void {
  const column = (<usize>n) << 3;
  for (let i = 0; i < n; i++) {
    let best = i;
    for (let j = i + 1; j < n; j++) {
      if (load<f64>(norms + ((<usize>j) << 3)) > load<f64>(norms + ((<usize>best) << 3))) best = j;
    }
    if (best == i) continue;
    swapValues(x + <usize>i * column, x + <usize>best * column, n);
    swapValues(w + <usize>i * column, w + <usize>best * column, n);
    swapValues(norms + ((<usize>i) << 3), norms + ((<usize>best) << 3), 1);
  }
}

function swapValues(x: usize, y: usize, n: i32): void {
  for (; n > 0; n--, x += 8, y += 8) {
    const t = load<f64>(x);
    store<f64>(x, load<f64>(y));
    store<f64>(y, t);
  }
}

/** Column i of x becomes a unit vector orthogonal to columns 0 .. i - 1, made from the axis least like them. */
function complete(x: usize, i: i32, n: i32): void {
  const column = (<usize>n) << 3,
    out = x + <usize>i * column;
  let axis: usize = 0,
    least = Infinity;
  for (let k: usize = 0; k < column; k += 8) {
    let covered: f64 = 0;
    for (let j = x; j < out; j += column) covered += load<f64>(j + k) * load<f64>(j + k);
    if (covered < least) {
      least = covered;
      axis = k;
    }
  }
  memory.fill(out, 0, column);
  store<f64>(out + axis, 1);
  // Twice is enough (Kahan; Parlett 1980).
  for (let pass = 0; pass < 2; pass++) {
    for (let j = x; j < out; j += column) daxpy(out, j, n, -ddot(j, out, n));
  }
  dscal(out, n, 1 / sqrt<f64>(ddot(out, out, n)));
}
