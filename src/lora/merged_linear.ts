/** lora.MergedLinear: a frozen linear layer whose outputs are equal blocks, some with a low-rank update. */
import { linearAt } from "../autograd/ops/linear.js";
import { mergedLinearAt } from "../autograd/ops/merged_linear.js";
import { Linear as PlainLinear } from "../nn/layers.js";
import type { Parameter } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkInteger, shownAll } from "../tensor/check.js";
import { attempt } from "../tensor/scope.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkLoraOptions, withFactors } from "./layer.js";
import type { LoraLinearOptions } from "./linear.js";

/** Options of lora.MergedLinear. */
export interface MergedLinearOptions extends LoraLinearOptions {
  /** One entry for each block of outFeatures / enableLora.length outputs. Default [false]. */
  enableLora?: readonly boolean[] | undefined;
}

/**
 * lora.Linear for a fused projection: outFeatures falls into enableLora.length equal blocks, and each
 * enabled block j has factors of its own, y_j += s * dropout(x) A_jᵀ B_jᵀ, s = loraAlpha / r.
 *
 * With g enabled blocks of width w, loraA is [g r, inFeatures] and loraB [g w, r]: factors of the
 * blocks in order. Init, freezing, eval() and train() are lora.Linear's, and the factors have loralib's
 * bits after the same `manualSeed`. Unlike loralib, no [outFeatures, inFeatures] update is computed in
 * training, and a layer with no enabled block (enableLora's default) does not fail: like one with
 * r = 0, it is the plain layer, its weight trainable.
 *
 * Source: loralib.MergedLinear.
 * @throws ArgumentError on a size, rank, alpha or dropout out of range, or an enableLora that is no
 * list of booleans or whose length does not divide outFeatures
 *
 * @example
 * const qkv = new lora.MergedLinear(768, 3 * 768, { r: 8, loraAlpha: 16, enableLora: [true, false, true] });
 * const y = qkv.forward(tensor(new Float32Array(2 * 768), [2, 768])); // [2, 2304]
 */
export class MergedLinear extends withFactors(PlainLinear) {
  /** @internal */ static override readonly className: string = "MergedLinear";
  /** Which of the equal blocks of outputs have factors. */
  readonly enableLora: readonly boolean[];

  constructor(inFeatures: number, outFeatures: number, options: MergedLinearOptions = {}) {
    const where = "lora.MergedLinear";
    checkInteger(where, "inFeatures", inFeatures, 1);
    checkInteger(where, "outFeatures", outFeatures, 1);
    const { settings, base: others } = checkLoraOptions(where, options, [
      "loraDropout",
      "bias",
      "fanInFanOut",
      "enableLora",
    ]);
    const { enableLora = [false], ...base } = others;
    if (!Array.isArray(enableLora) || enableLora.length === 0 || enableLora.some((e) => typeof e !== "boolean")) {
      throw new ArgumentError(`${where}: enableLora must be a list of booleans; got ${shownAll(enableLora)}.`);
    }
    if (outFeatures % enableLora.length !== 0) {
      throw new ArgumentError(
        `${where}: outFeatures must be a multiple of enableLora's length, ${enableLora.length}; got ${outFeatures}.`,
      );
    }
    super(inFeatures, outFeatures, base);
    this.enableLora = Object.freeze([...enableLora]);
    const { r } = settings;
    const enabled = enableLora.filter(Boolean).length;
    this.adapt(
      settings,
      enabled > 0
        ? [
            [enabled * r, inFeatures],
            [enabled * (outFeatures / enableLora.length), r],
          ]
        : null,
    );
  }

  /** @internal */
  override addFactors(loraA: Parameter, loraB: Parameter): void {
    const { kernels, memory, scratch } = engine();
    const { inFeatures: d, outFeatures: k, enableLora, fanInFanOut } = this;
    const blocks = enableLora.length;
    memory.withBlocks([blocks * 4, kernels.mergeRowsBytes(fanInFanOut ? k : d)], (enabled, rows) => {
      memory.i32(enabled, blocks).set(enableLora.map(Number));
      kernels.mergedLinearMerge({
        weight: this.weight.address,
        a: loraA.address,
        b: loraB.address,
        enabled,
        blocks,
        k,
        d,
        r: this.r,
        s: this.scaling,
        fanInFanOut,
        rows,
        scratch,
      });
    });
  }

  /** x [..., inFeatures] -> [..., outFeatures]. @throws ShapeError, DTypeError, DisposedError */
  override forward(x: Tensor): Tensor {
    const where = "lora.MergedLinear.forward";
    const { loraA, loraB } = this;
    if (!loraA || !loraB || this.merged) return linearAt(where, x, this.weight, this.bias, [], this.fanInFanOut);
    return attempt(() => {
      const mask = this.training && this.loraDropout > 0 ? this.newMask(this.loraDropout) : null;
      const factors = { loraA, loraB, scaling: this.scaling, mask, enableLora: this.enableLora };
      return mergedLinearAt(where, x, this.weight, this.bias, factors, this.fanInFanOut);
    });
  }
}
