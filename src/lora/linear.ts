/** lora.Linear: a frozen linear layer with a trainable low-rank update. */
import { linearAt } from "../autograd/ops/linear.js";
import { Linear as PlainLinear, type LinearOptions } from "../nn/layers.js";
import { addProduct } from "../nn/merge.js";
import type { Parameter } from "../nn/module.js";
import { checkInteger } from "../tensor/check.js";
import { attempt } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkLoraOptions, type LoraOptions, withFactors } from "./layer.js";

/** Options of lora.Linear. */
export interface LoraLinearOptions extends LoraOptions, LinearOptions {
  /** Probability of dropping an element of the branch's input while training. Default 0. */
  loraDropout?: number | undefined;
}

/**
 * y = x Wᵀ + b + s * dropout(x) Aᵀ Bᵀ, s = loraAlpha / r.
 *
 * weight and bias start as torch.nn.Linear's, loraA [r, inFeatures] as kaimingUniform_(sqrt 5), loraB
 * [outFeatures, r] as zeros (loralib; the paper says N(0, σ²) for A): bit for bit those of loralib
 * after the same `manualSeed`. With r > 0 the weight is frozen; the bias trains until
 * `markOnlyLoraAsTrainable`. eval() merges the product into the weight, train() restores its bits.
 *
 * Source: Hu et al. 2021, section 4; loralib.Linear.
 * @throws ArgumentError on a size, rank, alpha or dropout out of range
 *
 * @example
 * const layer = new lora.Linear(768, 768, { r: 8, loraAlpha: 16 });
 * const y = layer.forward(tensor(new Float32Array(2 * 768), [2, 768])); // [2, 768]
 */
export class Linear extends withFactors(PlainLinear) {
  /** @internal */ static override readonly className: string = "Linear";
  constructor(inFeatures: number, outFeatures: number, options: LoraLinearOptions = {}) {
    checkInteger("lora.Linear", "inFeatures", inFeatures, 1);
    checkInteger("lora.Linear", "outFeatures", outFeatures, 1);
    const { settings, base } = checkLoraOptions("lora.Linear", options, ["loraDropout", "bias", "fanInFanOut"]);
    super(inFeatures, outFeatures, base);
    const { r } = settings;
    this.adapt(settings, [
      [r, inFeatures],
      [outFeatures, r],
    ]);
  }

  /** @internal */
  override addFactors(loraA: Parameter, loraB: Parameter): void {
    addProduct(this.weight, loraA, loraB, this.scaling, this.fanInFanOut);
  }

  /** x [..., inFeatures] -> [..., outFeatures]. @throws ShapeError, DTypeError, DisposedError */
  override forward(x: Tensor): Tensor {
    return attempt(() => {
      const branches =
        this.loraA && this.loraB && !this.merged
          ? [
              {
                loraA: this.loraA,
                loraB: this.loraB,
                scaling: this.scaling,
                mask: this.training && this.loraDropout > 0 ? this.newMask(this.loraDropout) : null,
              },
            ]
          : [];
      return linearAt("lora.Linear.forward", x, this.weight, this.bias, branches, this.fanInFanOut);
    });
  }
}
