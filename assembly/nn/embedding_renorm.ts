/**
 * Embedding renorm. Each row of W that ids name, once: if |row|_p > maxNorm, row *= maxNorm / (|row|_p + 1e-7)
 * (torch.embedding_renorm_). |row|_p = (sum |x|^p)^(1/p) in float64, elements ascending, rounded to
 * float32 as torch's norm is; p = Infinity: max |x|. The factor is rounded to float32, then multiplied.
 * |x|^p = exp(p log |x|), except for p = 1 and 2.
 *
 * ids: [n] i32, each in 0 .. vocab - 1. W: row i starts i * rowStride elements on, its dim elements are
 * elementStride apart: (dim, 1) for a table [vocab, dim], (1, vocab) for a factor [dim, vocab].
 * seen: [vocab] i32, working space. p > 0.
 */
import { exp64, log64 } from "../math/double";
import { idAt } from "./embedding";

export function embeddingRenorm(
  n: i32,
  dim: i32,
  ids: usize,
  w: usize,
  rowStride: i32,
  elementStride: i32,
  maxNorm: f64,
  p: f64,
  seen: usize,
): void {
  const row = (<usize>rowStride) << 2,
    step = (<usize>elementStride) << 2;
  for (let i = 0; i < n; i++) store<i32>(seen + (idAt(ids, i) << 2), 0);
  for (let i = 0; i < n; i++) {
    const id = idAt(ids, i);
    if (load<i32>(seen + (id << 2)) != 0) continue;
    store<i32>(seen + (id << 2), 1);
    const start = w + id * row,
      norm = <f64>(<f32>normOf(start, dim, step, p));
    if (!(norm > maxNorm)) continue;
    const factor = <f32>(maxNorm / (norm + 1e-7));
    let at = start;
    for (let q = 0; q < dim; q++) {
      store<f32>(at, factor * load<f32>(at));
      at += step;
    }
  }
}

function normOf(at: usize, dim: i32, step: usize, p: f64): f64 {
  let sum: f64 = 0;
  for (let q = 0; q < dim; q++) {
    const x = abs(<f64>load<f32>(at));
    if (p == 2) sum += x * x;
    else if (p == 1) sum += x;
    else if (p == Infinity) sum = max(sum, x);
    else if (x != 0) sum += exp64(p * log64(x));
    at += step;
  }
  if (p == 2) return sqrt(sum);
  return p == 1 || p == Infinity || sum == 0 ? sum : exp64(log64(sum) / p);
}
