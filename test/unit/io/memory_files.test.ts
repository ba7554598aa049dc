/** Models and adapters live in memory alone as they do on disk: what browsers and workers have. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "uvu";
import { FileError, init, io, models, noGrad, peft, scope, tensor } from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { ROOT } from "../../support/root.js";

await init();
test.after(() => io.memoryFiles.clear());

const base = new URL("models/base/", ROOT);

test("a model is read from memory, and an adapter written there and read again, to the bit", () => {
  for (const file of readdirSync(base).filter((name) =>
    /^(config|tokenizer.*)\.json$|^model\.safetensors$/.test(name),
  )) {
    io.memoryFiles.set(`memory:base/${file}`, readFileSync(new URL(file, base)));
  }
  const logits = (model: models.CausalLM): Float32Array =>
    noGrad(() => scope(() => model.forward(tensor(new Int32Array([1, 2, 3]), [1, 3])).data.slice()));
  const { model } = models.loadModel("memory:base");
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["q_proj"] });
  for (const [key, p] of adapted.namedParameters()) if (key.includes("lora_B")) p.data.fill(0.01);
  adapted.savePretrained("memory:adapter");
  assert.deepEqual([...io.memoryFiles.keys()].filter((key) => key.startsWith("memory:adapter/")).sort(), [
    "memory:adapter/adapter_config.json",
    "memory:adapter/adapter_model.safetensors",
  ]);
  const again = models.loadModel("memory:base").model;
  peft.LoraModel.fromPretrained(again, "memory:adapter");
  assertBits("logits", logits(again), logits(model));
  adapted.dispose();
  again.dispose();
});

test("what is not there is refused, with what to do", () => {
  assert.throws(
    () => models.loadModel("memory:nowhere"),
    (error: unknown) =>
      error instanceof FileError &&
      error.message.includes("memory:nowhere/config.json") &&
      error.message.includes("io.memoryFiles"),
  );
});

test.run();
