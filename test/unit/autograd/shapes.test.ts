/**
 * Shapes at the edges: what acts on the last dimension, or on each element, gives for six dimensions what it gives for
 * the same values in two, for a scalar what it gives for one value, and for no elements none; gradients likewise.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, manualSeed, ops, scope, tensor, type Tensor, zeros } from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { gridTensor as grid } from "../../support/gradcheck.js";

await init();

const D = 5;
const branch = { loraA: grid([2, D], 4, false).keep(), loraB: grid([3, 2], 5, false).keep(), scaling: 1, mask: null };
const weight = grid([3, D], 2, false).keep();
const blocks = grid([4, D], 2, false).keep();
const gain = grid([D], 6, false).keep();
const bias = grid([3], 7, false).keep();
const lora = {
  loraA: branch.loraA,
  loraB: grid([2, 2], 8, false).keep(),
  scaling: 1,
  mask: null,
  enableLora: [true, false],
};

/** x [..., D] -> [..., anything]. */
const BY_ROW: Record<string, (x: Tensor) => Tensor> = {
  linear: (x) => ops.linear(x, weight, bias, [branch]),
  mergedLinear: (x) => ops.mergedLinear(x, blocks, null, lora),
  rmsNorm: (x) => ops.rmsNorm(x, gain, 1e-5),
  layerNorm: (x) => ops.layerNorm(x, gain, gain, 1e-5),
  softmax: (x) => ops.softmax(x),
  logSoftmax: (x) => ops.logSoftmax(x),
  channelScale: (x) => ops.channelScale(x, gain, gain),
  add: (x) => ops.add(x, gain),
  mul: (x) => ops.mul(x, gain),
  matmul: (x) => ops.matmul(x, ops.transpose(weight, 0, 1)),
  sum: (x) => ops.sum(x, -1, true),
  mean: (x) => ops.mean(x, -1, true),
  narrow: (x) => ops.narrow(x, -1, 1, 3),
  concat: (x) => ops.concat([x, x], -1),
};
/** x -> x's shape, or [] for a mean. */
const BY_ELEMENT: Record<string, (x: Tensor) => Tensor> = {
  scale: (x) => ops.scale(x, 3),
  exp: ops.exp,
  log: (x) => ops.log(ops.exp(x)),
  tanh: ops.tanh,
  sigmoid: ops.sigmoid,
  relu: ops.relu,
  silu: ops.silu,
  gelu: ops.gelu,
  geluTanh: ops.geluTanh,
  siluMul: (x) => ops.siluMul(x, ops.scale(x, 2)),
  add: (x) => ops.add(x, 1),
  sub: (x) => ops.sub(1, x),
  mul: (x) => ops.mul(x, x),
  div: (x) => ops.div(x, 3),
  dropout: (x) => {
    manualSeed(1);
    return ops.dropout(x, 0.5);
  },
  reshape: (x) => ops.reshape(x, x.shape),
  mseLoss: (x) => ops.mseLoss(x, ops.scale(x, 0)),
  binaryCrossEntropyWithLogits: (x) => ops.binaryCrossEntropyWithLogits(x, ops.scale(x, 0)),
  binaryCrossEntropy: (x) => ops.binaryCrossEntropy(ops.sigmoid(x), ops.scale(x, 0)),
  total: (x) => ops.sum(x),
};

interface Run {
  shape: readonly number[];
  y: Float32Array;
  dx: Float32Array;
}
function run(op: (x: Tensor) => Tensor, shape: readonly number[]): Run {
  return scope(() => {
    const x = grid(shape, 1);
    const y = op(x);
    const values = y.data.slice();
    // A sum of y y would round in another order where y is longer; dy = 2 y does not.
    ops.sum(ops.mul(y, y)).backward();
    return { shape: y.shape, y: values, dx: x.grad!.data.slice() };
  });
}

