/**
 * Embedding look-up with LoRA branches. Kernels: assembly/nn/embedding.ts, embedding_renorm.ts,
 * assembly/lora/embedding.ts.
 */
import { engine } from "../../runtime/engine.js";
import { checkOptions } from "../../runtime/options.js";
import { checkBoolean, checkIndices, checkInteger, checkNumber, checkTensor, checkWeight } from "../../tensor/check.js";
import { formatOf } from "../../tensor/dtype.js";
import { allOrNothing, onFailure } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";
import { termsOf } from "./branch.js";

/** torch.nn.functional.embedding's options. */
export interface EmbeddingOptions {
  /** The row that gets no gradient; a negative one counts from the end. Default null: none. */
  paddingIdx?: number | null | undefined;
  /** Rows that are looked up and whose norm is above it are scaled down to it, in place. Default null: none are. */
  maxNorm?: number | null | undefined;
  /** p > 0 of the p-norm for maxNorm; Infinity is allowed. Default 2. */
  normType?: number | undefined;
  /** Whether a row's gradient is divided by how often its id was looked up in this call. Default false. */
  scaleGradByFreq?: boolean | undefined;
}

/** One low-rank term: y[from .. to - 1] += scaling * Aᵀ[ids[from .. to - 1]] Bᵀ. */
export interface EmbeddingBranch {
  /** [r, vocab] */
  loraA: Tensor;
  /** [dim, r] */
  loraB: Tensor;
  /** loraAlpha / r */
  scaling: number;
  /** The part of ids' first dimension that takes this branch is from .. to - 1. Default 0. */
  from?: number | undefined;
  /** Where that part ends: the position behind its last one. Default: the first dimension's size. */
  to?: number | undefined;
}

/** The options with their defaults, paddingIdx counted from the start. @throws ArgumentError @internal */
export function checkEmbeddingOptions(
  where: string,
  options: EmbeddingOptions,
  vocab: number,
): Required<EmbeddingOptions> {
  checkOptions(where, options, ["paddingIdx", "maxNorm", "normType", "scaleGradByFreq"]);
  const { paddingIdx = null, maxNorm = null, normType = 2, scaleGradByFreq = false } = options;
  if (paddingIdx !== null) checkInteger(where, "paddingIdx", paddingIdx, -vocab, vocab - 1);
  if (maxNorm !== null) checkNumber(where, "maxNorm", maxNorm, 0);
  if (normType !== Infinity) checkNumber(where, "normType", normType, Number.MIN_VALUE);
  checkBoolean(where, "scaleGradByFreq", scaleGradByFreq);
  return {
    paddingIdx: paddingIdx !== null && paddingIdx < 0 ? paddingIdx + vocab : paddingIdx,
    maxNorm,
    normType,
    scaleGradByFreq,
  };
}

/**
 * y[..., :] = W[ids], plus scaling * Aᵀ[ids] Bᵀ for each branch, in the order given.
 *
 * maxNorm also applies to the columns of each loraA that its ids name, and scaleGradByFreq to its
 * gradient, with counts over its ids (loralib passes both on). Renorm happens in every call, under
 * noGrad() too, and writes into `weight` and loraA: do not use them in the graph before this call.
 *
 * Source: torch.nn.functional.embedding and embedding_renorm_; loralib.Embedding.forward.
 * @param ids int32 of any shape, values in 0 .. vocab - 1
 * @param weight [vocab, dim]; may be of a half dtype, and becomes float32 if there is a maxNorm
 * @param branches default: none
 * @returns [...ids.shape, dim]
 * @throws ArgumentError for an id, an option or a range out of bounds; ShapeError, DTypeError, DisposedError
 *
 * @example
 * const ids = tensor(new Int32Array([2, 0]));
 * console.log(ops.embedding(ids, tensor([[1, 2], [3, 4], [5, 6]])).data); // Float32Array(4) [ 5, 6, 1, 2 ]
 */
export function embedding(
  ids: Tensor,
  weight: Tensor,
  options: EmbeddingOptions = {},
  branches: readonly EmbeddingBranch[] = [],
): Tensor {
  return embeddingAt("embedding", ids, weight, options, branches);
}

