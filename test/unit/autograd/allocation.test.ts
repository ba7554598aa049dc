/**
 * An op, a layer or a decomposition whose i-th allocation fails, for every i: OutOfMemoryError, and nothing is left
 * behind.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  lora,
  memoryStats,
  models,
  nn,
  noGrad,
  ops,
  OutOfMemoryError,
  scope,
  tensor,
  Tensor,
} from "../../../src/index.js";
import { qr } from "../../../src/linalg/qr.js";
import { svd, svdLowrank } from "../../../src/linalg/svd.js";
import { combineAdapters } from "../../../src/peft/weighted.js";
import { engine } from "../../../src/runtime/engine.js";
import { assertBits } from "../../support/golden.js";
import { gridTensor as grid } from "../../support/gradcheck.js";
import { stream } from "../../support/random.js";

await init();
// The first draw makes the random stream's state, which stays.
new nn.Linear(1, 1).dispose();

const { memory } = engine();
const live = (): number => memoryStats().liveBytes;

/** Runs fn with an allocator that fails at call number `at`, from 0; returns how often it was called. */
function withFailure(at: number, fn: () => void): number {
  const alloc = memory.alloc.bind(memory);
  let calls = 0;
  memory.alloc = (bytes) => {
    if (calls++ === at) throw new OutOfMemoryError(bytes, live(), memory.limit);
    return alloc(bytes);
  };
  try {
    fn();
  } finally {
    memory.alloc = alloc;
  }
  return calls;
}

/** Lets every allocation of `fn` fail in turn. What `fn` returns is disposed. */
function sweep(label: string, fn: () => unknown): void {
  const run = (): void => {
    const made = fn();
    for (const t of made instanceof Tensor ? [made] : Object.values(made as object))
      if (t instanceof Tensor) t.dispose();
  };
  const total = withFailure(-1, () => scope(run));
  assert(total > 0, label);
  for (let i = 0; i < total; i++) {
    const before = live();
    assert.throws(() => withFailure(i, run), OutOfMemoryError, `${label}: allocation ${i}`);
    assert.equal(live(), before, `${label}: allocation ${i} of ${total} left memory behind`);
  }
}

/** The same for backward, whose graph is in a scope and whose gradients the caller drops. */
function sweepBackward(label: string, inputs: readonly (Tensor | null)[], op: () => Tensor): void {
  const run = (at: number): number => {
    try {
      return scope(() => {
        const loss = ops.sum(op());
        return withFailure(at, () => loss.backward());
      });
    } finally {
      for (const t of inputs) {
        t?.grad?.dispose();
        if (t) t.grad = null;
      }
    }
  };
  const total = run(-1);
  const before = live();
  assert.equal(run(-1), total);
  assert.equal(live(), before, `${label}: backward left memory behind`);
  for (let i = 0; i < total; i++) {
    assert.throws(() => run(i), OutOfMemoryError, `${label}: allocation ${i} of backward`);
    assert.equal(live(), before, `${label}: allocation ${i} of ${total} of backward left memory behind`);
  }
}

const mask = { p: 0.5, seed: 1, stream: 0 };

