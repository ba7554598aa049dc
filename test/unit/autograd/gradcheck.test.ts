/**
 * Every op's backward against central differences of its forward (test/support/gradcheck.ts), and checks of that check.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, manualSeed, ops, scope, tensor, type Tensor } from "../../../src/index.js";
import { gradient, noGrad, record } from "../../../src/autograd/tape.js";
import { newMask } from "../../../src/random/seed.js";
import { engine } from "../../../src/runtime/engine.js";
import { assertBits } from "../../support/golden.js";
import { gradcheck, gridTensor as grid } from "../../support/gradcheck.js";
import { causalAttention, positionsFrom, rope, ropeTable } from "../../support/attention.js";

await init();

/** Row counts and widths that are no multiples of four, so that every kernel's tail runs too. */
const N = 5;
const D = 7;
const K = 6;

for (const fanInFanOut of [false, true]) {
  for (const r of [0, 1, 4]) {
    for (const p of r ? [0, 0.3] : [0]) {
      for (const trainable of [false, true]) {
        const label =
          `linear: r = ${r}, fanInFanOut = ${fanInFanOut}, dropout = ${p}, weight ` +
          `${trainable ? "trainable" : "frozen"}`;
        test(label, () =>
          scope(() => {
            const x = grid([N, D], 1);
            const weight = grid(fanInFanOut ? [D, K] : [K, D], 2, trainable);
            const bias = grid([K], 3);
            const loraA = grid([r, D], 4);
            const loraB = grid([K, r], 5);
            const factors: Record<string, Tensor> = r ? { loraA, loraB } : {};
            gradcheck(label, { x, weight, bias, ...factors }, () => {
              manualSeed(7);
              return ops.linear(
                x,
                weight,
                bias,
                r ? [{ loraA, loraB, scaling: 1.5, mask: p ? newMask(p) : null }] : [],
                fanInFanOut,
              );
            });
          }),
        );
      }
    }
  }
}

test("linear without bias, x of rank 3, and x that needs no gradient", () =>
  scope(() => {
    const x = grid([2, 3, D], 1);
    const weight = grid([K, D], 2);
    const loraA = grid([4, D], 4);
    const loraB = grid([K, 4], 5);
    gradcheck("no bias", { x, weight }, () => ops.linear(x, weight));
    x.requiresGrad = false;
    weight.requiresGrad = false;
    gradcheck("input layer", { x, weight, loraA, loraB }, () =>
      ops.linear(x, weight, null, [{ loraA, loraB, scaling: 0.5, mask: null }]),
    );
  }));

for (const lora of [false, true]) {
  for (const paddingIdx of [null, 2]) {
    test(`embedding: ${lora ? "LoRA" : "plain"}, paddingIdx = ${paddingIdx}`, () =>
      scope(() => {
        const vocab = 6;
        const dim = 5;
        const r = 3;
        const ids = tensor(new Int32Array([2, 0, 5, 2, 5, 3]), [2, 3]);
        const weight = grid([vocab, dim], 1);
        const loraA = grid([r, vocab], 2);
        const loraB = grid([dim, r], 3);
        gradcheck(
          "embedding",
          lora ? { weight, loraA, loraB } : { weight },
          () => ops.embedding(ids, weight, { paddingIdx }, lora ? [{ loraA, loraB, scaling: 2 }] : []),
          {
            zero: (name, i) =>
              (name === "weight" && Math.floor(i / dim) === paddingIdx) ||
              (name === "loraA" && i % vocab === paddingIdx),
          },
        );
      }));
  }
}

