/** Rotary embedding and causal attention. Kernels: assembly/nn/{rope,attention}.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkInteger, checkNumber, checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/** Angles of `rope`, by position and pair of values. */
export interface RopeTable {
  /** [positions, dim / 2] */
  cos: Tensor;
  /** [positions, dim / 2] */
  sin: Tensor;
}

/**
 * cos and sin of position * theta^(-2 i / dim) for the positions 0 .. positions - 1 and i in 0 .. dim / 2 - 1.
 * Both tensors belong to no scope: dispose of them.
 *
 * Source: Su et al. 2021; Hugging Face LlamaRotaryEmbedding without scaling.
 * @param dim head dimension, even
 * @param theta base of the frequencies, at least 1 (Llama: 10000)
 * @throws ShapeError for an odd dim; ArgumentError
 *
 * @example
 * const table = ops.ropeTable(128, 16, 10000);
 * console.log(table.cos.shape); // [ 128, 8 ]
 */
export function ropeTable(positions: number, dim: number, theta: number): RopeTable {
  checkInteger("ropeTable", "positions", positions, 1);
  checkInteger("ropeTable", "dim", dim, 2);
  if (dim % 2) throw new ShapeError(`ropeTable: dim must be even; got ${dim}.`);
  checkNumber("ropeTable", "theta", theta, 1);
  const cos = new Tensor([positions, dim / 2]).keep();
  const sin = new Tensor([positions, dim / 2]).keep();
  engine().kernels.ropeTable(cos.address, sin.address, positions, dim / 2, theta);
  return { cos, sin };
}

/**
 * Rotates each head by its position, `first` + t: value i and value i + dim / 2 are a pair.
 *
 * Source: Su et al. 2021; Hugging Face apply_rotary_pos_emb (rotate_half).
 * @param x [batch, steps, heads, dim]
 * @param table from `ropeTable`, for this dim
 * @param first position of x's first step: 0, or the number of steps that are cached
 * @returns x's shape
 * @throws ShapeError if the table has too few positions or another dim; DTypeError, ArgumentError
 *
 * @example
 * const y = ops.rope(ones([1, 4, 2, 8]), ops.ropeTable(16, 8, 10000)); // [1, 4, 2, 8]
 */
export function rope(x: Tensor, table: RopeTable, first = 0): Tensor {
  checkTensor("rope", "table.cos", table?.cos, "float32", [null, null]);
  checkTensor("rope", "table.sin", table.sin, "float32", table.cos.shape);
  checkTensor("rope", "x", x, "float32", [null, null, null, table.cos.shape[1]! * 2]);
  checkInteger("rope", "first", first, 0);
  const [batch, steps, heads, dim] = x.shape as [number, number, number, number];
  if (first + steps > table.cos.shape[0]!) {
    throw new ShapeError(`rope: positions up to ${first + steps} are needed; the table has ${table.cos.shape[0]}.`);
  }
  const { kernels } = engine();
  const y = new Tensor(x.shape);
  const { cos, sin } = table;
  kernels.ropeForward({
    y: y.address,
    x: x.address,
    cos: cos.address,
    sin: sin.address,
    batch,
    steps,
    heads,
    dim,
    first,
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
        batch,
        steps,
        heads,
        dim,
        first,
      }),
    [],
    [cos, sin],
  );
}

/**
 * softmax(q kᵀ / sqrt(dim) + causal mask) v. Query t sees keys up to keys - queries + t, so q may be
 * the last rows of a sequence whose earlier keys are cached. Heads of q share key/value heads evenly.
 *
 * Source: Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries); torch scaled_dot_product_attention.
 * @param q [batch, queries, heads, dim]
 * @param k [batch, keys, kvHeads, dim], keys at least queries, heads a multiple of kvHeads
 * @param v k's shape
 * @returns q's shape
 * @throws ShapeError, DTypeError, DisposedError
 *
 * @example
 * const k = zeros([1, 6, 2, 8]), v = ones([1, 6, 2, 8]);
 * const y = ops.causalAttention(zeros([1, 6, 4, 8]), k, v); // [1, 6, 4, 8]
 */
export function causalAttention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  const where = "causalAttention";
  checkTensor(where, "q", q, "float32", [null, null, null, null]);
  const [batch, queries, heads, dim] = q.shape as [number, number, number, number];
  checkTensor(where, "k", k, "float32", [batch, null, null, dim]);
  const [, keys, kvHeads] = k.shape as [number, number, number, number];
  checkTensor(where, "v", v, "float32", [batch, keys, kvHeads, dim]);
  if (keys < queries) throw new ShapeError(`${where}: ${queries} queries need at least as many keys; got ${keys}.`);
  if (kvHeads === 0 || heads % kvHeads)
    throw new ShapeError(`${where}: heads = ${heads} must be a multiple of kvHeads = ${kvHeads}.`);
  const { kernels, memory, scratch } = engine();
  const scale = 1 / Math.sqrt(dim);
  const block = kernels.attentionProbsBytes(keys);
  return allOrNothing(() => {
    const y = new Tensor(q.shape);
    memory.withBlocks([block], (probs) =>
      kernels.attentionForward({
        y: y.address,
        q: q.address,
        k: k.address,
        v: v.address,
        batch,
        queries,
        keys,
        heads,
        kvHeads,
        dim,
        scale,
        probs,
        scratch,
      }),
    );
    return record(y, [q, k, v], (dy) =>
      memory.withBlocks([block, block], (probs, dprobs) =>
        kernels.attentionBackward({
          dq: gradient(q),
          dk: gradient(k),
          dv: gradient(v),
          dy: dy.address,
          q: q.address,
          k: k.address,
          v: v.address,
          batch,
          queries,
          keys,
          heads,
          kvHeads,
          dim,
          scale,
          probs,
          dprobs,
          scratch,
        }),
      ),
    );
  });
}
