/**
 * Merging: the outputs stay, the original bits come back, and what cannot be merged is refused with everything as
 * before.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, memoryStats, models, nn, peft, StateError } from "../../../src/index.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { ALL, Tiny, assertValues, copiesOf, layersOf, outputs, tiny, train, values } from "../../support/peft.js";

await init();

/** Two plain adapters and one with DoRA, all active, as after training. */
function adapt(): peft.LoraModel<Tiny> {
  const adapted = new peft.LoraModel(tiny());
  adapted.addAdapter("a", { r: 2, loraAlpha: 3, loraDropout: 0.1, targetModules: ALL, modulesToSave: ["norm"] });
  adapted.addAdapter("b", { r: 3, targetModules: ["embed", "proj", "head"] });
  adapted.addAdapter("dora", { r: 2, loraAlpha: 4, targetModules: ALL, useDora: true });
  for (const [i, name] of ["a", "b", "dora"].entries()) train(adapted, name, i);
  adapted.setAdapter(["a", "b", "dora"]);
  adapted.eval();
  return adapted;
}

for (const names of [["a"], ["dora"], ["a", "b"], ["dora", "a"], ["b", "dora", "a"], ["a", "b", "dora"]]) {
  test(`${names.join(", ")} merged: the outputs of when they are active; unmerging gives the bits back`, () => {
    const adapted = adapt();
    const { model } = adapted;
    adapted.setAdapter(names);
    const before = values(adapted);
    const active = outputs(model);
    const state = adapted.stateDict();
    adapted.mergeAdapter();
    assert.deepEqual(adapted.mergedAdapters, names);
    assertClose("merged", outputs(model), active);
    assert(
      layersOf(adapted, names[0]).every(({ path, layer }) =>
        layer.weight.data.some((v, i) => v !== before.get(`model.${path}.base_layer.weight`)![i]),
      ),
    );
    assert.deepEqual(adapted.stateDict(), state, "a checkpoint holds the originals");
    adapted.unmergeAdapter();
    assert.deepEqual(adapted.mergedAdapters, []);
    assertValues("unmerged", adapted, before);
    assertBits("unmerged", outputs(model), active);
    adapted.dispose();
  });
}

test("merging bit by bit, again, or some of them only", () => {
  const adapted = adapt();
  const { model } = adapted;
  adapted.mergeAdapter(["a", "dora"]);
  const both = values(adapted);
  adapted.mergeAdapter(["a"]);
  assertValues("merged already", adapted, both);
  adapted.unmergeAdapter();
  adapted.mergeAdapter(["a"]);
  adapted.mergeAdapter(["a", "dora"]);
  assertValues("one after the other", adapted, both);
  adapted.setAdapter("b");
  assert.deepEqual(adapted.mergedAdapters, []);
  const b = outputs(model);
  adapted.mergeAdapter(["b"]);
  adapted.mergeAdapter([]);
  assertClose("b", outputs(model), b);
  assert.throws(() => adapted.mergeAdapter(["b", "x"]), /no adapter "x"/);
  assert.deepEqual(adapted.mergedAdapters, ["b"]);
  adapted.dispose();
});

test("safeMerge refuses what is not finite; all layers are as before, merged ones too", () => {
  const adapted = adapt();
  const { model } = adapted;
  const { loraA } = layersOf(adapted, "dora")
    .find(({ path }) => path === "conv")!
    .layer.adapters.get("dora")!;
  adapted.mergeAdapter(["b"], { safeMerge: true });
  loraA.data[1] = NaN;
  const before = values(adapted);
  const merged = outputs(model);
  assert.throws(
    () => adapted.mergeAdapter(["a", "dora"], { safeMerge: true }),
    (e: Error) =>
      e instanceof ArgumentError &&
      /^mergeAdapter: conv: adapter "dora" gives a merged weight .* not finite/.test(e.message),
  );
  assertValues("refused", adapted, before);
  assert.deepEqual(adapted.mergedAdapters, ["b"]);
  assertBits("refused", outputs(model), merged);
  adapted.unmergeAdapter();
  const unmerged = values(adapted);
  for (const bad of [Infinity, NaN]) {
    loraA.data[1] = bad;
    unmerged.get("model.conv.lora_A.dora.weight")![1] = bad;
    assert.throws(() => adapted.mergeAndUnload(["a", "dora"], { safeMerge: true }), ArgumentError);
    assertValues("never merged", adapted, unmerged);
    adapted.mergeAdapter(["a", "dora"]);
    adapted.unmergeAdapter();
    assertValues("unsafe", adapted, unmerged);
  }
  adapted.dispose();
});

test("while merged, what would lose weights is refused and says what to do", () => {
  const adapted = adapt();
  const before = values(adapted);
  const state = adapted.stateDict();
  const plain = adapted.model.stateDict();
  adapted.mergeAdapter(["a"]);
  const merged = values(adapted);
  const refused: [string, () => unknown][] = [
    ["loadStateDict", () => adapted.loadStateDict(state)],
    ["addAdapter", () => adapted.addAdapter("c", { targetModules: ["fc"] })],
    ["deleteAdapter", () => adapted.deleteAdapter("b")],
    ["addWeightedAdapter", () => adapted.addWeightedAdapter(["b"], [1], "c")],
    ["withAdapterNames", () => adapted.withAdapterNames(["b"], () => outputs(adapted.model))],
  ];
  for (const [where, run] of refused) {
    assert.throws(
      run,
      (e: Error) => e instanceof StateError && e.message === `${where}: a is merged; call unmergeAdapter() first.`,
      where,
    );
  }
  assert.throws(
    () => adapted.model.loadStateDict(plain),
    (e: Error) => e instanceof StateError && e.message.includes("is merged"),
  );
  assertValues("merged", adapted, merged);
  adapted.unmergeAdapter();
  adapted.loadStateDict(state);
  assertValues("loaded", adapted, before);
  adapted.dispose();
});

