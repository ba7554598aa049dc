/** How far long work has come: shares of what a rehearsal counted, and lines where there is no terminal. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, models, train, zeros } from "../../src/index.js";
import { passProgress, watched } from "../../src/cli/progress.js";
import { engine } from "../../src/runtime/engine.js";
import { rehearseTraining } from "../../src/train/plan.js";
import { LLAMA } from "../support/language_models.js";

await init();

/** Computes for so long. */
function wait(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

test("work that lets nobody in tells what share of its blocks it has taken", () => {
  const shares: number[] = [];
  const result = watched(
    8,
    (share) => shares.push(share),
    () => {
      for (let i = 0; i < 10; i++) {
        wait(110);
        zeros([2]).dispose();
      }
      return "done";
    },
  );
  assert.equal(result, "done");
  assert.ok(shares.length >= 3 && shares[0]! < 0.5, String(shares));
  assert.deepEqual(
    shares,
    [...shares].sort((a, b) => a - b),
  );
  assert.equal(shares.at(-1), 1);
  assert.throws(() =>
    watched(
      1,
      () => {},
      () => {
        throw new Error("it failed");
      },
    ),
  );
  assert.equal(engine().memory.onAlloc, null);
});

test("the blocks of a step and of a held-out window are those that were rehearsed", () => {
  const settings = { batch: 2, seq: 8, adapter: { r: 2 } };
  const run = new train.Finetuning(
    new models.Llama(LLAMA),
    Int32Array.from({ length: 200 }, (_, i) => i % 61),
    settings,
  );
  const { work } = rehearseTraining(LLAMA, { ...settings, evaluation: { batch: 1, seq: 8 } });
  const { memory } = engine();
  const blocksOf = (fn: () => void): number => {
    const before = memory.allocations;
    fn();
    return memory.allocations - before;
  };
  run.step();
  const step = blocksOf(() => run.step());
  const window = blocksOf(() => run.checkFinite());
  // Clipping comes last, in no time, and a rehearsal leaves it out.
  assert.ok(work.step <= step && work.step > 0.8 * step, `${work.step} of ${step}`);
  assert.ok(Math.abs(work.evaluation / window - 1) < 0.02, `${work.evaluation} of ${window}`);
});

test("without a terminal a line after a second tells the time that is left, and short work says nothing", () => {
  if (process.stderr.isTTY) return;
  const { error } = console;
  const lines: string[] = [];
  console.error = (line: string) => lines.push(line);
  try {
    const short = passProgress("Short", 4);
    for (let i = 1; i <= 4; i++) short.at(i);
    short.stop();
    assert.deepEqual(lines, []);
    const long = passProgress("Held-out loss", 40);
    for (let i = 1; i <= 12; i++) {
      wait(100);
      long.at(i / 2);
    }
    long.stop();
  } finally {
    console.error = error;
  }
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /^Held-out loss: 5\/40 \| [7-9]s left$/);
});

test.run();
