/**
 * Embedding and its LoRA form. y[i] = W[ids[i]] + s * (Aᵀ)[ids[i]] Bᵀ (loralib.Embedding).
 * Backward: dW[ids[i]] += dy[i]; dB += dyᵀ hs; dA[:, ids[i]] += s * dy[i] B; rows in ascending order.
 * The row paddingIdx of W and the column paddingIdx of A get no gradient (-1: none), as in torch.
 *
 * ids: [n] i32, each in 0 .. vocab - 1. W: [vocab, dim]. A: [r, vocab]. B: [dim, r]. y, dy: [n, dim].
 * hs = s * Aᵀ[ids] and zs = s * dy B: [n, r]. r = 0: the plain embedding. Null gradient: not wanted.
 */
import { sgemmNN, sgemmNT, sgemmTN } from "../gemm/sgemm";

export function loraEmbeddingForward(
  n: i32, dim: i32, r: i32, vocab: i32, s: f32, ids: usize, w: usize, a: usize, b: usize, hs: usize, y: usize, scratch: usize,
): void {
  const row = <usize>dim << 2;
  for (let i: usize = 0; i < <usize>n; i++) {
    memory.copy(y + i * row, w + <usize>load<i32>(ids + (i << 2)) * row, row);
  }
  if (r == 0) return;
  for (let i: usize = 0; i < <usize>n; i++) {
    const column = a + (<usize>load<i32>(ids + (i << 2)) << 2);
    for (let q: usize = 0; q < <usize>r; q++) {
      store<f32>(hs + ((i * <usize>r + q) << 2), s * load<f32>(column + (q * <usize>vocab << 2)));
    }
  }
  sgemmNT(n, dim, r, 1, hs, r, b, r, 1, y, dim, scratch);
}

export function loraEmbeddingBackward(
  n: i32, dim: i32, r: i32, vocab: i32, s: f32, paddingIdx: i32, ids: usize, b: usize, hs: usize, zs: usize, dy: usize,
  dw: usize, da: usize, db: usize, scratch: usize,
): void {
  if (dw != 0) addRows(dw, dy, ids, n, dim, paddingIdx);
  if (db != 0) sgemmTN(dim, r, n, 1, dy, dim, hs, r, 1, db, r, scratch);
  if (da == 0) return;
  sgemmNN(n, r, dim, s, dy, dim, b, r, 0, zs, r, scratch);
  for (let i: usize = 0; i < <usize>n; i++) {
    const id = load<i32>(ids + (i << 2));
    if (id == paddingIdx) continue;
    for (let q: usize = 0; q < <usize>r; q++) {
      const p = da + ((q * <usize>vocab + <usize>id) << 2);
      store<f32>(p, load<f32>(p) + load<f32>(zs + ((i * <usize>r + q) << 2)));
    }
  }
}

function addRows(to: usize, from: usize, ids: usize, n: i32, dim: i32, paddingIdx: i32): void {
  const row = <usize>dim << 2;
  for (let i = 0; i < n; i++) {
    const id = load<i32>(ids + (<usize>i << 2));
    if (id != paddingIdx) {
      const out = to + <usize>id * row;
      for (let p: usize = 0; p < row; p += 4) store<f32>(out + p, load<f32>(out + p) + load<f32>(from + p));
    }
    from += row;
  }
}
