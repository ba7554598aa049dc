/** lora.Conv1d, Conv2d and Conv3d: a frozen convolution with a trainable low-rank update of its weight. */
import { conv } from "../autograd/ops/conv.js";
import { dropoutBy } from "../autograd/ops/dropout.js";
import { add } from "../autograd/ops/arithmetic.js";
import { reshape, scale } from "../autograd/ops/elementwise.js";
import { linear } from "../autograd/ops/linear.js";
import { ConvNd, type ConvLayerOptions, type Sizes } from "../nn/conv.js";
import { addProduct, Merge } from "../nn/merge.js";
import type { Parameter } from "../nn/module.js";
import { drawFor } from "../random/seed.js";
import { allOrNothing } from "../tensor/scope.js";
import { sizeOf, type Tensor } from "../tensor/tensor.js";
import { checkLoraOptions, makeFactors, resetFactors, type LoraOptions } from "./layer.js";

/** Options of lora's convolutions. */
export interface LoraConvOptions extends LoraOptions, ConvLayerOptions {
  /** Probability of dropping an element of the branch's input while training. Default 0. */
  loraDropout?: number | undefined;
}

/**
 * y = conv(x, W + s * (B A) seen as W's shape) + b, s = loraAlpha / r; with dropout in training
 * y = conv(x, W) + b + conv(dropout(x), s * (B A)). Use `Conv1d`, `Conv2d` or `Conv3d`.
 *
 * loraA is [r * K, inChannels * K], loraB [outChannels / groups * H, r * K], where K is the kernel's last
 * size and H the product of the others (1 for Conv1d): for square Conv2d kernels these are loralib's
 * shapes and numbers. For Conv1d and Conv3d with kernels above 1, and for kernels with unequal sizes,
 * loralib has no working shapes; here B A has as many elements as W for every kernel. loralib ignores
 * dropout in convolutions; here it acts on the branch's input.
 *
 * weight, bias and loraA start as loralib's after the same `manualSeed`, loraB as zeros. With r > 0 the
 * weight is frozen; the bias trains until `markOnlyLoraAsTrainable`. eval() merges the product into the
 * weight, train() restores its bits. The update is as large as the weight, so a step costs what full
 * fine-tuning costs.
 *
 * Source: loralib.ConvLoRA.
 */
export abstract class ConvLoRA extends ConvNd {
  /** @internal */ static override readonly className: string = "ConvLoRA";
  /** [r * K, inChannels * K], or null if r = 0. */
  readonly loraA: Parameter | null = null;
  /** [outChannels / groups * H, r * K], or null if r = 0. */
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

  /** @param where prefix of error messages @param dims number of spatial dimensions @internal */
  constructor(
    where: string,
    dims: number,
    inChannels: number,
    outChannels: number,
    kernelSize: Sizes,
    options: LoraConvOptions = {},
  ) {
    const checked = checkLoraOptions(where, options, [
      "loraDropout",
      "stride",
      "padding",
      "dilation",
      "groups",
      "bias",
    ]);
    super(where, dims, inChannels, outChannels, kernelSize, checked.base);
    ({
      r: this.r,
      loraAlpha: this.loraAlpha,
      scaling: this.scaling,
      loraDropout: this.loraDropout,
      mergeWeights: this.mergeWeights,
    } = checked);
    if (this.r > 0) {
      const last = this.kernelSize[dims - 1]!;
      const others = sizeOf(this.kernelSize.slice(0, -1));
      [this.loraA, this.loraB] = makeFactors(
        this,
        [this.r * last, inChannels * last],
        [(outChannels / this.groups) * others, this.r * last],
      );
      this.weight.requiresGrad = false;
    }
    // ConvNd's constructor has drawn the base once; loralib's own reset draws it again, for r = 0 too.
    this.resetParameters();
  }

  /** Draws in loralib's order: the convolution's weight and bias, then loraA; loraB is zeros. */
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
      // W's elements in the order of B A: the merge of a matrix.
      this.#merge.follow(mode, weight, () => addProduct(weight, loraA, loraB, scaling, false));
    }
    return super.train(mode);
  }

  /** Shapes and errors are those of the plain convolution. */
  override forward(x: Tensor): Tensor {
    if (!this.loraA || !this.loraB || this.merged) return super.forward(x);
    const where = `${this.where}.forward`;
    const { loraA, loraB, weight, bias } = this;
    return allOrNothing(() => {
      const delta = reshape(scale(linear(loraB, loraA, null, [], true), this.scaling), weight.shape);
      if (!this.training || this.loraDropout === 0) return conv(x, add(weight, delta), bias, this.window, [], where);
      return add(
        conv(x, weight, bias, this.window, [], where),
        conv(dropoutBy(x, this.newMask(this.loraDropout)), delta, null, this.window, [], where),
      );
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

/**
 * loralib.Conv1d, working for every kernel size: loraA [r * K, inChannels * K], loraB [outChannels / groups, r * K].
 * x [n, inChannels, length] -> [n, outChannels, ...].
 * @throws ArgumentError as nn.Conv1d, and on a rank, alpha or dropout out of range
 *
 * @example
 * const layer = new lora.Conv1d(8, 16, 3, { r: 4, loraAlpha: 8, padding: 1 });
 * const y = layer.forward(zeros([2, 8, 100])); // [2, 16, 100]
 */
export class Conv1d extends ConvLoRA {
  /** @internal */ static override readonly className: string = "Conv1d";
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options: LoraConvOptions = {}) {
    super("lora.Conv1d", 1, inChannels, outChannels, kernelSize, options);
  }
}

/**
 * loralib.Conv2d: loraA [r * kw, inChannels * kw], loraB [outChannels / groups * kh, r * kw].
 * x [n, inChannels, height, width] -> [n, outChannels, ...].
 * @throws ArgumentError as lora.Conv1d
 *
 * @example
 * const layer = new lora.Conv2d(3, 16, 3, { r: 4, loraAlpha: 8, stride: 2 });
 * const y = layer.forward(zeros([1, 3, 33, 33])); // [1, 16, 16, 16]
 */
export class Conv2d extends ConvLoRA {
  /** @internal */ static override readonly className: string = "Conv2d";
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options: LoraConvOptions = {}) {
    super("lora.Conv2d", 2, inChannels, outChannels, kernelSize, options);
  }
}

/**
 * loralib.Conv3d, working for every kernel size: loraA [r * kw, inChannels * kw], loraB [outChannels / groups * kd *
 * kh, r * kw]. x [n, inChannels, depth, height, width] -> [n, outChannels, ...].
 * @throws ArgumentError as lora.Conv1d
 *
 * @example
 * const layer = new lora.Conv3d(1, 4, 3, { r: 2, loraAlpha: 4 });
 * const y = layer.forward(zeros([1, 1, 8, 8, 8])); // [1, 4, 6, 6, 6]
 */
export class Conv3d extends ConvLoRA {
  /** @internal */ static override readonly className: string = "Conv3d";
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options: LoraConvOptions = {}) {
    super("lora.Conv3d", 3, inChannels, outChannels, kernelSize, options);
  }
}