test("ops", () =>
  scope(() => {
    const x = grid([3, 4, 6, 5], 1);
    const kernel = grid([4, 4, 3, 3], 2);
    const bias = grid([4], 3);
    const a = grid([2, 4, 3, 3], 4);
    const b = grid([4, 2, 1, 1], 5);
    const rows = grid([5, 8], 6);
    const weight = grid([6, 8], 7);
    const bias6 = grid([6], 8);
    const loraA = grid([4, 8], 9);
    const loraB = grid([6, 4], 10);
    const blockB = grid([4, 2], 11);
    const ids = tensor(new Int32Array([1, 2, 2, 0]));
    const table = grid([5, 3], 12);
    const tableA = grid([2, 5], 13);
    const tableB = grid([3, 2], 14);
    const column = grid([4, 1, 1], 15);
    const row = grid([1, 8], 16);
    const half = tensor([0.5, 0.25]);
    half.requiresGrad = true;
    const frozen = grid([6, 8], 7, false);
    const classes = tensor(new Int32Array([0, 5, 1, 2, 2]));
    const cases: Record<string, [inputs: Tensor[], op: () => Tensor]> = {
      conv: [
        [x, kernel, bias, a, b],
        () =>
          ops.conv(x, kernel, bias, { padding: [1, 1] }, [
            { loraA: a, loraB: b, scaling: 1, mask },
            { loraA: a, loraB: b, scaling: 2, mask, from: 1, to: 2 },
          ]),
      ],
      linear: [
        [rows, weight, bias6, loraA, loraB],
        () =>
          ops.linear(rows, weight, bias6, [
            { loraA, loraB, scaling: 1, mask },
            { loraA, loraB, scaling: 2, mask, from: 1, to: 4 },
          ]),
      ],
      mergedLinear: [
        [rows, weight, bias6, loraA, blockB],
        () =>
          ops.mergedLinear(rows, weight, bias6, {
            loraA,
            loraB: blockB,
            scaling: 1,
            mask,
            enableLora: [true, false, true],
          }),
      ],
      embedding: [
        [table, tableA, tableB],
        () => ops.embedding(ids, table, { scaleGradByFreq: true }, [{ loraA: tableA, loraB: tableB, scaling: 1 }]),
      ],
      channelScale: [[x, bias], () => ops.channelScale(x, bias, bias, 1)],
      doraScale: [[bias], () => ops.doraScale(bias, bias)],
      narrow: [[x], () => ops.narrow(x, 1, 1, 2)],
      add: [[x], () => ops.add(x, x)],
      "add, both repeated": [[column, table], () => ops.add(column, table)],
      sub: [[rows, row], () => ops.sub(rows, row)],
      "sub, a number": [[rows], () => ops.sub(1, rows)],
      mul: [[column, table], () => ops.mul(column, table)],
      "mul, a number": [[rows], () => ops.mul(rows, 2)],
      div: [[column, table], () => ops.div(column, table)],
      "div, a number": [[rows], () => ops.div(2, rows)],
      matmul: [[column, row], () => ops.matmul(column, row)],
      sum: [[x], () => ops.sum(x)],
      mean: [[x], () => ops.mean(x, 2)],
      transpose: [[x], () => ops.transpose(x, 0, 3)],
      concat: [[rows, weight], () => ops.concat([rows, weight])],
      exp: [[rows], () => ops.exp(rows)],
      log: [[rows], () => ops.log(rows)],
      tanh: [[rows], () => ops.tanh(rows)],
      sigmoid: [[rows], () => ops.sigmoid(rows)],
      logSoftmax: [[rows], () => ops.logSoftmax(rows)],
      binaryCrossEntropy: [[half], () => ops.binaryCrossEntropy(half, half)],
      binaryCrossEntropyWithLogits: [[half], () => ops.binaryCrossEntropyWithLogits(half, half)],
      linearCrossEntropy: [[rows], () => ops.linearCrossEntropy(rows, frozen, null, classes)],
      "linearCrossEntropy, trained": [
        [rows, weight, bias6],
        () => ops.linearCrossEntropy(rows, weight, bias6, classes),
      ],
    };
    for (const [name, [inputs, op]] of Object.entries(cases)) {
      sweep(name, op);
      sweepBackward(name, inputs, op);
    }
    sweep("argmax", () => ops.argmax(rows, 0));
    sweep("doraNorm", () => ops.doraNorm(weight, loraA, loraB, 1));
  }));

