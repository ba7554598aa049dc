/** lora.Linear: a frozen linear layer with a trainable low-rank update. */
import { linear } from "../autograd/ops/linear.js";
import { Linear as PlainLinear, type LinearOptions } from "../nn/layers.js";
import { addProduct, Merge } from "../nn/merge.js";
import type { Parameter } from "../nn/module.js";
import { drawFor } from "../random/seed.js";
import { checkInteger } from "../tensor/check.js";
import { attempt } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkLoraOptions, makeFactors, resetFactors, type LoraOptions } from "./layer.js";

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
export class Linear extends PlainLinear {
  /** @internal */ static override readonly className: string = "Linear";
  /** [r, inFeatures], or null if r = 0. */
  readonly loraA: Parameter | null = null;
  /** [outFeatures, r], or null if r = 0. */
  readonly loraB: Parameter | null = null;
  /** Rank; 0: the plain layer. */
  readonly r: number;
  /** Numerator of scaling. */
  readonly loraAlpha: number;
  /** loraAlpha / r, or 0 if r = 0. */
  readonly scaling: number;
  /** Probability of dropping an element of the branch's input while training. */
  readonly loraDropout: number;
  /** Whether eval() merges and train() unmerges. */
  readonly mergeWeights: boolean;
  readonly #merge = new Merge();

  constructor(inFeatures: number, outFeatures: number, options: LoraLinearOptions = {}) {
    checkInteger("lora.Linear", "inFeatures", inFeatures, 1);
    checkInteger("lora.Linear", "outFeatures", outFeatures, 1);
    const checked = checkLoraOptions("lora.Linear", options, ["loraDropout", "bias", "fanInFanOut"]);
    super(inFeatures, outFeatures, checked.base);
    ({
      r: this.r,
      loraAlpha: this.loraAlpha,
      scaling: this.scaling,
      loraDropout: this.loraDropout,
      mergeWeights: this.mergeWeights,
    } = checked);
    if (this.r > 0) {
      [this.loraA, this.loraB] = makeFactors(this, [this.r, inFeatures], [outFeatures, this.r]);
      this.weight.requiresGrad = false;
    }
    // nn.Linear's constructor has drawn the base once; loralib's own reset draws it again.
    this.resetParameters();
  }

  /** Draws in loralib's order: nn.Linear's weight and bias, then loraA. */
  override resetParameters(): void {
    drawFor(this, () => {
      super.resetParameters();
      resetFactors(this.loraA, this.loraB);
    });
  }

  /** Whether the weight holds the product now. */
  get merged(): boolean {
    return this.#merge.merged;
  }

  /** train() restores the weight's original bits; eval() merges (both only if mergeWeights). */
  override train(mode = true): this {
    const { weight, loraA, loraB, scaling } = this;
    if (this.mergeWeights && loraA && loraB) {
      this.#merge.follow(mode, weight, () => addProduct(weight, loraA, loraB, scaling, this.fanInFanOut));
    }
    return super.train(mode);
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
      return linear(x, this.weight, this.bias, branches, this.fanInFanOut, "lora.Linear.forward");
    });
  }

  /** @internal */
  override unmergedData(p: Parameter): Float32Array {
    return p === this.weight ? this.#merge.originalOf(p) : p.data;
  }
  /** @internal */
  override isMerged(): boolean {
    return this.merged;
  }
}
