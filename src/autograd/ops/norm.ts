/** RMSNorm, LayerNorm and softmax over the last dimension. Kernels: assembly/nn/{rms_norm,layer_norm,softmax}.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import { checkLastDimension, checkNumber, checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/** [rows, dim] of a tensor seen as rows of its last dimension. */
function rowsOf(where: string, x: Tensor): [number, number] {
  checkTensor(where, "x", x);
  const dim = x.shape[x.rank - 1];
  if (!dim) throw new ShapeError(`${where}: x has shape [${x.shape}]; its last dimension must be at least 1.`);
  return [x.size / dim, dim];
}

/**
 * x / sqrt(mean(x^2) + eps) * weight over the last dimension.
 *
 * Source: Zhang & Sennrich 2019; Hugging Face LlamaRMSNorm.
 * @param x [..., dim]
 * @param weight [dim]
 * @returns x's shape
 * @throws ShapeError, DTypeError, ArgumentError for an eps below 0
 *
 * @example
 * console.log(ops.rmsNorm(tensor([[2, -2]]), ones([2]), 0).data); // Float32Array(2) [ 1, -1 ]
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number): Tensor {
  const [rows, dim] = rowsOf("rmsNorm", x);
  checkTensor("rmsNorm", "weight", weight, "float32", [null]);
  checkLastDimension("rmsNorm", "x", x, weight.size, "weight's size");
  checkNumber("rmsNorm", "eps", eps, 0);
  const { kernels } = engine();
  return allOrNothing(() => {
    const y = new Tensor(x.shape), rstd = new Tensor([rows]);
    kernels.rmsNormForward(y.address, rstd.address, x.address, weight.address, rows, dim, eps);
    return record(y, [x, weight], (dy) =>
      kernels.rmsNormBackward(gradient(x), gradient(weight), dy.address, x.address, weight.address, rstd.address, rows, dim), [rstd]);
  });
}

/**
 * (x - mean) / sqrt(var + eps) * weight + bias over the last dimension.
 *
 * Source: Ba et al. 2016; torch.nn.functional.layer_norm.
 * @param x [..., dim]
 * @param weight [dim]
 * @param bias [dim]
 * @returns x's shape
 * @throws ShapeError, DTypeError, ArgumentError for an eps below 0
 *
 * @example
 * console.log(ops.layerNorm(tensor([[1, 3]]), ones([2]), zeros([2]), 0).data); // Float32Array(2) [ -1, 1 ]
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, eps: number): Tensor {
  const [rows, dim] = rowsOf("layerNorm", x);
  checkTensor("layerNorm", "weight", weight, "float32", [dim]);
  checkTensor("layerNorm", "bias", bias, "float32", [dim]);
  checkNumber("layerNorm", "eps", eps, 0);
  const { kernels } = engine();
  return allOrNothing(() => {
    const y = new Tensor(x.shape), mean = new Tensor([rows]), rstd = new Tensor([rows]);
    kernels.layerNormForward(y.address, mean.address, rstd.address, x.address, weight.address, bias.address, rows, dim, eps);
    return record(y, [x, weight, bias], (dy) =>
      kernels.layerNormBackward(gradient(x), gradient(weight), gradient(bias), dy.address, x.address, weight.address,
        mean.address, rstd.address, rows, dim), [mean, rstd]);
  });
}

/**
 * exp(x - max) / sum over the last dimension (torch.softmax).
 * @param x [..., dim]
 * @returns x's shape
 * @throws ShapeError for a last dimension of 0; DTypeError
 *
 * @example
 * console.log(ops.softmax(zeros([1, 4])).data); // Float32Array(4) [ 0.25, 0.25, 0.25, 0.25 ]
 */
export function softmax(x: Tensor): Tensor {
  const [rows, dim] = rowsOf("softmax", x);
  const { kernels } = engine();
  const y = new Tensor(x.shape);
  kernels.softmaxForward(y.address, x.address, rows, dim);
  return record(y, [x], (dy) => kernels.softmaxBackward(gradient(x), dy.address, y.address, rows, dim), [], [y]);
}

/**
 * log(softmax(x)) over the last dimension, without the rounding of a softmax near 0.
 *
 * Source: torch.log_softmax.
 * @param x [..., dim]
 * @returns x's shape
 * @throws ShapeError for a last dimension of 0; DTypeError
 *
 * @example
 * console.log(ops.logSoftmax(tensor([[0, -200]])).data); // Float32Array(2) [ 0, -200 ]
 */
export function logSoftmax(x: Tensor): Tensor {
  const [rows, dim] = rowsOf("logSoftmax", x);
  const { kernels } = engine();
  const y = new Tensor(x.shape);
  kernels.logSoftmaxForward(y.address, x.address, rows, dim);
  return record(y, [x], (dy) => kernels.logSoftmaxBackward(gradient(x), dy.address, y.address, rows, dim), [], [y]);
}