test("add, mul, scale, sum, reshape, narrow", () =>
  scope(() => {
    const a = grid([3, D], 1);
    const b = grid([3, D], 2);
    gradcheck("add", { a, b }, () => ops.add(a, b));
    gradcheck("mul", { a, b }, () => ops.mul(a, b));
    gradcheck("a + a * a", { a }, () => ops.add(a, ops.mul(a, a)));
    gradcheck("scale", { a }, () => ops.scale(a, -2.5));
    gradcheck("sum", { a }, () => ops.sum(a));
    gradcheck("reshape", { a }, () => ops.reshape(a, [D, 3]));
    const c = grid([2, 3, D], 3);
    for (const [dim, start, length] of [
      [0, 1, 1],
      [1, 0, 2],
      [2, 2, 5],
      [-1, 1, 3],
      [2, 0, D],
    ] as const) {
      gradcheck(`narrow ${dim}, ${start}, ${length}`, { c }, () => ops.narrow(c, dim, start, length));
    }
    const part = grid([3, D], 4);
    gradcheck("add, the second for each part of the first", { c, part }, () => ops.add(c, part));
    part.requiresGrad = false;
    gradcheck("add, the second a constant", { c, part }, () => ops.add(c, part));
    gradcheck("two narrows", { c }, () => ops.mul(ops.narrow(c, 2, 0, 4), ops.narrow(c, 2, 3, 4)));
    b.requiresGrad = false;
    gradcheck("mul by a constant", { a, b }, () => ops.mul(a, b));
  }));

test("arithmetic that repeats an operand, sums along axes, products, rearrangements", () =>
  scope(() => {
    const a = grid([2, 1, D], 1);
    const b = grid([3, 1], 2, true, 2 ** -2);
    const x = grid([2, 3, D], 3);
    for (const name of ["add", "sub", "mul", "div"] as const) {
      gradcheck(name, { a, b }, () => ops[name](a, b));
      gradcheck(`${name}, and a number`, { a, b }, () => ops.mul(ops[name](a, 0.75), ops[name](1.5, b)));
    }
    for (const dim of [0, 1, -1]) {
      gradcheck(`sum ${dim}`, { x }, () => ops.sum(x, dim));
      gradcheck(`mean ${dim}`, { x }, () => ops.mean(x, dim, true));
    }
    gradcheck("transpose", { x }, () => ops.transpose(x, 0, 2));
    gradcheck("concat", { x, a }, () => ops.concat([x, a, x], 1));
    gradcheck("matmul", { a, x }, () => ops.matmul(a, ops.transpose(x, 1, 2)));
    a.requiresGrad = false;
    gradcheck("a constant first factor", { a, b, x }, () =>
      ops.matmul(ops.transpose(ops.div(a, b), 1, 2), ops.mul(a, x)),
    );
  }));

test("logSoftmax, and the binary losses", () =>
  scope(() => {
    const x = grid([N, D], 1);
    const target = grid([N, D], 2, false);
    target.data.forEach((v, i, all) => {
      all[i] = Math.abs(v);
    });
    gradcheck("logSoftmax", { x }, () => ops.logSoftmax(x));
    gradcheck("binaryCrossEntropyWithLogits", { x }, () => ops.binaryCrossEntropyWithLogits(x, target));
    gradcheck("binaryCrossEntropy", { x }, () => ops.binaryCrossEntropy(ops.sigmoid(x), target));
  }));

test("exp, log, tanh, sigmoid", () =>
  scope(() => {
    const x = grid([3, D], 1);
    const positive = grid([3, D], 2);
    positive.data.forEach((v, i, all) => {
      all[i] = Math.abs(v) + 1;
    });
    for (const name of ["exp", "tanh", "sigmoid"] as const) gradcheck(name, { x }, () => ops[name](x));
    gradcheck("log", { positive }, () => ops.log(positive));
  }));

for (const name of ["relu", "silu", "gelu", "geluTanh"] as const) {
  test(name, () =>
    scope(() => {
      // relu has no derivative at 0: stay further from it than 2h = 2^-5.
      const x = grid([3, D], 1, true, 2 ** -4);
      gradcheck(name, { x }, () => ops[name](x));
      const wide = tensor([-5.5, -3.25, -2, 2.125, 3.5, 6]);
      wide.requiresGrad = true;
      gradcheck(`${name}, far from 0`, { wide }, () => ops[name](wide));
    }),
  );
}

