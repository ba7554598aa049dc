/** Plain layers with torch's defaults and inits. */
import { layerNorm, rmsNorm } from "../autograd/ops/index.js";
import { checkEmbeddingOptions, embeddingAt, type EmbeddingOptions } from "../autograd/ops/embedding.js";
import { linearAt } from "../autograd/ops/linear.js";
import { checkOptions } from "../runtime/options.js";
import { checkBoolean, checkCount, checkInteger, checkNumber } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { drawFor } from "../random/seed.js";
import { engine } from "../runtime/engine.js";
import * as init from "./init.js";
import { Module, Parameter } from "./module.js";
import { isInitSkipped } from "./skip_init.js";

/** Options of nn.Linear. */
export interface LinearOptions {
  /** Default true. */
  bias?: boolean | undefined;
  /** Whether weight is stored [inFeatures, outFeatures], as Hugging Face's Conv1D does. Default false. */
  fanInFanOut?: boolean | undefined;
}

/** A module that maps one tensor to one tensor: what may stand in for a linear layer. */
export interface Layer extends Module {
  /** Maps x; the shapes of x and of the result are those of the layer that it stands in for. */
  forward(x: Tensor): Tensor;
}

/**
 * y = x Wᵀ + b (torch.nn.Linear). weight [outFeatures, inFeatures] and bias [outFeatures] start as
 * U(-1/sqrt(inFeatures), 1/sqrt(inFeatures)), with torch's bits after the same `manualSeed`. With
 * fanInFanOut the weight is drawn as [outFeatures, inFeatures] and stored transposed (loralib).
 *
 * @throws ArgumentError on sizes that are not positive integers
 *
 * @example
 * const y = new nn.Linear(3, 2).forward(tensor([[1, 2, 3]])); // [1, 2]
 */
export class Linear extends Module {
  /** @internal */ static override readonly className: string = "Linear";
  /** [outFeatures, inFeatures], or transposed if fanInFanOut. */
  readonly weight: Parameter;
  /** [outFeatures], or null. */
  readonly bias: Parameter | null;
  /** Whether weight is stored [inFeatures, outFeatures]. */
  readonly fanInFanOut: boolean;

  constructor(
    /** Size of x's last dimension. */
    readonly inFeatures: number,
    /** Size of the result's last dimension. */
    readonly outFeatures: number,
    options: LinearOptions = {},
  ) {
    super();
    checkInteger("Linear", "inFeatures", inFeatures, 1);
    checkInteger("Linear", "outFeatures", outFeatures, 1);
    checkOptions("Linear", options, ["bias", "fanInFanOut"]);
    const { bias = true, fanInFanOut = false } = options;
    checkBoolean("Linear", "bias", bias);
    checkBoolean("Linear", "fanInFanOut", fanInFanOut);
    this.fanInFanOut = fanInFanOut;
    try {
      this.weight = new Parameter(this.fanInFanOut ? [inFeatures, outFeatures] : [outFeatures, inFeatures]);
      this.bias = bias ? new Parameter([outFeatures]) : null;
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.resetParameters();
  }

  /** Draws weight, then bias, anew, as torch does. */
  resetParameters(): void {
    if (isInitSkipped()) return;
    const bound = 1 / Math.sqrt(this.inFeatures);
    drawFor(this, () => {
      init.kaimingUniform_(this.weight, undefined, this.inFeatures);
      if (this.bias) init.uniform_(this.bias, -bound, bound);
    });
    if (this.fanInFanOut) transpose_(this.weight, this.outFeatures, this.inFeatures);
  }

  /** x [..., inFeatures] -> [..., outFeatures]. @throws ShapeError, DTypeError, DisposedError */
  forward(x: Tensor): Tensor {
    return linearAt("Linear.forward", x, this.weight, this.bias, [], this.fanInFanOut);
  }
}

/** The values, drawn as [rows, columns], laid out as their transpose. */
function transpose_(t: Parameter, rows: number, columns: number): void {
  const from = t.data.slice();
  const to = t.data;
  if (engine().isRehearsal) return;
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j]!;
}

/**
 * Rows of a table (torch.nn.Embedding). weight [numEmbeddings, embeddingDim] starts as N(0, 1), the
 * row paddingIdx as zeros; that row gets no gradient. With maxNorm, forward scales the rows it looks
 * up in place.
 *
 * @throws ArgumentError on a size that is not a positive integer or an option out of range
 *
 * @example
 * const table = new nn.Embedding(1000, 64, { paddingIdx: -1, maxNorm: 1 });
 * const y = table.forward(tensor(new Int32Array([3, 14, 15]))); // [3, 64]
 */
