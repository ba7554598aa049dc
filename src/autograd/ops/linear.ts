/**
 * The LoRA linear op, of which the plain linear layer is the case without branches. Kernels: assembly/lora/linear.ts.
 */
import { engine } from "../../runtime/engine.js";
import {
  checkBias,
  checkBoolean,
  checkFloat,
  checkInteger,
  checkLastDimension,
  checkTensor,
} from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import type { DropoutMask } from "../../random/seed.js";
import { checkBranches, checkMask } from "./branches.js";
import { dropoutKernels } from "./dropout.js";
import { gradient, record } from "../tape.js";

/** One low-rank term: scaling * (dropout(x) Aᵀ) Bᵀ, for all of x or some of its rows. */
export interface LoraBranch {
  /** [r, inFeatures] */
  loraA: Tensor;
  /** [outFeatures, r] */
  loraB: Tensor;
  /** loraAlpha / r */
  scaling: number;
  /** Dropout on the branch's input, its elements counted from 0 at row `from`; null in evaluation or when p = 0. */
  mask: DropoutMask | null;
  /** The term is added for x[from], ..., x[to - 1] only, along x's first dimension. Default 0. */
  from?: number | undefined;
  /** Behind the last. Default: the first dimension's size. */
  to?: number | undefined;
}

/**
 * y = x T(W)ᵀ + bias + the terms of the branches, T(W) = Wᵀ if fanInFanOut. One accumulator an element:
 * bias, then the sum over W, then over each branch in turn.
 *
 * Source: Hu et al. 2021; loralib.Linear.forward; with several branches PEFT's lora.Linear.forward.
 * @param x [..., inFeatures]
 * @param weight [outFeatures, inFeatures], or transposed if fanInFanOut
 * @param bias [outFeatures] or null
 * @param branches default: none
 * @param where prefix of error messages
 * @returns [..., outFeatures]
 * @throws ShapeError, DTypeError, ArgumentError for a range outside x, DisposedError
 *
 * @example
 * const x = ones([2, 8]), weight = zeros([4, 8]);
 * const branch = { loraA: ones([1, 8]), loraB: ones([4, 1]), scaling: 0.5, mask: null };
 * console.log(ops.linear(x, weight, null, [branch]).data[0]); // 4
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  branches: readonly LoraBranch[] = [],
  fanInFanOut = false,
  where = "linear",
): Tensor {
  checkTensor(where, "weight", weight, "float32", [null, null]);
  checkBoolean(where, "fanInFanOut", fanInFanOut);
  const [d, k] = fanInFanOut ? [weight.shape[0]!, weight.shape[1]!] : [weight.shape[1]!, weight.shape[0]!];
  checkTensor(where, "x", x);
  checkLastDimension(where, "x", x, d, "inFeatures");
  bias = checkBias(where, bias, k);
  checkBranches(where, branches);
  const { kernels, memory, scratch } = engine();
  const n = sizeOf(x.shape.slice(0, -1));
  const terms = branches.map((branch) => term(where, branch, x, n, d, k));
  // The first term shares the pass over W if it is for every row; the others follow in the same accumulators.
  const fused = terms[0]?.rows === n ? terms[0] : NO_TERM;
  const others = fused === NO_TERM ? terms : terms.slice(1);
  return allOrNothing(() => {
    const y = new Tensor([...x.shape.slice(0, -1), k]);
    const hs = [fused, ...others].map(({ rows, r }) => new Tensor([rows, r]));
    memory.withBlocks([maskedBytes(fused, d)], (block) =>
      kernels.loraLinearForward(
        n,
        d,
        k,
        fused.r,
        fused.s,
        x.address,
        input(fused, x, d, block!),
        weight.address,
        fanInFanOut,
        bias?.address ?? 0,
        fused.a?.address ?? 0,
        fused.b?.address ?? 0,
        hs[0]!.address,
        y.address,
        scratch,
      ),
    );
    for (const [i, t] of others.entries()) {
      memory.withBlocks([maskedBytes(t, d)], (block) =>
        kernels.loraBranchForward(
          t.rows,
          d,
          k,
          t.r,
          t.s,
          input(t, x, d, block!),
          t.a!.address,
          t.b!.address,
          hs[i + 1]!.address,
          y.address + t.first * k * 4,
          scratch,
        ),
      );
    }
    const factors = terms.flatMap(({ a, b }) => [a, b]);
    // x goes into the gradients of W and of A only: where both are frozen it need not be there any more.
    const readsX = weight.requiresGrad || terms.some(({ a }) => a!.requiresGrad);
    return record(
      y,
      [x, weight, bias, ...factors],
      (dy) => {
        const dx = gradient(x);
        const dw = gradient(weight);
        const dFused = gradient(fused.a);
        memory.withBlocks(
          [n * fused.r * 4, dFused && maskedBytes(fused, d), dx && maskedBytes(fused, d)],
          (zs, block, dblock) => {
            const dxDropped = fused.mask && dx ? dblock! : 0;
            kernels.loraLinearBackward(
              n,
              d,
              k,
              fused.r,
              fused.s,
              dw && x.address,
              dFused && input(fused, x, d, block!),
              weight.address,
              fanInFanOut,
              fused.a?.address ?? 0,
              fused.b?.address ?? 0,
              hs[0]!.address,
              zs!,
              dy.address,
              dx,
              dxDropped,
              dw,
              gradient(bias),
              dFused,
              gradient(fused.b),
              scratch,
            );
            if (dxDropped) dropoutKernels.backward(dx, dxDropped, x.size, fused.mask!);
          },
        );
        for (const [i, t] of others.entries()) {
          const da = gradient(t.a);
          memory.withBlocks(
            [t.rows * t.r * 4, da && maskedBytes(t, d), dx && maskedBytes(t, d)],
            (zs, block, dblock) => {
              const dxRows = dx && dx + t.first * d * 4;
              const dxDropped = t.mask && dx ? dblock! : 0;
              kernels.loraBranchBackward(
                t.rows,
                d,
                k,
                t.r,
                t.s,
                da && input(t, x, d, block!),
                t.a!.address,
                t.b!.address,
                hs[i + 1]!.address,
                zs!,
                dy.address + t.first * k * 4,
                dxRows,
                dxDropped,
                da,
                gradient(t.b),
                scratch,
              );
              if (dxDropped) dropoutKernels.backward(dxRows, dxDropped, t.rows * d, t.mask!);
            },
          );
        }
      },
      hs,
      [readsX ? x : null, weight, ...factors],
    );
  });
}

/** A checked branch: rows `first` .. `first + rows - 1` of x as a matrix of width d. */
interface Term {
  r: number;
  s: number;
  a: Tensor | null;
  b: Tensor | null;
  mask: DropoutMask | null;
  first: number;
  rows: number;
}

