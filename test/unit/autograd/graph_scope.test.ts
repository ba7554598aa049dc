/**
 * Scopes inside a forward pass: what backward reads stays, all else goes, and no gradient changes. Each op is checked
 * on inputs that were computed in the scope, so that one whose backward read more than it says would find it gone.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  gradientCheckpoint,
  DisposedError,
  full,
  init,
  lora,
  manualSeed,
  memoryStats,
  nn,
  noGrad,
  ones,
  ops,
  scope,
  type Tensor,
  tensor,
} from "../../../src/index.js";
import { graphScope } from "../../../src/tensor/scope.js";
import { assertBits } from "../../support/golden.js";
import { gridTensor as grid } from "../../support/gradcheck.js";
import { causalAttention, rope, ropeTable } from "../../support/attention.js";

await init();
new nn.Linear(1, 1).dispose();
const live = (): number => memoryStats().liveBytes;
const plain = (fn: () => Tensor): Tensor => fn();
const int = (...values: number[]): Tensor => tensor(Int32Array.from(values));
const mask = { p: 0.5, seed: 1, stream: 0 };

/** Shapes of an op's inputs, and the op. */
type Case = [shapes: number[][], op: (...inputs: Tensor[]) => Tensor];
const branch = (loraA: Tensor, loraB: Tensor) => ({ loraA, loraB, scaling: 0.5, mask: null });
const CASES: Record<string, Case | Case[]> = {
  linear: [
    [[[5, 8], [6, 8], [6]], (x, w, b) => ops.linear(x, w, b)],
    [
      [
        [5, 8],
        [8, 6],
        [3, 8],
        [6, 3],
      ],
      (x, w, a, b) => ops.linear(x, w, null, [branch(a, b)], true),
    ],
    [
      [
        [5, 8],
        [6, 8],
        [3, 8],
        [6, 3],
      ],
      (x, w, a, b) =>
        ops.linear(x, w, null, [
          { ...branch(a, b), mask },
          { ...branch(a, b), mask, from: 1, to: 4 },
        ]),
    ],
  ],
  mergedLinear: [
    [[5, 8], [6, 8], [6], [2, 8], [3, 2]],
    (x, w, bias, loraA, loraB) =>
      ops.mergedLinear(x, w, bias, { loraA, loraB, scaling: 1, mask, enableLora: [true, false] }),
  ],
  dropout: [[[4, 4]], (x) => ops.dropout(x, 0.5)],
  conv: [
    [[2, 2, 5, 5], [3, 2, 3, 3], [3], [2, 2, 3, 3], [3, 2, 1, 1]],
    (x, w, bias, a, b) => ops.conv(x, w, bias, {}, [branch(a, b)]),
  ],
  embedding: [
    [
      [5, 3],
      [2, 5],
      [3, 2],
    ],
    (table, a, b) => ops.embedding(int(1, 2, 2, 0), table, { scaleGradByFreq: true }, [branch(a, b)]),
  ],
  add: [
    [[[4, 4], [4]], ops.add],
    [[[4, 4]], (x) => ops.add(x, ones([4]))],
  ],
  gelu: [[[4, 4]], ops.gelu],
  geluTanh: [[[4, 4]], ops.geluTanh],
  relu: [[[4, 4]], ops.relu],
  silu: [[[4, 4]], ops.silu],
  mul: [
    [
      [
        [4, 4],
        [4, 4],
      ],
      ops.mul,
    ],
    [
      [
        [4, 1, 4],
        [3, 1],
      ],
      ops.mul,
    ],
    [[[4, 4]], (x) => ops.mul(2, x)],
  ],
  div: [
    [
      [
        [4, 4],
        [4, 4],
      ],
      ops.div,
    ],
    [
      [
        [4, 1, 4],
        [3, 1],
      ],
      ops.div,
    ],
    [[[4, 4]], (x) => ops.div(2, x)],
    [[[4, 4]], (x) => ops.div(x, 2)],
  ],
  sub: [
    [
      [
        [4, 4],
        [4, 4],
      ],
      ops.sub,
    ],
    [
      [
        [4, 1, 4],
        [3, 1],
      ],
      ops.sub,
    ],
    [[[4, 4]], (x) => ops.sub(2, x)],
  ],
  matmul: [
    [
      [
        [4, 5],
        [5, 3],
      ],
      ops.matmul,
    ],
    [
      [
        [2, 1, 4, 5],
        [3, 5, 2],
      ],
      ops.matmul,
    ],
  ],
  mean: [[[4, 4]], (x) => ops.mean(x, 0)],
  transpose: [[[4, 4]], (x) => ops.transpose(x, 0, 1)],
  concat: [
    [
      [4, 2],
      [4, 3],
    ],
    (a, b) => ops.concat([a, b], 1),
  ],
  exp: [[[4, 4]], ops.exp],
  log: [[[4, 4]], (x) => ops.log(ops.exp(x))],
  tanh: [[[4, 4]], ops.tanh],
  sigmoid: [[[4, 4]], ops.sigmoid],
  logSoftmax: [
    [[[4, 6]], (x) => ops.logSoftmax(x)],
    [[[4, 6]], (x) => ops.logSoftmax(x, 0)],
  ],
  binaryCrossEntropyWithLogits: [[[4, 4]], (x) => ops.binaryCrossEntropyWithLogits(x, full([4, 4], 0.5))],
  binaryCrossEntropy: [[[4, 4]], (x) => ops.binaryCrossEntropy(ops.sigmoid(x), full([4, 4], 0.25))],
  siluMul: [
    [
      [4, 4],
      [4, 4],
    ],
    ops.siluMul,
  ],
  scale: [[[4, 4]], (x) => ops.scale(x, 3)],
  sum: [
    [[[4, 4]], (x) => ops.sum(x)],
    [[[4, 4]], (x) => ops.sum(x, 1)],
  ],
  reshape: [[[4, 4]], (x) => ops.reshape(x, [16])],
  narrow: [[[4, 4]], (x) => ops.narrow(x, 1, 1, 2)],
  layerNorm: [[[4, 6], [6], [6]], (x, w, b) => ops.layerNorm(x, w, b, 1e-5)],
  rmsNorm: [[[4, 6], [6]], (x, w) => ops.rmsNorm(x, w, 1e-5)],
  softmax: [
    [[[4, 6]], (x) => ops.softmax(x)],
    [[[4, 6]], (x) => ops.softmax(x, 0)],
  ],
  rope: [
    [[1, 3, 2, 4]],
    (x) => {
      const { cos, sin } = ropeTable(3, 4, 100);
      // As tensors of this scope, which kept ones are not.
      return rope(x, { cos: ops.scale(cos, 1), sin: ops.scale(sin, 1) });
    },
  ],
  attention: [
    [
      [1, 3, 2, 4],
      [1, 3, 1, 4],
      [1, 3, 1, 4],
    ],
    causalAttention,
  ],
  crossEntropy: [[[4, 6]], (x) => ops.crossEntropy(x, int(1, -100, 5, 0))],
  linearCrossEntropy: [[[4, 3], [6, 3], [6]], (x, w, b) => ops.linearCrossEntropy(x, w, b, int(1, -100, 5, 0), 3)],
  mseLoss: [[[4, 4]], (x) => ops.mseLoss(x, full([4, 4], 0.5))],
  channelScale: [[[4, 3], [3], [3]], (x, g, b) => ops.channelScale(x, g, b, 1)],
  doraScale: [[[3]], (m) => ops.doraScale(m, full([3], 2))],
};
const OTHERS = ["argmax", "attentionRanges", "ropeFrequencies", "ropeTable", "doraNorm"];