test("siluMul, with both and with either gradient", () =>
  scope(() => {
    const gate = grid([3, D], 1);
    const up = grid([3, D], 2);
    for (const [g, u] of [
      [true, true],
      [true, false],
      [false, true],
    ] as const) {
      gate.requiresGrad = g;
      up.requiresGrad = u;
      gradcheck("siluMul", { gate, up }, () => ops.siluMul(gate, up));
    }
  }));

test("dropout repeats its mask in backward", () =>
  scope(() => {
    const x = grid([N, D], 1);
    for (const p of [0, 0.3, 0.9])
      gradcheck(`p = ${p}`, { x }, () => {
        manualSeed(7);
        return ops.dropout(x, p);
      });
    gradcheck("p = 1", { x }, () => ops.dropout(x, 1));
  }));

test("rmsNorm, layerNorm, softmax", () =>
  scope(() => {
    const x = grid([N, D], 1);
    const weight = grid([D], 2);
    const bias = grid([D], 3);
    gradcheck("rmsNorm", { x, weight }, () => ops.rmsNorm(x, weight, 1e-5));
    gradcheck("rmsNorm, offset", { x, weight }, () => ops.rmsNorm(x, weight, 1e-5, 1));
    gradcheck("layerNorm", { x, weight, bias }, () => ops.layerNorm(x, weight, bias, 1e-5));
    gradcheck("softmax", { x }, () => ops.softmax(x));
    weight.requiresGrad = bias.requiresGrad = false;
    gradcheck("rmsNorm, frozen", { x, weight }, () => ops.rmsNorm(x, weight, 1e-5));
    gradcheck("layerNorm, frozen", { x, weight, bias }, () => ops.layerNorm(x, weight, bias, 1e-5));
    weight.requiresGrad = bias.requiresGrad = true;
    x.requiresGrad = false;
    gradcheck("rmsNorm, x constant", { x, weight }, () => ops.rmsNorm(x, weight, 1e-5));
    gradcheck("layerNorm, x constant", { x, weight, bias }, () => ops.layerNorm(x, weight, bias, 1e-5));
  }));

test("rope", () =>
  scope(() => {
    const table = ropeTable(8, 6, 100);
    const x = grid([2, 5, 3, 6], 1);
    for (const first of [0, 3]) gradcheck(`first = ${first}`, { x }, () => rope(x, table, first));
    table.cos.dispose();
    table.sin.dispose();
  }));

for (const [queries, keys, heads, kvHeads] of [
  [37, 37, 2, 1],
  [5, 9, 4, 2],
  [1, 6, 3, 3],
  [34, 37, 2, 2],
] as const) {
  test(`causalAttention: ${queries} queries, ${keys} keys, ${heads} heads on ${kvHeads}`, () =>
    scope(() => {
      const batch = keys > 20 ? 1 : 2;
      const dim = 3;
      const q = grid([batch, queries, heads, dim], 1);
      const k = grid([batch, keys, kvHeads, dim], 2);
      const v = grid([batch, keys, kvHeads, dim], 3);
      gradcheck("all", { q, k, v }, () => causalAttention(q, k, v));
      if (keys > 20) return;
      for (const one of [q, k, v]) {
        q.requiresGrad = k.requiresGrad = v.requiresGrad = false;
        one.requiresGrad = true;
        gradcheck("one", { q, k, v }, () => causalAttention(q, k, v));
      }
    }));
}

test("crossEntropy, with ignored rows", () =>
  scope(() => {
    const logits = grid([2, 3, D], 1);
    gradcheck("all rows", { logits }, () =>
      ops.crossEntropy(logits, tensor(new Int32Array([0, 6, 3, 1, 1, 5]), [2, 3])),
    );
    gradcheck("-100", { logits }, () =>
      ops.crossEntropy(logits, tensor(new Int32Array([0, -100, 3, -100, 1, 5]), [2, 3])),
    );
    gradcheck("ignoreIndex 1", { logits }, () =>
      ops.crossEntropy(logits, tensor(new Int32Array([0, 6, 3, 1, 1, 5]), [2, 3]), 1),
    );
  }));

test("mseLoss", () =>
  scope(() => {
    const x = grid([N, D], 1);
    const target = grid([N, D], 2, false);
    gradcheck("mseLoss", { x, target }, () => ops.mseLoss(x, target));
  }));

