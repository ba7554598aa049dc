/** Where a text ends by a stop string: as the whole text says, whatever its pieces, and shown as early as it can be. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "uvu";
import { ArgumentError, data, init } from "../../../src/index.js";
import { refuses } from "../../support/refuses.js";

await init();
const { untilStopString } = data;

/** The shortest beginning of the text that ends with a stop string, without the longest one that it ends with. */
function expected(text: string, stops: readonly string[]): string {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
    if (ending.length > 0) return text.slice(0, end - Math.max(...ending));
  }
  return text;
}

test("pieces of any size give the text before the stop string that is complete first", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 5 }), {
    maxLength: 4,
  });
  fc.assert(
    fc.property(text, stops, fc.array(fc.nat(4), { minLength: 31, maxLength: 31 }), (whole, all, sizes) => {
      let at = 0;
      const pieces = sizes.map((size) => whole.slice(at, (at += size)));
      pieces.push(whole.slice(at));
      const got = [...untilStopString(pieces, all)];
      assert.equal(got.join(""), expected(whole, all));
      assert.ok(!got.includes(""));
    }),
    { numRuns: 2000 },
  );
});

test("a text is shown as soon as it cannot be a stop string's beginning, and nothing is taken after the stop", () => {
  let taken = 0;
  let closed = false;
  function* source(): Generator<string> {
    try {
      for (const piece of ["one\n", "two", "\n", "\nUs", "er:", "three"]) {
        taken++;
        yield piece;
      }
    } finally {
      closed = true;
    }
  }
  const pieces = untilStopString(source(), "\n\nUser:");
  const seen: [string, number][] = [];
  for (const piece of pieces) seen.push([piece, taken]);
  assert.deepEqual(seen, [
    ["one", 1],
    ["\ntwo", 2],
  ]);
  assert.equal(taken, 5);
  assert.ok(closed, "what makes the pieces has ended");
});

test("what was held back comes at the end of the text", () => {
  assert.deepEqual([...untilStopString(["ab", "a"], ["abc", "aa"])], ["ab", "a"]);
  assert.deepEqual([...untilStopString(["x", "</"], "</s>")], ["x", "</"]);
  assert.deepEqual([...untilStopString(["a", "b"], [])], ["a", "b"]);
});

for (const [what, stops] of [
  ["an empty text", ""],
  ["an empty text in a list", ["a", ""]],
  ["a number", 5],
  ["a token's id", [5]],
  ["nothing", undefined],
] as const)
  refuses(`a stop string that is ${what}`, ArgumentError, ["untilStopString: ", "stop"], () =>
    untilStopString([], stops as never),
  );

test.run();
