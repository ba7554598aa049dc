/**
 * src/io/peft/regexp/ against JavaScript's RegExp, on what the two languages share: fullmatch is ^(?:pattern)$
 * there.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { matcher, patternValue } from "../support/peft_rules.js";

const sign = fc.constantFrom("a", "b", "1", "_", "\\.", ".", "-", "é");
const atom = fc.oneof(
  sign,
  sign,
  fc.constantFrom("\\d", "\\w", "\\D", "\\W", "[a-c]", "[^a]", "[.1]", "[\\d_]", "[^\\w]", "^", "$", "\\b", "\\B"),
);
const { pattern } = fc.letrec<{ pattern: string; item: string; group: string }>((tie) => ({
  pattern: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.array(tie("item"), { maxLength: 3 }).map((items) => items.join("")),
    fc.tuple(tie("pattern"), tie("pattern")).map(([a, b]) => `${a}|${b}`),
  ),
  item: fc.oneof(
    { depthSize: "small" },
    atom,
    tie("group"),
    fc
      .tuple(fc.oneof(sign, tie("group")), fc.constantFrom("*", "+", "?", "*?", "+?", "{2}", "{0,2}", "{1,}"))
      .map(([what, quantifier]) => what + quantifier),
  ),
  group: fc.tuple(fc.constantFrom("(", "(?:"), tie("pattern")).map(([open, inner]) => `${open}${inner})`),
}));
const look = fc
  .tuple(fc.constantFrom("", "(?!", "(?="), pattern, pattern)
  .map(([open, around, rest]) => (open ? `${open}${around})${rest}` : rest));
const text = fc.string({ unit: fc.constantFrom("a", "b", "c", "1", "_", ".", "-", "é"), maxLength: 7 });

test("property: matches are JavaScript's", () => {
  let matched = 0;
  fc.assert(
    fc.property(look, fc.array(text, { minLength: 1, maxLength: 8 }), (source, texts) => {
      const ours = matcher(source);
      const js = new RegExp(`^(?:${source})$`, "u");
      const end = new RegExp(`^(?:.*\\.)?(?:${source})$`, "u");
      for (const t of texts) {
        // Python's \B matches nowhere in an empty text.
        if (t === "" && source.includes("\\B")) continue;
        assert.equal(ours(t), js.test(t), JSON.stringify([source, t]));
        assert.equal(patternValue({ [source]: 1 }, t, 0), Number(end.test(t)), JSON.stringify([source, t]));
        matched += Number(ours(t));
      }
    }),
    { numRuns: 3000, seed: 7 },
  );
  assert.ok(matched > 1000, `only ${matched} matched`);
});

test.run();
