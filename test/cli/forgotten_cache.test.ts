/** A generation that nobody reads on, and did not end, gives its memory back when the engine collects it. */
import assert from "node:assert/strict";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { test } from "uvu";
import { init, memoryStats, models } from "../../src/index.js";
import { BASE_MODEL } from "../support/cli.js";

test("forgotten generations and caches are freed by the garbage collector", async () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  await init();
  const { model } = models.loadModel(BASE_MODEL);
  const before = memoryStats().liveBytes;
  for (let i = 0; i < 5; i++) models.generate(model, [5, 6], { maxNewTokens: 10 }).next();
  assert.ok(memoryStats().liveBytes > before);
  for (let tries = 0; tries < 100 && memoryStats().liveBytes > before; tries++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal(memoryStats().liveBytes, before);
  model.dispose();
});

test.run();
