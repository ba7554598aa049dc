/** --fused: who takes it, what it decides and what not, and how a run is told to go on with it. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { gainInWords } from "../../src/cli/told.js";
import { supportsFused } from "../../src/index.js";
import { appears, filesBelow, finetuneWith, refuse, succeed, temporaryFolder, wasmLora } from "../support/cli.js";
import { TEXT, writeTinyModel } from "../support/tiny_model.js";

const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);
const bytes = (...path: string[]): Buffer => readFileSync(at(...path));
const finetune = finetuneWith(
  ..."--model m --data t.txt --prompt call --seq 32 --batch 8 --r 4 --steps 3 --checkpoint-every 1".split(" "),
);

await writeTinyModel(at("m"));
writeFileSync(at("t.txt"), TEXT);
const fuses = await supportsFused();

test("every command that computes takes --fused", async () => {
  for (const command of ["finetune", "generate", "eval", "merge"]) {
    const { stdout } = await succeed(folder, [command, "--help"]);
    assert.match(stdout, /--fused/);
  }
});

test("fused arithmetic is another run, or refused where the engine has none", async () => {
  if (!fuses) {
    for (const command of [finetune("fused"), ["generate", "--model", "m"]])
      await refuse(folder, [...command, "--fused"], "EngineError", "fused");
    assert.deepEqual(filesBelow(at("fused")), []);
    return;
  }
  const { stdout } = await succeed(folder, finetune("fused", "--fused"));
  assert.match(stdout, /^Kernels: fused arithmetic$/m);
  assert.match(stdout, /^Try it: .* --fused\b/m);
  await succeed(folder, finetune("again", "--fused"));
  for (const file of filesBelow(at("fused"))) assert.deepEqual(bytes("again", file), bytes("fused", file), file);
  await succeed(folder, finetune("separate"));
  const weights = join("adapter", "adapter_model.safetensors");
  assert.notDeepEqual(bytes("fused", weights), bytes("separate", weights));
});

test("a run that was stopped is told to go on with it, and goes on in its own arithmetic alone", async () => {
  const options = [...(fuses ? ["--fused"] : []), "--steps", "4000"];
  const stopped = await wasmLora(folder, finetune("stopped", ...options), async (child) => {
    await appears(child, at("stopped", "checkpoint.safetensors"));
    child.kill("SIGINT");
  });
  assert.equal(stopped.code, 130, stopped.stderr);
  assert.match(stopped.stderr, fuses ? /--resume --fused\n/ : /--resume\n/);
  if (!fuses) return;
  await refuse(
    folder,
    ["finetune", "--resume", "--out", "stopped"],
    "ArgumentError",
    "fused arithmetic",
    "add --fused",
  );
  await refuse(
    folder,
    ["finetune", "--resume", "--out", "separate", "--fused"],
    "ArgumentError",
    "separate arithmetic",
    "leave out --fused",
  );
});

test("what fused arithmetic would gain is said in a sentence, if it is more than a little", () => {
  assert.match(gainInWords(1.63)!, /--fused .* about 1\.6 times as fast \(other last bits\)\.$/);
  assert.deepEqual([1.04, 1, 0.6].map(gainInWords), [undefined, undefined, undefined]);
});

test.run();
