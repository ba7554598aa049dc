/** Layers that are there more than once (PEFT's layer_replication): on the same weights, with factors of their own. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  io,
  manualSeed,
  memoryStats,
  models,
  peft,
  scope,
  StateError,
  tensor,
} from "../../../src/index.js";
import { familyPath } from "../../support/families.js";
import { assertBits } from "../../support/golden.js";
import { greedy, LLAMA } from "../../support/language_models.js";
import { assertValues, layersOf, outputs, tiny, train, values } from "../../support/peft.js";
import { refuses } from "../../support/refuses.js";

await init();
const RANGES = [
  [0, 2],
  [1, 3],
] as const;
const SOURCES = [0, 1, 1, 2];
const CONFIG = { r: 2, targetModules: ["q_proj", "v_proj"], layerReplication: RANGES };

function llama(): models.Llama {
  manualSeed(1);
  return new models.Llama({ ...LLAMA, numHiddenLayers: 3 });
}
const ids = [3, 1, 4, 1, 5, 9];
const logits = (model: models.CausalLM): Float32Array =>
  outputs(model, () => tensor(Int32Array.from(ids), [1, ids.length]));

test("the model computes as one that has these layers", () => {
  const model = llama();
  const live = memoryStats().liveBytes;
  const plain = values(model);
  const before = logits(model);
  const deep = new models.Llama({ ...LLAMA, numHiddenLayers: 4 });
  for (const [key, p] of deep.namedParameters())
    p.set(plain.get(key.replace(/layers\.(\d)/, (_, layer: string) => `layers.${SOURCES[Number(layer)]}`))!);
  const adapted = peft.getLoraModel(model, CONFIG);
  assert.equal(model.model.layers.length, 4);
  assert.deepEqual([model.config.numHiddenLayers, model.model.config.numHiddenLayers], [4, 4]);
  assertBits("four layers", logits(model), logits(deep));
  assertBits(
    "disabled, three",
    adapted.disableAdapter(() => logits(model)),
    before,
  );
  assertBits("four again", logits(model), logits(deep));
  // Each has factors of its own, and the shared weights are there once.
  assert.deepEqual(
    layersOf(adapted).map(({ path }) => path),
    SOURCES.flatMap((_, i) => ["q_proj", "v_proj"].map((name) => `model.layers.${i}.self_attn.${name}`)),
  );
  train(adapted, "default", 2);
  const y = logits(model);
  assert.ok(y.some((v, i) => v !== before[i]));
  const tokens = [...models.generate(adapted, ids, { maxNewTokens: 6, temperature: 0 })];
  assert.deepEqual(tokens, greedy(model, ids, 6), "with cached keys");
  adapted.savePretrained("memory:replication");
  const json = JSON.parse(new TextDecoder().decode(io.memoryFiles.get("memory:replication/adapter_config.json")));
  assert.deepEqual(json.layer_replication, RANGES);
  const other = llama();
  const read = peft.LoraModel.fromPretrained(other, "memory:replication");
  assertBits("read", logits(other), y);
  read.unload();
  assertBits("unloaded", logits(other), before);
  other.dispose();
  assert.throws(
    () => adapted.mergeAdapter(),
    (e: Error) => e instanceof StateError && e.message.includes("layerReplication"),
  );
  adapted.deleteAdapter("default");
  assert.equal(model.model.layers.length, 3);
  assert.deepEqual([model.config.numHiddenLayers, model.model.config.numHiddenLayers], [3, 3]);
  assertBits("deleted", logits(model), before);
  assertValues("deleted", model, plain);
  deep.dispose();
  assert.equal(memoryStats().liveBytes, live);
  model.dispose();
});

test("a step trains each layer's factors by themselves, with checkpoints too", () => {
  const gradients = [false, true].map((checkpointing) => {
    const model = llama();
    const adapted = peft.getLoraModel(model, { ...CONFIG, initLoraWeights: false });
    adapted.gradientCheckpointing = checkpointing;
    scope(() => adapted.loss(tensor(Int32Array.from(ids), [1, 6]), tensor(Int32Array.from(ids), [1, 6])).backward());
    const all = layersOf(adapted).map(({ layer }) => layer.adapters.get("default")!.loraA.grad!.data.slice());
    adapted.dispose();
    return all;
  });
  const [first, again] = gradients as [Float32Array[], Float32Array[]];
  assert.ok(
    first[2]!.some((v, i) => v !== first[4]![i]),
    "layer 1 and its copy",
  );
  for (const [i, g] of first.entries()) assertBits(`layer ${i}`, again[i]!, g);
});

test("layers that no range names are freed with the model", () => {
  const live = memoryStats().liveBytes;
  const model = llama();
  peft.getLoraModel(model, { ...CONFIG, layerReplication: [[1, 2]] });
  assert.equal(model.model.layers.length, 1);
  model.dispose();
  assert.equal(memoryStats().liveBytes, live);
});

test("all adapters of a model have the same layers", () => {
  const model = llama();
  const adapted = peft.getLoraModel(model, CONFIG, "a");
  adapted.addAdapter("b", { ...CONFIG, targetModules: ["o_proj"] });
  assert.equal(model.model.layers.length, 4);
  for (const layerReplication of [null, [[0, 3]] as const])
    assert.throws(
      () => adapted.addAdapter("c", { ...CONFIG, layerReplication }),
      (e: Error) => e instanceof ArgumentError && e.message.includes("layerReplication"),
    );
  adapted.deleteAdapter("a");
  assert.equal(model.model.layers.length, 4);
  adapted.deleteAdapter("b");
  assert.equal(model.model.layers.length, 3);
  adapted.addAdapter("c", { targetModules: ["q_proj"] });
  assert.throws(() => adapted.addAdapter("d", CONFIG), ArgumentError);
  adapted.dispose();
});

test("layers of a BERT, too", () => {
  const { model } = models.loadModel(familyPath("bert_cls"), { head: "sequence-classification" });
  const text = (): Float32Array => outputs(model, () => tensor(Int32Array.of(2, 9, 8, 3), [1, 4]));
  const before = text();
  const config = { targetModules: ["query"], taskType: "SEQ_CLS" };
  const first = peft.getLoraModel(model, config);
  const count = layersOf(first).length;
  first.unload();
  const adapted = peft.getLoraModel(model, {
    ...config,
    layerReplication: [
      [0, count],
      [0, 1],
    ],
  });
  assert.equal(layersOf(adapted).length, count + 1);
  assert.ok(text().some((v, i) => v !== before[i]));
  adapted.unload();
  assertBits("unloaded", text(), before);
  model.dispose();
});

const model = llama();
const plain = values(model);
const net = tiny();
const add = (config: Partial<peft.LoraConfig>) => (): unknown => peft.getLoraModel(model, { ...CONFIG, ...config });
refuses(
  "a layer that is not there",
  ArgumentError,
  ["[1, 4]", "0 .. 2"],
  add({
    layerReplication: [
      [0, 2],
      [1, 4],
    ],
  }),
);
refuses(
  "more layers than anybody has",
  ArgumentError,
  ["3000000", "at most 1000"],
  add({ layerReplication: Array.from({ length: 1_000_000 }, () => [0, 3] as const) }),
);
refuses(
  "an init that changes the base",
  ArgumentError,
  ["pissa", "layerReplication"],
  add({ initLoraWeights: "pissa" }),
);
refuses("a slip beside it", ArgumentError, ["q_porj", "q_proj"], add({ targetModules: ["q_porj"] }));
test("indices of layers are those of the model with its copies", () => {
  const model = llama();
  const adapted = peft.getLoraModel(model, {
    ...CONFIG,
    layersToTransform: [3],
    rankPattern: { "layers.3.self_attn.q_proj": 1 },
  });
  assert.deepEqual(
    layersOf(adapted).map(({ path, layer }) => [path, layer.adapters.get("default")!.r]),
    [
      ["model.layers.3.self_attn.q_proj", 1],
      ["model.layers.3.self_attn.v_proj", 2],
    ],
  );
  adapted.dispose();
});

refuses("a layer that is a target of nothing", ArgumentError, ["layersToTransform"], add({ layersToTransform: [7] }));
refuses("a model without layers", ArgumentError, ["layerReplication", "Tiny"], () =>
  peft.getLoraModel(net, { targetModules: ["fc"], layerReplication: [[0, 1]] }),
);

test("what was refused left the model as it was", () => {
  assert.equal(model.model.layers.length, 3);
  assertValues("as it was", model, plain);
  model.dispose();
  net.dispose();
});

test.run();
