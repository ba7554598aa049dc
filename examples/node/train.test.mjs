/** The example runs, learns the text, and leaves a folder in PEFT's layout. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "uvu";

const here = fileURLToPath(new URL(".", import.meta.url));

test("train, save, load, merge, write", () => {
  rmSync(`${here}runs`, { recursive: true, force: true });
  const printed = execFileSync(process.execPath, [`${here}train.mjs`], { encoding: "utf8" });
  const losses = [...printed.matchAll(/loss (\d+\.\d+)/g)].map(([, loss]) => Number(loss));
  assert.equal(losses.length, 4);
  assert.deepEqual(
    losses,
    losses.toSorted((a, b) => b - a),
    "each lower than the one before",
  );
  assert(losses[3] < losses[0] / 4);
  const written = (when) => new RegExp(`^${when}: (Knead the dough.*)`, "m").exec(printed)?.[1];
  // What follows in the text that it was trained on.
  assert.match(written("after"), /^Knead the dough for ten minutes/);
  assert.doesNotMatch(written("before"), /ten minutes/);
  assert.equal(written("merged"), written("after"));
  assert.match(printed, /the same bits as the trained one: true/);
  const config = JSON.parse(readFileSync(`${here}runs/adapter/adapter_config.json`, "utf8"));
  assert.equal(config.peft_type, "LORA");
  assert.equal(config.r, 8);
  const file = readFileSync(`${here}runs/adapter/adapter_model.safetensors`);
  const header = Number(file.readBigUInt64LE());
  const { __metadata__, ...tensors } = JSON.parse(file.subarray(8, 8 + header).toString());
  assert.equal(Object.keys(tensors).length, 4 * 7 * 2, "two factors for each of seven linear layers in four blocks");
  assert.deepEqual(tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape, [8, 128]);
});

test.run();