export class Embedding extends Module {
  /** @internal */ static override readonly className: string = "Embedding";
  /** [numEmbeddings, embeddingDim] */
  readonly weight: Parameter;
  /** The id whose row gets no gradient, counted from the start of the table; null: there is none. */
  readonly paddingIdx: number | null;
  /** Largest norm of a row that is looked up; null: any. */
  readonly maxNorm: number | null;
  /** p of the p-norm for maxNorm. */
  readonly normType: number;
  /** Whether a row's gradient is divided by how often its id was looked up. */
  readonly scaleGradByFreq: boolean;

  constructor(
    /** Number of rows: ids are below it. */
    readonly numEmbeddings: number,
    /** Length of a row. */
    readonly embeddingDim: number,
    options: EmbeddingOptions = {},
  ) {
    super();
    checkInteger("Embedding", "numEmbeddings", numEmbeddings, 1);
    checkInteger("Embedding", "embeddingDim", embeddingDim, 1);
    ({
      paddingIdx: this.paddingIdx,
      maxNorm: this.maxNorm,
      normType: this.normType,
      scaleGradByFreq: this.scaleGradByFreq,
    } = checkEmbeddingOptions("Embedding", options, numEmbeddings));
    this.weight = new Parameter([numEmbeddings, embeddingDim]);
    this.resetParameters();
  }

  /** Draws the table anew, as torch does; the row paddingIdx is zeros. */
  resetParameters(): void {
    if (isInitSkipped()) return;
    drawFor(this, () => init.normal_(this.weight));
    if (this.paddingIdx !== null)
      this.weight.data.fill(0, this.paddingIdx * this.embeddingDim, (this.paddingIdx + 1) * this.embeddingDim);
  }

  /** ids int32 [...] -> [..., embeddingDim]. @throws ArgumentError for an id out of range; DTypeError, DisposedError */
  forward(ids: Tensor): Tensor {
    return embeddingAt("Embedding.forward", ids, this.weight, this.lookUp, []);
  }

  /** The op's options. @internal */
  protected get lookUp(): EmbeddingOptions {
    const { paddingIdx, maxNorm, normType, scaleGradByFreq } = this;
    return { paddingIdx, maxNorm, normType, scaleGradByFreq };
  }
}

/**
 * torch.nn.RMSNorm over the last dimension, with the factor offset + weight; weight [dim] starts so that this is 1. eps
 * is 1e-6 unless given, as in Hugging Face's LlamaRMSNorm; offset is 0, or 1 as in GemmaRMSNorm.
 *
 * @throws ArgumentError on a dim that is no positive integer or an eps below 0
 *
 * @example
 * const y = new nn.RMSNorm(8).forward(ones([2, 8])); // [2, 8]
 */
export class RMSNorm extends Module {
  /** @internal */ static override readonly className: string = "RMSNorm";
  /** [dim] */
  readonly weight: Parameter;
  constructor(
    /** Size of x's last dimension. */
    readonly dim: number,
    /** Added to the mean square. */
    readonly eps = 1e-6,
    /** Added to the weight. */
    readonly offset: 0 | 1 = 0,
  ) {
    super();
    checkCount("RMSNorm", arguments, 3);
    checkInteger("RMSNorm", "dim", dim, 1);
    checkNumber("RMSNorm", "eps", eps, 0);
    checkInteger("RMSNorm", "offset", offset, 0, 1);
    this.weight = new Parameter([dim]);
    if (offset === 0) init.ones_(this.weight);
    else init.zeros_(this.weight);
  }
  /** x [..., dim] -> [..., dim]. @throws ShapeError, DTypeError, DisposedError */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.eps, this.offset);
  }
}

/**
 * torch.nn.LayerNorm over the last dimension; weight [dim] starts as ones, bias [dim] as zeros. bias false: there is
 * none.
 *
 * @throws ArgumentError on a dim that is no positive integer or an eps below 0
 *
 * @example
 * const y = new nn.LayerNorm(8).forward(ones([2, 8])); // [2, 8]
 */
export class LayerNorm extends Module {
  /** @internal */ static override readonly className: string = "LayerNorm";
  /** [dim] */
  readonly weight: Parameter;
  /** [dim], or null. */
  readonly bias: Parameter | null;
  constructor(
    /** Size of x's last dimension. */
    readonly dim: number,
    /** Added to the variance. */
    readonly eps = 1e-5,
    bias = true,
  ) {
    super();
    checkCount("LayerNorm", arguments, 3);
    checkBoolean("LayerNorm", "bias", bias);
    checkInteger("LayerNorm", "dim", dim, 1);
    checkNumber("LayerNorm", "eps", eps, 0);
    try {
      this.weight = new Parameter([dim]);
      this.bias = bias ? new Parameter([dim]) : null;
    } catch (error) {
      this.dispose();
      throw error;
    }
    init.ones_(this.weight);
    if (this.bias) init.zeros_(this.bias);
  }
  /** x [..., dim] -> [..., dim]. @throws ShapeError, DTypeError, DisposedError */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.eps);
  }
}
