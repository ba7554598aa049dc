/**
 * Arithmetic with broadcasting, reductions, matrix products, rearrangements, functions and binary losses against
 * float64, computed from indices by definition; gradients against central differences of those definitions.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, ops, scope, tensor, type Tensor, zeros } from "../../../src/index.js";
import { gradient, weighted } from "../../support/frame.js";
import { assertClose } from "../../support/golden.js";
import { gridTensor as grid } from "../../support/gradcheck.js";
import { stream } from "../../support/random.js";

await init();

type Values = ArrayLike<number>;
/** An array of any rank as its values and shape, in float64. */
interface Nd {
  values: Float64Array;
  shape: readonly number[];
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);
const nd = (values: Values, shape: readonly number[]): Nd => ({ values: Float64Array.from(values), shape });

/** All index tuples of a shape, the last dimension fastest. */
function* indices(shape: readonly number[]): Generator<number[]> {
  for (let i = 0; i < sizeOf(shape); i++) {
    const index: number[] = [];
    let rest = i;
    for (let d = shape.length - 1; d >= 0; d--) {
      index.unshift(rest % shape[d]!);
      rest = Math.floor(rest / shape[d]!);
    }
    yield index;
  }
}

/** The value at an index, dimensions of size 1 and missing ones repeated. */
function at({ values, shape }: Nd, index: readonly number[]): number {
  const own = index.slice(index.length - shape.length);
  return values[shape.reduce((place, size, d) => place * size + (size === 1 ? 0 : own[d]!), 0)]!;
}

function make(shape: readonly number[], value: (index: number[]) => number): Nd {
  return nd([...indices(shape)].map(value), shape);
}

interface Case {
  shapes: number[][];
  op: (...inputs: Tensor[]) => Tensor;
  reference: (...inputs: Nd[]) => Nd;
  /** Moves inputs away from where the op has no derivative. */
  input?: (v: number) => number;
}

function check(label: string, { shapes, op, reference, input = (v) => v }: Case, tolerance = 2e-6): void {
  test(label, () =>
    scope(() => {
      const inputs = shapes.map((shape, i) => {
        const t = grid(shape, i + 1);
        t.data.forEach((v, at, all) => {
          all[at] = input(v);
        });
        return t;
      });
      const given = inputs.map((t) => nd(t.data, t.shape));
      const expected = reference(...given);
      const y = op(...inputs);
      assert.deepEqual(y.shape, expected.shape);
      assertClose(label, y.data, Float32Array.from(expected.values), tolerance, 1e-7);
      const next = stream(y.size);
      const dy = Float32Array.from({ length: y.size }, () => next() * 2 - 1);
      ops.sum(ops.mul(y, tensor(dy, y.shape))).backward();
      for (const [i, t] of inputs.entries()) {
        const slopes = gradient(
          (x) => weighted(dy, reference(...given.map((g, j) => (j === i ? { values: x, shape: g.shape } : g))).values),
          given[i]!.values,
        );
        assertClose(
          `${label}: input ${i}`,
          t.grad?.data ?? new Float32Array(t.size),
          Float32Array.from(slopes),
          5e-6,
          1e-6,
        );
      }
    }),
  );
}

/* Arithmetic */

