/** Texts of different lengths as one batch. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data, init } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

await init();

test("padTexts: each text from the start of its row, and where it is", () => {
  const { ids, attentionMask } = data.padTexts([[7], [5, 6, 9], [2, 3]], { padTokenId: 4 });
  assert.deepEqual(ids.shape, [3, 3]);
  assert.deepEqual([...ids.indices], [7, 4, 4, 5, 6, 9, 2, 3, 4]);
  assert.deepEqual(attentionMask.shape, [3, 3]);
  assert.deepEqual([...attentionMask.indices], [1, 0, 0, 1, 1, 1, 1, 1, 0]);
  assert.deepEqual([...data.padTexts([[1, 2], [3]]).ids.indices], [1, 2, 3, 0]);
});

test("padTexts: what is no list of texts is refused by name", () => {
  assert.throws(() => data.padTexts([]), says(ArgumentError, "padTexts", "texts"));
  assert.throws(() => data.padTexts([[1], []]), says(ArgumentError, "padTexts", "texts[1]"));
  assert.throws(() => data.padTexts(["ab"] as never), says(ArgumentError, "padTexts", "texts[0]"));
  assert.throws(() => data.padTexts([[1]], { padTokenId: -1 }), says(ArgumentError, "padTexts", "padTokenId"));
  assert.throws(() => data.padTexts([[1]], { padding: 1 } as never), says(ArgumentError, "padTexts", "padding"));
});

test.run();