/** `embedding` of a layer, whose name `where` begins the messages of errors. @internal */
export function embeddingAt(
  where: string,
  ids: Tensor,
  weight: Tensor,
  options: EmbeddingOptions,
  branches: readonly EmbeddingBranch[],
): Tensor {
  checkWeight(where, "weight", weight, [null, null]);
  checkTensor(where, "ids", ids, "int32");
  const [vocab, dim] = weight.shape as [number, number];
  const { paddingIdx, maxNorm, normType, scaleGradByFreq } = checkEmbeddingOptions(where, options, vocab);
  checkIndices(where, "ids", ids, vocab);
  const n = ids.size;
  const parts = ids.shape[0] ?? 1;
  const terms = termsOf(where, branches, {
    inputs: [vocab],
    shapeB: (r) => [dim, r],
    parts,
    items: parts === 0 ? 0 : n / parts,
  });

  const { kernels, memory, scratch } = engine();
  const factors = terms.flatMap(({ a, b }) => [a!, b!]);
  const padding = paddingIdx ?? -1;
  const renorm = (maximum: number): void =>
    memory.withBlocks([vocab * 4], (seen) => {
      weight.widen();
      for (const t of [weight, ...terms.map(({ a }) => a!)]) {
        // Should this scope run out of memory later, the rows are put back: the step done again starts from them.
        onFailure(t, () => {
          const before = t.data.slice();
          return () => {
            if (!t.disposed) t.set(before);
          };
        });
      }
      kernels.embeddingRenorm({
        w: weight.address,
        ids: ids.address,
        n,
        dim,
        rowStride: dim,
        elementStride: 1,
        maxNorm: maximum,
        p: normType,
        seen,
      });
      for (const { a, r, first, count } of terms) {
        kernels.embeddingRenorm({
          w: a!.address,
          ids: ids.address + first * 4,
          n: count,
          dim: r,
          rowStride: 1,
          elementStride: vocab,
          maxNorm: maximum,
          p: normType,
          seen,
        });
      }
    });
  /**
   * Runs `use` with the address of one factor for each of `count` ids from `first` on, by which its gradient is
   * multiplied; with 0 where all are 1.
   */
  const withFactors = (first: number, count: number, use: (factors: number) => void): void => {
    if (!scaleGradByFreq) return use(0);
    memory.withBlocks([vocab * 4, count * 4], (counts, factors) => {
      kernels.embeddingFactors(factors, ids.address + first * 4, count, counts);
      use(factors);
    });
  };

  return allOrNothing(() => {
    const y = new Tensor([...ids.shape, dim]);
    const hidden = terms.map(({ r, count }) => new Tensor([count, r]));
    if (maxNorm !== null) renorm(maxNorm);
    kernels.embeddingForward(y.address, weight.address, ids.address, n, dim, formatOf(weight.dtype));
    for (const [i, t] of terms.entries()) {
      kernels.loraEmbeddingForward({
        y: y.address + t.first * dim * 4,
        ids: ids.address + t.first * 4,
        a: t.a!.address,
        b: t.b!.address,
        hs: hidden[i]!.address,
        n: t.count,
        dim,
        r: t.r,
        vocab,
        s: t.s,
        scratch,
      });
    }
    const tables = [weight, ...factors];
    return record(
      y,
      tables,
      (dy) => {
        const dw = gradient(weight);
        if (dw)
          withFactors(0, n, (factors) =>
            kernels.embeddingBackward(dw, dy.address, ids.address, factors, n, dim, padding),
          );
        for (const [i, t] of terms.entries()) {
          const { first, count } = t;
          const da = gradient(t.a);
          const db = gradient(t.b);
          if (!da && !db) continue;
          withFactors(first, count, (f) =>
            memory.withBlocks([count * t.r * 4], (zs) =>
              kernels.loraEmbeddingBackward({
                da,
                db,
                dy: dy.address + first * dim * 4,
                ids: ids.address + first * 4,
                f,
                b: t.b!.address,
                hs: hidden[i]!.address,
                n: count,
                dim,
                r: t.r,
                vocab,
                s: t.s,
                paddingIdx: padding,
                zs,
                scratch,
              }),
            ),
          );
        }
      },
      hidden,
      [ids, ...tables],
    );
  });
}
