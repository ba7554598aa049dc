/**
 * What DoRA is made of: the norms of the adapted weight, the ratio magnitude / norm, and a factor for each
 * channel. Kernels: assembly/lora/dora.ts, assembly/nn/channel_scale.ts.
 *
 * DoRA (Liu et al. 2024) replaces W by W' = m * (W + s B A) / c, c = `doraNorm` of each output row, taken as a
 * constant in backward (section 4.3). With g = `doraScale(m, c)` PEFT's result
 * `y + (g - 1) * (D(x) Wᵀ) + g * s * B(A(D(x)))`, y = x Wᵀ + bias, is
 *
 *     without dropout   channelScale(linear(x, W, null, [branch]), g, bias)
 *     with dropout      add(linear(x - D(x), W, bias), channelScale(linear(D(x), W, null, [branch]), g))
 *
 * and an embedding's `channelScale(embedding(ids, W, {}, [branch]), g)`.
 */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkBias, checkBoolean, checkFloat, checkInteger, checkTensor, checkWeight } from "../../tensor/check.js";
import { formatOf } from "../../tensor/dtype.js";
import { sizeOf, Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/**
 * c [k], c_j = || W_j + scaling * (B A)_j ||: the 2-norm of each output's row, without history.
 *
 * Source: PEFT, DoraLinearLayer.get_weight_norm; f32(W + f32(s * BA)), squares added in float64.
 * @param weight [k, d], or [d, k] if fanInFanOut; an embedding's table is [d = numEmbeddings, k = embeddingDim]
 * with fanInFanOut = true; a convolution's (without groups) [k, inChannels, ...kernel]; may be of a half dtype
 * @param loraA [r, d], or [r, inChannels, ...kernel]
 * @param loraB [k, r], or [k, r, 1, ...]
 * @param scaling s, a finite number
 * @throws ShapeError, DTypeError, ArgumentError
 *
 * @example
 * const weight = tensor([[3, 4], [0, 2]]);
 * console.log(ops.doraNorm(weight, zeros([1, 2]), zeros([2, 1]), 2).data); // Float32Array(2) [ 5, 2 ]
 */
export function doraNorm(weight: Tensor, loraA: Tensor, loraB: Tensor, scaling: number, fanInFanOut = false): Tensor {
  const where = "doraNorm";
  checkWeight(where, "weight", weight);
  checkBoolean(where, "fanInFanOut", fanInFanOut);
  if (weight.rank < 2 || (fanInFanOut && weight.rank > 2)) {
    throw new ShapeError(
      `${where}: weight has shape [${weight.shape}]; expected ${fanInFanOut ? "2" : "at least 2"} dimensions.`,
    );
  }
  const [k, ...inputs] = fanInFanOut ? [weight.shape[1]!, weight.shape[0]!] : (weight.shape as [number, ...number[]]);
  checkTensor(where, "loraA", loraA, "float32", [null, ...inputs]);
  checkTensor(where, "loraB", loraB, "float32", [k, loraA.shape[0]!, ...loraA.shape.slice(2).map(() => 1)]);
  checkFloat(where, "scaling", scaling);
  const { kernels, memory, scratch } = engine();
  const d = sizeOf(inputs);
  return memory.withBlocks([kernels.mergeRowsBytes(fanInFanOut ? k : d), k * 8], (rows, sums) => {
    const norm = new Tensor([k]);
    kernels.doraNorm({
      norm: norm.address,
      weight: weight.address,
      a: loraA.address,
      b: loraB.address,
      k,
      d,
      r: loraA.shape[0]!,
      s: scaling,
      fanInFanOut,
      format: formatOf(weight.dtype),
      rows,
      sums,
      scratch,
    });
    return norm;
  });
}

/**
 * magnitude / norm, of norm's shape; norm is a constant: it gets no gradient.
 *
 * Source: Liu et al. 2024, section 4.3; PEFT, DoraLinearLayer.forward (mag_norm_scale).
 * @param magnitude as many elements as norm, in any shape: PEFT's is [k], for a convolution [1, k, 1, ...]
 * @param norm [k], from `doraNorm`
 * @throws ShapeError, DTypeError, DisposedError
 *
 * @example
 * console.log(ops.doraScale(tensor([5, 3]), tensor([5, 2])).data); // Float32Array(2) [ 1, 1.5 ]
 */
export function doraScale(magnitude: Tensor, norm: Tensor): Tensor {
  checkTensor("doraScale", "magnitude", magnitude);
  checkTensor("doraScale", "norm", norm);
  if (magnitude.size !== norm.size) {
    throw new ShapeError(
      `doraScale: magnitude has shape [${magnitude.shape}], norm [${norm.shape}]; expected equal sizes.`,
    );
  }
  const { kernels } = engine();
  const y = new Tensor(norm.shape);
  kernels.divForward(y.address, magnitude.address, norm.address, y.size);
  return record(
    y,
    [magnitude, norm],
    (dy) => {
      const dm = gradient(magnitude);
      if (dm) kernels.divBackward(dm, dy.address, norm.address, y.size);
    },
    [],
    [norm],
  );
}

/**
 * x * g + bias, g and bias spread along dimension `dim` of x.
 *
 * @param x [..., channels, ...]
 * @param g [channels]
 * @param bias [channels] or null
 * @param dim where the channels are; by default the last dimension, 1 for a convolution's [n, channels, ...]
 * @returns x's shape
 * @throws ShapeError, DTypeError, ArgumentError
 *
 * @example
 * const y = ops.channelScale(ones([2, 3, 4]), tensor([1, 2, 3]), null, 1); // [2, 3, 4]
 */
export function channelScale(x: Tensor, g: Tensor, bias: Tensor | null = null, dim?: number): Tensor {
  checkTensor("channelScale", "x", x);
  dim ??= x.rank - 1;
  checkInteger("channelScale", "dim", dim, 0, x.rank - 1);
  const channels = x.shape[dim]!;
  checkTensor("channelScale", "g", g, "float32", [channels]);
  bias = checkBias("channelScale", bias, channels);
  const outer = sizeOf(x.shape.slice(0, dim));
  const inner = sizeOf(x.shape.slice(dim + 1));
  const { kernels } = engine();
  const y = new Tensor(x.shape);
  kernels.channelScaleForward(y.address, x.address, g.address, bias?.address ?? 0, outer, channels, inner);
  return record(y, [x, g, bias], (dy) =>
    kernels.channelScaleBackward({
      dx: gradient(x),
      dg: gradient(g),
      dBias: gradient(bias),
      dy: dy.address,
      x: x.address,
      g: g.address,
      outer,
      channels,
      inner,
    }),
  );
}
