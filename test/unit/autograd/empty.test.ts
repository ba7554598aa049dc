/** Tensors without elements: an empty sum is 0, no rows give no rows, and gradients are zeros. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, ops, scope, tensor, type Tensor, zeros } from "../../../src/index.js";
import { gridTensor as grid } from "../../support/gradcheck.js";

await init();

/** Leaves what an output that no kernel writes would show. */
function dirty(): void {
  scope(() => {
    for (let i = 0; i < 20; i++) zeros([64]).data.fill(NaN);
  });
}

function check(y: Tensor, shape: readonly number[], values: readonly number[], inputs: readonly Tensor[] = []): void {
  assert.deepEqual(y.shape, shape);
  assert.deepEqual([...y.data], values);
  ops.sum(y).backward();
  for (const t of inputs) assert(t.grad!.data.every((v) => v === 0));
}

test("a sum over no features is 0, or the bias", () =>
  scope(() => {
    const x = grid([2, 0], 1);
    const weight = grid([3, 0], 2);
    const bias = grid([3], 3);
    const a = grid([2, 0], 4);
    const b = grid([3, 2], 5);
    const rows = [...bias.data, ...bias.data];
    const none = rows.map(() => 0);
    for (const fanInFanOut of [false, true]) {
      const w = fanInFanOut ? grid([0, 3], 2) : weight;
      dirty();
      check(ops.linear(x, w, null, [], fanInFanOut), [2, 3], none);
      dirty();
      check(ops.linear(x, w, bias, [{ loraA: a, loraB: b, scaling: 1, mask: null }], fanInFanOut), [2, 3], rows, [b]);
      dirty();
      check(
        ops.mergedLinear(x, w, bias, { loraA: a, loraB: b, scaling: 1, mask: null, enableLora: [true] }, fanInFanOut),
        [2, 3],
        rows,
        [b],
      );
    }
    dirty();
    assert.deepEqual([...ops.doraNorm(weight, a, b, 1).data], [0, 0, 0]);
  }));

test("no rows, no images, no ids", () =>
  scope(() => {
    const weight = grid([4, 3], 1);
    const a = grid([2, 3], 2);
    const b = grid([4, 2], 3);
    const half = grid([2, 2], 4);
    const kernel = grid([4, 3, 2], 5);
    const kernelA = grid([2, 3, 2], 6);
    const kernelB = grid([4, 2, 1], 7);
    const table = grid([5, 4], 8);
    const tableA = grid([2, 5], 9);
    const x = grid([0, 3], 1);
    check(ops.linear(x, weight, null, [{ loraA: a, loraB: b, scaling: 1, mask: null }]), [0, 4], [], [weight, a, b]);
    check(
      ops.mergedLinear(x, weight, null, { loraA: a, loraB: half, scaling: 1, mask: null, enableLora: [true, false] }),
      [0, 4],
      [],
      [a, half],
    );
    check(
      ops.conv(grid([0, 3, 6], 1), kernel, null, {}, [{ loraA: kernelA, loraB: kernelB, scaling: 1, mask: null }]),
      [0, 4, 5],
      [],
      [kernel, kernelA, kernelB],
    );
    check(
      ops.embedding(tensor(new Int32Array(0)), table, { maxNorm: 1, scaleGradByFreq: true }, [
        { loraA: tableA, loraB: b, scaling: 1 },
      ]),
      [0, 4],
      [],
      [table, tableA],
    );
    const row = grid([3], 1);
    const column = grid([2, 1], 2);
    for (const op of [ops.add, ops.sub, ops.mul, ops.div]) {
      check(op(grid([0, 3], 1), row), [0, 3], [], [row]);
      check(op(column, grid([1, 0], 1)), [2, 0], [], [column]);
      check(op(grid([0, 3], 1), 2), [0, 3], []);
    }
    dirty();
    check(ops.matmul(grid([2, 0], 1), grid([0, 3], 2)), [2, 3], [0, 0, 0, 0, 0, 0]);
    check(ops.matmul(grid([0, 3], 1), ops.transpose(weight, 0, 1)), [0, 4], [], [weight]);
    check(ops.matmul(grid([0, 2, 3], 1), grid([0, 3, 2], 1)), [0, 2, 2], []);
    dirty();
    check(ops.sum(grid([0, 3], 1), 0), [3], [0, 0, 0]);
    check(ops.sum(grid([0, 3], 1), 1), [0], []);
    check(ops.mean(grid([2, 3, 0], 1), 1), [2, 0], []);
    check(ops.transpose(grid([0, 3], 1), 0, 1), [3, 0], []);
    check(ops.concat([grid([0, 3], 1), grid([0, 3], 2)], 0), [0, 3], []);
    for (const op of [ops.exp, ops.log, ops.tanh, ops.sigmoid, ops.logSoftmax]) check(op(grid([0, 3], 1)), [0, 3], []);
    for (const loss of [ops.binaryCrossEntropy, ops.binaryCrossEntropyWithLogits, ops.mseLoss])
      check(loss(grid([0], 1), grid([0], 2)), [], [NaN]);
    check(ops.narrow(grid([2, 3], 1), 1, 3, 0), [2, 0], []);
    check(ops.channelScale(grid([0, 3], 1), grid([3], 2)), [0, 3], []);
    assert.deepEqual(ops.doraNorm(grid([0, 3], 1), a, grid([0, 2], 2), 1).shape, [0]);
  }));

test.run();
