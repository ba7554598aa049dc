/**
 * The base model's tokenizer, read as users read it, by @huggingface/tokenizers.
 * Expected ids: Hugging Face tokenizers 0.23.2 (the Rust library) on the same tokenizer.json.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Tokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";

const read = (name: string) => JSON.parse(readFileSync(new URL(`../../../models/base/${name}`, import.meta.url), "utf8"));
const json = read("tokenizer.json");
const config = read("config.json");
const tokenizer = new Tokenizer(json, read("tokenizer_config.json"));

const roundTrips = (text: string) => assert.equal(tokenizer.decode(tokenizer.encode(text).ids), text);

test("the vocabulary is 1024 tokens with ids 0..1023, as config.json says", () => {
  const ids = Object.values<number>(json.model.vocab).sort((a, b) => a - b);
  assert.deepEqual(ids, Array.from({ length: 1024 }, (_, id) => id));
  assert.equal(config.vocab_size, 1024);
  assert.equal(json.model.merges.length, 1024 - 256 - 1);
  assert.equal(json.model.vocab["<|endoftext|>"], config.eos_token_id);
});

test("known texts get the ids of the Rust library", () => {
  const cases: [string, number[]][] = [
    ["Call me Ishmael.", [35, 489, 478, 329, 83, 72, 77, 65, 845, 14]],
    ["The Constitution of the United States, Article 2.", [351, 960, 852, 268, 260, 508, 443, 12, 348, 82, 84, 286, 310, 798, 14]],
    ["  leading spaces, naïve\n\n\tcafé — 🐳 12,345 don't<|endoftext|>", [
      221, 305, 737, 293, 553, 65, 557, 12, 299, 65, 128, 108, 307, 199, 199, 198, 67, 65, 70, 128, 103, 221, 159, 223, 243,
      221, 173, 254, 239, 112, 436, 18, 12, 19, 20, 21, 294, 264, 7, 84, 0,
    ]],
  ];
  for (const [text, ids] of cases) assert.deepEqual(tokenizer.encode(text).ids, ids, text);
});

test("text survives encode and decode", () => {
  for (const text of ["Call me Ishmael.", "   three spaces", "a\n\nb\n", "\r\n\t\0", "é ñ Œ ϰητος חן 日本語 🐳 👩‍👩‍👧", "don't  stop "]) {
    roundTrips(text);
  }
});

test("every byte that UTF-8 can hold survives", () => {
  const codePoints = [
    ...Array.from({ length: 0x800 }, (_, i) => i), // one and two bytes: 00..7F, C2..DF, 80..BF
    0x800, ...Array.from({ length: 15 }, (_, i) => (i + 1) * 0x1000), // three: E0..EF
    0x10000, 0x40000, 0x80000, 0xc0000, 0x100000, // four: F0..F4
  ];
  const text = String.fromCodePoint(...codePoints);
  assert.equal(new Set(Buffer.from(text)).size, 256 - 13); // C0, C1, F5..FF never occur
  roundTrips(text);
});

test("any well-formed text survives (the library refuses to decode no ids at all)", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", minLength: 1 }), roundTrips), { seed: 1, numRuns: 200 });
});