function same(label: string, a: Run, b: Run): void {
  assertBits(`${label}: y`, a.y, b.y);
  assertBits(`${label}: dx`, a.dx, b.dx);
}

for (const [name, op] of Object.entries(BY_ROW)) {
  test(`${name}: six dimensions, one, none`, () => {
    const flat = run(op, [24, D]);
    const deep = run(op, [2, 3, 1, 2, 2, D]);
    const one = run(op, [D]);
    const row = run(op, [1, D]);
    same("six", deep, flat);
    assert.deepEqual(deep.shape, [2, 3, 1, 2, 2, flat.shape[1]]);
    same("one", one, row);
    assert.deepEqual(one.shape, [row.shape[1]]);
    for (const none of [
      [0, D],
      [2, 0, D],
      [0, 3, 1, 2, 2, D],
    ]) {
      const empty = run(op, none);
      assert.deepEqual([empty.shape, empty.y.length, empty.dx.length], [[...none.slice(0, -1), flat.shape[1]], 0, 0]);
    }
  });
}

for (const [name, op] of Object.entries(BY_ELEMENT)) {
  test(`${name}: a scalar, six dimensions, none`, () => {
    const scalar = run(op, []);
    const one = run(op, [1]);
    const flat = run(op, [24]);
    const deep = run(op, [2, 3, 1, 2, 2, 1]);
    same("a scalar", scalar, one);
    assert.deepEqual(scalar.shape, []);
    same("six", deep, flat);
    const isMean = flat.shape.length === 0;
    assert.deepEqual(deep.shape, isMean ? [] : [2, 3, 1, 2, 2, 1]);
    for (const none of [[0], [2, 0, 3], [0, 1, 1, 1, 1, 1]]) {
      const empty = run(op, none);
      assert.deepEqual([empty.shape, empty.dx.length], [isMean ? [] : none, 0]);
      if (isMean)
        assert(
          name === "total" ? empty.y[0] === 0 : Number.isNaN(empty.y[0]),
          "the mean of nothing is NaN, as in torch",
        );
    }
  });
}

test("ids and targets of any shape", () =>
  scope(() => {
    const ids = Int32Array.from({ length: 24 }, (_, i) => i % 5);
    const table = grid([5, 3], 1, false);
    const logits = grid([24, 5], 2, false);
    for (const shape of [[24], [2, 3, 1, 2, 2], [2, 3, 1, 2, 2, 1]]) {
      const t = tensor(ids, shape);
      const x = ops.reshape(logits, [...shape, 5]);
      assertBits("embedding", ops.embedding(t, table).data, ops.embedding(tensor(ids), table).data);
      assert.deepEqual(ops.embedding(t, table).shape, [...shape, 3]);
      assert.equal(ops.crossEntropy(x, t).item(), ops.crossEntropy(logits, tensor(ids)).item());
      assert.equal(
        ops.linearCrossEntropy(x, blocks, null, ops.argmax(ops.linear(x, blocks), -1)).item(),
        ops.linearCrossEntropy(logits, blocks, null, ops.argmax(ops.linear(logits, blocks), -1)).item(),
      );
    }
    const scalar = tensor(Int32Array.of(3), []);
    assert.deepEqual(ops.embedding(scalar, table).shape, [3]);
    assert.equal(
      ops.crossEntropy(ops.reshape(ops.narrow(logits, 0, 0, 1), [5]), scalar).item(),
      ops.crossEntropy(ops.narrow(logits, 0, 0, 1), tensor(Int32Array.of(3))).item(),
    );
    const none = tensor(new Int32Array(0), [0, 2]);
    assert.deepEqual(ops.embedding(none, table).shape, [0, 2, 3]);
    assert(Number.isNaN(ops.crossEntropy(zeros([0, 2, 5]), none).item()));
    assert(Number.isNaN(ops.linearCrossEntropy(zeros([0, 2, 5]), blocks, null, none).item()));
  }));

test.run();
