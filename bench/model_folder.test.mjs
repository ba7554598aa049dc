/** The folders of model_folder.mjs load, whole and in shards, with weights that the seed alone decides. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { init, models } from "../dist/src/index.js";
import { writeModelFolder } from "./model_folder.mjs";

const LLAMA = {
  model_type: "llama",
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 11,
  tie_word_embeddings: false,
};
const GPT2 = { model_type: "gpt2", n_embd: 8, n_layer: 2, n_head: 2, n_positions: 5, vocab_size: 11 };

await init();
const folder = mkdtempSync(join(tmpdir(), "model-folder-"));
test.after(() => rmSync(folder, { recursive: true }));

const state = (path) => {
  const { model } = models.loadModel(path);
  const values = new Map([...model.stateDict()].map(([key, { data }]) => [key, [...data]]));
  model.dispose();
  return values;
};

for (const config of [LLAMA, GPT2]) {
  test(`${config.model_type}, whole and in shards`, () => {
    const path = (what) => join(folder, `${config.model_type}-${what}`);
    writeModelFolder(path("whole"), config);
    assert.equal(writeModelFolder(path("shards"), config, { shards: 3 }).length, 3);
    writeModelFolder(path("other"), config, { seed: 1 });
    const whole = state(path("whole"));
    assert.ok([...whole.values()].flat().every((value) => value !== 0 && Math.abs(value) < 2));
    assert.deepEqual(state(path("shards")), whole);
    assert.notDeepEqual(state(path("other")), whole);
  });
}

test("a family that is not there is refused", () =>
  assert.throws(() => writeModelFolder(join(folder, "none"), { model_type: "none" }), /none/));

test.run();
