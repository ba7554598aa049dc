/** Errors carry their class's name whatever a minifier calls the class. */
import assert from "node:assert/strict";
import { test } from "uvu";
import * as wasmLora from "../../../src/index.js";

test("each error class writes its own name", () => {
  const classes = Object.entries(wasmLora).filter(
    ([, value]) => typeof value === "function" && value.prototype instanceof wasmLora.WasmLoraError,
  );
  assert.equal(classes.length, 10);
  for (const [name, value] of classes) {
    const renamed = class extends (value as new (message: string) => Error) {};
    assert.equal(new renamed("what").name, name);
  }
});

test.run();
