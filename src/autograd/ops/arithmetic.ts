/** Sums, differences, products and quotients, with torch's broadcasting. Kernels: assembly/nn/{elementwise,strided}.ts. */
import { engine } from "../../runtime/engine.js";
import { ArgumentError, DTypeError } from "../../runtime/errors.js";
import { checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";
import { addStrided, commonShape, copyStrided, spreadStrides, stridesOf } from "./strides.js";

/**
 * a + b. Shapes are repeated as torch does: counted from the last, dimensions are equal, or one of them is 1 or missing.
 *
 * Source: torch.add.
 * @param a a tensor, or a number if b is none
 * @param b a tensor, or a number if a is none
 * @throws ShapeError, DTypeError; ArgumentError for a number that is not finite in float32; DisposedError
 *
 * @example
 * console.log(ops.add(tensor([[1, 2], [3, 4]]), tensor([10, 20])).data); // Float32Array(4) [ 11, 22, 13, 24 ]
 * console.log(ops.add(tensor([1, 2]), 0.5).data); // Float32Array(2) [ 1.5, 2.5 ]
 */
export function add(a: Tensor | number, b: Tensor | number): Tensor { return sumOf("add", a, b, 1); }

/**
 * a - b; operands, broadcasting and errors as `add`.
 *
 * Source: torch.sub.
 *
 * @example
 * console.log(ops.sub(1, tensor([[0.25], [0.5]])).data); // Float32Array(2) [ 0.75, 0.5 ]
 */
export function sub(a: Tensor | number, b: Tensor | number): Tensor { return sumOf("sub", a, b, -1); }

/**
 * a * b, element by element; operands, broadcasting and errors as `add`.
 *
 * Source: torch.mul.
 *
 * @example
 * console.log(ops.mul(tensor([1, 2]), tensor([3, 4])).data); // Float32Array(2) [ 3, 8 ]
 * const y = ops.mul(ones([2, 1, 3]), ones([4, 1])); // [2, 4, 3]
 */
export function mul(a: Tensor | number, b: Tensor | number): Tensor { return productOf("mul", a, b); }

/**
 * a / b, element by element; operands, broadcasting and errors as `add`. x / 0 is an infinity or NaN, as in torch.
 *
 * Source: torch.div.
 *
 * @example
 * console.log(ops.div(tensor([[2, 4], [6, 8]]), tensor([[2], [4]])).data); // Float32Array(4) [ 1, 2, 1.5, 2 ]
 */
export function div(a: Tensor | number, b: Tensor | number): Tensor { return productOf("div", a, b); }

/** Checks both and gives their common shape. */
function checkOperands(where: string, a: Tensor | number, b: Tensor | number): number[] {
  for (const [name, value] of [["a", a], ["b", b]] as const) {
    if (typeof value !== "number") checkTensor(where, name, value);
    else if (!Number.isFinite(Math.fround(value))) throw new ArgumentError(`${where}: ${name} must be finite in float32; got ${value}.`);
  }
  if (typeof a === "number" && typeof b === "number") throw new DTypeError(`${where}: a and b are numbers; one of them must be a Tensor.`);
  const shape = (value: Tensor | number): readonly number[] => (typeof value === "number" ? [] : value.shape);
  return commonShape(where, shape(a), shape(b));
}

/** The operand as a tensor: a number as one of shape [], which goes into `made`. */
function asTensor(value: Tensor | number, made: Tensor[]): Tensor {
  if (typeof value !== "number") return value;
  const t = new Tensor([]);
  t.data[0] = value;
  made.push(t);
  return t;
}

function sumOf(where: string, a: Tensor | number, b: Tensor | number, sign: 1 | -1): Tensor {
  const shape = checkOperands(where, a, b), whole = stridesOf(shape);
  const { kernels } = engine();
  return allOrNothing(() => {
    const made: Tensor[] = [], p = asTensor(a, made), q = asTensor(b, made), y = new Tensor(shape);
    if (sign === 1 && p.size === y.size && p.shape.slice(p.rank - q.rank).join() === q.shape.join()) {
      for (let at = 0; at < y.size * 4; at += q.size * 4) kernels.addForward(y.address + at, p.address + at, q.address, q.size);
    } else {
      copyStrided(shape, y.address, whole, p.address, spreadStrides(p.shape, shape));
      addStrided(sign, shape, y.address, whole, q.address, spreadStrides(q.shape, shape));
    }
    for (const t of made) t.dispose();
    return record(y, [p, q], (dy) => {
      for (const [t, alpha] of [[p, 1], [q, sign]] as const) {
        const g = gradient(t);
        if (g) addStrided(alpha, shape, g, spreadStrides(t.shape, shape), dy.address, whole);
      }
    }, [], []);
  });
}

function productOf(where: "mul" | "div", a: Tensor | number, b: Tensor | number): Tensor {
  const shape = checkOperands(where, a, b), whole = stridesOf(shape);
  const { kernels, memory } = engine();
  const [forward, backward] = where === "mul" ? [kernels.mulForward, kernels.mulBackward] : [kernels.divForward, kernels.divBackward];
  return allOrNothing(() => {
    const made: Tensor[] = [], p = asTensor(a, made), q = asTensor(b, made), y = new Tensor(shape), n = y.size;
    /** Bytes of a block for t repeated, and where t's n values are: there, or where they lie. */
    const bytes = (t: Tensor): number => (t.size === n ? 0 : n * 4);
    const full = (t: Tensor, block: number): number => {
      if (t.size === n) return t.address;
      copyStrided(shape, block, whole, t.address, spreadStrides(t.shape, shape));
      return block;
    };
    // y itself is room for one of them.
    if (p.size === n) forward(y.address, p.address, full(q, y.address), n);
    else memory.withBlocks([bytes(q)], (block) => forward(y.address, full(p, y.address), full(q, block!), n));

    /** t's gradient += alpha times the n values that `write` makes in a block, summed over what was repeated. */
    const addSum = (t: Tensor, alpha: number, write: (block: number) => void): void => memory.withBlocks([n * 4], (block) => {
      write(block!);
      addStrided(alpha, shape, gradient(t), spreadStrides(t.shape, shape), block!, whole);
    });
    /** t's gradient += dy * other, or dy / other. */
    const addTerm = (t: Tensor, dy: Tensor, other: Tensor): void => {
      if (t.size === n) memory.withBlocks([bytes(other)], (block) => backward(gradient(t), dy.address, full(other, block!), n));
      else addSum(t, 1, (block) => forward(block, dy.address, full(other, block), n));
    };
    return record(y, [p, q], (dy) => {
      if (p.requiresGrad) addTerm(p, dy, q);
      if (!q.requiresGrad) return;
      if (where === "mul") return addTerm(q, dy, p);
      // torch's order: (a / b) / b, then times -dy.
      addSum(q, -1, (block) => {
        forward(block, y.address, full(q, block), n);
        kernels.mulForward(block, block, dy.address, n);
      });
    }, made, where === "mul" ? [p, q] : [q, q.requiresGrad ? y : null]);
  });
}