test("every op is here", () => assert.deepEqual(Object.keys(ops).sort(), [...Object.keys(CASES), ...OTHERS].sort()));

/** Gradients of the inputs, where those with a set bit in `trained` require one. */
function gradients([shapes, op]: Case, trained: number, within: (fn: () => Tensor) => Tensor): (Float32Array | null)[] {
  return scope(() => {
    manualSeed(1);
    const leaves = shapes.map((shape, i) => grid(shape, i + 1, ((trained >> i) & 1) === 1, 0.1));
    const y = within(() => {
      // An op's output, and a constant where nothing is trained.
      const inputs = leaves.map((t) => (t.requiresGrad ? ops.scale(t, 1) : ops.add(t, t)));
      return ops.scale(op(...inputs), 2);
    });
    // What was freed is other values by now.
    const rubbish = [4, 16, 64, 256, 1024, 4, 16, 64, 16, 16].map((n) => full([n], NaN));
    for (const t of rubbish) t.dispose();
    ops.sum(ops.mul(y, y)).backward();
    return leaves.map((t) => t.grad?.data.slice() ?? null);
  });
}

for (const [name, entry] of Object.entries(CASES)) {
  test(`${name}: gradients are those without a scope, whatever is trained`, () => {
    const before = live();
    for (const c of (Array.isArray(entry[0][0]) && typeof entry[1] !== "function" ? entry : [entry]) as Case[]) {
      for (let trained = 1; trained < 1 << c[0].length; trained++) {
        const expected = gradients(c, trained, plain);
        const got = gradients(c, trained, graphScope);
        const nested = gradients(c, trained, (fn) => graphScope(() => graphScope(fn)));
        assert(
          expected.some((g) => g?.some((v) => v !== 0)),
          `${name} ${trained}`,
        );
        for (const [i, values] of expected.entries())
          for (const other of [got, nested]) {
            if (values === null) assert.equal(other[i], null);
            else assertBits(`${name}, trained ${trained.toString(2)}, input ${i}`, other[i]!, values);
          }
      }
    }
    // Tables of rope are the test's.
    if (name !== "rope") assert.equal(live(), before);
  });
}

