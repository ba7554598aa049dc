/**
 * Fused arithmetic in what kernels make of matrix products: their tests, bit for bit, with multiply-adds rounded once.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { initFused, runs } from "../../support/fused_engine.js";

const engine = await initFused();

// Each of them calls init(), which now changes nothing.
await import("./attention.test.js");
await import("./blocks.test.js");
await import("./conv.test.js");
await import("./exact.test.js");
await import("./half.test.js");
await import("./merged_linear.test.js");
await import("./nn.test.js");
await import("../autograd/linear_loss.test.js");
await import("../peft/dora.test.js");

test("no test made another engine", () => {
  assert(engine.alive);
  assert.equal(engine.arithmetic, runs ? "fused" : "separate");
});

test.run();
