/** lora.Conv1d, Conv2d and Conv3d: a frozen convolution with a trainable low-rank update of its weight. */
import { convAt } from "../autograd/ops/conv.js";
import { dropoutBy } from "../autograd/ops/dropout.js";
import { add } from "../autograd/ops/arithmetic.js";
import { reshape, scale } from "../autograd/ops/elementwise.js";
import { linear } from "../autograd/ops/linear.js";
import { ConvNd, type ConvLayerOptions, type Sizes } from "../nn/conv.js";
import { addProduct } from "../nn/merge.js";
import type { Parameter } from "../nn/module.js";
import { allOrNothing } from "../tensor/scope.js";
import { sizeOf, type Tensor } from "../tensor/tensor.js";
import { checkLoraOptions, type LoraOptions, withFactors } from "./layer.js";

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
export abstract class ConvLoRA extends withFactors(ConvNd) {
  /** @internal */ static override readonly className: string = "ConvLoRA";
  /** @param where prefix of error messages @param dims number of spatial dimensions @internal */
  constructor(
    where: string,
    dims: number,
    inChannels: number,
    outChannels: number,
    kernelSize: Sizes,
    options: LoraConvOptions = {},
  ) {
    const { settings, base } = checkLoraOptions(where, options, [
      "loraDropout",
      "stride",
      "padding",
      "dilation",
      "groups",
      "bias",
    ]);
    super(where, dims, inChannels, outChannels, kernelSize, base);
    const { r } = settings;
    const last = this.kernelSize[dims - 1]!;
    const others = sizeOf(this.kernelSize.slice(0, -1));
    this.adapt(settings, [
      [r * last, inChannels * last],
      [(outChannels / this.groups) * others, r * last],
    ]);
  }

  /** W's elements stand in the order of B A: the merge of a matrix. @internal */
  override addFactors(loraA: Parameter, loraB: Parameter): void {
    addProduct(this.weight, loraA, loraB, this.scaling, false);
  }

  /** Shapes and errors are those of the plain convolution. */
  override forward(x: Tensor): Tensor {
    if (!this.loraA || !this.loraB || this.merged) return super.forward(x);
    const where = `${this.where}.forward`;
    const { loraA, loraB, weight, bias } = this;
    return allOrNothing(() => {
      const delta = reshape(scale(linear(loraB, loraA, null, [], true), this.scaling), weight.shape);
      if (!this.training || this.loraDropout === 0) return convAt(where, x, add(weight, delta), bias, this.window, []);
      return add(
        convAt(where, x, weight, bias, this.window, []),
        convAt(where, dropoutBy(x, this.newMask(this.loraDropout)), delta, null, this.window, []),
      );
    });
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
