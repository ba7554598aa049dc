/**
 * Convolution in one to three dimensions, with LoRA branches. Kernels: assembly/lora/conv.ts, assembly/gemm/im2col.ts.
 */
import type { ConvShape } from "../../runtime/abi.js";
import { engine } from "../../runtime/engine.js";
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import { checkOptions } from "../../runtime/options.js";
import { checkBias, checkInteger, checkTensor, shownAll } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import type { DropoutMask } from "../../random/seed.js";
import { addressOf, dropped, droppedBytes, noTerm, type Term, termsOf, withDropped } from "./branch.js";
import { gradient, record } from "../tape.js";

/** How the window moves; the arrays have one number for each spatial dimension. */
export interface ConvOptions {
  /** Default 1 everywhere. */
  stride?: readonly number[] | undefined;
  /** Zeros on either side of x. Default 0 everywhere. */
  padding?: readonly number[] | undefined;
  /** Distance of neighbours in the window. Default 1 everywhere. */
  dilation?: readonly number[] | undefined;
  /** Input channels are cut into that many groups, and output channel o sees the group it lies in. Default 1. */
  groups?: number | undefined;
}

/** One low-rank term: scaling * conv1(conv(dropout(x), A), B), conv1 of kernel size 1, for all images of x or some. */
export interface ConvBranch {
  /** Of shape [r, inChannels, ...kernel]; stride, padding and dilation are W's, groups are 1. */
  loraA: Tensor;
  /** Of shape [outChannels, r / groups, 1, ...]; groups are W's. */
  loraB: Tensor;
  /** loraAlpha / r */
  scaling: number;
  /** Dropout on the branch's input, its elements counted from 0 at image `from`; null in evaluation or when p = 0. */
  mask: DropoutMask | null;
  /** The term is added for images x[from], ..., x[to - 1] only. Default 0. */
  from?: number | undefined;
  /** The image behind the last that takes the term. Default: x's number of images. */
  to?: number | undefined;
}

/** Columns of the column matrix that backward makes at a time: 64 cost 3% more, 512 gain 2% (measured). */
const TILE_COLUMNS = 128;
/** The largest size, stride, padding or dilation: kernels add up a few of them in 32 bits. */
const LARGEST = 0x0fffffff;

/**
 * y = conv(x, W) + bias + the terms of the branches. One accumulator an element: bias, then the sum over
 * W's window, then over each branch's rank in turn.
 *
 * Source: torch.nn.functional.conv1d, conv2d, conv3d; the branches are those of PEFT's lora.Conv1d to
 * Conv3d, except that W's dilation is A's too (without it the sizes of the two terms would differ).
 * @param x [n, inChannels, ...spatial] with one, two or three spatial dimensions
 * @param weight [outChannels, inChannels / groups, ...kernel]
 * @param bias [outChannels] or null
 * @param branches default: none
 * @returns [n, outChannels, ...], of size floor((spatial + 2 padding - dilation (kernel - 1) - 1) / stride) + 1
 * @throws ShapeError, DTypeError, ArgumentError for a number out of range, DisposedError
 *
 * @example
 * const x = zeros([1, 3, 8, 8]), weight = zeros([16, 3, 3, 3]);
 * const y = ops.conv(x, weight, null, { stride: [2, 2], padding: [1, 1] }); // [1, 16, 4, 4]
 */
export function conv(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: ConvOptions = {},
  branches: readonly ConvBranch[] = [],
): Tensor {
  return convAt("conv", x, weight, bias, options, branches);
}

