/**
 * LoRA branch of an embedding. y[i] += s * (Aᵀ)[ids[i]] Bᵀ (loralib.Embedding).
 * Backward: dB += dyᵀ hs; dA[:, ids[i]] += f_i * s * dy[i] B; rows in ascending order.
 * The column paddingIdx of A gets no gradient (-1: none). f: as in nn/embedding.ts.
 *
 * ids: [n] i32, each in 0 .. vocab - 1. A: [r, vocab]. B: [dim, r]. y, dy: [n, dim].
 * hs = s * Aᵀ[ids] and zs = s * dy B: [n, r]. Null gradient: not wanted. scratch: sgemmScratchBytes().
 */
import { sgemmNN, sgemmNT, sgemmTN } from "../gemm/sgemm";
import { factorAt, idAt } from "../nn/embedding";

export function loraEmbeddingForward(
  n: i32,
  dim: i32,
  r: i32,
  vocab: i32,
  s: f32,
  ids: usize,
  a: usize,
  b: usize,
  hs: usize,
  y: usize,
  scratch: usize,
): void {
  let h = hs;
  for (let i = 0; i < n; i++) {
    let p = a + (idAt(ids, i) << 2);
    for (let q = 0; q < r; q++) {
      store<f32>(h, s * load<f32>(p));
      h += 4;
      p += (<usize>vocab) << 2;
    }
  }
  sgemmNT(n, dim, r, 1, hs, r, b, r, 1, y, dim, scratch);
}

export function loraEmbeddingBackward(
  n: i32,
  dim: i32,
  r: i32,
  vocab: i32,
  s: f32,
  paddingIdx: i32,
  ids: usize,
  f: usize,
  b: usize,
  hs: usize,
  zs: usize,
  dy: usize,
  da: usize,
  db: usize,
  scratch: usize,
): void {
  if (db != 0) sgemmTN(dim, r, n, 1, dy, dim, hs, r, 1, db, r, scratch);
  if (da == 0) return;
  sgemmNN(n, r, dim, s, dy, dim, b, r, 0, zs, r, scratch);
  let z = zs;
  for (let i = 0; i < n; i++) {
    const id = idAt(ids, i),
      factor = factorAt(f, i);
    let p = da + (id << 2);
    for (let q = 0; q < r; q++) {
      if (<i32>id != paddingIdx) store<f32>(p, load<f32>(p) + factor * load<f32>(z));
      z += 4;
      p += (<usize>vocab) << 2;
    }
  }
}
