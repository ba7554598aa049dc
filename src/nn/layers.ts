/** Plain layers with torch's defaults and inits. */
import { layerNorm, rmsNorm } from "../autograd/ops/index.js";
import { checkEmbeddingOptions, embedding, type EmbeddingOptions } from "../autograd/ops/embedding.js";
import { linear } from "../autograd/ops/linear.js";
import { checkInteger, checkNumber } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";
import * as init from "./init.js";
import { Module, Parameter } from "./module.js";

export interface LinearOptions {
  /** Default true. */
  bias?: boolean;
  /** Whether weight is stored [inFeatures, outFeatures], as Hugging Face's Conv1D does. Default false. */
  fanInFanOut?: boolean;
}

/** A module that maps one tensor to one tensor: what may stand in for a linear layer. */
export interface Layer extends Module {
  forward(x: Tensor): Tensor;
}

/**
 * y = x Wᵀ + b (torch.nn.Linear). weight [outFeatures, inFeatures] and bias [outFeatures] start as
 * U(-1/sqrt(inFeatures), 1/sqrt(inFeatures)), with torch's bits after the same `manualSeed`. With
 * fanInFanOut the weight is drawn as [outFeatures, inFeatures] and stored transposed (loralib).
 * @throws ArgumentError on sizes that are not positive integers
 *
 * @example
 * const y = new nn.Linear(3, 2).forward(tensor([[1, 2, 3]])); // [1, 2]
 */
export class Linear extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
  readonly fanInFanOut: boolean;

  constructor(readonly inFeatures: number, readonly outFeatures: number, options: LinearOptions = {}) {
    super();
    checkInteger("Linear", "inFeatures", inFeatures, 1);
    checkInteger("Linear", "outFeatures", outFeatures, 1);
    this.fanInFanOut = options.fanInFanOut ?? false;
    this.weight = new Parameter(this.fanInFanOut ? [inFeatures, outFeatures] : [outFeatures, inFeatures]);
    this.bias = options.bias === false ? null : new Parameter([outFeatures]);
    this.resetParameters();
  }

  resetParameters(): void {
    const bound = 1 / Math.sqrt(this.inFeatures);
    init.kaimingUniform_(this.weight, undefined, this.inFeatures);
    if (this.bias) init.uniform_(this.bias, -bound, bound);
    if (this.fanInFanOut) transpose_(this.weight, this.outFeatures, this.inFeatures);
  }

  /** x [..., inFeatures] -> [..., outFeatures] @throws ShapeError, DTypeError, DisposedError */
  forward(x: Tensor): Tensor { return linear(x, this.weight, this.bias, [], this.fanInFanOut, "Linear.forward"); }
}

/** The values, drawn as [rows, columns], laid out as their transpose. */
function transpose_(t: Parameter, rows: number, columns: number): void {
  const from = t.data.slice(), to = t.data;
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j]!;
}

/**
 * Rows of a table (torch.nn.Embedding). weight [numEmbeddings, embeddingDim] starts as N(0, 1), the
 * row paddingIdx as zeros; that row gets no gradient. With maxNorm, forward scales the rows it looks
 * up in place.
 * @throws ArgumentError
 *
 * @example
 * const table = new nn.Embedding(1000, 64, { paddingIdx: -1, maxNorm: 1 });
 * const y = table.forward(tensor(new Int32Array([3, 14, 15]))); // [3, 64]
 */
export class Embedding extends Module {
  readonly weight: Parameter;
  /** Counted from the start; null: none. */
  readonly paddingIdx: number | null;
  readonly maxNorm: number | null;
  readonly normType: number;
  readonly scaleGradByFreq: boolean;

  constructor(readonly numEmbeddings: number, readonly embeddingDim: number, options: EmbeddingOptions = {}) {
    super();
    checkInteger("Embedding", "numEmbeddings", numEmbeddings, 1);
    checkInteger("Embedding", "embeddingDim", embeddingDim, 1);
    ({ paddingIdx: this.paddingIdx, maxNorm: this.maxNorm, normType: this.normType, scaleGradByFreq: this.scaleGradByFreq } =
      checkEmbeddingOptions("Embedding", options, numEmbeddings));
    this.weight = new Parameter([numEmbeddings, embeddingDim]);
    this.resetParameters();
  }

  resetParameters(): void {
    init.normal_(this.weight);
    if (this.paddingIdx !== null) this.weight.data.fill(0, this.paddingIdx * this.embeddingDim, (this.paddingIdx + 1) * this.embeddingDim);
  }

  /** ids int32 [...] -> [..., embeddingDim] @throws ArgumentError for an id out of range */
  forward(ids: Tensor): Tensor { return embedding(ids, this.weight, this, [], "Embedding.forward"); }
}

/** torch.nn.RMSNorm over the last dimension, x [..., dim] -> [..., dim]; weight [dim] starts as ones. @throws ArgumentError; forward: ShapeError */
export class RMSNorm extends Module {
  readonly weight: Parameter;
  constructor(readonly dim: number, readonly eps = 1e-6) {
    super();
    checkInteger("RMSNorm", "dim", dim, 1);
    checkNumber("RMSNorm", "eps", eps, 0);
    this.weight = new Parameter([dim]);
    this.weight.data.fill(1);
  }
  forward(x: Tensor): Tensor { return rmsNorm(x, this.weight, this.eps); }
}

/** torch.nn.LayerNorm over the last dimension, x [..., dim] -> [..., dim]; weight [dim] starts as ones, bias as zeros. @throws ArgumentError; forward: ShapeError */
export class LayerNorm extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  constructor(readonly dim: number, readonly eps = 1e-5) {
    super();
    checkInteger("LayerNorm", "dim", dim, 1);
    checkNumber("LayerNorm", "eps", eps, 0);
    this.weight = new Parameter([dim]);
    this.bias = new Parameter([dim]);
    this.weight.data.fill(1);
    this.bias.data.fill(0);
  }
  forward(x: Tensor): Tensor { return layerNorm(x, this.weight, this.bias, this.eps); }
}
