/**
 * What PEFT does for a task: heads that train with an adapter (PeftModelForSequenceClassification and its like), what
 * "all-linear" leaves out, what is adapted where nothing is named.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  io,
  manualSeed,
  memoryStats,
  models,
  nn,
  ops,
  optim,
  peft,
  scope,
  type Tensor,
  tensor,
} from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { GPT2, LLAMA } from "../../support/language_models.js";
import { assertValues, layersOf, outputs, train, trainable, values } from "../../support/peft.js";

await init();

/** As RobertaClassificationHead. */
class Head extends nn.Module {
  readonly dense: nn.Layer = new nn.Linear(4, 4);
  readonly outProj: nn.Layer = new nn.Linear(4, 3);
  forward(x: Tensor): Tensor {
    return this.outProj.forward(ops.tanh(this.dense.forward(x)));
  }
}

class Classifier extends nn.Module {
  readonly config = { modelType: "roberta" };
  readonly query: nn.Layer = new nn.Linear(4, 4);
  readonly value: nn.Layer = new nn.Linear(4, 4);
  readonly preClassifier: nn.Layer = new nn.Linear(4, 4);
  readonly classifier: nn.Layer = new Head();
  forward(x: Tensor): Tensor {
    const h = ops.add(this.query.forward(x), this.value.forward(x));
    return this.classifier.forward(ops.relu(this.preClassifier.forward(h)));
  }
}

function made(): Classifier {
  manualSeed(4);
  return new Classifier();
}
const rows = (): Tensor => tensor([[1, -2, 3, 0.5]]);
const outputOf = (model: Classifier): Float32Array => outputs(model, rows);

test("a classifier's head trains, whole and within its modules, and is saved under its own names", () => {
  const model = made();
  const plain = values(model);
  const base = outputOf(model);
  const live = memoryStats().liveBytes;
  const adapted = peft.getLoraModel(model, { r: 2, taskType: "SEQ_CLS" });
  assert.deepEqual(
    layersOf(adapted).map(({ path }) => path),
    ["query", "value"],
  );
  assert.deepEqual(adapted.config("default").modulesToSave, ["classifier", "score"]);
  assert.deepEqual(adapted.config("default").targetModules, ["query", "value"]);
  const heads = ["dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"];
  assert.deepEqual(
    trainable(adapted)
      .filter((key) => !key.includes("lora_"))
      .sort(),
    [
      ...heads.map((key) => `model.classifier.modules_to_save.default.${key}`),
      "model.pre_classifier.modules_to_save.default.bias",
      "model.pre_classifier.modules_to_save.default.weight",
    ].sort(),
  );
  const optimizer = new optim.SGD(
    adapted.parameters().filter((p) => p.requiresGrad),
    { lr: 0.1 },
  );
  scope(() => ops.crossEntropy(model.forward(rows()), tensor(Int32Array.of(2))).backward());
  optimizer.step();
  optimizer.dispose();
  train(adapted, "default", 6);
  const y = outputOf(model);
  assertBits(
    "the base",
    adapted.disableAdapter(() => outputOf(model)),
    base,
  );
  adapted.savePretrained("memory:classifier");
  assert.deepEqual(
    [...peft.readPeftAdapter("memory:classifier").tensors.keys()].filter((key) => !key.includes("lora_")).sort(),
    [...heads.map((key) => `classifier.${key}`), "pre_classifier.bias", "pre_classifier.weight"]
      .map((key) => `base_model.model.${key}`)
      .sort(),
  );
  const json = JSON.parse(new TextDecoder().decode(io.memoryFiles.get("memory:classifier/adapter_config.json")));
  assert.deepEqual([json.modules_to_save, json.task_type], [["classifier", "score"], "SEQ_CLS"]);
  const other = made();
  const read = peft.LoraModel.fromPretrained(other, "memory:classifier");
  assertBits("read", outputOf(other), y);
  read.addAdapter("second", { r: 2, taskType: "TOKEN_CLS" });
  read.setAdapter("second");
  assertBits("a second starts as the base", outputOf(other), base);
  read.deleteAdapter("second");
  assertBits("the first again", outputOf(other), y);
  const merged = read.mergeAndUnload();
  assert.ok(merged.classifier instanceof Head);
  other.dispose();
  adapted.unload();
  assertValues("unloaded", model, plain);
  assert.equal(memoryStats().liveBytes, live);
  model.dispose();
});

