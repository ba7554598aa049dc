/** The LoRA linear op, of which the plain linear layer is the case r = 0. Kernels: assembly/lora/linear.ts. */
import { engine } from "../../runtime/engine.js";
import { checkLastDimension, checkNumber, checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import type { DropoutMask } from "../../random/seed.js";
import { dropoutKernels } from "./dropout.js";
import { gradient, record } from "../tape.js";

export interface LoraFactors {
  /** [r, inFeatures] */
  loraA: Tensor;
  /** [outFeatures, r] */
  loraB: Tensor;
  /** loraAlpha / r */
  scaling: number;
  /** Dropout on the branch's input; null in evaluation or when p = 0. */
  mask: DropoutMask | null;
}

/**
 * y = x T(W)ᵀ + bias + scaling * (dropout(x) Aᵀ) Bᵀ, T(W) = Wᵀ if fanInFanOut.
 *
 * @param x [..., inFeatures]
 * @param weight [outFeatures, inFeatures], or transposed if fanInFanOut
 * @param bias [outFeatures] or null
 * @throws ShapeError, DTypeError, DisposedError
 * Source: Hu et al. 2021; loralib.Linear.forward.
 */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null, lora: LoraFactors | null = null, fanInFanOut = false, where = "linear"): Tensor {
  checkTensor(where, "weight", weight, "float32", [null, null]);
  const [d, k] = fanInFanOut ? [weight.shape[0]!, weight.shape[1]!] : [weight.shape[1]!, weight.shape[0]!];
  checkTensor(where, "x", x);
  checkLastDimension(where, "x", x, d, "inFeatures");
  if (bias) checkTensor(where, "bias", bias, "float32", [k]);
  if (lora) {
    checkTensor(where, "loraA", lora.loraA, "float32", [null, d]);
    checkTensor(where, "loraB", lora.loraB, "float32", [k, lora.loraA.shape[0]!]);
    checkNumber(where, "scaling", lora.scaling, -Infinity);
  }
  const { loraA: a, loraB: b, scaling: s, mask } = lora ?? { loraA: null, loraB: null, scaling: 0, mask: null };
  const { kernels, memory, scratch } = engine();
  const n = x.size / d, r = a ? a.shape[0]! : 0;
  const branchBytes = mask ? x.size * 4 : 0;
  const dropped = (block: number): number => {
    if (!mask) return x.address;
    dropoutKernels.forward(block, x.address, x.size, mask);
    return block;
  };
  return allOrNothing(() => {
    const y = new Tensor([...x.shape.slice(0, -1), k]), hs = new Tensor([n, r]);
    memory.withBlocks([branchBytes], (block) => kernels.loraLinearForward(
      n, d, k, r, s, x.address, dropped(block!), weight.address, fanInFanOut, bias?.address ?? 0,
      a?.address ?? 0, b?.address ?? 0, hs.address, y.address, scratch));
    return record(y, [x, weight, bias, a, b], (dy) => memory.withBlocks([n * r * 4, branchBytes, branchBytes], (zs, block, dblock) => {
      const dx = gradient(x), dxDropped = mask && dx ? dblock! : 0;
      kernels.loraLinearBackward(n, d, k, r, s, x.address, dropped(block!), weight.address, fanInFanOut, a?.address ?? 0, b?.address ?? 0,
        hs.address, zs!, dy.address, dx, dxDropped, gradient(weight), gradient(bias), gradient(a), gradient(b), scratch);
      if (dxDropped) dropoutKernels.backward(dx, dxDropped, x.size, mask!);
    }), [hs]);
  });
}