const BINARY: Record<"add" | "sub" | "mul" | "div", (a: number, b: number) => number> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
};
const away = (v: number): number => (v < 0 ? v - 0.5 : v + 0.5);
const PAIRS: [a: number[], b: number[], y: number[]][] = [
  [
    [3, 5],
    [3, 5],
    [3, 5],
  ],
  [[3, 5], [5], [3, 5]],
  [[5], [3, 5], [3, 5]],
  [
    [3, 5],
    [3, 1],
    [3, 5],
  ],
  [
    [3, 1],
    [1, 5],
    [3, 5],
  ],
  [[], [2, 3], [2, 3]],
  [[2, 3], [], [2, 3]],
  [[], [], []],
  [[1], [1, 1, 1], [1, 1, 1]],
  [
    [2, 1, 4],
    [3, 1],
    [2, 3, 4],
  ],
  [
    [2, 3, 4, 5],
    [3, 1, 5],
    [2, 3, 4, 5],
  ],
  [
    [2, 1, 3, 1, 2, 1],
    [4, 1, 2, 1, 3],
    [2, 4, 3, 2, 2, 3],
  ],
  [
    [0, 3],
    [1, 3],
    [0, 3],
  ],
  [
    [2, 1],
    [2, 0],
    [2, 0],
  ],
  [[1, 1, 1], [7], [1, 1, 7]],
];
for (const [name, f] of Object.entries(BINARY) as [keyof typeof BINARY, (a: number, b: number) => number][]) {
  for (const [a, b, shape] of PAIRS) {
    check(`${name}: [${a}] and [${b}]`, {
      shapes: [a, b],
      op: ops[name],
      reference: (p, q) => make(shape, (i) => f(at(p, i), at(q, i))),
      input: away,
    });
  }
  for (const c of [2, -0.3, 0.1]) {
    const number = Math.fround(c);
    check(`${name}: a tensor and ${c}`, {
      shapes: [[3, 5]],
      op: (x) => ops[name](x, c),
      reference: (x) => make(x.shape, (i) => f(at(x, i), number)),
      input: away,
    });
    check(`${name}: ${c} and a tensor`, {
      shapes: [[3, 5]],
      op: (x) => ops[name](c, x),
      reference: (x) => make(x.shape, (i) => f(number, at(x, i))),
      input: away,
    });
  }
}

test("signs of zero, infinities", () =>
  scope(() => {
    const x = tensor([0, -0, 1, -1]);
    assert.deepEqual([...ops.mul(x, -1).data], [-0, 0, -1, 1]);
    assert.deepEqual([...ops.div(x, tensor([0])).data], [NaN, NaN, Infinity, -Infinity]);
    assert.deepEqual([...ops.sub(x, x).data], [0, 0, 0, 0]);
    assert.deepEqual([...ops.concat([x, x]).data.slice(0, 2)], [0, -0]);
    assert.deepEqual([...ops.add(tensor([-0]), tensor([[-0]])).data], [-0]);
  }));

test("a tensor with itself", () =>
  scope(() => {
    const x = grid([3, 1], 1);
    ops.sum(ops.mul(x, ops.transpose(x, 0, 1))).backward();
    const total = [...x.data].reduce((a, b) => a + b);
    assertClose(
      "d sum(x xᵀ)",
      x.grad!.data,
      Float32Array.from(x.data, () => 2 * total),
    );
  }));

/* Reductions */

for (const shape of [[], [1], [7], [3, 5], [2, 3, 4], [2, 1, 5, 3], [2, 3, 1, 2, 2, 3]]) {
  for (const dim of [
    undefined,
    ...Array.from({ length: Math.max(shape.length, 1) * 2 }, (_, i) => i - Math.max(shape.length, 1)),
  ]) {
    for (const keepdim of [false, true])
      for (const name of ["sum", "mean"] as const) {
        const axis = dim === undefined ? -1 : (dim + Math.max(shape.length, 1)) % Math.max(shape.length, 1);
        const all = dim === undefined;
        const kept = shape.map((size, i) => (all || i === axis ? 1 : size));
        const out = keepdim ? kept : shape.filter((_, i) => !all && i !== axis);
        check(`${name}: [${shape}] along ${dim}, keepdim = ${keepdim}`, {
          shapes: [shape],
          op: (x) => ops[name](x, dim, keepdim),
          reference: (x) => {
            const sums = nd(new Float64Array(sizeOf(kept)), kept);
            const count = sizeOf(shape) / sizeOf(kept);
            for (const index of indices(shape)) {
              const place = kept.reduce((p, size, d) => p * size + (size === 1 ? 0 : index[d]!), 0);
              sums.values[place]! += at(x, index) / (name === "mean" ? count : 1);
            }
            return nd(sums.values, out);
          },
        });
      }
  }
}