test("mergeAndUnload gives the merged bits and nothing else; unload the base's", () => {
  for (const names of [undefined, ["b"], ["a", "dora"]]) {
    const adapted = adapt();
    const live = memoryStats().liveBytes;
    const { model } = adapted;
    const copy = names === undefined || names.includes("a");
    const norm = copiesOf(adapted, "a")[0]!.module.stateDict();
    adapted.mergeAdapter(names);
    const merged = outputs(model);
    const weights = new Map([...values(model)].filter(([key]) => key.endsWith("base_layer.weight")));
    assert.equal(adapted.mergeAndUnload(names), model);
    const got = values(model);
    const plain = tiny();
    assert.deepEqual([...got.keys()], [...values(plain).keys()]);
    for (const [key, data] of weights) assertBits(key, got.get(key.replace(".base_layer", ""))!, data);
    if (copy) assertBits("output", outputs(model), merged);
    assertBits("norm", got.get("norm.weight")!, copy ? norm.get("weight")!.data : values(plain).get("norm.weight")!);
    assert.deepEqual([adapted.adapters, adapted.activeAdapters, adapted.mergedAdapters], [[], [], []]);
    assert(memoryStats().liveBytes < live);
    plain.dispose();
    model.dispose();
  }
  const plain = tiny();
  const before = values(plain);
  const live = memoryStats().liveBytes;
  plain.dispose();
  const adapted = adapt();
  adapted.mergeAdapter(["dora"]);
  const model = adapted.unload();
  assertValues("unload", model, before);
  assert.equal(memoryStats().liveBytes, live);
  const again = peft.getLoraModel(model, { targetModules: ALL });
  assert.deepEqual(again.adapters, ["default"]);
  again.dispose();
});

test("mergeAndUnload keeps the copies of the adapters it merges", () => {
  const adapted = peft.getLoraModel(tiny(), { targetModules: ["fc"], modulesToSave: ["head"] }, "a");
  adapted.addAdapter("b", { targetModules: ["fc"], modulesToSave: ["head"] });
  for (const [i, name] of ["a", "b"].entries()) train(adapted, name, i);
  const head = copiesOf(adapted, "b")[0]!.module.stateDict();
  const model = adapted.mergeAndUnload(["b"]);
  assert.deepEqual(model.head.stateDict(), head);
  model.dispose();
});

test("a pissa's merged weights stay when it is unloaded", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 3, initLoraWeights: "pissa", targetModules: ["fc", "proj"] });
  train(adapted, "default", 1);
  const before = outputs(adapted.model);
  const model = adapted.mergeAndUnload();
  assertClose("unloaded", outputs(model), before);
  model.dispose();
});

test("a grouped convolution and a tied output head cannot be merged; the layers before them are as before", () => {
  const grouped = peft.getLoraModel(new Tiny(2), { r: 2, targetModules: ALL });
  train(grouped, "default", 1);
  const before = values(grouped);
  assert.throws(
    () => grouped.mergeAdapter(),
    (e: Error) =>
      e instanceof ArgumentError &&
      e.message.startsWith("mergeAdapter: conv: a convolution with groups = 2") &&
      e.message.includes("run it unmerged"),
  );
  assertValues("grouped", grouped, before);
  assert.deepEqual(grouped.mergedAdapters, []);
  grouped.dispose();

  const config = {
    modelType: "gpt2" as const,
    vocabSize: 10,
    hiddenSize: 16,
    intermediateSize: 32,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    maxPositionEmbeddings: 8,
    layerNormEpsilon: 1e-5,
    bosTokenId: null,
    eosTokenId: null,
  };
  for (const tieWordEmbeddings of [true, false]) {
    const adapted = peft.getLoraModel(
      new models.Gpt2({ ...config, tieWordEmbeddings }),
      { r: 2, targetModules: ["wte", "c_attn"] },
      "wte",
    );
    const { model } = adapted;
    adapted.addAdapter("c_attn", { r: 2, targetModules: ["c_attn"] });
    for (const name of ["wte", "c_attn"]) train(adapted, name, 4);
    const state = values(adapted);
    const active = outputs(model);
    if (tieWordEmbeddings) {
      assert.throws(
        () => adapted.mergeAdapter(),
        (e: Error) =>
          e instanceof StateError && e.message.startsWith("mergeAdapter: transformer.wte is the output head too"),
      );
      assertValues("tied", adapted, state);
    } else {
      adapted.mergeAdapter();
      assertClose("not tied", outputs(model), active);
      adapted.unmergeAdapter();
    }
    adapted.setAdapter("c_attn");
    const other = outputs(model);
    adapted.mergeAdapter();
    assertClose("another adapter", outputs(model), other);
    adapted.dispose();
  }
});

test("a Llama merged and unloaded has the merged bits", () => {
  const model = new models.Llama({
    modelType: "llama",
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
  });
  const adapted = peft.getLoraModel(model, { r: 4, targetModules: "all-linear" });
  const base = outputs(model);
  assert.equal(layersOf(adapted).length, 14);
  train(adapted, "default", 1);
  const active = outputs(model);
  adapted.mergeAdapter();
  const merged = outputs(model);
  assertClose("merged", merged, active);
  assertBits(
    "disabled",
    adapted.disableAdapter(() => outputs(model)),
    base,
  );
  adapted.mergeAndUnload();
  assertBits("unloaded", outputs(model), merged);
  assert(model.model.layers.every(({ mlp }) => mlp.upProj instanceof nn.Linear));
  model.dispose();
});

test.run();
