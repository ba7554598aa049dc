/**
 * LoRA branch of an embedding. y[i] += s * (Aᵀ)[ids[i]] Bᵀ (loralib.Embedding).
 * Backward: dB += dyᵀ hs; dA[:, ids[i]] += f_i * s * dy[i] B; rows in ascending order.
 * f: as in nn/embedding.ts.
 */
import { LoraEmbeddingBackward, LoraEmbeddingForward } from "../abi";
import { gemmNN, gemmNT, gemmTN } from "../gemm/sgemm";
import { factorAt, idAt } from "../nn/embedding";

export function loraEmbeddingForward(call: LoraEmbeddingForward): void {
  const n = call.n,
    dim = call.dim,
    r = call.r,
    row = (<usize>call.vocab) << 2,
    s = call.s,
    hs = call.hs;
  let h = hs;
  for (let i = 0; i < n; i++) {
    let p = call.a + (idAt(call.ids, i) << 2);
    for (let q = 0; q < r; q++) {
      store<f32>(h, s * load<f32>(p));
      h += 4;
      p += row;
    }
  }
  gemmNT(n, dim, r, 1, hs, r, call.b, r, 1, call.y, dim, call.scratch);
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
  if (db != 0) gemmTN(dim, r, n, 1, dy, dim, call.hs, r, 1, db, r, scratch);
  if (da == 0) return;
  gemmNN(n, r, dim, call.s, dy, dim, call.b, r, 0, zs, r, scratch);
  let z = zs;
  for (let i = 0; i < n; i++) {
    const id = idAt(call.ids, i),
      factor = factorAt(call.f, i);
    let p = da + (id << 2);
    for (let q = 0; q < r; q++) {
      if (<i32>id != paddingIdx) store<f32>(p, load<f32>(p) + factor * load<f32>(z));
      z += 4;
      p += row;
    }
  }
}
