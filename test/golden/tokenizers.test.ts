/** Random tokenizers of every kind against the Rust library: test/fixtures/tokenizers.json. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { data } from "../../src/index.js";
import { ROOT } from "../support/root.js";

interface Case {
  text: string;
  ids: number[];
  plain: number[];
  decoded: number[];
  whole: string;
  skipped: string;
}
const all = JSON.parse(readFileSync(new URL("test/fixtures/tokenizers.json", ROOT), "utf8")) as {
  tokenizer: object;
  cases: Case[];
}[];

all.forEach(({ tokenizer: json, cases }, i) => {
  test(`tokenizer ${i}`, () => {
    const tokenizer = new data.Tokenizer(json);
    for (const { text, ids, plain, decoded, whole, skipped } of cases) {
      assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), plain, JSON.stringify(text));
      for (const [skipSpecialTokens, expected] of [
        [false, whole],
        [true, skipped],
      ] as const) {
        assert.equal(tokenizer.decode(decoded, { skipSpecialTokens }), expected, String(decoded));
        assert.equal([...tokenizer.decodeStream(decoded, { skipSpecialTokens })].join(""), expected, String(decoded));
      }
    }
  });
});

test.run();
