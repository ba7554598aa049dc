/** Models of GGUF files: those of the folders that they were made of, to the bit. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { init, io, models, noGrad, tensor } from "../../../src/index.js";
import { ROOT } from "../../support/root.js";

await init();

const put = (from: string, to: string) =>
  io.memoryFiles.set(`memory:${to}`, new Uint8Array(readFileSync(new URL(`test/fixtures/${from}`, ROOT))));

/** The logits of a text, as bits. */
function logitsOf(model: models.CausalLM): Uint32Array {
  const ids = tensor(
    Int32Array.from({ length: 20 }, (_, i) => (i * i * 7 + 3) % 96),
    [2, 10],
  );
  const logits = noGrad(() => model.forward(ids));
  const bits = new Uint32Array(logits.data.slice().buffer);
  for (const t of [ids, logits]) t.dispose();
  return bits;
}

const FAMILIES =
  "llama_bias llama_rope_llama3 llama_rope_linear llama_rope_yarn mistral mistral_window qwen2 qwen3 gemma gemma2 " +
  "gemma3_text phi3 phi3_longrope gpt2 gpt_neox granite smollm3 olmo2";
for (const name of FAMILIES.split(" ")) {
  test(`${name}.gguf has the logits of its folder`, () => {
    for (const file of ["config.json", "model.safetensors"]) put(`families/${name}/${file}`, `gguf_folder/${file}`);
    put(`gguf/${name}.gguf`, "test.gguf");
    const { model: one } = models.loadModel("memory:gguf_folder");
    const loaded = models.loadModel("memory:test.gguf");
    const { model: other, path, config } = loaded;
    assert.equal(path, "memory:test.gguf");
    assert.deepEqual(config, other.config);
    assert.deepEqual(logitsOf(other), logitsOf(one));
    assert.deepEqual(
      [...other.namedParameters()].map(([key]) => key),
      [...one.namedParameters()].map(([key]) => key),
    );
    for (const model of [one, other]) model.dispose();
  });
}

test.run();
