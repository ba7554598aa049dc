/** PEFT's lora.Embedding: a table with named adapters. */
import { embeddingAt } from "../autograd/ops/embedding.js";
import type { LoraBranch } from "../autograd/ops/linear.js";
import type { LoraInit } from "../io/peft/config.js";
import type { Embedding } from "../nn/layers.js";
import type { Tensor } from "../tensor/tensor.js";
import { initLoraEmbedding } from "./init_lora_weights.js";
import { type Factors, LoraLayer } from "./layer.js";

/**
 * nn.Embedding with adapters: ids int32 [...] -> [..., embeddingDim]. Factors: loraA [r, numEmbeddings],
 * loraB [embeddingDim, r]; no dropout. Source: PEFT, lora.Embedding.
 *
 * @example
 * class Model extends nn.Module { wte = new nn.Embedding(10, 4); }
 * const { model } = peft.getLoraModel(new Model(), { r: 2, targetModules: ["wte"] });
 * console.log(model.wte instanceof peft.LoraEmbedding, model.wte.factorShapes(2)); // true [ [ 2, 10 ], [ 4, 2 ] ]
 */
export class LoraEmbedding extends LoraLayer<Embedding> {
  /** @internal */ static override readonly className: string = "LoraEmbedding";
  override readonly kind = "embedding";
  protected override readonly weightIsTransposed = true;
  protected override readonly drops = false;

  override factorShapes(r: number): [number[], number[]] {
    const { numEmbeddings, embeddingDim } = this.baseLayer;
    return [
      [r, numEmbeddings],
      [embeddingDim, r],
    ];
  }

  override initFactors(kind: LoraInit, where: string, factors: Factors): void {
    initLoraEmbedding(kind, where, factors);
  }

  protected override product(ids: Tensor, branches: readonly LoraBranch[]): Tensor {
    const { weight, paddingIdx, maxNorm, normType, scaleGradByFreq } = this.baseLayer;
    const options = { paddingIdx, maxNorm, normType, scaleGradByFreq };
    return embeddingAt("peft.LoraEmbedding.forward", ids, weight, options, branches);
  }
}
