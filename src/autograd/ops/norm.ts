/** RMSNorm, LayerNorm and softmax over the last dimension. Kernels: assembly/nn/{rms_norm,layer_norm,softmax}.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkBias, checkFloat, checkInteger, checkLastDimension, checkTensor } from "../../tensor/check.js";
import { allOrNothing, graphScope } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import type { Kernels } from "../../runtime/abi.js";
import { gradient, record } from "../tape.js";
import { transpose } from "./arrange.js";

/** [rows, dim] of a tensor seen as rows of its last dimension. */
function rowsOf(where: string, x: Tensor): [number, number] {
  checkTensor(where, "x", x);
  const dim = x.shape[x.rank - 1];
  if (!dim) throw new ShapeError(`${where}: x has shape [${x.shape}]; its last dimension must be at least 1.`);
  return [x.size / dim, dim];
}

/**
 * x / sqrt(mean(x^2) + eps) * (offset + weight) over the last dimension.
 *
 * Source: Zhang & Sennrich 2019; Hugging Face LlamaRMSNorm, GemmaRMSNorm (offset 1).
 * @param x [..., dim]
 * @param weight [dim]
 * @param offset default 0
 * @returns x's shape
 * @throws ShapeError, DTypeError, ArgumentError for an eps below 0
 *
 * @example
 * console.log(ops.rmsNorm(tensor([[2, -2]]), ones([2]), 0).data); // Float32Array(2) [ 1, -1 ]
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number, offset = 0): Tensor {
  const [rows, dim] = rowsOf("rmsNorm", x);
  checkTensor("rmsNorm", "weight", weight, "float32", [null]);
  checkLastDimension("rmsNorm", "x", x, weight.size, "weight's size");
  checkFloat("rmsNorm", "eps", eps, 0);
  checkFloat("rmsNorm", "offset", offset);
  const { kernels, memory } = engine();
  const withGain = (use: (gain: number) => void): void =>
    offset === 0
      ? use(weight.address)
      : memory.withBlocks([dim * 4], (gain) => {
          memory.f32(gain, dim).set(weight.data);
          kernels.addScalar(gain, dim, offset);
          use(gain);
        });
  return allOrNothing(() => {
    const y = new Tensor(x.shape);
    const rstd = new Tensor([rows]);
    withGain((gain) => kernels.rmsNormForward(y.address, rstd.address, x.address, gain, rows, dim, eps));
    return record(
      y,
      [x, weight],
      (dy) =>
        withGain((gain) =>
          kernels.rmsNormBackward(gradient(x), gradient(weight), dy.address, x.address, gain, rstd.address, rows, dim),
        ),
      [rstd],
    );
  });
}

/**
 * (x - mean) / sqrt(var + eps) * weight + bias over the last dimension.
 *
 * Source: Ba et al. 2016; torch.nn.functional.layer_norm.
 * @param x [..., dim]
 * @param weight [dim]
 * @param bias [dim], or null for none
 * @returns x's shape
 * @throws ShapeError, DTypeError, ArgumentError for an eps below 0
 *
 * @example
 * console.log(ops.layerNorm(tensor([[1, 3]]), ones([2]), zeros([2]), 0).data); // Float32Array(2) [ -1, 1 ]
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor | null, eps: number): Tensor {
  const [rows, dim] = rowsOf("layerNorm", x);
  checkTensor("layerNorm", "weight", weight, "float32", [dim]);
  bias = checkBias("layerNorm", bias, dim);
  checkFloat("layerNorm", "eps", eps, 0);
  const { kernels } = engine();
  return allOrNothing(() => {
    const y = new Tensor(x.shape);
    const mean = new Tensor([rows]);
    const rstd = new Tensor([rows]);
    kernels.layerNormForward({
      y: y.address,
      mean: mean.address,
      rstd: rstd.address,
      x: x.address,
      weight: weight.address,
      bias: bias?.address ?? 0,
      rows,
      dim,
      eps,
    });
    return record(
      y,
      [x, weight, bias],
      (dy) =>
        kernels.layerNormBackward({
          dx: gradient(x),
          dWeight: gradient(weight),
          dBias: gradient(bias),
          dy: dy.address,
          x: x.address,
          weight: weight.address,
          mean: mean.address,
          rstd: rstd.address,
          rows,
          dim,
        }),
      [mean, rstd],
    );
  });
}

/**
 * exp(x - max) / sum along a dimension.
 *
 * Source: torch.softmax.
 * @param x [..., dim]
 * @param dim negative: from the end. Default: the last.
 * @returns x's shape
 * @throws ShapeError for a dimension of size 0; ArgumentError for one that x has not; DTypeError
 *
 * @example
 * console.log(ops.softmax(zeros([1, 4])).data); // Float32Array(4) [ 0.25, 0.25, 0.25, 0.25 ]
 */
export function softmax(x: Tensor, dim = -1): Tensor {
  return rowwise("softmax", x, dim, (k) => [k.softmaxForward, k.softmaxBackward]);
}

/**
 * log(softmax(x, dim)), without the rounding of a softmax near 0. Arguments and errors as `softmax`.
 *
 * Source: torch.log_softmax.
 *
 * @example
 * console.log(ops.logSoftmax(tensor([[0, -200]])).data); // Float32Array(2) [ 0, -200 ]
 */
export function logSoftmax(x: Tensor, dim = -1): Tensor {
  return rowwise("logSoftmax", x, dim, (k) => [k.logSoftmaxForward, k.logSoftmaxBackward]);
}

type Pick = (kernels: Kernels) => [Kernels["softmaxForward"], Kernels["softmaxBackward"]];

function rowwise(where: string, x: Tensor, dim: number, pick: Pick): Tensor {
  const [rows, size] = rowsOf(where, x);
  const last = x.rank - 1;
  checkInteger(where, "dim", dim, -x.rank, last);
  if (dim !== -1 && dim !== last) {
    return graphScope(() => transpose(rowwise(where, transpose(x, dim, -1), -1, pick), dim, -1));
  }
  const [forward, backward] = pick(engine().kernels);
  const y = new Tensor(x.shape);
  forward(y.address, x.address, rows, size);
  return record(y, [x], (dy) => backward(gradient(x), dy.address, y.address, rows, size), [], [y]);
}