/* Checks of the check: backward passes with one known mistake. Each right twin passes. */

/** y with a backward in float64: `grads` turns dy into one gradient per input. */
function handMade(y: Tensor, inputs: Tensor[], grads: (dy: Float32Array) => ArrayLike<number>[]): Tensor {
  return record(y, inputs, (dy) => {
    const all = grads(dy.data.slice());
    for (const [i, t] of inputs.entries()) {
      gradient(t);
      const to = t.grad!.data;
      const from = all[i]!;
      for (let j = 0; j < to.length; j++) to[j]! += from[j]!;
    }
  });
}

type Matrix = { rows: number; columns: number; at: (i: number, j: number) => number };
const matrix = (data: ArrayLike<number>, rows: number, columns: number): Matrix => ({
  rows,
  columns,
  at: (i, j) => data[i * columns + j]!,
});
const transposed = (m: Matrix): Matrix => ({ rows: m.columns, columns: m.rows, at: (i, j) => m.at(j, i) });
function product(a: Matrix, b: Matrix, factor = 1): Float64Array {
  const out = new Float64Array(a.rows * b.columns);
  for (let i = 0; i < a.rows; i++) {
    for (let j = 0; j < b.columns; j++) {
      for (let k = 0; k < a.columns; k++) out[i * b.columns + j]! += factor * a.at(i, k) * b.at(k, j);
    }
  }
  return out;
}

function refusesMistakes(
  name: string,
  inputs: Record<string, Tensor>,
  op: (mistake: string | null) => Tensor,
  mistakes: string[],
): void {
  gradcheck(name, inputs, () => op(null));
  for (const mistake of mistakes) {
    assert.throws(
      () => gradcheck(name, inputs, () => op(mistake)),
      (e: Error) => e.message.includes("differences give"),
      `${name}, ${mistake}, must not pass`,
    );
    for (const t of Object.values(inputs)) {
      t.grad?.dispose();
      t.grad = null;
    }
  }
}

test("gradcheck finds the wrong sign of s, and factors whose gradients are transposed", () =>
  scope(() => {
    const n = 4;
    const d = 3;
    const s = 1.5;
    const x = grid([n, d], 1);
    const weight = grid([d, d], 2, false);
    const loraA = grid([d, d], 3);
    const loraB = grid([d, d], 4);
    refusesMistakes(
      "LoRA",
      { x, loraA, loraB },
      (mistake) => {
        const y = noGrad(() => ops.linear(x, weight, null, [{ loraA, loraB, scaling: s, mask: null }]));
        return handMade(y, [x, loraA, loraB], (dyData) => {
          const factor = mistake === "wrong sign of s" ? -s : s;
          const X = matrix(x.data, n, d);
          const W = matrix(weight.data, d, d);
          const A = matrix(loraA.data, d, d);
          const B = matrix(loraB.data, d, d);
          const dy = matrix(dyData, n, d);
          const z = matrix(product(dy, B, factor), n, d);
          const h = matrix(product(X, transposed(A), factor), n, d);
          const through = product(dy, W);
          const branch = product(z, A);
          return [
            through.map((v, i) => v + branch[i]!),
            mistake === "dA transposed" ? product(transposed(X), z) : product(transposed(z), X),
            mistake === "dB transposed" ? product(transposed(h), dy) : product(transposed(dy), h),
          ];
        });
      },
      ["wrong sign of s", "dA transposed", "dB transposed"],
    );
  }));

test("gradcheck finds a dropout mask that backward forgets", () =>
  scope(() => {
    const x = grid([4, 5], 1, true, 2 ** -4);
    refusesMistakes(
      "dropout",
      { x },
      (mistake) => {
        manualSeed(7);
        const y = noGrad(() => ops.dropout(x, 0.3));
        const kept = y.data.map((v) => Number(v !== 0));
        return handMade(y, [x], (dy) => [dy.map((g, i) => (mistake ? g : g * kept[i]!) / 0.7)]);
      },
      ["no mask"],
    );
  }));

