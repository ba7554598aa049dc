/**
 * The LoRA linear op, of which the plain linear layer is the case without branches. Kernels: assembly/lora/linear.ts.
 */
import { engine } from "../../runtime/engine.js";
import { checkBias, checkBoolean, checkLastDimension, checkTensor, checkWeight } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import type { DropoutMask } from "../../random/seed.js";
import { addressOf, dropped, droppedBytes, noTerm, type Term, termsOf, withDropped } from "./branch.js";
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
  /** The row behind the last that takes the term. Default: the size of x's first dimension. */
  to?: number | undefined;
}

/**
 * y = x T(W)ᵀ + bias + the terms of the branches, T(W) = Wᵀ if fanInFanOut. One accumulator an element:
 * bias, then the sum over W, then over each branch in turn.
 *
 * Source: Hu et al. 2021; loralib.Linear.forward; with several branches PEFT's lora.Linear.forward.
 * @param x [..., inFeatures]
 * @param weight [outFeatures, inFeatures], or transposed if fanInFanOut; may be of a half dtype
 * @param bias [outFeatures] or null
 * @param branches default: none
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
): Tensor {
  return linearAt("linear", x, weight, bias, branches, fanInFanOut);
}

/** `linear` of a layer, whose name `where` begins the messages of errors. @internal */
export function linearAt(
  where: string,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  branches: readonly LoraBranch[],
  fanInFanOut: boolean,
): Tensor {
  checkWeight(where, "weight", weight, [null, null]);
  checkBoolean(where, "fanInFanOut", fanInFanOut);
  const [d, k] = fanInFanOut ? [weight.shape[0]!, weight.shape[1]!] : [weight.shape[1]!, weight.shape[0]!];
  checkTensor(where, "x", x);
  checkLastDimension(where, "x", x, d, "inFeatures");
  bias = checkBias(where, bias, k);
  const n = sizeOf(x.shape.slice(0, -1));
  const parts = x.rank > 1 ? x.shape[0]! : 1;
  const terms = termsOf(where, branches, {
    inputs: [d],
    shapeB: (r) => [k, r],
    parts,
    items: parts === 0 ? 0 : n / parts,
  });
  // The first term shares the pass over W if it is for every row; the others follow in the same accumulators.
  const isFused = terms[0]?.count === n;
  const fused = isFused ? terms[0]! : noTerm(0);
  const others = isFused ? terms.slice(1) : terms;
  const { kernels, memory, scratch } = engine();
  const atX = (t: Term): number => x.address + t.first * d * 4;
  return allOrNothing(() => {
    const y = new Tensor([...x.shape.slice(0, -1), k]);
    const hidden = [fused, ...others].map(({ count, r }) => new Tensor([count, r]));
    memory.withBlocks([droppedBytes(fused, d)], (block) =>
      kernels.loraLinearForward({
        y: y.address,
        x: x.address,
        xDropped: dropped(fused, x.address, d, block),
        weight: weight.address,
        bias: addressOf(bias),
        a: addressOf(fused.a),
        b: addressOf(fused.b),
        hs: hidden[0]!.address,
        n,
        d,
        k,
        r: fused.r,
        s: fused.s,
        fanInFanOut,
        format: weight.format,
        scratch,
      }),
    );
    for (const [i, t] of others.entries()) {
      memory.withBlocks([droppedBytes(t, d)], (block) =>
        kernels.loraBranchForward({
          y: y.address + t.first * k * 4,
          xDropped: dropped(t, atX(t), d, block),
          a: addressOf(t.a),
          b: addressOf(t.b),
          hs: hidden[i + 1]!.address,
          n: t.count,
          d,
          k,
          r: t.r,
          s: t.s,
          scratch,
        }),
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
        const dWeight = gradient(weight);
        const da = gradient(fused.a);
        memory.withBlocks([n * fused.r * 4], (zs) =>
          withDropped(fused, d, da && x.address, dx, (xDropped, dxDropped) =>
            kernels.loraLinearBackward({
              dx,
              dxDropped,
              dWeight,
              dBias: gradient(bias),
              da,
              db: gradient(fused.b),
              dy: dy.address,
              x: dWeight && x.address,
              xDropped,
              weight: weight.address,
              a: addressOf(fused.a),
              b: addressOf(fused.b),
              hs: hidden[0]!.address,
              n,
              d,
              k,
              r: fused.r,
              s: fused.s,
              fanInFanOut,
              format: weight.format,
              zs,
              scratch,
            }),
          ),
        );
        for (const [i, t] of others.entries()) {
          const da = gradient(t.a);
          const dxRows = dx && dx + t.first * d * 4;
          memory.withBlocks([t.count * t.r * 4], (zs) =>
            withDropped(t, d, da && atX(t), dxRows, (xDropped, dxDropped) =>
              kernels.loraBranchBackward({
                dx: dxRows,
                dxDropped,
                da,
                db: gradient(t.b),
                dy: dy.address + t.first * k * 4,
                xDropped,
                a: addressOf(t.a),
                b: addressOf(t.b),
                hs: hidden[i + 1]!.address,
                n: t.count,
                d,
                k,
                r: t.r,
                s: t.s,
                zs,
                scratch,
              }),
            ),
          );
        }
      },
      hidden,
      [readsX ? x : null, weight, ...factors],
    );
  });
}
