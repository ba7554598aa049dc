/**
 * A small model of one's own: a bag of embeddings, their mean, two layers in a Sequential and a binary loss. Forward,
 * every gradient and 30 steps of AdamW as the same formulas written out in float64 have them; gradients by differences,
 * too.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, lora, manualSeed, nn, ops, optim, ones, peft, scope, tensor, type Tensor } from "../../../src/index.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { gradcheck } from "../../support/gradcheck.js";
import { stream } from "../../support/random.js";

await init();

const VOCAB = 12;
const DIM = 6;
const HIDDEN = 8;
const LENGTH = 5;
const BATCH = 16;

class Classifier extends nn.Module {
  table = new nn.Embedding(VOCAB, DIM);
  head = new nn.Sequential(new nn.Linear(DIM, HIDDEN), new nn.Tanh(), new nn.Linear(HIDDEN, 1));
  forward(ids: Tensor): Tensor {
    return ops.reshape(this.head.forward(ops.mean(this.table.forward(ids), 1)), [ids.shape[0]!]);
  }
}

/** Texts of five words, and whether word 3 is among them more often than word 7. */
function data(): { ids: Int32Array; labels: Float32Array } {
  const next = stream(5);
  const ids = Int32Array.from({ length: BATCH * LENGTH }, () => Math.floor(next() * VOCAB));
  const count = (row: number, word: number): number =>
    ids.subarray(row * LENGTH, (row + 1) * LENGTH).filter((id) => id === word).length;
  return {
    ids,
    labels: Float32Array.from({ length: BATCH }, (_, i) =>
      Number(count(i, 3) >= count(i, 7) && ids[i * LENGTH]! % 2 === 0),
    ),
  };
}

type Weights = Record<"table" | "w1" | "b1" | "w2" | "b2", Float64Array>;
const KEYS: Record<keyof Weights, string> = {
  table: "table.weight",
  w1: "head.0.weight",
  b1: "head.0.bias",
  w2: "head.2.weight",
  b2: "head.2.bias",
};

/** The loss and its gradients, by hand. */
function reference(
  w: Weights,
  ids: Int32Array,
  labels: Float32Array,
): { loss: number; logits: number[]; gradients: Weights } {
  const g = Object.fromEntries(Object.entries(w).map(([name, v]) => [name, new Float64Array(v.length)])) as Weights;
  const logits: number[] = [];
  let loss = 0;
  for (let i = 0; i < BATCH; i++) {
    const words = ids.subarray(i * LENGTH, (i + 1) * LENGTH);
    const pooled = Array.from(
      { length: DIM },
      (_, d) => words.reduce((sum, id) => sum + w.table[id * DIM + d]!, 0) / LENGTH,
    );
    const hidden = Array.from({ length: HIDDEN }, (_, h) =>
      Math.tanh(w.b1[h]! + pooled.reduce((sum, v, d) => sum + v * w.w1[h * DIM + d]!, 0)),
    );
    const z = w.b2[0]! + hidden.reduce((sum, v, h) => sum + v * w.w2[h]!, 0);
    logits.push(z);
    loss += (Math.log1p(Math.exp(-Math.abs(z))) + Math.max(z, 0) - z * labels[i]!) / BATCH;
    const dz = (1 / (1 + Math.exp(-z)) - labels[i]!) / BATCH;
    g.b2[0]! += dz;
    for (let h = 0; h < HIDDEN; h++) {
      g.w2[h]! += dz * hidden[h]!;
      const dh = dz * w.w2[h]! * (1 - hidden[h]! ** 2);
      g.b1[h]! += dh;
      for (let d = 0; d < DIM; d++) {
        g.w1[h * DIM + d]! += dh * pooled[d]!;
        for (const id of words) g.table[id * DIM + d]! += (dh * w.w1[h * DIM + d]!) / LENGTH;
      }
    }
  }
  return { loss, logits, gradients: g };
}

const weightsOf = (model: Classifier): Weights => {
  const state = model.stateDict();
  return Object.fromEntries(
    Object.entries(KEYS).map(([name, key]) => [name, Float64Array.from(state.get(key)!.data)]),
  ) as Weights;
};

test("its logits, loss and gradients are those of the formulas", () =>
  scope(() => {
    manualSeed(3);
    const model = new Classifier();
    const { ids, labels } = data();
    const expected = reference(weightsOf(model), ids, labels);
    assert.deepEqual([...model.stateDict().keys()], Object.values(KEYS));
    const logits = model.forward(tensor(ids, [BATCH, LENGTH]));
    assertClose("logits", logits.data, expected.logits);
    const loss = ops.binaryCrossEntropyWithLogits(logits, tensor(labels));
    assertClose("loss", [loss.item()], [expected.loss], 1e-6, 0);
    loss.backward();
    const gradients = new Map(model.namedParameters());
    for (const [name, key] of Object.entries(KEYS))
      assertClose(key, gradients.get(key)!.grad!.data, expected.gradients[name as keyof Weights], 1e-5, 1e-8);
    model.dispose();
  }));

test("central differences through the whole model", () =>
  scope(() => {
    manualSeed(3);
    const model = new Classifier();
    const { ids, labels } = data();
    // On gradcheck's grid.
    for (const p of model.parameters())
      p.data.forEach((v, i, all) => {
        all[i] = Math.round(v * 1024) / 1024;
      });
    const inputs = Object.fromEntries(model.namedParameters());
    gradcheck("own model", inputs, () =>
      ops.binaryCrossEntropyWithLogits(model.forward(tensor(ids, [BATCH, LENGTH])), tensor(labels)),
    );
    model.dispose();
  }));

