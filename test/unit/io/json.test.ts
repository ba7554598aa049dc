/** Values in error messages: JSON, cut, and no more of a value visited than is shown. */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { show } from "../../../src/io/json.js";

test("show is JSON.stringify, cut after 80 characters", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      // JSON.stringify loses -0 in the same way; a lone string is cut before it is quoted.
      if (typeof value === "string") return;
      const json = JSON.stringify(value);
      assert.equal(show(value), json.length > 80 ? `${json.slice(0, 80)}...` : json);
    }),
  );
  assert.equal(show("x".repeat(81)), `"${"x".repeat(80)}..."`);
});

test("what is not shown is not visited: any depth, even a circle", () => {
  let deep: unknown = 1;
  for (let i = 0; i < 1_000_000; i++) deep = [deep];
  assert.equal(show(deep), `${"[".repeat(80)}...`);
  const circle: Record<string, unknown> = {};
  circle["a"] = circle;
  assert.equal(show(circle), `${'{"a":'.repeat(16)}...`);
  assert.equal(
    show({
      shown: "x".repeat(80),
      get hidden(): never {
        throw new Error("visited");
      },
    }).length,
    83,
  );
});

test.run();