test("a sum along an axis has the bits of the sum of its values, wherever the axis is", () =>
  scope(() => {
    const x = grid([5, 23, 6], 1);
    x.data.forEach((v, i, all) => {
      all[i] = (v / 3) * 2 ** ((i % 40) - 20);
    });
    const along = ops.sum(x, 1).data.slice();
    const last = ops.sum(ops.transpose(x, 1, 2), -1).data.slice();
    assert.deepEqual(along, last);
    for (let i = 0; i < 5; i++)
      for (let j = 0; j < 6; j++) {
        const values = Float32Array.from({ length: 23 }, (_, t) => x.data[(i * 23 + t) * 6 + j]!);
        assert.equal(ops.sum(tensor(values)).item(), along[i * 6 + j]);
      }
    assert.deepEqual([...ops.mean(zeros([2, 0]), 1).data], [NaN, NaN], "as in torch");
    assert.deepEqual([...ops.sum(zeros([2, 0]), 1).data], [0, 0]);
  }));

test("argmax: the first of ties, NaN above all, each dimension", () =>
  scope(() => {
    const x = tensor([
      [
        [1, 5, 5],
        [7, NaN, NaN],
      ],
      [
        [-Infinity, -Infinity, -1],
        [2, 2, 2],
      ],
    ]);
    assert.deepEqual([ops.argmax(x).item(), ops.argmax(x).dtype, ops.argmax(x).shape], [4, "int32", []]);
    assert.deepEqual([...ops.argmax(x, -1).indices], [1, 1, 2, 0]);
    assert.deepEqual([...ops.argmax(x, 1).indices], [1, 1, 1, 1, 1, 1]);
    assert.deepEqual([...ops.argmax(x, 0).indices], [0, 0, 0, 0, 0, 0]);
    assert.deepEqual(ops.argmax(x, 1, true).shape, [2, 1, 3]);
    assert.deepEqual(ops.argmax(x, undefined, true).shape, [1, 1, 1]);
    assert.equal(ops.argmax(tensor(4)).item(), 0);
    assert.deepEqual(ops.argmax(zeros([0, 3]), 1).shape, [0]);
    assert.equal(ops.argmax(tensor([-Infinity, -Infinity])).item(), 0);
  }));

/* Matrix products */

const PRODUCTS: [a: number[], b: number[], y: number[]][] = [
  [[5], [5], []],
  [[5], [5, 3], [3]],
  [[4, 5], [5], [4]],
  [
    [4, 5],
    [5, 3],
    [4, 3],
  ],
  [
    [1, 1],
    [1, 1],
    [1, 1],
  ],
  [
    [2, 4, 5],
    [5, 3],
    [2, 4, 3],
  ],
  [
    [4, 5],
    [2, 5, 3],
    [2, 4, 3],
  ],
  [
    [2, 4, 5],
    [2, 5, 3],
    [2, 4, 3],
  ],
  [
    [2, 1, 4, 5],
    [3, 5, 2],
    [2, 3, 4, 2],
  ],
  [[3, 4, 5], [5], [3, 4]],
  [[5], [2, 5, 3], [2, 3]],
  [
    [2, 1, 3, 2, 1, 4],
    [2, 1, 1, 4, 3],
    [2, 2, 3, 2, 1, 3],
  ],
  [
    [2, 3],
    [1, 1, 3, 4],
    [1, 1, 2, 4],
  ],
  [
    [2, 0],
    [0, 3],
    [2, 3],
  ],
  [
    [0, 2],
    [2, 3],
    [0, 3],
  ],
  [
    [0, 2, 3],
    [3, 4],
    [0, 2, 4],
  ],
  [
    [6, 9],
    [9, 5],
    [6, 5],
  ],
];
for (const [a, b, shape] of PRODUCTS) {
  check(
    `matmul: [${a}] and [${b}]`,
    {
      shapes: [a, b],
      op: ops.matmul,
      reference: (p, q) => {
        const left = p.shape.length === 1 ? nd(p.values, [1, ...p.shape]) : p;
        const right = q.shape.length === 1 ? nd(q.values, [...q.shape, 1]) : q;
        const k = left.shape.at(-1)!;
        const n = left.shape.at(-2)!;
        const m = right.shape.at(-1)!;
        const full = [...shape.slice(0, shape.length - Number(a.length > 1) - Number(b.length > 1)), n, m];
        const y = make(full, (index) => {
          let sum = 0;
          for (let t = 0; t < k; t++)
            sum += at(left, [...index.slice(0, -1), t]) * at(right, [...index.slice(0, -2), t, index.at(-1)!]);
          return sum;
        });
        return nd(y.values, shape);
      },
    },
    1e-5,
  );
}

