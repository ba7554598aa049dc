/**
 * Embedding. y[i] = W[ids[i]]; backward: dW[ids[i]] += f_i * dy[i], rows in ascending order.
 * The row paddingIdx gets no gradient (-1: none). f: [n], or null for 1 (torch's scale_grad_by_freq
 * makes it 1 / count, see embeddingFactors).
 *
 * ids: [n] i32, each in 0 .. vocab - 1. W, dW: [vocab, dim], W of a format (gemm/half.ts). y, dy: [n, dim].
 * Source: torch.nn.functional.embedding.
 */
import { widenFrom } from "../gemm/blocks";
import { F32, stored } from "../gemm/half";
import { first, here, last, LINE, part, split } from "../threads";
import { axpyValues } from "./elementwise";

export function embeddingForward(y: usize, w: usize, ids: usize, n: i32, dim: i32, format: i32): void {
  const row = stored(dim, format);
  for (split(n, <f64>dim); part(); )
    for (let i = first; i < last; i++) {
      const from = w + idAt(ids, i) * row,
        to = y + <usize>i * stored(dim, F32);
      if (format == F32) memory.copy(to, from, row);
      else widenFrom(to, from, 0, dim, format);
    }
}

export function embeddingBackward(dw: usize, dy: usize, ids: usize, f: usize, n: i32, dim: i32, paddingIdx: i32): void {
  const row = (<usize>dim) << 2;
  // By columns: the same row may be named more than once.
  for (split(dim, <f64>n, LINE); part(); )
    for (let i = 0; i < n; i++) {
      const id = idAt(ids, i);
      if (<i32>id != paddingIdx)
        axpyValues(here(dw + id * row), here(dy + <usize>i * row), last - first, factorAt(f, i));
    }
}

/** f[i] = 1 / (how often ids[i] is among ids). counts: [vocab] i32, working space. */
export function embeddingFactors(f: usize, ids: usize, n: i32, counts: usize): void {
  for (let i = 0; i < n; i++) store<i32>(counts + (idAt(ids, i) << 2), 0);
  for (let i = 0; i < n; i++) {
    const count = counts + (idAt(ids, i) << 2);
    store<i32>(count, load<i32>(count) + 1);
  }
  for (let i = 0; i < n; i++) store<f32>(f + ((<usize>i) << 2), 1 / <f32>load<i32>(counts + (idAt(ids, i) << 2)));
}

// @ts-ignore: decorator
@inline
export function idAt(ids: usize, i: i32): usize {
  return <usize>load<i32>(ids + ((<usize>i) << 2));
}

// @ts-ignore: decorator
@inline
export function factorAt(f: usize, i: i32): f32 {
  return f == 0 ? 1 : load<f32>(f + ((<usize>i) << 2));
}
