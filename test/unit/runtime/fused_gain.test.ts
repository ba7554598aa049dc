/** What fused arithmetic gains is measured beside the engine in use, and is a number wherever it is asked for. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, memoryStats, supportsFused } from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { fusedGain } from "../../../src/runtime/fused_gain.js";

const living = await init();

test("a gain is a ratio, 1 where there is nothing to gain by, and no engine is left or lost", async () => {
  const before = memoryStats();
  const gain = await fusedGain();
  assert.ok(gain > 0 && Number.isFinite(gain));
  if (!(await supportsFused())) assert.equal(gain, 1);
  assert.equal(engine(), living);
  assert.deepEqual(memoryStats(), before);
});

test.run();
