/** PEFT's lora.Conv1d, Conv2d and Conv3d: a convolution with named adapters, each of two convolutions. */
import { convAt } from "../autograd/ops/conv.js";
import type { LoraBranch } from "../autograd/ops/linear.js";
import type { LoraInit } from "../io/peft/config.js";
import type { ConvNd } from "../nn/conv.js";
import { ArgumentError } from "../runtime/errors.js";
import type { Tensor } from "../tensor/tensor.js";
import { initLoraConv } from "./init_lora_weights.js";
import { type Factors, LoraLayer } from "./layer.js";

/**
 * A convolution with adapters: x [n, inChannels, ...] -> [n, outChannels, ...]. Factors: loraA
 * [r, inChannels, ...kernelSize], run with the base layer's stride, padding and dilation (PEFT forgets dilation), and
 * loraB [outChannels, r / groups, 1, ...]. With groups > 1 the product is no grouped convolution, so it can be neither
 * merged, combined nor directed (DoRA; PEFT does, with norms of a matrix that is no part of the result).
 * Source: PEFT, lora.Conv1d, Conv2d and Conv3d.
 *
 * @example
 * class Model extends nn.Module { conv = new nn.Conv2d(3, 8, 5); }
 * const { model } = peft.getLoraModel(new Model(), { r: 2, targetModules: ["conv"] });
 * console.log(model.conv instanceof peft.LoraConv); // true
 * console.log(model.conv.factorShapes(2)); // [ [ 2, 3, 5, 5 ], [ 8, 2, 1, 1 ] ]
 */
export class LoraConv extends LoraLayer<ConvNd> {
  /** @internal */ static override readonly className: string = "LoraConv";
  override readonly kind = "conv";
  protected override readonly weightIsTransposed = false;

  protected override outputAxis(): number {
    return 1;
  }

  override factorShapes(r: number, where: string): [number[], number[]] {
    const { inChannels, outChannels, kernelSize, groups } = this.baseLayer;
    if (r % groups !== 0) throw new ArgumentError(`${where}: r = ${r} must be a multiple of groups = ${groups}.`);
    return [
      [r, inChannels, ...kernelSize],
      [outChannels, r / groups, ...kernelSize.map(() => 1)],
    ];
  }

  override initFactors(kind: LoraInit, where: string, factors: Factors): void {
    initLoraConv(kind, where, factors);
  }

  protected override product(x: Tensor, branches: readonly LoraBranch[], bias: Tensor | null): Tensor {
    const { weight, stride, padding, dilation, groups } = this.baseLayer;
    const window = { stride, padding, dilation, groups };
    return convAt("peft.LoraConv.forward", x, weight, bias, window, branches);
  }

  override checkDense(where: string): void {
    const { groups } = this.baseLayer;
    if (groups > 1)
      throw new ArgumentError(
        `${where}: a convolution with groups = ${groups} cannot hold the product B A, which merging, combining and ` +
          `DoRA need; run it unmerged, without DoRA.`,
      );
  }
}
