/**
 * Long texts: BPE that is given its text in parts, and words whose tokens are remembered, against the whole at once, on
 * every tokenizer of the fixtures; and time that grows no faster than the text.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { data } from "../../src/index.js";
import { bpeCut } from "../../src/data/bpe_cuts.js";
import type { Fail } from "../../src/data/json_fields.js";
import { makeTokenizer } from "../../src/data/library.js";
import { modelPart } from "../../src/data/tokenizer_json.js";
import { ROOT } from "../support/root.js";

/** BPE as it is defined: of all neighbours that a merge names those of lowest rank, the leftmost first, and again. */
function bpe(merges: readonly (readonly [string, string])[], text: string): string[] {
  const ranks = new Map(merges.map(([a, b], rank) => [`${a} ${b}`, rank]));
  const tokens = Array.from(text);
  for (;;) {
    let best = -1;
    let least = Infinity;
    for (let i = 0; i + 1 < tokens.length; i++) {
      const rank = ranks.get(`${tokens[i]} ${tokens[i + 1]}`) ?? Infinity;
      if (rank < least) [best, least] = [i, rank];
    }
    if (best < 0) return tokens;
    tokens.splice(best, 2, tokens[best]! + tokens[best + 1]!);
  }
}

const ALPHABET = ["a", "b", "c", "▁", "é", "🐳"];

test("the tokens of the parts are those of the whole, for any merges", () => {
  const letters = fc.constantFrom(...ALPHABET);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 12 }),
      fc.array(letters, { maxLength: 40 }),
      (picks, characters) => {
        // Each merge joins two tokens that there are by then.
        const tokens = [...ALPHABET];
        const merges = picks.map(([i, j]) => {
          const pair = [tokens[i % tokens.length]!, tokens[j % tokens.length]!] as const;
          tokens.push(pair.join(""));
          return pair;
        });
        const text = characters.join("");
        const parts = bpeCut(merges)(text);
        assert.equal(parts.join(""), text);
        assert.deepEqual(
          parts.flatMap((part) => bpe(merges, part)),
          bpe(merges, text),
        );
      },
    ),
    { numRuns: 2000, seed: 1 },
  );
});

test("without merges every character is a part", () => {
  assert.deepEqual(bpeCut([])("a🐳b"), ["a", "🐳", "b"]);
  assert.deepEqual(bpeCut([["🐳", "b"]])("a🐳b"), ["a", "🐳b"]);
});

interface Json {
  model: { merges?: unknown };
}
const all = JSON.parse(readFileSync(new URL("test/fixtures/tokenizers.json", ROOT), "utf8")) as {
  tokenizer: Json;
  cases: { text: string }[];
}[];
const base = JSON.parse(readFileSync(new URL("models/base/tokenizer.json", ROOT), "utf8")) as Json;
const fail: Fail = (field, message) => {
  throw new Error(`${field} ${message}`);
};

[...all, { tokenizer: base, cases: [{ text: "Call me Ishmael. Some years ago\n\n" }] }].forEach(
  ({ tokenizer: { model }, cases }, i) => {
    const { json, mends } = modelPart(model, "model", fail);
    if (mends.cut === null) return;
    test(`tokenizer ${i}: a long piece has the ids that it has in one part`, () => {
      const [cut, whole] = [mends.cut, null].map((cut) =>
        makeTokenizer(
          { model: json, normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, added_tokens: [] },
          { unk_token: mends.unknown },
          { ...mends, cut },
          () => {},
        ),
      );
      const ids = (tokenizer: typeof cut, text: string) => tokenizer!.encode(text, { add_special_tokens: false }).ids;
      const texts = cases.map(({ text }) => text);
      const letters = fc.constantFrom(
        ...new Set([...texts, ...[...mends.ids.keys(), ...texts].flatMap((text) => Array.from(text))]),
      );
      fc.assert(
        fc.property(fc.array(letters, { minLength: 70, maxLength: 300 }), (parts) => {
          const text = parts.join("");
          const expected = ids(whole, text);
          assert.deepEqual(ids(cut, text), expected);
          // Again, from what it remembers.
          assert.deepEqual(ids(cut, text), expected);
        }),
        { numRuns: 20, seed: i },
      );
    });
  },
);

test("progress is told of a long text, ascending to all of it", () => {
  const text = "Call me Ishmael. Some years ago - never mind how long precisely. ".repeat(8000);
  for (const json of [base, { ...base, pre_tokenizer: null }]) {
    const told: number[] = [];
    const tokenizer = new data.Tokenizer(json);
    tokenizer.encode(text, {
      onProgress: (done, characters) => {
        assert.equal(characters, text.length);
        told.push(done);
      },
    });
    assert(told.length >= 7, String(told));
    assert.deepEqual(
      told,
      [...told].sort((a, b) => a - b),
    );
    assert.equal(told.at(-1), text.length);
    assert(told[0]! < text.length / 4);
  }
});

test("what onProgress throws stops the encoding, and comes out as it is", () => {
  const tokenizer = new data.Tokenizer(base);
  const stop = new Error("stop");
  assert.throws(
    () =>
      tokenizer.encode("Call me Ishmael. ".repeat(20_000), {
        onProgress: () => {
          throw stop;
        },
      }),
    (error: unknown) => error === stop,
  );
  assert.equal(tokenizer.encode("Call me").length, 4);
});

test("a text of megabytes in one piece overflows no stack", () => {
  const part = "low lower lowest ";
  const text = part.repeat(150_000);
  const vocab = Object.fromEntries(["▁", ..."lowerst", "lo", "low"].map((token, id) => [token, id]));
  const merges = [
    ["l", "o"],
    ["lo", "w"],
  ];
  const tokenizer = new data.Tokenizer({
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Strip" },
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    model: { type: "BPE", vocab, merges, unk_token: null },
  });
  const ids = tokenizer.encode(text);
  const one = tokenizer.encode(part);
  assert.equal(ids.length, one.length * 150_000);
  assert.deepEqual(ids.slice(-one.length), one);
});

test.run();