test("all-linear leaves the head and what is copied out, and heads of other tasks are named", () => {
  for (const [taskType, heads] of [
    ["SEQ_CLS", ["classifier", "score"]],
    ["TOKEN_CLS", ["classifier", "score"]],
    ["QUESTION_ANS", ["qa_outputs"]],
  ] as const) {
    const adapted = peft.getLoraModel(made(), { r: 2, taskType, targetModules: "all-linear" });
    const expected =
      taskType === "QUESTION_ANS"
        ? ["query", "value", "pre_classifier", "classifier.dense", "classifier.out_proj"]
        : ["query", "value"];
    assert.deepEqual(
      layersOf(adapted).map(({ path }) => path),
      expected,
    );
    assert.deepEqual(adapted.config("default").modulesToSave, heads);
    adapted.dispose();
  }
  const own = peft.getLoraModel(made(), { r: 2, taskType: "SEQ_CLS", modulesToSave: ["pre_classifier", "score"] });
  assert.deepEqual(own.config("default").modulesToSave, ["pre_classifier", "score", "classifier"]);
  own.dispose();
});

test("any module that computes can be copied, whatever it keeps to itself", () => {
  const text = (model: models.Llama): Float32Array => outputs(model, () => tensor(Int32Array.of(3, 1, 4), [1, 3]));
  for (const name of ["mlp", "self_attn", "norm"]) {
    const model = new models.Llama(LLAMA);
    const base = text(model);
    const plain = values(model);
    const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["lm_head"], modulesToSave: [name] });
    assertBits(`${name} at first`, text(model), base);
    train(adapted, "default", 3);
    const y = text(model);
    assert.ok(y.some((v, i) => v !== base[i]));
    const ids = tensor(Int32Array.of(3, 1, 4), [1, 3]);
    scope(() => adapted.loss(ids, ids).backward());
    for (const [key, p] of adapted.namedParameters()) if (p.requiresGrad) assert.ok(p.grad, key);
    assertBits(
      name,
      adapted.disableAdapter(() => text(model)),
      base,
    );
    assert.equal([...models.generate(adapted, [3, 1], { maxNewTokens: 3, temperature: 0 })].length, 3);
    adapted.unload();
    assertValues(name, model, plain);
    ids.dispose();
    model.dispose();
  }
});

test("modules that have adapters in them cannot be copied", () => {
  const model = made();
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["out_proj"] }, "a");
  assert.throws(
    () => adapted.addAdapter("b", { r: 2, targetModules: ["query"], modulesToSave: ["classifier"] }),
    (e: Error) => e instanceof ArgumentError && e.message.includes("classifier") && e.message.includes("out_proj"),
  );
  assert.deepEqual(adapted.adapters, ["a"]);
  adapted.dispose();
});

test("where nothing is named, PEFT's modules of the model's type are adapted", () => {
  for (const [model, names] of [
    [new models.Llama(LLAMA), ["q_proj", "v_proj"]],
    [new models.Gpt2(GPT2), ["c_attn"]],
  ] as const) {
    const adapted = peft.getLoraModel(model as nn.Module, { r: 2 });
    assert.deepEqual([...new Set(layersOf(adapted).map(({ path }) => path.split(".").at(-1)))], names);
    assert.deepEqual(adapted.config("default").targetModules, names);
    adapted.dispose();
  }
  for (const config of [{}, { modelType: "unheard" }]) {
    const model = Object.assign(made(), { config });
    assert.throws(
      () => peft.getLoraModel(model, { r: 2 }),
      (e: Error) =>
        e instanceof ArgumentError && e.message.includes("targetModules is null") && e.message.includes("odelType"),
    );
    model.dispose();
  }
});

test("base weights of adapted tables and heads are saved where PEFT does, or as asked for", () => {
  const keysOf = (config: Partial<peft.LoraConfig>, saveEmbeddingLayers?: boolean): string[] => {
    const adapted = peft.getLoraModel(new models.Llama({ ...LLAMA, tieWordEmbeddings: false }), { r: 2, ...config });
    adapted.savePretrained("memory:embeddings", "default", { saveEmbeddingLayers });
    adapted.dispose();
    return [...peft.readPeftAdapter("memory:embeddings").tensors.keys()]
      .filter((key) => key.endsWith(".base_layer.weight"))
      .map((key) => key.split(".").at(-3)!)
      .sort();
  };
  const both = { targetModules: ["embed_tokens", "lm_head"] };
  assert.deepEqual(keysOf(both), ["embed_tokens", "lm_head"]);
  assert.deepEqual(keysOf(both, false), []);
  assert.deepEqual(keysOf({ targetModules: ["embed_tokens", "q_proj"] }), ["embed_tokens"]);
  // A path is no name that PEFT looks for, and a pattern is matched with all paths.
  assert.deepEqual(keysOf({ targetModules: ["model.embed_tokens"] }), []);
  assert.deepEqual(keysOf({ targetModules: ["model.embed_tokens"] }, true), ["embed_tokens"]);
  assert.deepEqual(keysOf({ targetModules: ".*(embed_tokens|q_proj)" }), ["embed_tokens"]);
  assert.deepEqual(keysOf({ targetModules: ["q_proj"] }, true), []);
  assert.deepEqual(keysOf({ targetModules: ["lm_head"], trainableTokenIndices: [1] }), []);
});

test.run();
