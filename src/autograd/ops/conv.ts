/**
 * Convolution in one to three dimensions, with LoRA branches. Kernels: assembly/lora/conv.ts, assembly/gemm/im2col.ts.
 */
import { engine } from "../../runtime/engine.js";
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import { checkOptions } from "../../runtime/options.js";
import { checkBias, checkFloat, checkInteger, checkTensor, shownAll } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import type { DropoutMask } from "../../random/seed.js";
import { checkBranches, checkMask } from "./branches.js";
import { dropoutKernels } from "./dropout.js";
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
  /** Behind the last image. Default: x's number of images. */
  to?: number | undefined;
}

/** Columns of the column matrix that backward makes at a time: 64 cost 3% more, 512 gain 2% (measured). */
const TILE_COLUMNS = 128;
/** Of sizes, strides, paddings and dilations: sums of a few of them are 32-bit integers. */
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
 * @param where prefix of error messages
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
  where = "conv",
): Tensor {
  checkOptions(where, options, ["stride", "padding", "dilation", "groups"]);
  const shape = checkedShape(where, x, weight, options);
  const { n, inChannels, outChannels, spatial, kernel, out } = shape;
  bias = checkBias(where, bias, outChannels);
  checkBranches(where, branches);
  const terms = branches.map((branch) => term(where, branch, shape));
  // The first term shares the columns of x with W if it is for every image.
  const passes = terms[0]?.images === n ? terms : [{ ...NO_TERM, images: n }, ...terms];
  const image = inChannels * sizeOf(spatial);
  const positions = sizeOf(out);
  const window = inChannels * sizeOf(kernel);
  const columns = Math.min(TILE_COLUMNS, positions);
  const { kernels, memory, scratch } = engine();
  return allOrNothing(() => {
    const y = new Tensor([n, outChannels, ...out]);
    const hs = passes.map(({ images, r }) => new Tensor([images, r, ...out]));
    for (const [i, t] of passes.entries()) {
      const base = i === 0;
      const first = x.address + t.first * image * 4;
      memory.withBlocks([SHAPE_BYTES, window * 64, maskedBytes(t, image)], (block, panel, masked) =>
        kernels.loraConvForward(
          written(block!, shape),
          t.images,
          t.r,
          t.s,
          first,
          input(t, first, image, masked!),
          base ? weight.address : 0,
          base ? (bias?.address ?? 0) : 0,
          t.a?.address ?? 0,
          t.b?.address ?? 0,
          hs[i]!.address,
          y.address + t.first * outChannels * positions * 4,
          panel!,
          scratch,
        ),
      );
    }
    return record(
      y,
      [x, weight, bias, ...terms.flatMap(({ a, b }) => [a, b])],
      (dy) => {
        const dx = gradient(x);
        for (const [i, t] of passes.entries()) {
          const base = i === 0;
          const first = x.address + t.first * image * 4;
          const dxFirst = dx && dx + t.first * image * 4;
          const sizes = [
            SHAPE_BYTES,
            window * columns * 4,
            t.r * positions * 4,
            maskedBytes(t, image),
            dx ? maskedBytes(t, image) : 0,
          ];
          memory.withBlocks(sizes, (block, tile, zs, masked, dmasked) => {
            const dxDropped = t.mask && dx ? dmasked! : 0;
            kernels.loraConvBackward(
              written(block!, shape),
              t.images,
              t.r,
              t.s,
              first,
              input(t, first, image, masked!),
              base ? weight.address : 0,
              t.a?.address ?? 0,
              t.b?.address ?? 0,
              hs[i]!.address,
              zs!,
              dy.address + t.first * outChannels * positions * 4,
              dxFirst,
              dxDropped,
              base ? gradient(weight) : 0,
              base ? gradient(bias) : 0,
              gradient(t.a),
              gradient(t.b),
              tile!,
              columns,
              scratch,
            );
            if (dxDropped) dropoutKernels.backward(dxFirst, dxDropped, t.images * image, t.mask!);
          });
        }
      },
      hs,
    );
  });
}

interface ConvShape {
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

function checkedShape(where: string, x: Tensor, weight: Tensor, options: ConvOptions): ConvShape {
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

/** A checked branch, for images `first` .. `first + images - 1`. */
interface Term {
  r: number;
  s: number;
  a: Tensor | null;
  b: Tensor | null;
  mask: DropoutMask | null;
  first: number;
  images: number;
}

/** The plain convolution's: rank 0. */
const NO_TERM: Term = { r: 0, s: 0, a: null, b: null, mask: null, first: 0, images: 0 };

function term(
  where: string,
  { loraA, loraB, scaling, mask, from = 0, to }: ConvBranch,
  { n, inChannels, outChannels, groups, kernel }: ConvShape,
): Term {
  checkTensor(where, "loraA", loraA, "float32", [null, inChannels, ...kernel]);
  const r = loraA.shape[0]!;
  if (r % groups)
    throw new ShapeError(
      `${where}: loraA has shape [${loraA.shape}]; its rank ${r} must be a multiple of groups = ${groups}.`,
    );
  checkTensor(where, "loraB", loraB, "float32", [outChannels, r / groups, ...kernel.map(() => 1)]);
  checkFloat(where, "scaling", scaling);
  checkMask(where, mask);
  checkInteger(where, "from", from, 0, n);
  checkInteger(where, "to", to ?? n, from, n);
  return { r, s: scaling, a: loraA, b: loraB, mask, first: from, images: (to ?? n) - from };
}

function maskedBytes(t: Term, image: number): number {
  return t.mask ? t.images * image * 4 : 0;
}

/** Address of the term's images of dropout(x), made in `block` if there is a mask; x's are at `first`. */
function input(t: Term, first: number, image: number, block: number): number {
  if (!t.mask) return first;
  dropoutKernels.forward(block, first, t.images * image, t.mask);
  return block;
}

const SHAPE_BYTES = 21 * 4;

/** The kernels' description of a shape (assembly/gemm/im2col.ts), at `block`. */
function written(block: number, shape: ConvShape): number {
  const three = (values: readonly number[], leading: number): number[] => [leading, leading, ...values].slice(-3);
  const { inChannels, outChannels, groups, spatial, out, kernel, stride, padding, dilation } = shape;
  engine()
    .memory.i32(block, SHAPE_BYTES / 4)
    .set([
      inChannels,
      ...three(spatial, 1),
      outChannels,
      ...three(out, 1),
      ...three(kernel, 1),
      ...three(stride, 1),
      ...three(padding, 0),
      ...three(dilation, 1),
      groups,
    ]);
  return block;
}