test("30 steps of AdamW end at the weights that float64 ends at, and at no loss to speak of", () =>
  scope(() => {
    manualSeed(3);
    const model = new Classifier();
    const { ids, labels } = data();
    const w = weightsOf(model);
    const options = { lr: 0.05, weightDecay: 0.01 };
    const optimizer = new optim.AdamW(model.parameters(), options);
    const m = Object.fromEntries(Object.entries(w).map(([name, v]) => [name, new Float64Array(v.length)])) as Weights;
    const v = Object.fromEntries(Object.entries(w).map(([name, u]) => [name, new Float64Array(u.length)])) as Weights;
    let first = 0;
    let last = 0;
    let expected = 0;
    for (let step = 1; step <= 30; step++) {
      last = scope(() => {
        const loss = ops.binaryCrossEntropyWithLogits(model.forward(tensor(ids, [BATCH, LENGTH])), tensor(labels));
        optimizer.zeroGrad();
        loss.backward();
        optimizer.step();
        return loss.item();
      });
      if (step === 1) first = last;
      const { loss, gradients } = reference(w, ids, labels);
      expected = loss;
      for (const name of Object.keys(w) as (keyof Weights)[])
        for (const [i, g] of gradients[name].entries()) {
          w[name][i] = w[name][i]! * (1 - options.lr * options.weightDecay);
          m[name][i] = 0.9 * m[name][i]! + 0.1 * g;
          v[name][i] = 0.999 * v[name][i]! + 0.001 * g * g;
          w[name][i]! -=
            (options.lr * m[name][i]!) / (1 - 0.9 ** step) / (Math.sqrt(v[name][i]! / (1 - 0.999 ** step)) + 1e-8);
        }
    }
    assertClose("loss", [last], [expected], 1e-3, 1e-5);
    assert(first > 0.5 && last < 0.05, `${first} -> ${last}`);
    const right = scope(() =>
      [...model.forward(tensor(ids, [BATCH, LENGTH])).data].every((z, i) => z > 0 === (labels[i] === 1)),
    );
    assert(right, "every label");
    model.dispose();
  }));

test("Sequential: torch's keys, a layer by its place, another in its place, layers in layers", () =>
  scope(() => {
    const inner = new nn.Sequential(new nn.Linear(4, 4, { bias: false }), new nn.GELU());
    const model = new nn.Sequential(inner, new nn.ReLU(), new nn.Linear(4, 2), inner);
    assert.equal(model.length, 4);
    assert.equal(model[0], inner);
    assert.deepEqual(
      [...model.children()].map(([name]) => name),
      ["0", "1", "2", "3"],
    );
    assert.deepEqual([...model.stateDict().keys()], ["0.0.weight", "2.weight", "2.bias", "3.0.weight"]);
    assert.equal(model.parameters().length, 3, "what is there twice counts once");
    const other = new lora.Linear(4, 4, { r: 2 });
    model.replaceChild("2", other);
    assert.equal(model[2], other);
    const x = ones([3, 4]);
    assert.deepEqual(model.forward(x).data, inner.forward(other.forward(ops.relu(inner.forward(x)))).data);
    assert.equal(new nn.Sequential().forward(x), x, "none: nothing");
    model.eval();
    assert.equal(inner.training || other.training, false);
    model.dispose();
  }));

test("adapters on a Sequential: layers by their places", () => {
  manualSeed(1);
  const model = new nn.Sequential(new nn.Linear(4, 8), new nn.ReLU(), new nn.Sequential(new nn.Linear(8, 4)));
  const adapted = peft.getLoraModel(model, { r: 2, loraAlpha: 4, targetModules: ["0", "2.0"] });
  assert.deepEqual(
    model
      .parameters()
      .filter((p) => p.requiresGrad)
      .map((p) => p.shape),
    [
      [2, 4],
      [8, 2],
      [2, 8],
      [4, 2],
    ],
  );
  scope(() => {
    ops.sum(model.forward(ones([3, 4]))).backward();
    const before = model.forward(ones([3, 4])).data.slice();
    for (const p of model.parameters()) if (p.grad) p.grad.dispose();
    const merged = adapted.mergeAndUnload();
    assertBits("B = 0: nothing is added", model.forward(ones([3, 4])).data, before);
    assert.equal(merged, model);
  });
  assert.equal(model[0] instanceof nn.Linear, true);
  model.dispose();
});

test("Dropout: masks of its run, none in evaluation or with p = 0, and the same again from the same seed", () =>
  scope(() => {
    const run = (): Float32Array[] => {
      manualSeed(4);
      const model = new nn.Sequential(new nn.Dropout(0.5), new nn.Dropout(0.25));
      const x = ones([1000]);
      return [model.forward(x).data.slice(), model.forward(x).data.slice(), model.eval().forward(x).data.slice()];
    };
    const [first, second, evaluated] = run();
    const again = run();
    assertBits("again", again[0]!, first!);
    assertBits("the second again", again[1]!, second!);
    assert(
      first!.some((v, i) => v !== second![i]),
      "another mask at every call",
    );
    assert(evaluated!.every((v) => v === 1));
    const kept = first!.filter((v) => v !== 0).length;
    assert(kept > 300 && kept < 450 && first!.every((v) => v === 0 || Math.abs(v - 8 / 3) < 1e-6), `${kept} of 375`);
    const x = ones([3]);
    assert.equal(new nn.Dropout(0).forward(x), x);
    assert.deepEqual([...new nn.Dropout(1).forward(x).data], [0, 0, 0]);
    const two = new nn.Dropout(0.5);
    const input = ones([64]);
    input.requiresGrad = true;
    const y = two.forward(input);
    const values = y.data.slice();
    ops.sum(y).backward();
    assertBits("the gradient is the mask", input.grad!.data, values);
  }));

test.run();