test("gradcheck finds a rotation in the wrong direction", () =>
  scope(() => {
    const table = ropeTable(4, 4, 100);
    const positions = positionsFrom(0, 1, 4);
    const x = grid([1, 4, 2, 4], 1);
    refusesMistakes(
      "rope",
      { x },
      (mistake) => {
        const y = noGrad(() => rope(x, table));
        return record(y, [x], (dy) => {
          const { kernels } = engine();
          if (mistake)
            kernels.ropeForward({
              y: gradient(x),
              x: dy.address,
              cos: table.cos.address,
              sin: table.sin.address,
              positions: positions.address,
              rows: 4,
              heads: 2,
              dim: 4,
              pairs: 2,
            });
          else
            kernels.ropeBackward({
              dx: gradient(x),
              dy: dy.address,
              cos: table.cos.address,
              sin: table.sin.address,
              positions: positions.address,
              rows: 4,
              heads: 2,
              dim: 4,
              pairs: 2,
            });
        });
      },
      ["rotated again"],
    );
    table.cos.dispose();
    table.sin.dispose();
  }));

test("gradcheck finds a gradient that is one per cent too large", () =>
  scope(() => {
    const x = grid([3, D], 1);
    refusesMistakes(
      "scale",
      { x },
      (mistake) =>
        handMade(
          noGrad(() => ops.scale(x, 2)),
          [x],
          (dy) => [dy.map((g) => g * (mistake ? 2.02 : 2))],
        ),
      ["times 1.01"],
    );
  }));

test("gradcheck finds attention whose softmax lacks the row sum", () =>
  scope(() => {
    const t = 4;
    const dim = 3;
    const scaling = 1 / Math.sqrt(dim);
    const q = grid([1, t, 1, dim], 1);
    const k = grid([1, t, 1, dim], 2);
    const v = grid([1, t, 1, dim], 3);
    refusesMistakes(
      "attention",
      { q, k, v },
      (mistake) => {
        const y = noGrad(() => causalAttention(q, k, v));
        return handMade(y, [q, k, v], (dyData) => {
          const Q = matrix(q.data, t, dim);
          const K_ = matrix(k.data, t, dim);
          const V = matrix(v.data, t, dim);
          const dy = matrix(dyData, t, dim);
          const P = product(Q, transposed(K_), scaling).map((s, i) => (i % t <= Math.floor(i / t) ? Math.exp(s) : 0));
          const dP = product(dy, transposed(V));
          const dS = new Float64Array(t * t);
          for (let i = 0; i < t; i++) {
            const row = P.subarray(i * t, (i + 1) * t);
            const total = row.reduce((a, b) => a + b);
            for (let j = 0; j < t; j++) row[j]! /= total;
            const rowSum = mistake ? 0 : row.reduce((sum, p, j) => sum + p * dP[i * t + j]!, 0);
            for (let j = 0; j < t; j++) dS[i * t + j] = row[j]! * (dP[i * t + j]! - rowSum);
          }
          const S = matrix(dS, t, t);
          return [
            product(S, K_, scaling),
            product(transposed(S), Q, scaling),
            product(transposed(matrix(P, t, t)), dy),
          ];
        });
      },
      ["no row sum"],
    );
  }));

/* Sums over a batch have one order: parts of a batch give the bits of the whole. */

function rows(t: Tensor, from: number, to: number): Tensor {
  const width = t.size / t.shape[0]!;
  const part = tensor(t.data.slice(from * width, to * width), [to - from, ...t.shape.slice(1)]);
  part.requiresGrad = t.requiresGrad;
  return part;
}