test("matmul has linear's bits, and a matrix of a batch has those it has alone", () =>
  scope(() => {
    const x = grid([3, 7, 33], 1);
    const weight = grid([18, 33], 2);
    const many = grid([3, 33, 18], 3);
    for (const t of [x, weight, many])
      t.data.forEach((v, i, all) => {
        all[i] = v / 3;
      });
    assert.deepEqual(ops.matmul(x, ops.transpose(weight, 0, 1)).data, ops.linear(x, weight).data);
    const all = ops.matmul(x, many).data.slice();
    for (let i = 0; i < 3; i++) {
      const alone = ops.matmul(
        ops.reshape(ops.narrow(x, 0, i, 1), [7, 33]),
        ops.reshape(ops.narrow(many, 0, i, 1), [33, 18]),
      );
      assert.deepEqual(alone.data, all.slice(i * 126, (i + 1) * 126));
    }
  }));

/* Rearrangements */

for (const shape of [[1], [3, 5], [4, 8], [2, 3, 4], [2, 5, 3, 4], [2, 3, 1, 2, 2, 3]]) {
  for (const [i] of shape.entries())
    for (const [j] of shape.entries()) {
      const swap = (v: readonly number[]): number[] => v.map((x, d) => (d === i ? v[j]! : d === j ? v[i]! : x));
      check(`transpose: [${shape}], ${i} and ${j}`, {
        shapes: [shape],
        op: (x) => ops.transpose(x, i, j - shape.length),
        reference: (x) => make(swap(shape), (index) => at(x, swap(index))),
      });
    }
}
for (const dim of [0, 1, 2, -1]) {
  const axis = (dim + 3) % 3;
  const shapes = [2, 0, 1, 3].map((n) => [2, 3, 4].map((size, d) => (d === axis ? n : size)));
  check(`concat along ${dim}`, {
    shapes,
    op: (...all) => ops.concat(all, dim),
    reference: (...all) => {
      const sources = all.flatMap((t) => Array.from({ length: t.shape[axis]! }, (_, place) => ({ t, place })));
      return make(
        [2, 3, 4].map((size, d) => (d === axis ? 6 : size)),
        (index) => {
          const { t, place } = sources[index[axis]!]!;
          return at(
            t,
            index.map((v, d) => (d === axis ? place : v)),
          );
        },
      );
    },
  });
}

/* Functions and losses */

const EACH: Record<"exp" | "log" | "tanh" | "sigmoid", [(x: number) => number, (v: number) => number]> = {
  exp: [Math.exp, (v) => 3 * v],
  log: [Math.log, (v) => Math.abs(v) + 0.125],
  tanh: [Math.tanh, (v) => 3 * v],
  sigmoid: [(x) => 1 / (1 + Math.exp(-x)), (v) => 3 * v],
};
for (const [name, [f, input]] of Object.entries(EACH) as [keyof typeof EACH, (typeof EACH)["exp"]][]) {
  for (const shape of [[], [1], [3, 7], [2, 2, 2, 2, 2, 2]]) {
    check(`${name}: [${shape}]`, {
      shapes: [shape],
      op: (x) => ops[name](x),
      reference: (x) => make(shape, (i) => f(at(x, i))),
      input,
    });
  }
}

const logSoftmax = (x: Nd): Nd =>
  make(x.shape, (index) => {
    const row = Array.from({ length: x.shape.at(-1)! }, (_, j) => at(x, [...index.slice(0, -1), j]));
    const most = Math.max(...row);
    return at(x, index) - most - Math.log(row.reduce((sum, v) => sum + Math.exp(v - most), 0));
  });
