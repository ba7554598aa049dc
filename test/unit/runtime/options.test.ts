/** Options that mean nothing are refused by name; text from files cannot act on a terminal. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, tensor } from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { checkOptions, nearest } from "../../../src/runtime/options.js";
import { printable } from "../../../src/runtime/printable.js";
import { refuses } from "../../support/refuses.js";

await init();

const KNOWN = ["lr", "betas", "eps", "weightDecay", "loraAlpha", "loraDropout"];

test("known options, none, and no object at all", () => {
  checkOptions("AdamW", undefined, KNOWN);
  checkOptions("AdamW", {}, KNOWN);
  checkOptions("AdamW", { lr: undefined, betas: 1 }, KNOWN);
});
refuses("an unknown option", ArgumentError, ["AdamW", '"momentum"', "lr, betas, eps"], () =>
  checkOptions("AdamW", { momentum: 1 }, KNOWN),
);
refuses("snake case", ArgumentError, ['"weight_decay"', "Did you mean weightDecay?"], () =>
  checkOptions("AdamW", { weight_decay: 1 }, KNOWN),
);
refuses("another library's name", ArgumentError, ["learningRate", "Did you mean lr?"], () =>
  checkOptions("AdamW", { learningRate: 1 }, KNOWN),
);
refuses("torch's positional argument", ArgumentError, ["options must be an object", "lr, betas", "number 0.1"], () =>
  checkOptions("AdamW", 0.1, KNOWN),
);
refuses("null", ArgumentError, ["must be an object", "null"], () => checkOptions("AdamW", null, KNOWN));
refuses("an array", ArgumentError, ["must be an object", "array"], () => checkOptions("AdamW", [1], KNOWN));
for (const [what, value] of Object.entries({ Map: new Map([["lr", 1]]), Date: new Date(0), Set: new Set(["lr"]) })) {
  refuses(`a ${what}, which has no keys of its own`, ArgumentError, ["must be an object", what], () =>
    checkOptions("AdamW", value, KNOWN),
  );
}
test("an object without a prototype is an object", () =>
  checkOptions("AdamW", Object.assign(Object.create(null), { lr: 1 }), KNOWN));

test("the nearest name", () => {
  const pairs: [string, string | undefined][] = [
    ["lora_alpha", "loraAlpha"],
    ["alpha", "loraAlpha"],
    ["dropout", "loraDropout"],
    ["beta", "betas"],
    ["btaes", "betas"],
    ["wieghtDecay", "weightDecay"],
    ["momentum", undefined],
    ["", undefined],
    ["constructor", undefined],
    ["__proto__", undefined],
    ["x".repeat(1e6), undefined],
  ];
  for (const [slip, name] of pairs) assert.equal(nearest(slip, KNOWN), name, slip.slice(0, 20));
});

test("control characters show instead of act", () => {
  assert.equal(
    printable("a\u001b]0;x\u0007\u009b2J\u202eb\u2028\ud800"),
    "a\\u001b]0;x\\u0007\\u009b2J\\u202eb\\u2028\\ud800",
  );
  assert.equal(printable("Füße\t\n日本 😀"), "Füße\t\n日本 😀");
  assert.equal(new ArgumentError("x\u001b[2J").message, "x\\u001b[2J");
});

test("countNonFinite counts NaN and both infinities, in every tail", () => {
  const { kernels } = engine();
  for (let n = 0; n <= 19; n++) {
    const values = Float32Array.from({ length: n }, (_, i) => [1, NaN, -Infinity, 3.4e38, 0, Infinity, -1e-45][i % 7]!);
    const t = tensor(values);
    assert.equal(kernels.countNonFinite(t.address, n), values.filter((v) => !Number.isFinite(v)).length);
    t.dispose();
  }
});

test.run();
