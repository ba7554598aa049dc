/** The LoRA linear op, of which the plain linear layer is the case r = 0. Kernels: assembly/lora/linear.ts. */
import { engine } from "../../runtime/engine.js";
import { checkLastDimension, checkTensor } from "../../tensor/check.js";
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
  const r = lora ? lora.loraA.shape[0]! : 0;
  if (lora) {
    checkTensor(where, "loraA", lora.loraA, "float32", [r, d]);
    checkTensor(where, "loraB", lora.loraB, "float32", [k, r]);
  }
  const { kernels, memory, scratch } = engine();
  const n = d === 0 ? 0 : x.size / d;
  const s = lora?.scaling ?? 0;
  const mask = lora?.mask ?? null;
  const y = new Tensor([...x.shape.slice(0, -1), k]);
  const hs = new Tensor([n, r]);
  const a = lora?.loraA ?? null, b = lora?.loraB ?? null;

  const dropped = mask ? memory.alloc(x.size * 4) : x.address;
  if (mask) dropoutKernels.forward(dropped, x.address, x.size, mask);
  kernels.loraLinearForward(n, d, k, r, s, x.address, dropped, weight.address, fanInFanOut, bias?.address ?? 0,
    a?.address ?? 0, b?.address ?? 0, hs.address, y.address, scratch);
  if (mask) memory.free(dropped);

  return record(y, [x, weight, bias, a, b], (dy) => {
    const zs = memory.alloc(n * r * 4);
    const xDropped = mask ? memory.alloc(x.size * 4) : x.address;
    if (mask) dropoutKernels.forward(xDropped, x.address, x.size, mask);
    const dx = gradient(x);
    const dxDropped = mask && dx ? memory.alloc(x.size * 4) : 0;
    kernels.loraLinearBackward(n, d, k, r, s, x.address, xDropped, weight.address, fanInFanOut, a?.address ?? 0, b?.address ?? 0,
      hs.address, zs, dy.address, dx, dxDropped, gradient(weight), gradient(bias), gradient(a), gradient(b), scratch);
    if (dxDropped) {
      dropoutKernels.backward(dx, dxDropped, x.size, mask!);
      memory.free(dxDropped);
    }
    if (mask) memory.free(xDropped);
    memory.free(zs);
  }, [hs]);
}
