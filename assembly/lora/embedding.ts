/**
 * LoRA branch of an embedding. y[i] += s * (Aᵀ)[ids[i]] Bᵀ (loralib.Embedding).
 * Backward: dB += dyᵀ hs; dA[:, ids[i]] += f_i * s * dy[i] B; rows in ascending order.
 * f: as in nn/embedding.ts.
 */
import { LoraEmbeddingBackward, LoraEmbeddingForward } from "../abi";
import { threadedNN, threadedNT, threadedTN } from "../gemm/threaded";
import { first, last, part, split } from "../threads";
import { factorAt, idAt } from "../nn/embedding";

export function loraEmbeddingForward(call: LoraEmbeddingForward): void {
  const n = call.n,
    dim = call.dim,
    r = call.r,
    row = (<usize>call.vocab) << 2,
    s = call.s,
    hs = call.hs;
  for (split(n, 3 * <f64>r); part(); ) {
    let h = hs + ((<usize>first * <usize>r) << 2);
    for (let i = first; i < last; i++) {
      let p = call.a + (idAt(call.ids, i) << 2);
      for (let q = 0; q < r; q++) {
        store<f32>(h, s * load<f32>(p));
        h += 4;
        p += row;
      }
    }
  }
  threadedNT(n, dim, r, 1, hs, r, call.b, r, 1, call.y, dim, call.scratch);
}

export function loraEmbeddingBackward(call: LoraEmbeddingBackward): void {
  const n = call.n,
    dim = call.dim,
    r = call.r,
    row = (<usize>call.vocab) << 2,
    paddingIdx = call.paddingIdx,
    dy = call.dy,
    da = call.da,
    db = call.db,
    zs = call.zs,
    scratch = call.scratch;
  if (db != 0) threadedTN(dim, r, n, 1, dy, dim, call.hs, r, 1, db, r, scratch);
  if (da == 0) return;
  threadedNN(n, r, dim, call.s, dy, dim, call.b, r, 0, zs, r, scratch);
  // By rows of A: the same column may be named more than once.
  for (split(r, 3 * <f64>n); part(); )
    for (let i = 0; i < n; i++) {
      const id = idAt(call.ids, i),
        factor = factorAt(call.f, i);
      if (<i32>id == paddingIdx) continue;
      let z = zs + ((<usize>i * <usize>r + <usize>first) << 2),
        p = da + (id << 2) + <usize>first * row;
      for (let q = first; q < last; q++) {
        store<f32>(p, load<f32>(p) + factor * load<f32>(z));
        z += 4;
        p += row;
      }
    }
}
