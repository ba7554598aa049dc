/** The relaxed build against PyTorch, loralib and PEFT: the other goldens, to the same tolerances, on its engine. */
import assert from "node:assert/strict";
import { after, before } from "node:test";
import type { Engine } from "../../src/index.js";
import { initRelaxed, runs } from "../support/relaxed.js";

let engine: Engine;
before(async () => {
  engine = await initRelaxed();
});
after(() => {
  assert(engine.alive, "no test made another engine");
  assert.equal(engine.relaxed, runs);
});

// After the hook, since each of them calls init(), which then changes nothing.
await import("./lora.test.js");
await import("./merged_linear.test.js");
await import("./conv.test.js");
await import("./ops.test.js");
await import("./peft_model.test.js");
await import("./train.test.js");
