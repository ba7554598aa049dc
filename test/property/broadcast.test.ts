/**
 * Ops that are linear in one operand are adjoint to their backward, <J x, y> = <x, Jᵀ y>, for shapes that are repeated,
 * rearranged and summed in any way; and broadcasting does what writing the repetition out does, to the bit.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { init, ops, scope, tensor, type Tensor } from "../../src/index.js";
import { gridTensor as grid } from "../support/gradcheck.js";

await init();

const seed = fc.integer({ min: 1, max: 1e6 });
const full = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 0, maxLength: 5 });
/** A shape, and one that is repeated to it: dimensions of size 1, or missing in front. */
const pair = full.chain((shape) =>
  fc.record({
    shape: fc.constant(shape),
    part: fc
      .tuple(fc.nat(shape.length), fc.array(fc.boolean(), { minLength: shape.length, maxLength: shape.length }))
      .map(([cut, ones]) => shape.map((size, i) => (ones[i] ? 1 : size)).slice(cut)),
  }),
);

/** In float64; the values are on a grid of 2^-10, so that few products round. */
const dot = (a: Tensor, b: Tensor): number => a.data.reduce((sum, v, i) => sum + v * b.data[i]!, 0);

/** x's gradient of <op(x), y>, and both sides of the identity. */
function adjoint(x: Tensor, op: (x: Tensor) => Tensor, s: number): void {
  x.requiresGrad = true;
  const out = op(x);
  const y = grid(out.shape, s + 1, false);
  const left = dot(out, y);
  const size = out.data.reduce((sum, v, i) => sum + Math.abs(v * y.data[i]!), 0);
  ops.sum(ops.mul(out, y)).backward();
  const right = dot(x, x.grad!);
  assert(Math.abs(left - right) <= 1e-5 * size + 1e-9, `${left} and ${right}`);
}

/** The values written out. */
function repeated(t: Tensor, shape: readonly number[]): Tensor {
  const values: number[] = [];
  const own = [...shape.slice(t.rank).map(() => 1), ...t.shape];
  const visit = (d: number, place: number): void => {
    if (d === shape.length) return void values.push(t.data[place]!);
    for (let i = 0; i < shape[d]!; i++) visit(d + 1, place * own[d]! + (own[d] === 1 ? 0 : i));
  };
  visit(0, 0);
  return tensor(new Float32Array(values), shape);
}

test("add, sub, mul, div: adjoint in each operand; the bits of equal shapes", () => {
  fc.assert(
    fc.property(pair, seed, fc.boolean(), ({ shape, part }, s, swapped) =>
      scope(() => {
        const whole = grid(shape, s, false, 2 ** -6);
        const small = grid(part, s + 7, false, 2 ** -6);
        const written = repeated(small, shape);
        for (const name of ["add", "sub", "mul", "div"] as const) {
          const op = (a: Tensor, b: Tensor): Tensor => (swapped ? ops[name](b, a) : ops[name](a, b));
          assert.deepEqual(op(whole, small).data, op(whole, written).data);
          const zero = ops.mul(whole, 0);
          // Linear in the first operand, and but for a quotient in the second.
          if (name === "mul" || (name === "div" && !swapped)) adjoint(grid(shape, s + 1), (x) => op(x, small), s);
          if (name === "mul" || (name === "div" && swapped)) adjoint(grid(part, s + 2), (x) => op(whole, x), s);
          if (name === "add" || name === "sub") {
            adjoint(grid(part, s + 2), (x) => op(zero, x), s);
            adjoint(grid(shape, s + 1), (x) => op(x, ops.mul(small, 0)), s);
          }
        }
      }),
    ),
    { numRuns: 60 },
  );
});

test("sum, mean, transpose, concat, narrow: adjoint, in any dimension", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 }),
      seed,
      fc.nat(),
      fc.nat(),
      (shape, s, a, b) =>
        scope(() => {
          const i = a % shape.length;
          const j = (b % shape.length) - shape.length;
          const size = shape[i]!;
          adjoint(grid(shape, s), (x) => ops.sum(x, i), s);
          adjoint(grid(shape, s), (x) => ops.mean(x, j, true), s);
          adjoint(grid(shape, s), (x) => ops.transpose(x, i, j), s);
          adjoint(grid(shape, s), (x) => ops.concat([x, ops.mul(x, 2), x], i), s);
          adjoint(grid(shape, s), (x) => ops.narrow(x, i, b % size, size - (b % size)), s);
          const x = grid(shape, s, false);
          const cut = b % (size + 1);
          assert.deepEqual(ops.concat([ops.narrow(x, i, 0, cut), ops.narrow(x, i, cut, size - cut)], i).data, x.data);
          assert.deepEqual(ops.transpose(ops.transpose(x, i, j), j, i).data, x.data);
        }),
    ),
    { numRuns: 60 },
  );
});

test("matmul: adjoint in each operand, batches repeated", () => {
  fc.assert(
    fc.property(
      pair,
      fc.tuple(...[1, 2, 3].map(() => fc.integer({ min: 0, max: 9 }))),
      seed,
      ({ shape, part }, [n, k, m], s) =>
        scope(() => {
          const a = grid([...shape, n!, k!], s, false);
          const b = grid([...part, k!, m!], s + 3, false);
          adjoint(grid(a.shape, s + 1), (x) => ops.matmul(x, b), s);
          adjoint(grid(b.shape, s + 2), (x) => ops.matmul(a, x), s);
        }),
    ),
    { numRuns: 60 },
  );
});

test.run();
