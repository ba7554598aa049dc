/** Causal attention and the rotary embedding of steps in a row, as the models' default forward makes them. */
import { ops, tensor, type Tensor } from "../../src/index.js";

/** Query t of q sees the keys up to its own position, keys - queries + t. */
export function causalAttention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  const [batch, queries] = q.shape as [number, number];
  return ops.attention(q, k, v, { ranges: ops.attentionRanges({ batch, queries, keys: k.shape[1]! }) });
}

/** first, first + 1, ...: int32 [batch, steps]. */
export function positionsFrom(first: number, batch: number, steps: number): Tensor {
  return tensor(
    Int32Array.from({ length: batch * steps }, (_, i) => first + (i % steps)),
    [batch, steps],
  );
}

/** The angles of the default kind. */
export function ropeTable(positions: number, dim: number, theta: number): ops.RopeTable {
  return ops.ropeTable(positions, ops.ropeFrequencies(dim, theta));
}

/** x [batch, steps, heads, dim], its first step at position `first`. */
export function rope(x: Tensor, table: ops.RopeTable, first = 0): Tensor {
  return ops.rope(x, table, positionsFrom(first, x.shape[0]!, x.shape[1]!));
}
