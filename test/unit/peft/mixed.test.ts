/** Batches whose items use different adapters: each item is computed, and trains its adapter, as if it were alone. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  models,
  type nn,
  ops,
  peft,
  scope,
  ShapeError,
  StateError,
  type Tensor,
  tensor,
} from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { uniform } from "../../support/float64.js";
import { ALL, assertValues, batch, outputs, parametersOf, type Tiny, tiny, train, values } from "../../support/peft.js";
import { refuses } from "../../support/refuses.js";

await init();

type Model = nn.Module & { forward(ids: Tensor): Tensor };
const NAMES = ["a", "b", "b", "__base__", "a", "c", "a"];

/** a, b and c, of other ranks and targets, all active and trainable. */
function adapt<M extends Model>(model: M, targets: [string[], string[], string[]]): peft.LoraModel<M> {
  const adapted = new peft.LoraModel(model);
  for (const [i, name] of ["a", "b", "c"].entries()) {
    adapted.addAdapter(name, { r: i + 1, loraAlpha: 3, targetModules: targets[i]! });
    train(adapted, name, i + 1);
  }
  adapted.setAdapter(["a", "b", "c"]);
  return adapted;
}

const LLAMA = {
  modelType: "llama" as const,
  vocabSize: 10,
  hiddenSize: 16,
  intermediateSize: 24,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 8,
  maxPositionEmbeddings: 8,
  rmsNormEps: 1e-6,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
};
const GPT2 = {
  modelType: "gpt2" as const,
  vocabSize: 10,
  hiddenSize: 16,
  intermediateSize: 32,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  maxPositionEmbeddings: 8,
  layerNormEpsilon: 1e-5,
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
};
const MODELS: Record<string, () => peft.LoraModel<Model>> = {
  "all kinds of layers": () => adapt(tiny(), [ALL, ["embed", "conv"], ["proj", "head"]]),
  Llama: () =>
    adapt(new models.Llama(LLAMA), [
      ["q_proj", "v_proj"],
      ["embed_tokens", "down_proj"],
      ["q_proj", "k_proj", "o_proj", "gate_proj", "up_proj"],
    ]),
  "GPT-2": () => adapt(new models.Gpt2(GPT2), [["c_attn"], ["wte", "wpe", "c_fc"], ["c_proj"]]),
};

/** The items of a batch of `names` that have this name. */
function itemsOf(name: string): Tensor {
  const all = batch(NAMES.length, 9);
  const kept = NAMES.flatMap((n, i) => (n === name ? [...all.indices.subarray(4 * i, 4 * i + 4)] : []));
  return tensor(Int32Array.from(kept), [kept.length / 4, 4]);
}

for (const [label, make] of Object.entries(MODELS)) {
  test(`${label}: every item has the bits it has alone`, () => {
    const adapted = make();
    const { model } = adapted;
    const mixed = adapted.withAdapterNames(NAMES, () => outputs(model, () => batch(NAMES.length, 9)));
    const size = mixed.length / NAMES.length;
    for (const name of new Set(NAMES)) {
      const alone = (): Float32Array => outputs(model, () => itemsOf(name));
      if (name !== "__base__") adapted.setAdapter(name);
      const expected = name === "__base__" ? adapted.disableAdapter(alone) : alone();
      const got = NAMES.flatMap((n, i) => (n === name ? [...mixed.subarray(i * size, (i + 1) * size)] : []));
      assertBits(name, Float32Array.from(got), expected);
    }
    adapted.dispose();
  });

  test(`${label}: every adapter gets the gradients that its items give it alone`, () => {
    const adapted = make();
    const { model } = adapted;
    const size = outputs(model, () => batch(1)).length;
    const slopes = Float32Array.from(uniform(3, NAMES.length * size));
    /** Gradients of sum(y * slopes), of the slopes at these items. */
    const gradients = (name: string, ids: () => Tensor, items: number[]): Float32Array[] =>
      scope(() => {
        const y = model.forward(ids());
        const dy = Float32Array.from(items.flatMap((i) => [...slopes.subarray(i * size, (i + 1) * size)]));
        ops.sum(ops.mul(y, tensor(dy, y.shape))).backward();
        const found = parametersOf(adapted, name).map((p) => p.grad!.data.slice());
        for (const p of adapted.parameters()) {
          p.grad?.dispose();
          p.grad = null;
        }
        return found;
      });
    const all = NAMES.map((_, i) => i);
    for (const name of ["a", "b", "c"]) {
      const mixed = adapted.withAdapterNames(NAMES, () => gradients(name, () => batch(NAMES.length, 9), all));
      adapted.setAdapter(name);
      const alone = gradients(
        name,
        () => itemsOf(name),
        all.filter((i) => NAMES[i] === name),
      );
      adapted.setAdapter(["a", "b", "c"]);
      mixed.forEach((g, i) => assertBits(`${name} ${i}`, g, alone[i]!));
    }
    adapted.dispose();
  });
}

