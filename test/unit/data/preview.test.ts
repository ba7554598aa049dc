/** What people are shown of tokenised rows: runs of scored tokens, and counts. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { ArgumentError, data } from "../../../src/index.js";
import { ROOT } from "../../support/root.js";
import { says } from "../../support/refuses.js";

const tokenizer = data.loadTokenizer(fileURLToPath(new URL("models/base", ROOT)));

function row(ids: readonly number[], isScored: (i: number) => boolean): data.TrainingRow {
  return {
    ids: Int32Array.from(ids),
    labels: Int32Array.from(ids, (id, i) => (isScored(i) ? id : -100)),
    where: "r:1",
  };
}
const ofLength = (n: number): data.TrainingRow => row(new Array<number>(n).fill(5), () => true);
function tokenized(lengths: readonly number[]): data.TokenizedData {
  return { rows: lengths.map(ofLength), truncated: 0, skipped: [], split: 0 };
}

test("runs are of scored tokens and of others, in turns, and joined they are the text", () => {
  const texts = ["Thank you", ", naïve 日本 friends", ".\n"];
  const parts = texts.map((text) => tokenizer.encode(text, { addSpecialTokens: false }));
  const ids = parts.flat();
  const [from, to] = [parts[0]!.length, parts[0]!.length + parts[1]!.length];
  const runs = data.previewRow(
    row(ids, (i) => i >= from && i < to),
    tokenizer,
  );
  assert.deepEqual(
    runs,
    texts.map((text, i) => ({ text, scored: i === 1 })),
  );
});

test("special tokens are shown, and the first token is not scored, since nothing predicts it", () => {
  const runs = data.previewRow(
    row([0, ...tokenizer.encode("We", { addSpecialTokens: false }), 0], () => true),
    tokenizer,
  );
  assert.deepEqual(runs, [
    { text: "<|endoftext|>", scored: false },
    { text: "We<|endoftext|>", scored: true },
  ]);
});

test("a character of several tokens is in the run of the last of them; a broken one is shown as such", () => {
  const ids = tokenizer.encode("日", { addSpecialTokens: false });
  assert.ok(ids.length > 1);
  assert.deepEqual(
    data.previewRow(
      row(ids, (i) => i === ids.length - 1),
      tokenizer,
    ),
    [{ text: "日", scored: true }],
  );
  assert.deepEqual(
    data.previewRow(
      row([0, ids[0]!], (i) => i === 1),
      tokenizer,
    ),
    [
      { text: "<|endoftext|>", scored: false },
      { text: "\ufffd", scored: true },
    ],
  );
});

test("a row without tokens has no runs", () => {
  assert.deepEqual(
    data.previewRow(
      row([], () => true),
      tokenizer,
    ),
    [],
  );
});

test("a summary counts rows, tokens, and the scored ones that something predicts", () => {
  const { histogram, ...counts } = data.summarize({
    rows: [ofLength(4), row([1, 2, 3], (i) => i === 2), ofLength(1)],
    truncated: 1,
    skipped: [{ where: "r:9", reason: "empty" }],
    split: 0,
  });
  assert.deepEqual(counts, { rows: 3, tokens: 8, scored: 4, truncated: 1, skipped: 1, shortest: 1, longest: 4 });
  assert.deepEqual(histogram, [
    { from: 1, to: 1, rows: 1 },
    { from: 2, to: 2, rows: 0 },
    { from: 3, to: 3, rows: 1 },
    { from: 4, to: 4, rows: 1 },
  ]);
});

test("a histogram has a dozen bins at most, 1, 2 or 5 wide with zeros behind it, and every row in one", () => {
  const widths = new Map([
    [[3, 14], 1],
    [[3, 15], 2],
    [[0, 24], 5],
    [[7, 64], 5],
    [[1, 100], 10],
    [[1, 1024], 100],
    [[5, 100_000], 10_000],
  ]);
  for (const [[least, most], width] of widths) {
    const { histogram } = data.summarize(tokenized([least!, most!, most!]));
    assert.ok(histogram.length <= 12);
    for (const { from, to } of histogram) assert.deepEqual([to - from + 1, from % width], [width, 0], `${most}`);
    assert.deepEqual([histogram[0]!.rows, histogram.at(-1)!.rows], [1, 2]);
    assert.ok(histogram[0]!.from <= least! && histogram.at(-1)!.to >= most!);
  }
});

test("no rows are no bins, and a hundred thousand rows are counted", () => {
  const none = data.summarize(tokenized([]));
  assert.deepEqual([none.rows, none.longest, none.shortest, none.histogram], [0, 0, 0, []]);
  const shared = ofLength(7);
  const many = data.summarize({ rows: new Array(100_000).fill(shared), truncated: 0, skipped: [], split: 0 });
  assert.deepEqual(many.histogram, [{ from: 7, to: 7, rows: 100_000 }]);
});

test("what are no rows is refused by name", () => {
  assert.throws(() => data.previewRow([1, 2] as never, tokenizer), says(ArgumentError, "previewRow", "ids"));
  assert.throws(() => data.previewRow(undefined as never, tokenizer), says(ArgumentError, "previewRow"));
  assert.throws(() => data.summarize(undefined as never), says(ArgumentError, "summarize", "tokenizeExamples"));
  assert.throws(
    () => data.summarize({ rows: [{}] as never, truncated: 0, skipped: [], split: 0 }),
    says(ArgumentError, "summarize", "rows[0]"),
  );
});

test.run();