/** The plain layer's: rank 0. */
const NO_TERM: Term = { r: 0, s: 0, a: null, b: null, mask: null, first: 0, rows: 0 };

function term(
  where: string,
  { loraA, loraB, scaling, mask, from, to }: LoraBranch,
  x: Tensor,
  n: number,
  d: number,
  k: number,
): Term {
  checkTensor(where, "loraA", loraA, "float32", [null, d]);
  checkTensor(where, "loraB", loraB, "float32", [k, loraA.shape[0]!]);
  checkFloat(where, "scaling", scaling);
  checkMask(where, mask);
  const [first, rows] = rowRange(where, x, n, from, to);
  return { r: loraA.shape[0]!, s: scaling, a: loraA, b: loraB, mask, first, rows };
}

/** First row and number of rows, as a matrix of n rows, of x[from] .. x[to - 1]. */
function rowRange(where: string, x: Tensor, n: number, from = 0, to?: number): [number, number] {
  const items = x.rank > 1 ? x.shape[0]! : 1;
  checkInteger(where, "from", from, 0, items);
  checkInteger(where, "to", to ?? items, from, items);
  const rowsOfItem = items === 0 ? 0 : n / items;
  return [from * rowsOfItem, ((to ?? items) - from) * rowsOfItem];
}

function maskedBytes(t: Term, d: number): number {
  return t.mask ? t.rows * d * 4 : 0;
}

/** Address of the term's rows of dropout(x), made in `block` if there is a mask. */
function input(t: Term, x: Tensor, d: number, block: number): number {
  const rows = x.address + t.first * d * 4;
  if (!t.mask) return rows;
  dropoutKernels.forward(block, rows, t.rows * d, t.mask);
  return block;
}
