/** Classes keep their names in messages and printed models whatever a minifier calls them. */
import assert from "node:assert/strict";
import { suite } from "uvu";
import type * as wasmLora from "../../src/index.js";

const test = suite("minified names");
const minified = (await import(new URL("../../wasm-lora.browser.js", import.meta.url).href)) as typeof wasmLora;

/** Public classes by their path, `nn.Linear`. Errors have their names from their codes. */
function* classes(
  space: object,
  path = "",
): IterableIterator<[path: string, value: { className?: string; name: string }]> {
  for (const [key, value] of Object.entries(space) as [string, unknown][]) {
    if (typeof value === "object" && value !== null && Object.prototype.toString.call(value) === "[object Module]")
      yield* classes(value, `${path}${key}.`);
    else if (typeof value === "function" && String(value).startsWith("class"))
      if (!(value.prototype instanceof Error)) yield [path + key, value];
  }
}

test("every public class carries its own name", () => {
  const all = [...classes(minified)];
  assert.ok(all.length >= 38, `${all.length} classes`);
  assert.ok(
    all.some(([, { name }]) => name !== "Linear" && name.length <= 2),
    "the file is minified",
  );
  for (const [path, value] of all) {
    assert.ok(Object.hasOwn(value, "className"), path);
    assert.equal(value.className, path.replace(/.*\./, ""), path);
  }
});

test("messages name them", () => {
  const { nn, optim, tensor } = minified;
  const list = new (class Layers extends nn.Module {
    held = new Set([new nn.ReLU()]);
  })();
  assert.throws(() => list.stateDict(), /^StateError: Layers: held is a Set that holds a ReLU, which has no name/);
  assert.equal(String(new nn.Sequential(new nn.ReLU(), new nn.Tanh())), "Sequential(\n  0: ReLU()\n  1: Tanh()\n)");
  assert.throws(() => new optim.AdamW([]), /^ArgumentError: AdamW: there are no parameters/);
  assert.throws(() => tensor(new nn.ReLU() as unknown as number[]), /a ReLU/);
});

test.run();
