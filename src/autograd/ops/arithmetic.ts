/** Sums, differences, products, quotients, with torch's broadcasting. Kernels: assembly/nn/{elementwise,strided}.ts. */
import { engine } from "../../runtime/engine.js";
import { DTypeError } from "../../runtime/errors.js";
import { checkFloat, checkTensor } from "../../tensor/check.js";
import { allOrNothing } from "../../tensor/scope.js";
import { Tensor } from "../../tensor/tensor.js";
import { gradient, record } from "../tape.js";
import { commonShape, isSame, spreadStrides, strided, stridesOf } from "./strides.js";

/**
 * a + b. Shapes are repeated as torch does: counted from the last, dimensions are equal, or one of them is 1 or
 * missing.
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
export function add(a: Tensor | number, b: Tensor | number): Tensor {
  return sumOf("add", a, b, 1);
}

/**
 * a - b; operands, broadcasting and errors as `add`.
 *
 * Source: torch.sub.
 *
 * @example
 * console.log(ops.sub(1, tensor([[0.25], [0.5]])).data); // Float32Array(2) [ 0.75, 0.5 ]
 */
export function sub(a: Tensor | number, b: Tensor | number): Tensor {
  return sumOf("sub", a, b, -1);
}

/**
 * a * b, element by element; operands, broadcasting and errors as `add`.
 *
 * Source: torch.mul.
 *
 * @example
 * console.log(ops.mul(tensor([1, 2]), tensor([3, 4])).data); // Float32Array(2) [ 3, 8 ]
 * const y = ops.mul(ones([2, 1, 3]), ones([4, 1])); // [2, 4, 3]
 */
export function mul(a: Tensor | number, b: Tensor | number): Tensor {
  return productOf("mul", a, b);
}

/**
 * a / b, element by element; operands, broadcasting and errors as `add`. x / 0 is an infinity or NaN, as in torch.
 *
 * Source: torch.div.
 *
 * @example
 * console.log(ops.div(tensor([[2, 4], [6, 8]]), tensor([[2], [4]])).data); // Float32Array(4) [ 1, 2, 1.5, 2 ]
 */
export function div(a: Tensor | number, b: Tensor | number): Tensor {
  return productOf("div", a, b);
}

type Operands = [shape: readonly number[], make: (made: Tensor[]) => [Tensor, Tensor]];

/**
 * The common shape, and what makes tensors of both, checked already: a number is one of shape [], which goes into
 * `made`.
 */
function operands(where: string, a: Tensor | number, b: Tensor | number): Operands {
  const shapes = [a, b].map((value, i) => {
    const name = "ab"[i]!;
    if (typeof value === "number") checkFloat(where, name, value);
    else checkTensor(where, name, value);
    return typeof value === "number" ? [] : value.shape;
  }) as [readonly number[], readonly number[]];
  if (typeof a === "number" && typeof b === "number") {
    throw new DTypeError(`${where}: a and b are numbers; one of them must be a Tensor.`);
  }
  const asTensor = (value: Tensor | number, made: Tensor[]): Tensor => {
    if (typeof value !== "number") return value;
    const t = new Tensor([]);
    t.data[0] = value;
    made.push(t);
    return t;
  };
  return [commonShape(where, ...shapes), (made) => [asTensor(a, made), asTensor(b, made)]];
}

function sumOf(where: string, a: Tensor | number, b: Tensor | number, sign: 1 | -1): Tensor {
  const [shape, make] = operands(where, a, b);
  const { kernels } = engine();
  /** y += alpha * t repeated, or y = it. */
  const spread = (alpha: number | null, y: Tensor, t: Tensor): void =>
    strided(alpha, shape, y.address, stridesOf(shape), t.address, spreadStrides(t.shape, shape));
  return allOrNothing(() => {
    const made: Tensor[] = [];
    const [p, q] = make(made);
    const y = new Tensor(shape);
    if (sign === 1 && p.size === y.size && isSame(p.shape.slice(p.rank - q.rank), q.shape)) {
      const step = q.size * 4;
      for (let at = 0; at < y.size * 4; at += step)
        kernels.addForward(y.address + at, p.address + at, q.address, q.size);
    } else {
      spread(null, y, p);
      spread(sign, y, q);
    }
    for (const t of made) t.dispose();
    return record(
      y,
      [p, q],
      (dy) => {
        for (const [t, alpha] of [
          [p, 1],
          [q, sign],
        ] as const) {
          const g = gradient(t);
          if (g) strided(alpha, shape, g, spreadStrides(t.shape, shape), dy.address, stridesOf(shape));
        }
      },
      [],
      [],
    );
  });
}

function productOf(where: "mul" | "div", a: Tensor | number, b: Tensor | number): Tensor {
  const [shape, make] = operands(where, a, b);
  const { kernels, memory } = engine();
  const forward = kernels[`${where}Forward`];
  const backward = kernels[`${where}Backward`];
  return allOrNothing(() => {
    const made: Tensor[] = [];
    const [p, q] = make(made);
    const y = new Tensor(shape);
    const n = y.size;
    /**
     * The address of t's n values: its own, or, if broadcasting repeats them, that of `block`, where they are written.
     */
    const full = (t: Tensor, block: number): number => {
      if (t.size === n) return t.address;
      strided(null, shape, block, stridesOf(shape), t.address, spreadStrides(t.shape, shape));
      return block;
    };
    /** Runs fn with a block for the n values of t, or with 0 if t has them itself. */
    const withRoom = (t: Tensor | null, fn: (block: number) => void): void =>
      t?.size === n ? fn(0) : memory.withBlocks([n * 4], fn);
    // One repeated operand can be written to y itself, since the kernel works in place.
    if (p.size === n) forward(y.address, p.address, full(q, y.address), n);
    else withRoom(q, (block) => forward(y.address, full(p, y.address), full(q, block), n));

    /** t's gradient += alpha times the n values that `write` makes in a block, summed over what was repeated. */
    const addSum = (t: Tensor, alpha: number, write: (block: number) => void): void =>
      withRoom(null, (block) => {
        write(block);
        strided(alpha, shape, gradient(t), spreadStrides(t.shape, shape), block, stridesOf(shape));
      });
    /** t's gradient += dy * other, or dy / other. */
    const addTerm = (t: Tensor, dy: Tensor, other: Tensor): void => {
      if (t.size === n) withRoom(other, (block) => backward(gradient(t), dy.address, full(other, block), n));
      else addSum(t, 1, (block) => forward(block, dy.address, full(other, block), n));
    };
    return record(
      y,
      [p, q],
      (dy) => {
        if (p.requiresGrad) addTerm(p, dy, q);
        if (!q.requiresGrad) return;
        if (where === "mul") return addTerm(q, dy, p);
        // torch's order: (a / b) / b, then times -dy.
        addSum(q, -1, (block) => {
          forward(block, y.address, full(q, block), n);
          kernels.mulForward(block, block, dy.address, n);
        });
      },
      made,
      where === "mul" ? [p, q] : [q, q.requiresGrad ? y : null],
    );
  });
}
