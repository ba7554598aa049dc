/**
 * Adapters that PEFT 0.21 trained and saved (test/fixtures/families/zoo): each is loaded, saved again, merged, taken
 * off and trained a step. Expected: PEFT's logits with each adapter, in float64, rounded once. What is no LoRA is
 * refused by name. Nothing here is of one case but what its config says.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "uvu";
import { FormatError, init, io, models, optim, peft, scope, tensor, type Tensor } from "../../src/index.js";
import { familyPath } from "../support/families.js";
import { assertClose, assertBits, f32, ints, readGolden } from "../support/golden.js";
import { outputs } from "../support/peft.js";

await init();
const at = (name: string): string => familyPath(`zoo/${name}`);
const reference = readGolden("families/zoo/reference");
const { shape, data: inputs } = ints(reference, "in.input_ids");
const names = readdirSync(at("")).filter((name) => name !== "base" && !name.includes("."));
const base = (): models.CausalLM => models.loadModel(at("base")).model;
const ids = (): Tensor => tensor(inputs.slice(), shape);
const logitsOf = (model: models.CausalLM | peft.LoraModel): Float32Array => outputs(model, ids);
const configOf = (folder: string): Record<string, unknown> =>
  JSON.parse(readFileSync(`${at(folder)}/adapter_config.json`, "utf8")) as Record<string, unknown>;

/** Lists that are sets in PEFT, in order; and without the name of its class of the model. */
function asSets(config: Record<string, unknown>): Record<string, unknown> {
  const sorted = (value: unknown): unknown =>
    Array.isArray(value) && value.every((v) => typeof v === "string") ? [...value].sort() : value;
  return Object.fromEntries(
    Object.entries({ ...config, auto_mapping: null }).map(([key, value]) => [key, sorted(value)]),
  );
}

/** A folder's key as a model's, whose adapter is called default. */
function inModel(key: string, config: Record<string, unknown>): string {
  const factor = /^(.*\.lora_(?:[AB]|embedding_[AB]|magnitude_vector|[AB]))(\.\w+)?$/.exec(key);
  if (factor) return `${factor[1]}.default${key.includes("magnitude") ? ".weight" : (factor[2] ?? "")}`;
  if (key.endsWith("trainable_tokens_delta")) return `${key}.default`;
  const saved = (config["modules_to_save"] as string[] | null)?.some((name) => key.includes(name));
  return saved ? key.replace(/\.(\w+)$/, ".modules_to_save.default.$1") : key;
}

test("without adapter", () => {
  const model = base();
  assertClose("base", logitsOf(model), f32(reference, "base").data);
  model.dispose();
});

for (const name of names) {
  const config = configOf(name);
  const type = String(config["peft_type"]);
  if (type !== "LORA") {
    test(`${name} is refused by name`, () => {
      const model = base();
      assert.throws(
        () => peft.LoraModel.fromPretrained(model, at(name)),
        (error) => error instanceof FormatError && error.message.includes(`peft_type is "${type}"`),
      );
      model.dispose();
    });
    continue;
  }
  const expected = f32(reference, name).data;

  test(`${name}: loaded`, () => {
    const model = base();
    const plain = logitsOf(model);
    const adapted = peft.LoraModel.fromPretrained(model, at(name));
    assertClose(name, logitsOf(adapted), expected);
    assertBits(
      "without it",
      adapted.disableAdapter(() => logitsOf(model)),
      plain,
    );
    adapted.deleteAdapter("default");
    assertBits("without it again", logitsOf(model), plain);
    model.dispose();
  });

  test(`${name}: saved again, it is what PEFT wrote`, () => {
    const folder = `memory:zoo-${name}`;
    const adapted = peft.LoraModel.fromPretrained(base(), at(name));
    adapted.savePretrained(folder);
    const theirs = peft.readPeftAdapter(at(name));
    const ours = peft.readPeftAdapter(folder);
    assert.deepEqual([...ours.tensors.keys()].sort(), [...theirs.tensors.keys()].sort());
    for (const [key, { shape, data }] of theirs.tensors) {
      assert.deepEqual(ours.tensors.get(key)!.shape, shape, key);
      assertBits(key, ours.tensors.get(key)!.data, data);
    }
    const written: unknown = JSON.parse(new TextDecoder().decode(io.memoryFiles.get(`${folder}/adapter_config.json`)));
    assert.deepEqual(asSets(written as Record<string, unknown>), asSets(config));
    const again = peft.LoraModel.fromPretrained(base(), folder);
    assertBits("read again", logitsOf(again), logitsOf(adapted));
    again.dispose();
    adapted.dispose();
  });

  test(`${name}: merged, or refused as in PEFT`, () => {
    const adapted = peft.LoraModel.fromPretrained(base(), at(name));
    const why = config["lora_bias"] ? "loraBias" : config["layer_replication"] ? "layerReplication" : null;
    if (why === null) assertClose("merged", logitsOf(adapted.mergeAndUnload()), expected);
    else assert.throws(() => adapted.mergeAndUnload(), new RegExp(why));
    assertClose("after", logitsOf(adapted), expected);
    adapted.dispose();
  });

  test(`${name}: a step changes what PEFT trains, and nothing else`, () => {
    const adapted = peft.LoraModel.fromPretrained(base(), at(name), { isTrainable: true });
    // What the folder holds, but for an embedding's base weight.
    const saved = [...peft.readPeftAdapter(at(name)).tensors.keys()].filter(
      (key) => !key.endsWith(".base_layer.weight"),
    );
    const trained = saved.map((key) => inModel(key.replace("base_model.model.", "model."), config)).sort();
    const parameters = [...adapted.namedParameters()];
    assert.deepEqual(parameters.flatMap(([key, p]) => (p.requiresGrad ? [key] : [])).sort(), trained);
    const before = new Map(parameters.map(([key, p]) => [key, p.data.slice()]));
    // Every token, so that rows of any have a gradient.
    const all = Int32Array.from({ length: 96 }, (_, i) => i);
    const next = all.map((i) => (i * 7 + 1) % 96);
    const optimizer = new optim.SGD(
      adapted.parameters().filter((p) => p.requiresGrad),
      { lr: 1 },
    );
    scope(() => {
      adapted.loss(tensor(all, [2, 48]), tensor(next, [2, 48])).backward();
      optimizer.step();
    });
    const changed = parameters.flatMap(([key, p]) => (p.data.every((v, i) => v === before.get(key)![i]) ? [] : [key]));
    assert.deepEqual(changed.sort(), trained);
    optimizer.dispose();
    adapted.dispose();
  });
}

test.run();