/** `conv` of a layer, whose name `where` begins the messages of errors. @internal */
export function convAt(
  where: string,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  options: ConvOptions,
  branches: readonly ConvBranch[],
): Tensor {
  checkOptions(where, options, ["stride", "padding", "dilation", "groups"]);
  const sizes = checkedSizes(where, x, weight, options);
  const { n, spatial, kernel, out } = sizes;
  const shape = shapeOf(sizes);
  const { inChannels, id, ih, iw, outChannels, od, oh, ow, kd, kh, kw, groups } = shape;
  const { sd, sh, sw, pd, ph, pw, dd, dh, dw } = shape;
  bias = checkBias(where, bias, outChannels);
  const terms = termsOf(where, branches, {
    inputs: [inChannels, ...kernel],
    shapeB: (r) => {
      if (r % groups)
        throw new ShapeError(
          `${where}: loraA has shape [${[r, inChannels, ...kernel]}]; its rank ${r} must be a multiple of groups = ` +
            `${groups}.`,
        );
      return [outChannels, r / groups, ...kernel.map(() => 1)];
    },
    parts: n,
    items: 1,
  });
  // The first term shares the columns of x with W if it is for every image.
  const passes = terms[0]?.count === n ? terms : [noTerm(n), ...terms];
  const image = inChannels * sizeOf(spatial);
  const positions = sizeOf(out);
  const window = inChannels * sizeOf(kernel);
  const columns = Math.min(TILE_COLUMNS, positions);
  const { kernels, memory, scratch } = engine();
  return allOrNothing(() => {
    const y = new Tensor([n, outChannels, ...out]);
    const hidden = passes.map(({ count, r }) => new Tensor([count, r, ...out]));
    const atX = (t: Term): number => x.address + t.first * image * 4;
    /** The address of a term's images in y, or in y's gradient. */
    const atY = (t: Term, of: Tensor): number => of.address + t.first * outChannels * positions * 4;
    for (const [i, t] of passes.entries()) {
      memory.withBlocks([kernels.convPanelBytes(window), droppedBytes(t, image)], (panel, block) =>
        kernels.loraConvForward({
          y: atY(t, y),
          x: atX(t),
          xDropped: dropped(t, atX(t), image, block),
          weight: i === 0 ? weight.address : 0,
          bias: i === 0 ? addressOf(bias) : 0,
          a: addressOf(t.a),
          b: addressOf(t.b),
          h: hidden[i]!.address,
          n: t.count,
          r: t.r,
          s: t.s,
          inChannels,
          id,
          ih,
          iw,
          outChannels,
          od,
          oh,
          ow,
          kd,
          kh,
          kw,
          sd,
          sh,
          sw,
          pd,
          ph,
          pw,
          dd,
          dh,
          dw,
          groups,
          panel,
          scratch,
        }),
      );
    }
    return record(
      y,
      [x, weight, bias, ...terms.flatMap(({ a, b }) => [a, b])],
      (dy) => {
        const dx = gradient(x);
        for (const [i, t] of passes.entries()) {
          const dxImages = dx && dx + t.first * image * 4;
          memory.withBlocks([window * columns * 4, t.r * positions * 4], (tile, zs) =>
            withDropped(t, image, atX(t), dxImages, (xDropped, dxDropped) =>
              kernels.loraConvBackward({
                dx: dxImages,
                dxDropped,
                dWeight: i === 0 ? gradient(weight) : 0,
                dBias: i === 0 ? gradient(bias) : 0,
                da: gradient(t.a),
                db: gradient(t.b),
                dy: atY(t, dy),
                x: atX(t),
                xDropped,
                weight: i === 0 ? weight.address : 0,
                a: addressOf(t.a),
                b: addressOf(t.b),
                h: hidden[i]!.address,
                n: t.count,
                r: t.r,
                s: t.s,
                inChannels,
                id,
                ih,
                iw,
                outChannels,
                od,
                oh,
                ow,
                kd,
                kh,
                kw,
                sd,
                sh,
                sw,
                pd,
                ph,
                pw,
                dd,
                dh,
                dw,
                groups,
                columns,
                zs,
                tile,
                scratch,
              }),
            ),
          );
        }
      },
      hidden,
    );
  });
}

