/** --threads and --fused: who takes them, what they decide and what not, and how a run is told to go on with them. */
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

// Wide enough that threads have something to share.
await writeTinyModel(at("m"), {
  config: { hidden_size: 128, intermediate_size: 256, num_attention_heads: 8, num_key_value_heads: 8 },
});
writeFileSync(at("t.txt"), TEXT);
writeFileSync(at("rows.jsonl"), '{"prompt": "call", "completion": " me"}\n{"prompt": "so", "completion": " on"}\n');
const fuses = await supportsFused();

test("every command that computes takes both; what is no number of threads is refused", async () => {
  for (const command of ["finetune", "generate", "eval", "merge"]) {
    const { stdout } = await succeed(folder, [command, "--help"]);
    assert.match(stdout, /--threads <n\|auto>/);
    assert.match(stdout, /--fused/);
  }
  for (const threads of ["0", "1.5", "-2", "all", "0x2"])
    await refuse(folder, ["generate", "--threads", threads], "error", "--threads", "an integer of at least 1, or auto");
  await refuse(folder, ["generate", "--model", "m", "--threads", "100000"], "ArgumentError", "threads", "100000");
});

test("threads decide no bit of a run, of a text or of a measure, and are told", async () => {
  const told: string[] = [];
  for (const threads of ["1", "3", "auto"]) {
    const { stdout, stderr } = await succeed(folder, finetune(`on-${threads}`, "--threads", threads));
    assert.doesNotMatch(stdout + stderr, /--fused/);
    told.push(/^Kernels: .*$/m.exec(stdout)![0]);
  }
  assert.deepEqual(told.slice(0, 2), [
    "Kernels: 1 thread, separate arithmetic",
    "Kernels: 3 threads, separate arithmetic",
  ]);
  assert.match(told[2]!, /^Kernels: \d+ threads?, separate arithmetic$/);
  for (const file of filesBelow(at("on-1")))
    for (const out of ["on-3", "on-auto"]) assert.deepEqual(bytes(out, file), bytes("on-1", file), `${out}/${file}`);

  for (const command of [
    ["generate", "--model", "m", "--adapter", "on-1/adapter", "--prompt", "call", "--max-tokens", "20"],
    ["eval", "--model", "m", "--adapter", "on-1/adapter", "--data", "rows.jsonl", "--json"],
  ]) {
    const one = await succeed(folder, [...command, "--threads", "1"]);
    const three = await succeed(folder, [...command, "--threads", "3"]);
    assert.equal(three.stdout, one.stdout);
  }
});

test("fused arithmetic is another run, the same on any threads, or refused where the engine has none", async () => {
  if (!fuses) {
    for (const command of [finetune("fused"), ["generate", "--model", "m"]])
      await refuse(folder, [...command, "--fused"], "EngineError", "fused");
    assert.deepEqual(filesBelow(at("fused")), []);
    return;
  }
  const { stdout } = await succeed(folder, finetune("fused", "--fused"));
  assert.match(stdout, /^Kernels: \d+ threads?, fused arithmetic$/m);
  assert.match(stdout, /^Try it: .* --fused\b/m);
  await succeed(folder, finetune("fused-3", "--fused", "--threads", "3"));
  for (const file of filesBelow(at("fused"))) assert.deepEqual(bytes("fused-3", file), bytes("fused", file), file);
  const weights = join("adapter", "adapter_model.safetensors");
  assert.notDeepEqual(bytes("fused", weights), bytes("on-1", weights));
});

test("a run that was stopped is told to go on with them, and goes on in its own arithmetic alone", async () => {
  const options = ["--threads", "2", ...(fuses ? ["--fused"] : []), "--steps", "4000"];
  const stopped = await wasmLora(folder, finetune("stopped", ...options), async (child) => {
    await appears(child, at("stopped", "checkpoint.safetensors"));
    child.kill("SIGINT");
  });
  assert.equal(stopped.code, 130, stopped.stderr);
  assert.match(stopped.stderr, fuses ? /--resume --threads 2 --fused\n/ : /--resume --threads 2\n/);
  if (!fuses) return;
  const resume = finetuneWith("--resume");
  await refuse(folder, resume("stopped"), "ArgumentError", "goes on in fused arithmetic", "add --fused");
  await refuse(folder, resume("on-1", "--fused"), "ArgumentError", "in separate arithmetic", "leave out --fused");
});

test("what fused arithmetic would gain is said in a sentence, if it is more than a little", () => {
  assert.match(gainInWords(1.63)!, /--fused .* about 1\.6 times as fast \(other last bits\)\.$/);
  assert.deepEqual([1.04, 1, 0.6].map(gainInWords), [undefined, undefined, undefined]);
});

test.run();
