/** lora.Embedding: a frozen table with a trainable low-rank update. */
import { embedding, type EmbeddingOptions } from "../autograd/ops/embedding.js";
import { Embedding as PlainEmbedding } from "../nn/layers.js";
import { addProduct, Merge } from "../nn/merge.js";
import type { Parameter } from "../nn/module.js";
import * as init from "../nn/init.js";
import { drawFor } from "../random/seed.js";
import type { Tensor } from "../tensor/tensor.js";
import { checkLoraOptions, makeFactors, type LoraOptions } from "./layer.js";

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
export class Embedding extends PlainEmbedding {
  /** @internal */ static override readonly className: string = "Embedding";
  /** [r, numEmbeddings], or null if r = 0. */
  readonly loraA: Parameter | null = null;
  /** [embeddingDim, r], or null if r = 0. */
  readonly loraB: Parameter | null = null;
  /** Rank; 0: the plain layer. */
  readonly r: number;
  /** Numerator of scaling. */
  readonly loraAlpha: number;
  /** loraAlpha / r, or 0 if r = 0. */
  readonly scaling: number;
  /** Whether eval() merges and train() unmerges. */
  readonly mergeWeights: boolean;
  readonly #merge = new Merge();

  constructor(numEmbeddings: number, embeddingDim: number, options: LoraEmbeddingOptions = {}) {
    const checked = checkLoraOptions("lora.Embedding", options, [
      "paddingIdx",
      "maxNorm",
      "normType",
      "scaleGradByFreq",
    ]);
    super(numEmbeddings, embeddingDim, checked.base);
    ({ r: this.r, loraAlpha: this.loraAlpha, scaling: this.scaling, mergeWeights: this.mergeWeights } = checked);
    if (this.r > 0) {
      [this.loraA, this.loraB] = makeFactors(this, [this.r, numEmbeddings], [embeddingDim, this.r]);
      this.weight.requiresGrad = false;
    }
    // nn.Embedding's constructor has drawn the table once; loralib's own reset draws it again.
    this.resetParameters();
  }

  override resetParameters(): void {
    drawFor(this, () => {
      super.resetParameters();
      // Not there yet when nn.Embedding's constructor calls this.
      if (this.loraA && this.loraB) {
        init.zeros_(this.loraA);
        init.normal_(this.loraB);
      }
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
      this.#merge.follow(mode, weight, () => addProduct(weight, loraA, loraB, scaling, true));
    }
    return super.train(mode);
  }

  /** ids int32 [...] -> [..., embeddingDim]. @throws ArgumentError for an id out of range */
  override forward(ids: Tensor): Tensor {
    const branches =
      this.loraA && this.loraB && !this.merged ? [{ loraA: this.loraA, loraB: this.loraB, scaling: this.scaling }] : [];
    return embedding(ids, this.weight, this.lookUp, branches, "lora.Embedding.forward");
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