interface ConvSizes {
  n: number;
  inChannels: number;
  outChannels: number;
  groups: number;
  spatial: readonly number[];
  kernel: readonly number[];
  out: readonly number[];
  stride: readonly number[];
  padding: readonly number[];
  dilation: readonly number[];
}

function checkedSizes(where: string, x: Tensor, weight: Tensor, options: ConvOptions): ConvSizes {
  checkTensor(where, "x", x);
  const dims = x.rank - 2;
  if (dims < 1 || dims > 3) {
    throw new ShapeError(
      `${where}: x has shape [${x.shape}]; expected [n, inChannels, ...spatial] with one to three spatial dimensions.`,
    );
  }
  checkTensor(
    where,
    "weight",
    weight,
    "float32",
    Array.from({ length: x.rank }, () => null),
  );
  const [n, inChannels, ...spatial] = x.shape as [number, number, ...number[]];
  const [outChannels, perGroup, ...kernel] = weight.shape as [number, number, ...number[]];
  if (weight.size === 0) throw new ShapeError(`${where}: weight has shape [${weight.shape}]; it must not be empty.`);
  const groups = options.groups ?? 1;
  checkInteger(where, "groups", groups, 1);
  if (outChannels % groups)
    throw new ShapeError(`${where}: outChannels = ${outChannels} must be a multiple of groups = ${groups}.`);
  if (inChannels !== perGroup * groups) {
    throw new ShapeError(
      `${where}: x has shape [${x.shape}]; its channels must be ${perGroup} (weight's) times groups = ${groups}.`,
    );
  }
  const stride = checkedSteps(where, "stride", options.stride, dims, 1, 1);
  const padding = checkedSteps(where, "padding", options.padding, dims, 0, 0);
  const dilation = checkedSteps(where, "dilation", options.dilation, dims, 1, 1);
  const out = spatial.map((size, i) => {
    const padded = size + 2 * padding[i]!;
    const extent = dilation[i]! * (kernel[i]! - 1) + 1;
    if (extent > padded) {
      throw new ShapeError(
        `${where}: the window spans ${extent} elements of spatial dimension ${i} (kernel ${kernel[i]}, dilation ` +
          `${dilation[i]}); ` +
          `x has ${size} there, ${padded} with padding.`,
      );
    }
    return Math.floor((padded - extent) / stride[i]!) + 1;
  });
  return { n, inChannels, outChannels, groups, spatial, kernel, out, stride, padding, dilation };
}

function checkedSteps(
  where: string,
  name: string,
  values: readonly number[] | undefined,
  dims: number,
  low: number,
  otherwise: number,
): readonly number[] {
  if (values === undefined) return Array.from({ length: dims }, () => otherwise);
  if (!Array.isArray(values) || values.length !== dims) {
    throw new ArgumentError(
      `${where}: ${name} must hold ${dims} numbers, one for each spatial dimension; got ${shownAll(values)}.`,
    );
  }
  for (const v of values) checkInteger(where, name, v, low, LARGEST);
  return values;
}

/** The kernels' description of sizes: always three spatial dimensions. */
function shapeOf(sizes: ConvSizes): ConvShape {
  const three = (values: readonly number[], leading: number): [number, number, number] =>
    [leading, leading, ...values].slice(-3) as [number, number, number];
  const { inChannels, outChannels, groups, spatial, out, kernel, stride, padding, dilation } = sizes;
  const [id, ih, iw] = three(spatial, 1);
  const [od, oh, ow] = three(out, 1);
  const [kd, kh, kw] = three(kernel, 1);
  const [sd, sh, sw] = three(stride, 1);
  const [pd, ph, pw] = three(padding, 0);
  const [dd, dh, dw] = three(dilation, 1);
  return { inChannels, id, ih, iw, outChannels, od, oh, ow, kd, kh, kw, sd, sh, sw, pd, ph, pw, dd, dh, dw, groups };
}
