/** Rotary embedding. Kernel: assembly/nn/rope.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkFloat, checkIndices, checkInteger, checkNumber, checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/** Angles of `rope`, by position and pair of values. */
export interface RopeTable {
  /** [positions, pairs] */
  cos: Tensor;
  /** [positions, pairs] */
  sin: Tensor;
}

/**
 * theta^(-2 i / dim) for i in 0 .. dim / 2 - 1: what a position is multiplied by to get the angle of pair i.
 *
 * Source: Su et al. 2021; Hugging Face LlamaRotaryEmbedding without scaling.
 * @param dim number of values that are rotated, even
 * @param theta base of the frequencies, at least 1 (Llama: 10000)
 * @returns [dim / 2]
 * @throws ShapeError for an odd dim; ArgumentError
 *
 * @example
 * console.log(ops.ropeFrequencies(4, 10000).data[0]); // 1
 */
export function ropeFrequencies(dim: number, theta: number): Tensor {
  checkInteger("ropeFrequencies", "dim", dim, 2);
  if (dim % 2) throw new ShapeError(`ropeFrequencies: dim must be even; got ${dim}.`);
  checkNumber("ropeFrequencies", "theta", theta, 1);
  return new Tensor([dim / 2]).set(powersOf(theta, dim / 2).map((power) => 1 / power));
}

/** theta^(j / pairs) for j < pairs. @internal */
export function powersOf(theta: number, pairs: number): Float32Array {
  const { exp64, log64 } = engine().kernels;
  const logTheta = log64(theta);
  return Float32Array.from({ length: pairs }, (_, j) => exp64(logTheta * (j / pairs)));
}

/**
 * cos and sin of position * frequency for the positions 0 .. positions - 1, times attentionFactor.
 *
 * Source: Su et al. 2021; transformers, modeling_rope_utils.py (attention_factor).
 * @param frequencies [pairs], as of `ropeFrequencies`
 * @param attentionFactor default 1
 * @throws ShapeError, DTypeError, DisposedError, ArgumentError
 *
 * @example
 * const table = ops.ropeTable(128, ops.ropeFrequencies(16, 10000));
 * console.log(table.cos.shape); // [ 128, 8 ]
 */
export function ropeTable(positions: number, frequencies: Tensor, attentionFactor = 1): RopeTable {
  checkInteger("ropeTable", "positions", positions, 1);
  checkTensor("ropeTable", "frequencies", frequencies, "float32", [null]);
  checkFloat("ropeTable", "attentionFactor", attentionFactor);
  const pairs = frequencies.size;
  return allOrNothing(() => {
    const cos = new Tensor([positions, pairs]);
    const sin = new Tensor([positions, pairs]);
    engine().kernels.ropeTable(cos.address, sin.address, frequencies.address, positions, pairs, attentionFactor);
    return { cos, sin };
  });
}

/**
 * Rotates each head by its position: value i and value i + pairs are a pair. A head may have more values than the table
 * has pairs for; the rest passes through (partial rotary embedding).
 *
 * Source: Su et al. 2021; Hugging Face apply_rotary_pos_emb (rotate_half).
 * @param x [batch, steps, heads, dim]
 * @param table from `ropeTable`, of at most dim / 2 pairs
 * @param positions int32 [batch, steps], rows of the table
 * @returns x's shape
 * @throws ShapeError if the table has more pairs; ArgumentError for a position that it has not; DTypeError
 *
 * @example
 * const table = ops.ropeTable(16, ops.ropeFrequencies(8, 10000));
 * const y = ops.rope(ones([1, 3, 2, 8]), table, tensor(new Int32Array([4, 5, 6]), [1, 3])); // [1, 3, 2, 8]
 */
export function rope(x: Tensor, table: RopeTable, positions: Tensor): Tensor {
  checkTensor("rope", "table.cos", table?.cos, "float32", [null, null]);
  checkTensor("rope", "table.sin", table.sin, "float32", table.cos.shape);
  const { cos, sin } = table;
  const [count, pairs] = cos.shape as [number, number];
  checkTensor("rope", "x", x, "float32", [null, null, null, null]);
  const [batch, steps, heads, dim] = x.shape as [number, number, number, number];
  if (2 * pairs > dim)
    throw new ShapeError(`rope: the table has ${pairs} pairs; x has shape [${x.shape}], so at most ${dim >> 1} fit.`);
  checkTensor("rope", "positions", positions, "int32", [batch, steps]);
  checkIndices("rope", "positions", positions, count);
  const { kernels } = engine();
  const y = new Tensor(x.shape);
  kernels.ropeForward({
    y: y.address,
    x: x.address,
    cos: cos.address,
    sin: sin.address,
    positions: positions.address,
    rows: batch * steps,
    heads,
    dim,
    pairs,
  });
  return record(
    y,
    [x],
    (dy) =>
      kernels.ropeBackward({
        dx: gradient(x),
        dy: dy.address,
        cos: cos.address,
        sin: sin.address,
        positions: positions.address,
        rows: batch * steps,
        heads,
        dim,
        pairs,
      }),
    [],
    [cos, sin, positions],
  );
}