test("a checkpoint in it keeps what its function is given, and its result to compare with", () => {
  const c: Case = [
    [
      [4, 6],
      [6, 6],
    ],
    (x, w) =>
      ops.reshape(
        gradientCheckpoint((t, v) => ops.silu(ops.linear(ops.silu(t), v)), x, w),
        [24],
      ),
  ];
  for (const trained of [1, 2, 3]) {
    const expected = gradients(c, trained, plain);
    const got = gradients(c, trained, graphScope);
    for (const [i, values] of expected.entries())
      assertBits(`trained ${trained}, input ${i}`, got[i] ?? new Float32Array(0), values ?? new Float32Array(0));
  }
});

const block = (elements: number): number => Math.ceil(elements / 16) * 64 + 64;

test("only what backward reads lives on; the rest of the graph is links", () => {
  const x = grid([10, 16], 1);
  const before = live();
  scope(() => {
    const y = graphScope(() => ops.add(ops.reshape(ops.silu(ops.scale(x, 2)), [16, 10]), ones([10])));
    // y, and silu's input.
    assert.equal(live() - before, 2 * block(160));
    y.dispose();
    assert.equal(live() - before, block(160), "with its scope, at the latest");
  });
  assert.equal(live(), before);
  noGrad(() =>
    scope(() => {
      graphScope(() => ops.silu(ops.silu(x)));
      assert.equal(live() - before, block(160));
    }),
  );
  const loss = graphScope(() => ops.sum(ops.silu(ops.scale(x, 2))));
  loss.backward();
  assert.equal(live() - before, block(1) + block(160), "without a scope around it: the loss and the gradient");
  loss.dispose();
  x.dispose();
});

test("a linear layer keeps its input for the gradients of W and A alone", () => {
  const layer = new lora.Linear(16, 4, { r: 2, loraDropout: 0.5, bias: false });
  const leaf = grid([10, 16], 1);
  const kept = (): number =>
    scope(() => {
      const before = live();
      graphScope(() => layer.forward(ops.scale(leaf, 2)));
      return live() - before;
    });
  const small = block(40) + block(20);
  const x = block(160);
  assert.equal(kept(), small + x);
  layer.loraA!.requiresGrad = false;
  assert.equal(kept(), small, "LoRA-FA");
  layer.weight.requiresGrad = true;
  assert.equal(kept(), small + x);
  layer.weight.requiresGrad = false;
  scope(() => {
    const loss = ops.sum(graphScope(() => layer.forward(ops.scale(leaf, 2))));
    layer.loraA!.requiresGrad = true;
    assert.throws(() => loss.backward(), DisposedError, "A is trained after all");
    assert.equal(
      layer.loraA!.grad!.data.every((v) => v === 0),
      true,
    );
  });
  layer.dispose();
  leaf.dispose();
});

test("a throw frees all; a released tensor cannot be read", () => {
  const x = grid([4], 1);
  const before = live();
  assert.throws(
    () =>
      graphScope(() => {
        ops.silu(ops.scale(x, 2));
        throw new Error("on purpose");
      }),
    /on purpose/,
  );
  assert.equal(live(), before);
  scope(() => {
    let inner: Tensor | undefined;
    const y = graphScope(() => ops.scale((inner = ops.scale(x, 2)), 2));
    assert.throws(() => inner!.data, DisposedError);
    assert.throws(() => ops.add(inner!, y), DisposedError);
    assert.equal(inner!.disposed, true);
    ops.sum(y).backward();
    assert.deepEqual([...x.grad!.data], [4, 4, 4, 4]);
    assert.equal(inner!.node, null);
  });
  x.dispose();
  assert.equal(live(), before - block(4));
});

test.run();
