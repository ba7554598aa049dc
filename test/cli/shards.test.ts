/** Shards of a step that other processes compute, and that come as files: the run's bits are those of one process. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { ArgumentError, init, train } from "../../src/index.js";
import { temporaryFolder } from "../support/cli.js";
import { says } from "../support/refuses.js";
import { ROOT } from "../support/root.js";
import { readShard, sharedRun } from "../support/shard_process.js";
import { sameStates } from "../support/training.js";

await init();

const folder = temporaryFolder();
const script = fileURLToPath(new URL("dist/test/support/shard_process.js", ROOT));

/** A shard of the run's next step, by a process of its own. */
function shardOfProcess(run: train.Finetuning, index: number): train.Shard {
  const checkpoint = join(folder, "checkpoint.safetensors");
  writeFileSync(checkpoint, train.encodeCheckpoint(run.state()));
  execFileSync(process.execPath, [script, checkpoint, folder, String(index)]);
  return readShard(join(folder, `${index}.safetensors`));
}

test("three processes, last shard first: the bits of one process, and an altered or old shard is noticed", () => {
  const whole = sharedRun();
  const run = sharedRun();
  const counts: number[] = [];
  while (!run.isComplete) {
    const step = counts.push(run.shardCount) - 1;
    const shards: train.Shard[] = [];
    for (let index = run.shardCount - 1; index >= 0; index--)
      shards.push(index === 1 ? run.computeShard(index) : shardOfProcess(run, index));
    const loss = run.applyShards(shards);
    assert.equal(loss, whole.step());
    sameStates(run.state(), whole.state());
    if (run.isEvaluationDue) assert.equal(run.evaluate(), whole.evaluate());
    if (run.isComplete) break;
    assert.throws(() => run.applyShards(shards), says(ArgumentError, `is of step ${step}`));
    if (step > 0) continue;
    // One bit of one value of a gradient; A's are zeros in the first step.
    const altered = sharedRun();
    const [, { data }] = [...shards.at(-1)!.gradients].find(([key]) => key.includes("lora_B"))!;
    new Int32Array(data.buffer, data.byteOffset, 1)[0]! ^= 1 << 8;
    altered.applyShards(shards);
    assert.throws(() => sameStates(altered.state(), run.state()), assert.AssertionError);
  }
  assert.deepEqual(counts, [3, 3, 1]);
});

test.run();
