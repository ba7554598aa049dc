/** Fused arithmetic against PyTorch, loralib and PEFT: the other goldens, to the same tolerances, on its engine. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { initFused, runs } from "../support/fused_engine.js";

const engine = await initFused();

// Each of them calls init(), which now changes nothing.
await import("./lora.test.js");
await import("./merged_linear.test.js");
await import("./conv.test.js");
await import("./ops.test.js");
await import("./peft_model.test.js");
await import("./train.test.js");

test("no test made another engine", () => {
  assert(engine.alive);
  assert.equal(engine.arithmetic, runs ? "fused" : "separate");
});

test.run();