test("an embedding whose rows were not all scaled down keeps the others", () =>
  scope(() => {
    const ids = tensor(new Int32Array([1, 2, 2, 0]));
    const table = grid([5, 3], 1);
    const loraA = grid([2, 5], 2);
    const loraB = grid([3, 2], 3);
    const before = [table, loraA].map((t) => t.data.slice());
    const op = (): Tensor => ops.embedding(ids, table, { maxNorm: 0.1 }, [{ loraA, loraB, scaling: 1 }]);
    for (let i = 0; i < 3; i++) {
      assert.throws(() => withFailure(i, op), OutOfMemoryError);
      for (const [j, t] of [table, loraA].entries()) assertBits(`allocation ${i}`, t.data, before[j]!);
    }
    sweep("maxNorm", op);
    // What fails may come later in the step.
    for (const i of [4, 5, 6]) {
      for (const [j, t] of [table, loraA].entries()) t.set(before[j]!);
      assert.throws(
        () => scope(() => withFailure(i, () => ops.silu(ops.add(op(), ops.scale(op(), 2))))),
        OutOfMemoryError,
      );
      for (const [j, t] of [table, loraA].entries()) assertBits(`allocation ${i}`, t.data, before[j]!);
    }
    const scaled = scope(() => op().data.slice());
    assert(table.data.some((v, i) => v !== before[0]![i]));
    assertBits(
      "and again",
      scope(() => op().data.slice()),
      scaled,
    );
  }));

test("layers: forward, backward, merging", () =>
  scope(() => {
    const x = grid([3, 4, 6, 5], 1, false);
    const rows = grid([5, 8], 2, false);
    const ids = tensor(new Int32Array([1, 2, 2, 0]));
    const layers: [nn.Module & { forward(x: Tensor): Tensor; readonly weight: Tensor }, Tensor][] = [
      [new lora.Conv2d(4, 4, 3, { r: 2, padding: 1, loraDropout: 0.5 }), x],
      [new lora.Conv2d(4, 4, 3, { r: 2, padding: 1 }), x],
      [new lora.MergedLinear(8, 6, { r: 2, enableLora: [true, false], loraDropout: 0.5 }), rows],
      [new lora.Linear(8, 6, { r: 2, loraDropout: 0.5 }), rows],
      [new lora.Embedding(5, 3, { r: 2 }), ids],
    ];
    for (const [layer, input] of layers) {
      const { name } = layer.constructor;
      const weight = layer.weight.data.slice();
      const total = withFailure(-1, () => scope(() => layer.forward(input)));
      for (let i = 0; i < total; i++) {
        const before = live();
        assert.throws(() => withFailure(i, () => layer.forward(input)), OutOfMemoryError);
        assert.equal(live(), before, `${name}: allocation ${i} of ${total} left memory behind`);
      }
      sweepBackward(name, layer.parameters(), () => layer.forward(input));
      assert.throws(() => withFailure(0, () => layer.eval()), OutOfMemoryError);
      assertBits(`${name} after a merge that failed`, layer.weight.data, weight);
      layer.train();
      layer.dispose();
    }
  }));

test("decompositions and combined adapters", () =>
  scope(() => {
    const next = stream(1);
    const values = Float32Array.from({ length: 35 }, next);
    sweep("svd", () => svd(values, 5, 7));
    sweep("svdLowrank", () => svdLowrank(values, 7, 5, 3));
    sweep("qr", () => qr(values, 7, 5));
    const adapters = [
      { loraA: grid([4, 8], 1), loraB: grid([6, 4], 2), scaling: 1, weight: 0.5 },
      { loraA: grid([4, 8], 3), loraB: grid([6, 4], 4), scaling: 2, weight: -1 },
    ];
    for (const type of ["cat", "linear", "svd"] as const) sweep(type, () => combineAdapters(type, adapters));
  }));

const CONFIG = {
  modelType: "gpt2" as const,
  vocabSize: 11,
  hiddenSize: 8,
  intermediateSize: 16,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  maxPositionEmbeddings: 5,
  layerNormEpsilon: 1e-5,
  tieWordEmbeddings: false,
  bosTokenId: null,
  eosTokenId: null,
};

