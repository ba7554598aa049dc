/** --quantize: a base in q8_0 or nf4 is trained to about the loss of the base as it is, and every command loads it. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { appears, finetuneWith, refuse, succeed, temporaryFolder, TINY, wasmLora, writeText } from "../support/cli.js";

const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);
writeText(at("text.txt"));
const finetune = finetuneWith("--data", "text.txt", ...TINY, "--steps", "24", "--lr", "5e-3");
const resultOf = (out: string): { settings: Record<string, unknown>; heldOutAfter: number; heldOutBefore: number } =>
  JSON.parse(readFileSync(at(out, "result.json"), "utf8"));

await succeed(folder, finetune("plain"));
for (const quantize of ["q8_0", "nf4"] as const) await succeed(folder, finetune(quantize, "--quantize", quantize));

test("the loss of a quantised base, adapted, is within 3 % of that of the base as it is", () => {
  const { heldOutAfter, heldOutBefore } = resultOf("plain");
  assert.ok(heldOutAfter < heldOutBefore);
  for (const quantize of ["q8_0", "nf4"]) {
    const { settings, heldOutAfter: after } = resultOf(quantize);
    assert.equal(settings["quantize"], quantize);
    assert.notEqual(after, heldOutAfter);
    assert.ok(Math.abs(after / heldOutAfter - 1) < 0.03, `${quantize}: ${after} beside ${heldOutAfter}`);
  }
});

test("the command to try it with quantises, too, and so does eval; nf4 writes other text than the base", async () => {
  const { stdout } = await succeed(folder, [...finetune("said", "--quantize", "nf4"), "--steps", "2"]);
  assert.match(stdout, /Try it: .*generate .* --quantize nf4/);
  const args = ["generate", "--adapter", "nf4/adapter", "--prompt", "The", "--max-tokens", "12", "--temperature", "0"];
  const [plain, quantised] = [await succeed(folder, args), await succeed(folder, [...args, "--quantize", "nf4"])];
  assert.ok(plain.stdout.length > 4 && quantised.stdout.length > 4);
  writeFileSync(at("rows.jsonl"), '{"prompt":"Call me ","completion":"Ishmael."}\n');
  const losses = [[], ["--quantize", "q8_0"], ["--quantize", "nf4"]].map(async (more) => {
    const { stdout: json } = await succeed(folder, ["eval", "--data", "rows.jsonl", "--json", ...more]);
    return JSON.parse(json).base.loss as number;
  });
  assert.equal(new Set(await Promise.all(losses)).size, 3);
});

test("a resumed run is quantised as it was begun", async () => {
  const stopped = await wasmLora(
    folder,
    finetune("stopped", "--quantize", "q8_0", "--checkpoint-every", "2"),
    async (child) => {
      await appears(child, at("stopped/checkpoint.safetensors"));
      child.kill("SIGINT");
    },
  );
  if (stopped.code === 130) {
    assert.doesNotMatch(stopped.stderr, /--quantize/);
    await refuse(folder, finetune("stopped", "--resume", "--quantize", "nf4"), "ArgumentError", "quantize");
    await succeed(folder, finetune("stopped", "--resume"));
  }
  assert.equal(resultOf("stopped").heldOutAfter, resultOf("q8_0").heldOutAfter);
});

test("what it cannot be is refused", async () => {
  const { code, stderr } = await wasmLora(folder, finetune("none", "--quantize", "q4_k"));
  assert.equal(code, 1);
  assert.match(stderr, /expected one of q8_0, nf4, or nothing; got "q4_k"/);
});

test.run();
