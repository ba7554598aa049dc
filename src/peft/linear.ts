/** PEFT's lora.Linear: a linear layer, or Hugging Face's Conv1D (fanInFanOut), with named adapters. */
import { linearAt, type LoraBranch } from "../autograd/ops/linear.js";
import type { LoraInit } from "../io/peft/config.js";
import type { Linear } from "../nn/layers.js";
import type { Tensor } from "../tensor/tensor.js";
import { initLoraWeights } from "./init_lora_weights.js";
import { type Factors, LoraLayer } from "./layer.js";

/**
 * nn.Linear with adapters: x [..., inFeatures] -> [..., outFeatures]. Factors: loraA [r, inFeatures], loraB
 * [outFeatures, r]. Source: PEFT, lora.Linear.
 *
 * @example
 * class Model extends nn.Module { fc = new nn.Linear(8, 4); }
 * const { model } = peft.getLoraModel(new Model(), { r: 2, targetModules: ["fc"] });
 * console.log(model.fc instanceof peft.LoraLinear, model.fc.factorShapes(2)); // true [ [ 2, 8 ], [ 4, 2 ] ]
 */
export class LoraLinear extends LoraLayer<Linear> {
  /** @internal */ static override readonly className: string = "LoraLinear";
  override readonly kind = "linear";
  override factorShapes(r: number): [number[], number[]] {
    const { inFeatures, outFeatures } = this.baseLayer;
    return [
      [r, inFeatures],
      [outFeatures, r],
    ];
  }

  protected override get weightIsTransposed(): boolean {
    return this.baseLayer.fanInFanOut;
  }

  override initFactors(kind: LoraInit, where: string, factors: Factors, scaling: number): void {
    initLoraWeights(kind, where, factors, this.baseLayer, scaling);
  }

  protected override product(x: Tensor, branches: readonly LoraBranch[], bias: Tensor | null): Tensor {
    const { weight, fanInFanOut } = this.baseLayer;
    return linearAt("peft.LoraLinear.forward", x, weight, bias, branches, fanInFanOut);
  }
}
