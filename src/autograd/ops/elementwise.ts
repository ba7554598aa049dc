/** Multiples, shapes and activations, element by element. Kernels: assembly/nn/elementwise.ts, activation.ts. */
import { engine } from "../../runtime/engine.js";
import { ArgumentError, ShapeError } from "../../runtime/errors.js";
import type { Kernels } from "../../runtime/abi.js";
import { checkFloat, checkSameShape, checkTensor, shown } from "../../tensor/check.js";
import { checkShape, sizeOf, Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

/**
 * alpha * x, of x's shape.
 * @throws DTypeError; ArgumentError if alpha is not finite
 *
 * @example
 * console.log(ops.scale(tensor([1, 2]), 3).data); // Float32Array(2) [ 3, 6 ]
 */
export function scale(x: Tensor, alpha: number): Tensor {
  checkTensor("scale", "x", x);
  checkFloat("scale", "alpha", alpha);
  const { kernels } = engine();
  const y = new Tensor(x.shape);
  y.data.fill(0);
  kernels.saxpy(y.address, x.address, y.size, alpha);
  return record(y, [x], (dy) => kernels.saxpy(gradient(x), dy.address, y.size, alpha), [], []);
}

/**
 * The same values under another shape of the same size. Copies.
 * @throws ShapeError, DTypeError, DisposedError
 *
 * @example
 * const y = ops.reshape(zeros([2, 6]), [3, 4]); // [3, 4]
 */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  checkTensor("reshape", "x", x);
  const size = sizeOf(checkShape("reshape", shape));
  if (size !== x.size)
    throw new ShapeError(`reshape: x has shape [${x.shape}], ${x.size} elements; [${shape}] has ${size}.`);
  const { kernels, memory } = engine();
  const y = new Tensor(shape);
  memory.f32(y.address, y.size).set(x.data);
  return record(y, [x], (dy) => kernels.saxpy(gradient(x), dy.address, x.size, 1), [], []);
}

type Forward = (y: number, x: number, n: number) => void;
type Backward = (dx: number, dy: number, x: number, n: number) => void;

/** @param reads what backward takes the slope of: the function's input or its output */
function activation(
  where: string,
  pick: (k: Kernels) => [Forward, Backward],
  reads: "x" | "y" = "x",
): (x: Tensor) => Tensor {
  return function (x) {
    checkTensor(where, "x", x);
    // A number is let through: in `tensors.map(ops.relu)` it is the index.
    const option: unknown = arguments[1];
    if (typeof option === "string" || (typeof option === "object" && option !== null)) {
      throw new ArgumentError(`${where}: there are no options; got ${shown(option)}.`);
    }
    const [forward, backward] = pick(engine().kernels);
    const y = new Tensor(x.shape);
    const of = reads === "x" ? x : y;
    forward(y.address, x.address, x.size);
    return record(y, [x], (dy) => backward(gradient(x), dy.address, of.address, x.size), [], [of]);
  };
}

/**
 * max(x, 0), of x's shape; its gradient at 0 is 0, as torch's.
 * @function
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.relu(tensor([-1, 2])).data); // Float32Array(2) [ 0, 2 ]
 */
export const relu = activation("relu", (k) => [k.reluForward, k.reluBackward]);
/**
 * x * sigmoid(x), of x's shape (torch.nn.functional.silu).
 * @function
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.silu(tensor([0])).data); // Float32Array(1) [ 0 ]
 */
export const silu = activation("silu", (k) => [k.siluForward, k.siluBackward]);
/**
 * x * (1 + erf(x / sqrt 2)) / 2, of x's shape: torch's gelu, approximate="none".
 * @function
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.gelu(tensor([0])).data); // Float32Array(1) [ 0 ]
 */
export const gelu = activation("gelu", (k) => [k.geluErfForward, k.geluErfBackward]);
/**
 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2, of x's shape: torch's gelu, approximate="tanh".
 * @function
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.geluTanh(tensor([0])).data); // Float32Array(1) [ 0 ]
 */
export const geluTanh = activation("geluTanh", (k) => [k.geluTanhForward, k.geluTanhBackward]);

/**
 * 1 / (1 + exp(-x)), of x's shape (torch.sigmoid).
 * @function
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.sigmoid(tensor([0])).data); // Float32Array(1) [ 0.5 ]
 */
export const sigmoid = activation("sigmoid", (k) => [k.sigmoidForward, k.sigmoidBackward], "y");
/**
 * The hyperbolic tangent, of x's shape (torch.tanh).
 * @function
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.tanh(tensor([0, 20])).data); // Float32Array(2) [ 0, 1 ]
 */
export const tanh = activation("tanh", (k) => [k.tanhForward, k.tanhBackward], "y");
/**
 * e to the power of x, of x's shape (torch.exp); Infinity from 88.73 on.
 * @function
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.exp(tensor([0, 1])).data[1].toFixed(4)); // 2.7183
 */
export const exp = activation("exp", (k) => [k.expForward, k.mulBackward], "y");
/**
 * The natural logarithm, of x's shape (torch.log): -Infinity of 0, NaN of what is below.
 * @function
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.log(tensor([1, 0])).data); // Float32Array(2) [ 0, -Infinity ]
 */
export const log = activation("log", (k) => [k.logForward, k.divBackward]);

/**
 * silu(gate) * up, fused. Equal shapes.
 *
 * Source: Shazeer 2020 (SwiGLU); Hugging Face LlamaMLP.
 * @throws ShapeError, DTypeError, DisposedError
 *
 * @example
 * const y = ops.siluMul(ones([2, 8]), ones([2, 8])); // [2, 8]
 */
export function siluMul(gate: Tensor, up: Tensor): Tensor {
  checkTensor("siluMul", "gate", gate);
  checkTensor("siluMul", "up", up);
  checkSameShape("siluMul", gate, up);
  const { kernels } = engine();
  const y = new Tensor(gate.shape);
  kernels.siluMulForward(y.address, gate.address, up.address, y.size);
  return record(y, [gate, up], (dy) =>
    kernels.siluMulBackward(gradient(gate), gradient(up), dy.address, gate.address, up.address, y.size),
  );
}
