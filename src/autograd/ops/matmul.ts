/** The matrix product, by sgemm. Kernels: assembly/gemm/sgemm.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkTensor } from "../../tensor/check.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";
import { commonShape, spreadStrides } from "./strides.js";

/**
 * The matrix product a b of the last two dimensions; dimensions before them are repeated as in `add`. A vector is a row
 * on the left and a column on the right, and the result lacks that dimension. Sums ascend along k, in float32.
 *
 * Source: torch.matmul.
 * @param a [..., n, k] or [k]
 * @param b [..., k, m] or [k]
 * @returns [..., n, m]; [..., n] or [..., m] of a matrix and a vector; [] of two vectors
 * @throws ShapeError, DTypeError, DisposedError
 *
 * @example
 * const product = ops.matmul(tensor([[1, 2], [3, 4]]), tensor([[5, 6], [7, 8]]));
 * console.log(product.data); // Float32Array(4) [ 19, 22, 43, 50 ]
 * const scores = ops.matmul(ones([2, 4, 3, 8]), ones([8, 5])); // [2, 4, 3, 5]
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  const where = "matmul";
  checkTensor(where, "a", a);
  checkTensor(where, "b", b);
  const shapes = `${where}: a has shape [${a.shape}], b [${b.shape}];`;
  if (a.rank === 0 || b.rank === 0)
    throw new ShapeError(`${shapes} expected at least one dimension; use mul for scalars.`);
  const [n, k] = (a.rank === 1 ? [1, ...a.shape] : a.shape.slice(-2)) as [number, number];
  const [rowsOfB, m] = (b.rank === 1 ? [...b.shape, 1] : b.shape.slice(-2)) as [number, number];
  if (k !== rowsOfB)
    throw new ShapeError(`${shapes} a's last dimension, ${k}, must be the number of b's rows, ${rowsOfB}.`);
  const ofA = a.shape.slice(0, -2);
  const ofB = b.shape.slice(0, -2);
  const batch = commonShape(where, ofA, ofB, "batches");
  // All matrices of a lie one below the other: with one b they are one matrix.
  const isOne = sizeOf(ofB) === 1;
  const rows = isOne ? n * sizeOf(ofA) : n;
  const placesA = isOne ? [0] : places(ofA, batch);
  const placesB = isOne ? [0] : places(ofB, batch);

  const { kernels, scratch } = engine();
  const y = new Tensor([...batch, ...(a.rank > 1 ? [n] : []), ...(b.rank > 1 ? [m] : [])]);
  const each = (visit: (atA: number, atB: number, atY: number) => void): void => {
    for (const [i, p] of placesA.entries()) visit(p * n * k * 4, placesB[i]! * k * m * 4, i * n * m * 4);
  };
  each((p, q, o) =>
    kernels.sgemmNN({
      c: y.address + o,
      a: a.address + p,
      b: b.address + q,
      m: rows,
      n: m,
      k,
      ldc: m,
      lda: k,
      ldb: m,
      alpha: 1,
      beta: 0,
      scratch,
    }),
  );
  return record(y, [a, b], (dy) => {
    const da = gradient(a);
    const db = gradient(b);
    each((p, q, o) => {
      const at = dy.address + o;
      const [atA, atB] = [a.address + p, b.address + q];
      const [alpha, beta] = [1, 1];
      if (da)
        kernels.sgemmNT({
          c: da + p,
          a: at,
          b: atB,
          m: rows,
          n: k,
          k: m,
          ldc: k,
          lda: m,
          ldb: m,
          alpha,
          beta,
          scratch,
        });
      if (db)
        kernels.sgemmTN({
          c: db + q,
          a: atA,
          b: at,
          m: k,
          n: m,
          k: rows,
          ldc: m,
          lda: k,
          ldb: m,
          alpha,
          beta,
          scratch,
        });
    });
  });
}

/** Which matrix of `own` each one of `batch` takes. */
function places(own: readonly number[], batch: readonly number[]): number[] {
  const strides = spreadStrides(own, batch);
  return batch.reduce<number[]>(
    (all, size, i) => all.flatMap((at) => Array.from({ length: size }, (_, j) => at + j * strides[i]!)),
    [0],
  );
}
