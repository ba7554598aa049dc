/**
 * A model trained elsewhere (stories260K, llama2.c, in Hugging Face's layout): its greedy continuation
 * is PyTorch's, token by token, and it can be fine-tuned. The model is not part of the repository; it
 * is looked for beside the checkout, or in the folder named by WASM_LORA_STORIES260K.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { succeed, temporaryFolder, TINY, writeText } from "../support/cli.js";
import { ROOT } from "../support/root.js";

const model = resolve(fileURLToPath(ROOT), process.env["WASM_LORA_STORIES260K"] ?? "../shared/models/stories260K");
const folder = temporaryFolder();

const isThere = existsSync(join(model, "model.safetensors"));
const where = isThere ? "" : ` (not at ${model}: set WASM_LORA_STORIES260K to its folder)`;
const withModel = isThere ? test : test.skip;

withModel(`generates PyTorch's 181 greedy ids${where}`, async () => {
  const expected = JSON.parse(readFileSync(join(model, "greedy_ids.json"), "utf8")) as number[];
  assert.equal(expected.length, 181);
  const { stdout } = await succeed(folder, [
    "generate",
    "--model",
    model,
    "--temperature",
    "0",
    "--max-tokens",
    "180",
    "--ids",
  ]);
  assert.deepEqual(JSON.parse(stdout), expected);
});

withModel(`fine-tuning lowers the held-out loss${where}`, async () => {
  writeText(join(folder, "text.txt"));
  await succeed(folder, ["finetune", "--model", model, "--data", "text.txt", "--out", "out", ...TINY, "--steps", "12"]);
  const { heldOutBefore, heldOutAfter } = JSON.parse(readFileSync(join(folder, "out/result.json"), "utf8"));
  console.log(`held-out loss ${heldOutBefore.toFixed(3)} -> ${heldOutAfter.toFixed(3)}`);
  assert.ok(heldOutAfter < heldOutBefore);
});

test.run();
