/** Ops of a small model of one's own against PyTorch: forward and every gradient. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, nn, ops, scope, tensor, type Tensor } from "../../src/index.js";
import { assertClose, f32, ints, readGolden } from "../support/golden.js";

await init();

const g = readGolden("ops_small");
const CASES: Record<string, (...inputs: Tensor[]) => Tensor> = {
  rsub: (a) => ops.sub(2, a),
  rdiv: (a) => ops.div(2, a),
  sum_all: (x) => ops.sum(x),
  mean_all: (x) => ops.mean(x),
  sum_scalar: (x) => ops.sum(x, 0),
  transpose: (x) => ops.transpose(x, 0, -1),
  concat: (a, b) => ops.concat([a, b, a], 1),
  exp: (x) => ops.exp(x),
  log: (x) => ops.log(x),
  tanh: (x) => ops.tanh(x),
  sigmoid: (x) => ops.sigmoid(x),
  log_softmax: (x) => ops.logSoftmax(x),
  log_softmax_0: (x) => ops.logSoftmax(x, 0),
  softmax_0: (x) => ops.softmax(x, 0),
  bce_logits: ops.binaryCrossEntropyWithLogits,
  bce: ops.binaryCrossEntropy,
  bce_ends: ops.binaryCrossEntropy,
};
for (const op of ["add", "sub", "mul", "div"] as const) {
  CASES[op] = ops[op];
  CASES[`${op}_scalar`] = (a) => ops[op](a, 0.3);
}
for (const dim of [0, 1, -1]) {
  CASES[`sum_${dim}`] = (x) => ops.sum(x, dim);
  CASES[`mean_${dim}`] = (x) => ops.mean(x, dim, true);
}
for (let i = 0; i < 8; i++) CASES[`matmul_${i}`] = ops.matmul;

for (const [name, op] of Object.entries(CASES)) {
  test(name, () =>
    scope(() => {
      const keys = [...g.tensors.keys()]
        .filter((key) => key.startsWith(`${name}.`))
        .map((key) => key.slice(name.length + 1));
      const inputs = keys
        .filter((key) => key !== "y" && key !== "dy" && !key.startsWith("d_"))
        .sort((a, b) => Number(a === "target") - Number(b === "target") || (a < b ? -1 : 1));
      const given = inputs.map((key) => {
        const { data, shape } = f32(g, `${name}.${key}`);
        const t = tensor(data, shape);
        t.requiresGrad = keys.includes(`d_${key}`);
        return t;
      });
      const y = op(...given);
      const expected = f32(g, `${name}.y`);
      const dy = f32(g, `${name}.dy`);
      assert.deepEqual(y.shape, expected.shape);
      assertClose(`${name} y`, y.data, expected.data);
      ops.sum(ops.mul(y, tensor(dy.data, dy.shape))).backward();
      for (const [i, t] of given.entries())
        if (t.requiresGrad) assertClose(`${name} d_${inputs[i]}`, t.grad!.data, f32(g, `${name}.d_${inputs[i]}`).data);
    }),
  );
}

for (const dim of [undefined, 0, 1, -1]) {
  test(`argmax along ${dim}`, () =>
    scope(() => {
      const name = `argmax_${dim ?? "all"}`;
      const x = f32(g, `${name}.x`);
      const expected = ints(g, `${name}.y`);
      const y = ops.argmax(tensor(x.data, x.shape), dim);
      assert.deepEqual([y.shape, [...y.indices]], [expected.shape, [...expected.data]]);
    }));
}

test("Sequential has torch's keys", () => {
  const model = new nn.Sequential(new nn.Linear(6, 8), new nn.Tanh(), new nn.Linear(8, 1));
  assert.deepEqual([...model.stateDict().keys()], JSON.parse(g.metadata["sequential_keys"]!));
  model.dispose();
});

test.run();
