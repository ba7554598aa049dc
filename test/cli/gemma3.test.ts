/** merge on a model of texts and images: what is written is the text model, as transformers has it by itself. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { init, io, models, noGrad, peft, scope, tensor } from "../../src/index.js";
import { succeed, temporaryFolder } from "../support/cli.js";
import { familyPath } from "../support/families.js";
import { assertBits } from "../support/golden.js";

await init();
const folder = temporaryFolder();
const BASE = familyPath("gemma3");

type Json = Record<string, unknown>;
const configOf = (path: string): Json => JSON.parse(readFileSync(join(path, "config.json"), "utf8")) as Json;
const answer = (model: models.CausalLM): Float32Array =>
  noGrad(() => scope(() => model.forward(tensor(new Int32Array([2, 45, 46, 3]), [1, 4])).data.slice()));

test("merge writes the text model, and says what it leaves out", async () => {
  const out = join(folder, "merged");
  const adapter = join(BASE, "adapter");
  const { stdout } = await succeed(folder, ["merge", "--model", BASE, "--adapter", adapter, "--out", out]);
  assert.match(stdout, /vision_tower.* is left out\.\n$/);
  const { text_config, ...whole } = configOf(BASE);
  assert.deepEqual(configOf(out), {
    ...(text_config as Json),
    architectures: ["Gemma3ForCausalLM"],
    dtype: "float32",
    model_type: "gemma3_text",
    tie_word_embeddings: true,
    transformers_version: whole["transformers_version"],
  });
  for (const key of io.loadWeights(out).keys()) assert.match(key, /^model\.(embed_tokens|layers|norm)\./);
  const { model: base, config } = models.loadModel(BASE);
  assert.equal(config.modelType, "gemma3");
  peft.LoraModel.fromPretrained(base, adapter).mergeAndUnload();
  const { model } = models.loadModel(out);
  assert.equal(model.config.modelType, "gemma3_text");
  assertBits("merged", answer(model), answer(base));
  for (const each of [base, model]) each.dispose();
});

test.run();
