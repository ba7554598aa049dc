/** Sums, products and activations, element by element. Kernels: assembly/nn/elementwise.ts, activation.ts. */
import { engine } from "../../runtime/engine.js";
import { ShapeError } from "../../runtime/errors.js";
import type { Kernels } from "../../runtime/kernels.js";
import { checkNumber, checkSameShape, checkTensor } from "../../tensor/check.js";
import { checkShape, sizeOf, Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";

function checkPair(where: string, a: Tensor, b: Tensor): void {
  checkTensor(where, "a", a);
  checkTensor(where, "b", b);
  checkSameShape(where, a, b);
}

/**
 * a + b; b's shape is a's, or its last dimensions, and b is then added to each part of a.
 * @throws ShapeError, DTypeError, DisposedError
 *
 * @example
 * console.log(ops.add(tensor([[1, 2], [3, 4]]), tensor([10, 20])).data); // Float32Array(4) [ 11, 22, 13, 24 ]
 */
export function add(a: Tensor, b: Tensor): Tensor {
  checkTensor("add", "a", a);
  checkTensor("add", "b", b);
  if (b.rank > a.rank || a.shape.slice(a.rank - b.rank).join() !== b.shape.join()) {
    throw new ShapeError(`add: shapes [${a.shape}] and [${b.shape}] must be equal, or the second the last dimensions of the first.`);
  }
  const { kernels } = engine();
  const y = new Tensor(a.shape), n = b.size, parts: number[] = [];
  for (let offset = 0; offset < y.size; offset += n) parts.push(offset * 4);
  for (const at of parts) kernels.addForward(y.address + at, a.address + at, b.address, n);
  return record(y, [a, b], (dy) => {
    const da = gradient(a), db = gradient(b);
    if (da) kernels.saxpy(y.size, 1, dy.address, da);
    if (db) for (const at of parts) kernels.saxpy(n, 1, dy.address + at, db);
  }, [], []);
}

/**
 * a * b, element by element, of equal shapes.
 * @throws ShapeError, DTypeError, DisposedError
 *
 * @example
 * console.log(ops.mul(tensor([1, 2]), tensor([3, 4])).data); // Float32Array(2) [ 3, 8 ]
 */
export function mul(a: Tensor, b: Tensor): Tensor {
  checkPair("mul", a, b);
  const { kernels } = engine();
  const y = new Tensor(a.shape);
  kernels.mulForward(y.address, a.address, b.address, y.size);
  return record(y, [a, b], (dy) => {
    const da = gradient(a);
    if (da) kernels.mulBackward(da, dy.address, b.address, y.size);
    const db = gradient(b);
    if (db) kernels.mulBackward(db, dy.address, a.address, y.size);
  });
}

/**
 * alpha * x, of x's shape.
 * @throws DTypeError; ArgumentError if alpha is not finite
 *
 * @example
 * console.log(ops.scale(tensor([1, 2]), 3).data); // Float32Array(2) [ 3, 6 ]
 */
export function scale(x: Tensor, alpha: number): Tensor {
  checkTensor("scale", "x", x);
  checkNumber("scale", "alpha", alpha, -Infinity);
  const { kernels } = engine();
  const y = new Tensor(x.shape);
  y.data.fill(0);
  kernels.saxpy(y.size, alpha, x.address, y.address);
  return record(y, [x], (dy) => kernels.saxpy(y.size, alpha, dy.address, gradient(x)), [], []);
}

/**
 * Sum of all elements, of shape []. Added in float64, rounded once.
 * @throws DTypeError, DisposedError
 *
 * @example
 * console.log(ops.sum(tensor([[1, 2], [3, 4]])).item()); // 10
 */
export function sum(x: Tensor): Tensor {
  checkTensor("sum", "x", x);
  const { kernels } = engine();
  const y = new Tensor([]);
  y.data[0] = kernels.sum(x.address, x.size);
  return record(y, [x], (dy) => kernels.addScalar(gradient(x), dy.data[0]!, x.size), [], []);
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
  if (size !== x.size) throw new ShapeError(`reshape: x has shape [${x.shape}], ${x.size} elements; [${shape}] has ${size}.`);
  const { kernels, memory } = engine();
  const y = new Tensor(shape);
  memory.f32(y.address, y.size).set(x.data);
  return record(y, [x], (dy) => kernels.saxpy(x.size, 1, dy.address, gradient(x)), [], []);
}

type Forward = (y: number, x: number, n: number) => void;
type Backward = (dx: number, dy: number, x: number, n: number) => void;

function activation(where: string, pick: (k: Kernels) => [Forward, Backward]): (x: Tensor) => Tensor {
  return (x) => {
    checkTensor(where, "x", x);
    const [forward, backward] = pick(engine().kernels);
    const y = new Tensor(x.shape);
    forward(y.address, x.address, x.size);
    return record(y, [x], (dy) => backward(gradient(x), dy.address, x.address, x.size));
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
    kernels.siluMulBackward(gradient(gate), gradient(up), dy.address, gate.address, up.address, y.size));
}
