/** Convolutions with torch's defaults and inits. */
import { convAt, type ConvOptions } from "../autograd/ops/conv.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { checkBoolean, checkInteger, shownAll } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { drawFor } from "../random/seed.js";
import * as init from "./init.js";
import { Module, Parameter } from "./module.js";
import { isInitSkipped } from "./skip_init.js";

/** One number for all spatial dimensions, or one for each. */
export type Sizes = number | readonly number[];

/** Options of the convolutions. */
export interface ConvLayerOptions {
  /** Steps of the window. Default 1. */
  stride?: Sizes | undefined;
  /** Zeros on either side. Default 0. */
  padding?: Sizes | undefined;
  /** Distance of neighbours in the window. Default 1. */
  dilation?: Sizes | undefined;
  /** Divides inChannels and outChannels. Default 1. */
  groups?: number | undefined;
  /** Default true. */
  bias?: boolean | undefined;
}

/** What the three convolutions share; use `Conv1d`, `Conv2d` or `Conv3d`. */
export abstract class ConvNd extends Module {
  /** @internal */ static override readonly className: string = "ConvNd";
  /** [outChannels, inChannels / groups, ...kernelSize] */
  readonly weight: Parameter;
  /** [outChannels], or null. */
  readonly bias: Parameter | null;
  /** Sizes of the window, one for each spatial dimension; so are stride, padding and dilation. */
  readonly kernelSize: readonly number[];
  /** Steps of the window. */
  readonly stride: readonly number[];
  /** Zeros on either side of x. */
  readonly padding: readonly number[];
  /** Distance of neighbours in the window. */
  readonly dilation: readonly number[];
  /** Output channel o sees the group of input channels it lies in. */
  readonly groups: number;
  /** Size of x's second dimension. */
  readonly inChannels: number;
  /** Size of the result's second dimension. */
  readonly outChannels: number;
  /** Prefix of error messages. @internal */
  protected readonly where: string;

  /** @param where prefix of error messages @param dims number of spatial dimensions @internal */
  constructor(
    where: string,
    dims: number,
    inChannels: number,
    outChannels: number,
    kernelSize: Sizes,
    options: ConvLayerOptions = {},
  ) {
    super();
    this.where = where;
    this.inChannels = inChannels;
    this.outChannels = outChannels;
    checkOptions(where, options, ["stride", "padding", "dilation", "groups", "bias"]);
    checkInteger(where, "inChannels", inChannels, 1);
    checkInteger(where, "outChannels", outChannels, 1);
    this.kernelSize = sizes(where, "kernelSize", kernelSize, dims, 1);
    this.stride = sizes(where, "stride", options.stride ?? 1, dims, 1);
    this.padding = sizes(where, "padding", options.padding ?? 0, dims, 0);
    this.dilation = sizes(where, "dilation", options.dilation ?? 1, dims, 1);
    this.groups = options.groups ?? 1;
    checkInteger(where, "groups", this.groups, 1);
    if (inChannels % this.groups || outChannels % this.groups) {
      throw new ArgumentError(
        `${where}: groups = ${this.groups} must divide inChannels = ${inChannels} and outChannels = ${outChannels}.`,
      );
    }
    const { bias = true } = options;
    checkBoolean(where, "bias", bias);
    try {
      this.weight = new Parameter([outChannels, inChannels / this.groups, ...this.kernelSize]);
      this.bias = bias ? new Parameter([outChannels]) : null;
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.resetParameters();
  }

  /** weight, then bias, from U(-1/sqrt(fanIn), 1/sqrt(fanIn)), fanIn = inChannels / groups * elements of the kernel. */
  resetParameters(): void {
    if (isInitSkipped()) return;
    const bound = 1 / Math.sqrt(this.weight.size / this.outChannels);
    drawFor(this, () => {
      init.kaimingUniform_(this.weight);
      if (this.bias) init.uniform_(this.bias, -bound, bound);
    });
  }

  /**
   * x [n, inChannels, ...spatial] -> [n, outChannels, ...], of size
   * floor((spatial + 2 padding - dilation (kernelSize - 1) - 1) / stride) + 1.
   * @throws ShapeError, DTypeError, DisposedError
   */
  forward(x: Tensor): Tensor {
    return convAt(`${this.where}.forward`, x, this.weight, this.bias, this.window, []);
  }

  /** The op's options. @internal */
  protected get window(): ConvOptions {
    const { stride, padding, dilation, groups } = this;
    return { stride, padding, dilation, groups };
  }
}

/**
 * torch.nn.Conv1d: x [n, inChannels, length] -> [n, outChannels, ...]. Starts with torch's bits after the
 * same `manualSeed`.
 * @throws ArgumentError on a number out of range, and groups that do not divide the channels
 *
 * @example
 * const y = new nn.Conv1d(8, 16, 3, { padding: 1 }).forward(zeros([2, 8, 100])); // [2, 16, 100]
 */
export class Conv1d extends ConvNd {
  /** @internal */ static override readonly className: string = "Conv1d";
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options: ConvLayerOptions = {}) {
    super("Conv1d", 1, inChannels, outChannels, kernelSize, options);
  }
}

/**
 * torch.nn.Conv2d: x [n, inChannels, height, width] -> [n, outChannels, ...]. Starts with torch's bits
 * after the same `manualSeed`.
 * @throws ArgumentError as Conv1d
 *
 * @example
 * const conv = new nn.Conv2d(3, 16, [3, 5], { stride: 2, padding: [1, 2] });
 * const y = conv.forward(zeros([1, 3, 32, 32])); // [1, 16, 16, 16]
 */
export class Conv2d extends ConvNd {
  /** @internal */ static override readonly className: string = "Conv2d";
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options: ConvLayerOptions = {}) {
    super("Conv2d", 2, inChannels, outChannels, kernelSize, options);
  }
}

/**
 * torch.nn.Conv3d: x [n, inChannels, depth, height, width] -> [n, outChannels, ...]. Starts with torch's
 * bits after the same `manualSeed`.
 * @throws ArgumentError as Conv1d
 *
 * @example
 * const y = new nn.Conv3d(1, 4, 3).forward(zeros([1, 1, 8, 8, 8])); // [1, 4, 6, 6, 6]
 */
export class Conv3d extends ConvNd {
  /** @internal */ static override readonly className: string = "Conv3d";
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options: ConvLayerOptions = {}) {
    super("Conv3d", 3, inChannels, outChannels, kernelSize, options);
  }
}

function sizes(where: string, name: string, value: Sizes, dims: number, low: number): readonly number[] {
  const values = typeof value === "number" ? Array.from({ length: dims }, () => value) : value;
  if (!Array.isArray(values) || values.length !== dims) {
    throw new ArgumentError(`${where}: ${name} must be a number or ${dims} numbers; got ${shownAll(value)}.`);
  }
  for (const v of values as number[]) checkInteger(where, name, v, low);
  return Object.freeze([...(values as number[])]);
}
