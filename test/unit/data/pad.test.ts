/** Texts of different lengths as one batch. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data, init, type WasmLoraError } from "../../../src/index.js";

await init();

/** fn throws `error`, whose message holds every one of `words`. */
function refuses(fn: () => unknown, error: new (...args: never[]) => WasmLoraError, ...words: string[]): void {
  assert.throws(fn, (e: unknown) => {
    assert(e instanceof error, String(e));
    for (const word of words) assert(e.message.includes(word), `${e.message} does not name ${word}`);
    return true;
  });
}

test("padTexts: each text from the start of its row, and where it is", () => {
  const { ids, attentionMask } = data.padTexts([[7], [5, 6, 9], [2, 3]], { padTokenId: 4 });
  assert.deepEqual(ids.shape, [3, 3]);
  assert.deepEqual([...ids.indices], [7, 4, 4, 5, 6, 9, 2, 3, 4]);
  assert.deepEqual(attentionMask.shape, [3, 3]);
  assert.deepEqual([...attentionMask.indices], [1, 0, 0, 1, 1, 1, 1, 1, 0]);
  assert.deepEqual([...data.padTexts([[1, 2], [3]]).ids.indices], [1, 2, 3, 0]);
});

test("padTexts: what is no list of texts is refused by name", () => {
  refuses(() => data.padTexts([]), ArgumentError, "padTexts", "texts");
  refuses(() => data.padTexts([[1], []]), ArgumentError, "padTexts", "texts[1]");
  refuses(() => data.padTexts(["ab"] as never), ArgumentError, "padTexts", "texts[0]");
  refuses(() => data.padTexts([[1]], { padTokenId: -1 }), ArgumentError, "padTexts", "padTokenId");
  refuses(() => data.padTexts([[1]], { padding: 1 } as never), ArgumentError, "padTexts", "padding");
});

test.run();
