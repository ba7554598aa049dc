/**
 * Embedding renorm. Each row of W that ids name, once: if |row|_p > maxNorm, row *= maxNorm / (|row|_p + 1e-7)
 * (torch.embedding_renorm_). |row|_p = (sum |x|^p)^(1/p) in float64, elements ascending, rounded to
 * float32 as torch's norm is; p = Infinity: max |x|. The factor is rounded to float32, then multiplied.
 * |x|^p = exp(p log |x|), except for p = 1 and 2.
 */
import { EmbeddingRenorm } from "../abi";
import { exp64, log64 } from "../math/double";
import { idAt } from "./embedding";

export function embeddingRenorm(call: EmbeddingRenorm): void {
  const n = call.n,
    dim = call.dim,
    ids = call.ids,
    maxNorm = call.maxNorm,
    seen = call.seen;
  const row = (<usize>call.rowStride) << 2,
    step = (<usize>call.elementStride) << 2;
  for (let i = 0; i < n; i++) store<i32>(seen + (idAt(ids, i) << 2), 0);
  for (let i = 0; i < n; i++) {
    const id = idAt(ids, i);
    if (load<i32>(seen + (id << 2)) != 0) continue;
    store<i32>(seen + (id << 2), 1);
    const start = call.w + id * row,
      norm = <f64>(<f32>normOf(start, dim, step, call.p));
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