test("a cache that cannot grow keeps a pair of one capacity", () => {
  const cache = new models.KeyValueCache({
    numHiddenLayers: 1,
    maxPositionEmbeddings: 64,
    numKeyValueHeads: 1,
    headDim: 4,
  });
  const rows = (steps: number): [Tensor, Tensor] => {
    const values = Float32Array.from({ length: 8 * steps }, (_, i) => i);
    return [tensor(values.slice(4 * steps), [1, steps, 1, 4]), tensor(values.slice(0, 4 * steps), [1, steps, 1, 4])];
  };
  scope(() => {
    const few = rows(2);
    const many = rows(20);
    cache.extend(0, ...few);
    cache.length = 2;
    const held = live();
    for (const at of [0, 1]) {
      assert.throws(() => withFailure(at, () => cache.extend(0, ...many)), OutOfMemoryError);
      assert.equal(live(), held, `allocation ${at}`);
      assert.equal(cache.capacity, 2);
    }
    const [k, v] = cache.extend(0, ...few);
    assert.deepEqual(k.shape, v.shape);
    for (const [all, fresh] of [
      [k, few[0]],
      [v, few[1]],
    ] as const)
      assertBits("both", all.data.slice(0, 16), Float32Array.of(...fresh.data, ...fresh.data));
  });
  cache.dispose();
});

test("a model that cannot be made, and a token that cannot be drawn", () => {
  const total = withFailure(-1, () => new models.Gpt2(CONFIG).dispose());
  for (let i = 0; i < total; i++) {
    const before = live();
    assert.throws(() => withFailure(i, () => new models.Gpt2(CONFIG)), OutOfMemoryError);
    assert.equal(live(), before, `allocation ${i} of ${total} left memory behind`);
  }
  const model = new models.Gpt2(CONFIG);
  // Where a step runs out of memory, also while its cache grows, doing it again gives the step's bits.
  const step = (cache: models.KeyValueCache, id: number): number[] =>
    noGrad(() => scope(() => [...model.forward(tensor(Int32Array.of(id), [1, 1]), { cache }).data]));
  const ids = [3, 1, 4];
  const whole = model.newCache();
  const expected = ids.map((id) => step(whole, id));
  whole.dispose();
  for (const [t, id] of ids.entries()) {
    const held = live();
    let failures = 0;
    for (let failed = true; failed; ) {
      const cache = model.newCache();
      for (const earlier of ids.slice(0, t)) step(cache, earlier);
      failed = false;
      try {
        withFailure(failures, () => step(cache, id));
      } catch (error) {
        assert.ok(error instanceof OutOfMemoryError);
        failed = true;
        failures++;
        assert.equal(cache.length, t);
        assert.deepEqual(step(cache, id), expected[t]);
      }
      cache.dispose();
      assert.equal(live(), held);
    }
    assert.ok(failures > 10);
  }
  const held = live();
  assert.throws(() => models.generate(model, [1], { maxNewTokens: 1, seed: -1 }), ArgumentError);
  const tokens = models.generate(model, [1], { maxNewTokens: 1 });
  assert.throws(() => withFailure(3, () => tokens.next()), OutOfMemoryError);
  assert.equal(live(), held, "a token that failed left memory behind");
  model.dispose();
});

test("a layer whose making runs out of memory leaves nothing behind", () => {
  const options = { r: 2 };
  const layers: Record<string, () => nn.Module> = {
    Linear: () => new nn.Linear(2, 3),
    LayerNorm: () => new nn.LayerNorm(3),
    Conv1d: () => new nn.Conv1d(2, 2, 3),
    "lora.Linear": () => new lora.Linear(2, 3, options),
    "lora.Embedding": () => new lora.Embedding(3, 2, options),
    "lora.MergedLinear": () => new lora.MergedLinear(2, 4, { ...options, enableLora: [true, false] }),
    "lora.Conv2d": () => new lora.Conv2d(2, 2, 3, options),
  };
  for (const [name, make] of Object.entries(layers)) {
    const before = live();
    const all = withFailure(-1, () => {
      make().dispose();
    });
    assert.ok(all > 1, `${name} takes more than one block`);
    for (let at = 0; at < all; at++) {
      assert.throws(
        () =>
          withFailure(at, () => {
            make();
          }),
        OutOfMemoryError,
        name,
      );
      assert.equal(live(), before, `${name}, allocation ${at}`);
    }
  }
});

test.run();
