/** lora.Embedding: a frozen table with a trainable low-rank update. */
import { embeddingAt, type EmbeddingOptions } from "../autograd/ops/embedding.js";
import { Embedding as PlainEmbedding } from "../nn/layers.js";
import { addProduct } from "../nn/merge.js";
import type { Parameter } from "../nn/module.js";
import { normal_, zeros_ } from "../nn/init.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkLoraOptions, type LoraOptions, withFactors } from "./layer.js";

/** Options of lora.Embedding. */
export interface LoraEmbeddingOptions extends LoraOptions, EmbeddingOptions {}

/**
 * y = W[ids] + s * Aᵀ[ids] Bᵀ, s = loraAlpha / r.
 *
 * weight [numEmbeddings, embeddingDim] starts as torch.nn.Embedding's, loraA [r, numEmbeddings] as
 * zeros and loraB [embeddingDim, r] as N(0, 1): the reverse of lora.Linear, as in loralib, so that A
 * stays sparse in the tokens seen. eval() merges, train() restores the weight's bits.
 *
 * The row paddingIdx gets no gradient, nor does that column of A. maxNorm and scaleGradByFreq act on
 * W and on the columns of A alike, as in loralib. While merged, maxNorm scales the rows looked up of
 * the merged table; train() takes that back too.
 *
 * Source: loralib.Embedding.
 * @throws ArgumentError on a size, rank, alpha or option out of range
 *
 * @example
 * const layer = new lora.Embedding(1000, 64, { r: 4, loraAlpha: 8 });
 * const y = layer.forward(tensor(new Int32Array([3, 14, 15]))); // [3, 64]
 */
export class Embedding extends withFactors(PlainEmbedding) {
  /** @internal */ static override readonly className: string = "Embedding";
  constructor(numEmbeddings: number, embeddingDim: number, options: LoraEmbeddingOptions = {}) {
    const { settings, base } = checkLoraOptions("lora.Embedding", options, [
      "paddingIdx",
      "maxNorm",
      "normType",
      "scaleGradByFreq",
    ]);
    super(numEmbeddings, embeddingDim, base);
    const { r } = settings;
    this.adapt(settings, [
      [r, numEmbeddings],
      [embeddingDim, r],
    ]);
  }

  /** @internal */
  override resetFactors(loraA: Parameter, loraB: Parameter): void {
    zeros_(loraA);
    normal_(loraB);
  }

  /** @internal */
  override addFactors(loraA: Parameter, loraB: Parameter): void {
    addProduct(this.weight, loraA, loraB, this.scaling, true);
  }

  /** ids int32 [...] -> [..., embeddingDim]. @throws ArgumentError for an id out of range */
  override forward(ids: Tensor): Tensor {
    const branches =
      this.loraA && this.loraB && !this.merged ? [{ loraA: this.loraA, loraB: this.loraB, scaling: this.scaling }] : [];
    return embeddingAt("lora.Embedding.forward", ids, this.weight, this.lookUp, branches);
  }
}