for (const shape of [[1], [5], [3, 7], [2, 2, 9]]) {
  check(
    `logSoftmax: [${shape}]`,
    { shapes: [shape], op: (x) => ops.logSoftmax(x), reference: logSoftmax, input: (v) => 20 * v },
    1e-6,
  );
}
test("softmax and logSoftmax along other dimensions are those of the transposed tensor", () =>
  scope(() => {
    const x = grid([3, 4, 5], 1, false);
    for (const name of ["softmax", "logSoftmax"] as const)
      for (const dim of [0, 1, 2, -1, -2, -3]) {
        const expected = ops.transpose(ops[name](ops.transpose(x, dim, 2)), dim, 2);
        assert.deepEqual(ops[name](x, dim).data, expected.data);
      }
    assert(ops.sum(ops.softmax(x, 0), 0).data.every((v) => Math.abs(v - 1) < 1e-6));
  }));
test("logSoftmax far from 0: exact to an ulp where softmax is 0", () =>
  scope(() => {
    const y = ops.logSoftmax(
      tensor([
        [1e4, 1e4 - 100, 9e3],
        [-1e30, 0, -Infinity],
      ]),
    );
    assert.deepEqual([...y.data], [0, -100, -1000, Math.fround(-1e30), 0, -Infinity]);
  }));

const meanOf = (terms: Float64Array): Nd => nd([terms.reduce((a, b) => a + b, 0) / terms.length], []);
const bce = (p: Nd, t: Nd): Nd =>
  meanOf(
    p.values.map(
      (v, i) => -(t.values[i]! * Math.max(Math.log(v), -100) + (1 - t.values[i]!) * Math.max(Math.log1p(-v), -100)),
    ),
  );
for (const shape of [[1], [3, 7], [2, 3, 2, 2]]) {
  const target = grid(shape, 9, false);
  target.data.forEach((v, i, all) => {
    all[i] = i % 3 === 0 ? 1 : i % 3 === 1 ? 0 : Math.abs(v);
  });
  target.keep();
  const t = nd(target.data, shape);
  check(`binaryCrossEntropy: [${shape}]`, {
    shapes: [shape],
    op: (x) => ops.binaryCrossEntropy(x, target),
    reference: (x) => bce(x, t),
    input: (v) => 0.5 + 0.49 * v,
  });
  check(`binaryCrossEntropyWithLogits: [${shape}]`, {
    shapes: [shape],
    op: (x) => ops.binaryCrossEntropyWithLogits(x, target),
    input: (v) => 6 * v,
    reference: (x) =>
      meanOf(x.values.map((v, i) => Math.max(v, 0) - v * t.values[i]! + Math.log1p(Math.exp(-Math.abs(v))))),
  });
}

test("binary losses at their ends: torch's -100, torch's 1e-12, small losses with all their digits", () =>
  scope(() => {
    const loss = (x: number, t: number): number => ops.binaryCrossEntropy(tensor([x]), tensor([t])).item();
    assert.deepEqual([loss(0, 0), loss(1, 1), loss(0, 1), loss(1, 0)], [0, 0, 100, 100]);
    const p = tensor([0, 1, 0, 1]);
    p.requiresGrad = true;
    ops.binaryCrossEntropy(p, tensor([0, 1, 1, 0])).backward();
    assertClose("slopes", p.grad!.data, Float32Array.of(0, 0, -0.25e12, 0.25e12), 1e-6);
    for (const x of [-200, -90, -30, -17, 17, 30, 90]) {
      const got = ops.binaryCrossEntropyWithLogits(tensor([x]), tensor([x > 0 ? 1 : 0])).item();
      const exact = Math.log1p(Math.exp(-Math.abs(x)));
      // Below 1.2e-38 numbers are subnormal, and exp of less than -103.97 is 0.
      assert(Math.abs(got - exact) <= 4e-7 * exact + 2e-45, `${x}: ${got}, not ${exact}`);
    }
    assert.equal(ops.binaryCrossEntropyWithLogits(tensor([1e30]), tensor([0])).item(), Math.fround(1e30));
    const small = 2 ** -30;
    assertClose("-log(1 - p) of a small p", Float32Array.of(loss(small, 0)), [small], 1e-7, 0);
  }));

test.run();
