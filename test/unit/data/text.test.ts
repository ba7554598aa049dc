/** src/data/text.ts: which bytes are a text. The encodings are the WHATWG Encoding Standard's, written here by hand. */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { data, FormatError } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

const utf8 = (text: string) => [...new TextEncoder().encode(text)];
const utf16 = (text: string, littleEndian: boolean) =>
  text.split("").flatMap((unit) => {
    const code = unit.charCodeAt(0);
    const bytes = [code & 255, code >> 8];
    return littleEndian ? bytes : bytes.reverse();
  });
const decode = (bytes: number[]) => data.decodeText(Uint8Array.from(bytes), "t.txt");

const TEXTS = {
  English: "The ship went over the sea and far away. ".repeat(20),
  Russian: "Корабль ушёл за море. ".repeat(20),
  Japanese: "船は海を渡った。\n".repeat(200),
  French: "Où êtes-vous allé ? 🐳",
  "one letter": "a",
  "no letter": "",
};
for (const [name, text] of Object.entries(TEXTS)) {
  test(`${name}: UTF-8 and UTF-16, with a mark`, () => {
    assert.equal(decode([0xef, 0xbb, 0xbf, ...utf8(text)]), text);
    assert.equal(decode([0xff, 0xfe, ...utf16(text, true)]), text);
    assert.equal(decode([0xfe, 0xff, ...utf16(text, false)]), text);
  });
  test(`${name}: UTF-8 and UTF-16, without a mark`, () => {
    assert.equal(decode(utf8(text)), text);
    assert.equal(decode(utf16(text, true)), text);
    assert.equal(decode(utf16(text, false)), text);
  });
}

test("any text in UTF-8 is that text", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0")),
      (text) => assert.equal(decode(utf8(text)), text),
    ),
    { seed: 1, numRuns: 300 },
  );
});

const refused: [string, number[], number][] = [
  ["Latin-1", utf8("caf").concat(0xe9, 0x20), 3],
  ["a lone continuation", [0x61, 0x80], 1],
  ["a cut character", utf8("aé").slice(0, 2), 1],
  ["a cut character within", [0x61, 0xe2, 0x82, 0x61], 1],
  ["an overlong form", [0xc0, 0x80], 0],
  ["a surrogate in UTF-8", [0x61, 0xed, 0xa0, 0x80], 1],
  ["a picture", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13], 0],
  ["a NUL in UTF-8", [...utf8("The end."), 0, ...utf8(" Or not, as long as it has some more letters and spaces.")], 8],
  ["four bytes with one NUL", [0x89, 0x50, 0xff, 0], 0],
  ["half a unit", [0xff, 0xfe, 0x61, 0, 0x62], 4],
  ["a lone surrogate in UTF-16", [0xff, 0xfe, 0x61, 0, 0x00, 0xd8, 0x61, 0], 4],
  ["a NUL in UTF-16", [0xfe, 0xff, 0, 0x61, 0, 0], 4],
  ["a fault behind the mark", [0xef, 0xbb, 0xbf, 0x61, 0xff], 4],
  ["64 KB of letters, then a fault", [...new Array<number>(65536).fill(0x61), 0xff, 0x61], 65536],
];
for (const [name, bytes, at] of refused) {
  test(`refused: ${name}`, () =>
    assert.throws(
      () => decode(bytes),
      (error: unknown) => {
        assert.ok(error instanceof FormatError && error.message.startsWith(`t.txt: byte ${at} `), String(error));
        return true;
      },
    ));
}

test("more bytes than the longest string has characters are refused before any is looked at", () => {
  const bytes = Object.defineProperty(new Uint8Array(4), "length", { value: 536_870_889 });
  const refused = says(FormatError, "long.jsonl", "536870889 bytes", "at most 536870888");
  assert.throws(() => data.decodeText(bytes, "long.jsonl"), refused);
});

test.run();
