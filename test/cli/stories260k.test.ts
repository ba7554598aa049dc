/**
 * A model trained elsewhere (stories260K, llama2.c, in Hugging Face's layout): its greedy continuation
 * is PyTorch's, token by token, and it can be fine-tuned. The model is not part of the repository; it
 * is looked for beside the checkout, or in the folder named by WASM_LORA_STORIES260K.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test, type TestContext } from "node:test";
import { ROOT, succeed, temporaryFolder, TINY, writeText } from "../support/cli.js";

const model = resolve(ROOT, process.env["WASM_LORA_STORIES260K"] ?? "../shared/models/stories260K");
const folder = temporaryFolder();

function modelIsThere(t: TestContext): boolean {
  if (existsSync(join(model, "model.safetensors"))) return true;
  const reason = `stories260K is not at ${model}; set WASM_LORA_STORIES260K to its folder to run this test`;
  t.diagnostic(reason);
  t.skip(reason);
  return false;
}

test("generates PyTorch's 181 greedy ids", async (t) => {
  if (!modelIsThere(t)) return;
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

test("fine-tuning lowers the held-out loss", async (t) => {
  if (!modelIsThere(t)) return;
  writeText(join(folder, "text.txt"));
  await succeed(folder, ["finetune", "--model", model, "--data", "text.txt", "--out", "out", ...TINY, "--steps", "12"]);
  const { heldOutBefore, heldOutAfter } = JSON.parse(readFileSync(join(folder, "out/result.json"), "utf8"));
  t.diagnostic(`held-out loss ${heldOutBefore.toFixed(3)} -> ${heldOutAfter.toFixed(3)}`);
  assert.ok(heldOutAfter < heldOutBefore);
});
