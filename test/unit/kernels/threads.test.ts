/** Every kernel's tests, bit for bit, by three threads that cut its loops into parts as small as they can be. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { eager, initEager, opened } from "../../support/eager.js";

const engine = await initEager();

// Each of them calls init(), which now changes nothing.
await import("./activation.test.js");
await import("./attention.test.js");
await import("./conv.test.js");
await import("./exact.test.js");
await import("./half.test.js");
await import("./merged_linear.test.js");
await import("./nn.test.js");
await import("../autograd/gradcheck.test.js");
await import("../autograd/linear_loss.test.js");
await import("../autograd/reference.test.js");
await import("../linalg/qr_svd.test.js");
await import("../lora/layers.test.js");
await import("../nn/embedding.test.js");
await import("../peft/dora.test.js");
await import("../tensor/half.test.js");

test("no test made another engine, and calls were cut", () => {
  assert(engine.alive);
  assert.equal(engine.threads, eager ? 3 : 1);
  if (eager) assert(opened(engine) > 10_000, "hardly a call was cut");
});

test.run();
