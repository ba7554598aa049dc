/** targetParameters (PEFT's target_parameters): LoRA on weights that are named as parameters. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, io, manualSeed, peft } from "../../../src/index.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { assertValues, batch, layersOf, outputs, tiny, train, values } from "../../support/peft.js";
import { refuses } from "../../support/refuses.js";

await init();

test("a linear layer's weight is adapted as the layer is", () => {
  const seen = [{ targetModules: ["fc", "head"] }, { targetParameters: ["body.fc.weight", "head.weight"] }].map(
    (config) => {
      const model = tiny();
      manualSeed(3);
      const adapted = peft.getLoraModel(model, { r: 2, loraAlpha: 5, ...config });
      train(adapted, "default", 1);
      const y = outputs(model);
      adapted.mergeAdapter();
      const merged = outputs(model);
      adapted.unmergeAdapter();
      const keys = [...adapted.stateDict().keys()];
      adapted.dispose();
      return { y, merged, keys };
    },
  );
  assertBits("the same", seen[1]!.y, seen[0]!.y);
  assertBits("merged", seen[1]!.merged, seen[0]!.merged);
  assert.deepEqual(seen[1]!.keys, seen[0]!.keys);
});

test("patterns are of the parameter's path; the folder says what was targeted", () => {
  const model = tiny();
  const base = outputs(model);
  const config = { r: 4, targetParameters: ["fc.weight", "head.weight"], rankPattern: { "fc.weight": 2 } };
  const adapted = peft.getLoraModel(model, { ...config, alphaPattern: { "^head.weight": 3 } });
  const ranks = layersOf(adapted).map(({ path, layer }) => [path, layer.adapters.get("default")!]);
  assert.deepEqual(
    ranks.map(([path, adapter]) => [path, (adapter as peft.Adapter).r, (adapter as peft.Adapter).scaling]),
    [
      ["body.fc", 2, 4],
      ["head", 4, 0.75],
    ],
  );
  train(adapted, "default", 2);
  adapted.savePretrained("memory:parameters");
  const json = JSON.parse(new TextDecoder().decode(io.memoryFiles.get("memory:parameters/adapter_config.json")));
  assert.deepEqual([json.target_modules, json.target_parameters], [[], config.targetParameters]);
  const other = tiny();
  const read = peft.LoraModel.fromPretrained(other, "memory:parameters");
  assertBits("read", outputs(other), outputs(model));
  assert.throws(() => read.withAdapterNames(["default"], () => other.forward(batch(1))), /has targetParameters/);
  read.deleteAdapter("default");
  assertBits("deleted", outputs(other), base);
  assertClose("merged for good", outputs(adapted.mergeAndUnload()), outputs(model));
  model.dispose();
  other.dispose();
});

const model = tiny();
const before = values(model);
const add = (config: Partial<peft.LoraConfig>) => (): unknown => peft.getLoraModel(model, { r: 2, ...config });
refuses("a bias", ArgumentError, ["body.fc.bias", "nn.Linear"], add({ targetParameters: ["fc.bias"] }));
refuses("a norm", ArgumentError, ["norm.weight", "LayerNorm"], add({ targetParameters: ["norm.weight"] }));
refuses("a table", ArgumentError, ["embed.weight", "Embedding"], add({ targetParameters: ["embed.weight"] }));
refuses("a kernel", ArgumentError, ["conv.weight", "4,4,2,3"], add({ targetParameters: ["conv.weight"] }));
refuses("[in, out]", ArgumentError, ["body.proj.weight"], add({ targetParameters: ["proj.weight"] }));
refuses("a slip", ArgumentError, ["haed.weight", "Did you mean"], add({ targetParameters: ["haed.weight"] }));
refuses(
  "both",
  ArgumentError,
  ["head", "targetModules", "targetParameters"],
  add({ targetModules: ["head"], targetParameters: ["head.weight"] }),
);
refuses("dropout", ArgumentError, ["loraDropout"], add({ targetParameters: ["head.weight"], loraDropout: 0.1 }));

test("what was refused left the model as it was; adapters have the same parameters or none", () => {
  assertValues("as it was", model, before);
  const adapted = peft.getLoraModel(model, { r: 2, targetParameters: ["head.weight"] });
  assert.throws(
    () => adapted.addAdapter("b", { targetParameters: ["fc.weight"] }),
    (e: Error) => e instanceof ArgumentError && e.message.includes("targetParameters"),
  );
  adapted.addAdapter("c", { targetModules: ["fc"] });
  adapted.addAdapter("d", { targetParameters: ["head.weight"] });
  assert.deepEqual(adapted.adapters, ["default", "c", "d"]);
  adapted.dispose();
});

test.run();