test("two backward() over half batches give the bits of one over the whole", () =>
  scope(() => {
    for (const [n, d, k, r] of [
      [8, 12, 20, 4],
      [37, 33, 17, 8],
      [10, 7, 5, 3],
    ] as const) {
      const x = grid([n, d], 1);
      const weight = grid([k, d], 2);
      const bias = grid([k], 3);
      const loraA = grid([r, d], 4);
      const loraB = grid([k, r], 5);
      const dy = grid([n, k], 6, false);
      // Thirds are not on the float32 grid: every product rounds.
      for (const t of [x, weight, bias, loraA, loraB, dy])
        t.data.forEach((v, i, all) => {
          all[i] = v / 3;
        });
      const trained = { weight, bias, loraA, loraB };
      const step = (from: number, to: number): void =>
        ops
          .sum(
            ops.mul(
              ops.linear(rows(x, from, to), weight, bias, [{ loraA, loraB, scaling: 0.7, mask: null }]),
              rows(dy, from, to),
            ),
          )
          .backward();
      const collect = (): Float32Array[] =>
        Object.values(trained).map((t) => {
          const g = t.grad!.data.slice();
          t.grad!.dispose();
          t.grad = null;
          return g;
        });
      step(0, n);
      const whole = collect();
      for (const cut of [Math.floor(n / 2), 1, n - 3]) {
        step(0, cut);
        step(cut, n);
        const parts = collect();
        for (const [i, name] of Object.keys(trained).entries())
          assertBits(`d${name}, ${n} rows cut at ${cut}`, parts[i]!, whole[i]!);
      }
    }
  }));

test("a batch row alone gives the bits it gives among others, forward and dx", () =>
  scope(() => {
    const n = 9;
    const d = 33;
    const k = 18;
    const r = 5;
    const weight = grid([k, d], 2);
    const bias = grid([k], 3);
    const loraA = grid([r, d], 4);
    const loraB = grid([k, r], 5);
    const gain = grid([d], 6);
    const shift = grid([d], 7);
    const table = ropeTable(6, 4, 100);
    const cases: Record<string, { x: Tensor; op: (x: Tensor) => Tensor }> = {
      linear: {
        x: grid([n, d], 1),
        op: (x) => ops.linear(x, weight, bias, [{ loraA, loraB, scaling: 0.7, mask: null }]),
      },
      rmsNorm: { x: grid([n, d], 1), op: (x) => ops.rmsNorm(x, gain, 1e-5) },
      layerNorm: { x: grid([n, d], 1), op: (x) => ops.layerNorm(x, gain, shift, 1e-5) },
      softmax: { x: grid([n, d], 1), op: (x) => ops.softmax(x) },
      gelu: { x: grid([n, d], 1), op: (x) => ops.gelu(x) },
      rope: { x: grid([3, 6, 2, 4], 1), op: (x) => rope(x, table) },
      causalAttention: {
        x: grid([3, 6, 2, 4], 1),
        op: (x) => causalAttention(x, ops.scale(x, 0.3), ops.scale(x, -0.7)),
      },
    };
    for (const [name, { x, op }] of Object.entries(cases)) {
      x.data.forEach((v, i, all) => {
        all[i] = v / 3;
      });
      const batch = x.shape[0]!;
      const run = (input: Tensor): { y: Float32Array; dx: Float32Array } => {
        const y = op(input);
        const values = y.data.slice();
        ops.sum(ops.mul(y, y)).backward();
        return { y: values, dx: input.grad!.data.slice() };
      };
      const all = run(x);
      for (let i = 0; i < batch; i++) {
        const alone = run(rows(x, i, i + 1));
        assertBits(`${name}: y of row ${i}`, alone.y, all.y.slice(i * alone.y.length, (i + 1) * alone.y.length));
        assertBits(`${name}: dx of row ${i}`, alone.dx, all.dx.slice(i * alone.dx.length, (i + 1) * alone.dx.length));
      }
    }
    table.cos.dispose();
    table.sin.dispose();
  }));

test("a frozen weight and an x without requiresGrad get no gradient", () =>
  scope(() => {
    const x = grid([3, D], 1, false);
    const weight = grid([K, D], 2, false);
    const loraA = grid([2, D], 3);
    const loraB = grid([K, 2], 4);
    ops.sum(ops.linear(x, weight, null, [{ loraA, loraB, scaling: 1, mask: null }])).backward();
    assert.equal(x.grad, null);
    assert.equal(weight.grad, null);
    assert(loraA.grad && loraB.grad);
  }));

test.run();
