/** LoRA on some blocks of a linear layer's outputs. Kernels: assembly/lora/merged_linear.ts. */
import { engine } from "../../runtime/engine.js";
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import { checkOptions } from "../../runtime/options.js";
import {
  checkBias,
  checkBoolean,
  checkFloat,
  checkLastDimension,
  checkTensor,
  checkWeight,
  shownAll,
} from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import { addressOf, checkMask, dropped, droppedBytes, type Term, withDropped } from "./branch.js";
import type { LoraBranch } from "./linear.js";
import { gradient, record } from "../tape.js";

/**
 * What `mergedLinear` adds: loraA [g r, inFeatures] and loraB [g outFeatures / blocks, r] of the g enabled blocks, in
 * order.
 */
export interface MergedLoraFactors extends Pick<LoraBranch, "loraA" | "loraB" | "scaling" | "mask"> {
  /** One entry for each of the equal blocks that outFeatures falls into; at least one is true. */
  enableLora: readonly boolean[];
}

/**
 * y = x T(W)ᵀ + bias, and for each enabled block j of the outputs, y_j += scaling * (dropout(x) A_jᵀ) B_jᵀ.
 * The factors stay factors: no [outFeatures, inFeatures] update is made, forward or backward.
 *
 * Source: loralib.MergedLinear.forward.
 * @param x [..., inFeatures]
 * @param weight [outFeatures, inFeatures], or transposed if fanInFanOut
 * @param bias [outFeatures] or null
 * @returns [..., outFeatures]
 * @throws ArgumentError if no block is enabled; ShapeError, DTypeError, DisposedError
 *
 * @example
 * const factors = { loraA: ones([1, 2]), loraB: ones([2, 1]), scaling: 1, mask: null, enableLora: [false, true] };
 * console.log(ops.mergedLinear(ones([1, 2]), zeros([4, 2]), null, factors).data); // Float32Array(4) [ 0, 0, 2, 2 ]
 */
export function mergedLinear(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  lora: MergedLoraFactors,
  fanInFanOut = false,
): Tensor {
  return mergedLinearAt("mergedLinear", x, weight, bias, lora, fanInFanOut);
}

/** `mergedLinear` of a layer, whose name `where` begins the messages of errors. @internal */
export function mergedLinearAt(
  where: string,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  lora: MergedLoraFactors,
  fanInFanOut: boolean,
): Tensor {
  checkWeight(where, "weight", weight, [null, null]);
  checkBoolean(where, "fanInFanOut", fanInFanOut);
  const [d, k] = fanInFanOut ? [weight.shape[0]!, weight.shape[1]!] : [weight.shape[1]!, weight.shape[0]!];
  checkTensor(where, "x", x);
  checkLastDimension(where, "x", x, d, "inFeatures");
  bias = checkBias(where, bias, k);
  checkOptions(where, lora ?? null, ["loraA", "loraB", "scaling", "mask", "enableLora"]);
  const { loraA: a, loraB: b, scaling: s, mask, enableLora } = lora;
  if (!Array.isArray(enableLora) || enableLora.some((on) => typeof on !== "boolean")) {
    throw new ArgumentError(`${where}: enableLora must be an array of true and false; got ${shownAll(enableLora)}.`);
  }
  const blocks = enableLora.length;
  const g = enableLora.filter(Boolean).length;
  if (g === 0) throw new ArgumentError(`${where}: enableLora [${enableLora}] must enable a block.`);
  if (k % blocks !== 0)
    throw new ShapeError(`${where}: outFeatures = ${k} must be a multiple of enableLora's length, ${blocks}.`);
  checkTensor(where, "loraA", a, "float32", [null, d]);
  const r = a.shape[0]! / g;
  if (!Number.isInteger(r) || r === 0) {
    throw new ShapeError(
      `${where}: loraA has shape [${a.shape}]; its first dimension must be r times the ${g} enabled blocks.`,
    );
  }
  checkTensor(where, "loraB", b, "float32", [g * (k / blocks), r]);
  checkFloat(where, "scaling", s);
  checkMask(where, mask);

  const { kernels, memory, scratch } = engine();
  const n = sizeOf(x.shape.slice(0, -1));
  const term: Term = { r: g * r, s, a, b, mask: mask ?? null, first: 0, count: n };
  return allOrNothing(() => {
    const y = new Tensor([...x.shape.slice(0, -1), k]);
    const hs = new Tensor([n, g * r]);
    /** Writes at `block` which blocks are enabled. */
    const flags = (block: number): number => {
      memory.i32(block, blocks).set(enableLora.map(Number));
      return block;
    };
    memory.withBlocks([blocks * 4, droppedBytes(term, d)], (enabled, block) =>
      kernels.mergedLinearForward({
        y: y.address,
        x: x.address,
        xDropped: dropped(term, x.address, d, block),
        weight: weight.address,
        bias: addressOf(bias),
        a: a.address,
        b: b.address,
        hs: hs.address,
        enabled: flags(enabled),
        blocks,
        n,
        d,
        k,
        r,
        s,
        fanInFanOut,
        format: weight.format,
        scratch,
      }),
    );
    return record(
      y,
      [x, weight, bias, a, b],
      (dy) =>
        memory.withBlocks([blocks * 4, n * term.r * 4], (enabled, zs) => {
          const dx = gradient(x);
          withDropped(term, d, x.address, dx, (xDropped, dxDropped) =>
            kernels.mergedLinearBackward({
              dx,
              dxDropped,
              dWeight: gradient(weight),
              dBias: gradient(bias),
              da: gradient(a),
              db: gradient(b),
              dy: dy.address,
              x: x.address,
              xDropped,
              weight: weight.address,
              a: a.address,
              b: b.address,
              hs: hs.address,
              enabled: flags(enabled),
              blocks,
              n,
              d,
              k,
              r,
              s,
              fanInFanOut,
              format: weight.format,
              zs,
              scratch,
            }),
          );
        }),
      [hs],
    );
  });
}