test("frozen adapters get no gradients; items of the base alone need none", () => {
  const adapted = adapt(tiny(), [ALL, ALL, ALL]);
  adapted.setAdapter("b");
  scope(() => {
    const y = adapted.withAdapterNames(["a", "b"], () => adapted.model.forward(batch(2)));
    ops.sum(y).backward();
    for (const name of ["a", "b", "c"])
      assert(
        parametersOf(adapted, name).every((p) => (p.grad !== null) === (name === "b")),
        name,
      );
    assert.equal(adapted.withAdapterNames(["__base__"], () => adapted.model.forward(batch(1))).requiresGrad, false);
  });
  adapted.dispose();
});

test("dropout draws a mask for each run of items", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 2, loraDropout: 0.5, targetModules: ["fc"] }, "a");
  train(adapted, "a", 1);
  const y = adapted.withAdapterNames(["a", "__base__", "a"], () =>
    outputs(adapted.model, () => tensor(new Int32Array(12).fill(3), [3, 4])),
  );
  assert.notDeepEqual(y.slice(0, 5), y.slice(10));
  adapted.dispose();
});

test("an active adapter's copies do not reach items of others; calls nest; what throws leaves nothing behind", () => {
  const model: Tiny = tiny();
  const base = outputs(model, () => batch(1));
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ALL.slice(0, 4), modulesToSave: ["head"] }, "saved");
  adapted.addAdapter("a", { r: 2, targetModules: ALL.slice(0, 4) });
  for (const name of ["saved", "a"]) train(adapted, name, 1);
  const before = outputs(model);
  const state = values(adapted);
  const one = (): Float32Array => outputs(model, () => batch(1));
  adapted.withAdapterNames(["a"], () => {
    const outer = one();
    assertBits("inner", adapted.withAdapterNames(["__base__"], one), base);
    assertBits("disabled", adapted.disableAdapter(one), base);
    assertBits("outer", one(), outer);
    assert.notDeepEqual(outer, base);
  });
  assert.throws(
    () =>
      adapted.withAdapterNames(["a"], () => {
        throw new RangeError("mine");
      }),
    RangeError,
  );
  assertBits("after", outputs(model), before);
  assertValues("after", adapted, state);
  adapted.dispose();
});

{
  const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ["fc"] }, "a");
  const run = (names: string[]) => () => adapted.withAdapterNames(names, () => outputs(adapted.model));
  adapted.addAdapter("dora", { r: 2, targetModules: ["fc"], useDora: true });
  adapted.addAdapter("saved", { r: 2, targetModules: ["fc"], modulesToSave: ["head"] });
  refuses(
    "a batch of another size",
    ShapeError,
    ["LoraLayer.forward", "[3,4,6]", "number of adapter names, 2"],
    run(["a", "a"]),
  );
  refuses("no names", ShapeError, ["number of adapter names, 0"], run([]));
  refuses("an unknown name", ArgumentError, ['no adapter "x"'], run(["a", "x", "a"]));
  refuses("DoRA", StateError, ['adapter "dora" uses DoRA', "on their own"], run(["a", "dora", "a"]));
  refuses("modulesToSave", StateError, ['adapter "saved" has modulesToSave'], run(["saved", "a", "a"]));
  refuses("an asynchronous fn", StateError, ["withAdapterNames: fn must be synchronous"], () =>
    adapted.withAdapterNames(["a"], async () => {}),
  );
  test("while merged it is refused", () => {
    adapted.mergeAdapter();
    assert.throws(
      run(["a", "a", "a"]),
      (e: Error) =>
        e instanceof StateError && e.message === "withAdapterNames: a is merged; call unmergeAdapter() first.",
    );
  });
}

test.run();
