/** What of a row is asked, and what is answered. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

const END = 0;
const OTHER_END = 9;

/** A row whose scored tokens stand in brackets. */
function row(text: string): data.TrainingRow {
  let isScored = false;
  const ids: number[] = [];
  const labels: number[] = [];
  for (const word of text.split(" ")) {
    if (word === "[" || word === "]") isScored = word === "[";
    else {
      ids.push(Number(word));
      labels.push(isScored ? Number(word) : -100);
    }
  }
  return { ids: Int32Array.from(ids), labels: Int32Array.from(labels), where: "r.jsonl:7" };
}
function answers(text: string): string[] {
  return data
    .answersOf([row(text)], [END, OTHER_END])
    .map(({ prompt, reference, where }) => `${where}: ${[...prompt].join(" ")} -> ${[...reference].join(" ")}`);
}

test("an answer is what is scored up to its end; the prompt is all that is before it", () => {
  assert.deepEqual(answers("1 2 3 [ 4 5 0 ]"), ["r.jsonl:7: 1 2 3 -> 4 5"]);
  assert.deepEqual(answers("1 [ 4 9 7 ]"), ["r.jsonl:7: 1 -> 4"], "the newline behind an end is no part of it");
  assert.deepEqual(answers("1 2 [ 0 ]"), ["r.jsonl:7: 1 2 -> "], "an answer may be empty");
});

test("each scored turn of a conversation is an answer to all that was said", () => {
  assert.deepEqual(answers("1 2 [ 3 0 ] 4 5 [ 6 9 ] 8"), ["r.jsonl:7: 1 2 -> 3", "r.jsonl:7: 1 2 3 0 4 5 -> 6"]);
});

test("texts, what is scored from its start, and what is cut off have none", () => {
  assert.deepEqual(answers("[ 1 2 3 0 ]"), []);
  assert.deepEqual(answers("1 2 [ 3 4 ]"), []);
  assert.deepEqual(answers("1 2 [ 3 0 ] 4 [ 5 6 ]"), ["r.jsonl:7: 1 2 -> 3"]);
  assert.deepEqual(answers("1 2 3"), []);
  assert.deepEqual(data.answersOf([], [END]), []);
});

test("answers are copies", () => {
  const one = row("1 2 [ 3 0 ]");
  const [answer] = data.answersOf([one], [END]);
  one.ids.fill(7);
  assert.deepEqual([[...answer!.prompt], [...answer!.reference]], [[1, 2], [3]]);
});

test("what are no rows or ids is refused by name", () => {
  assert.throws(() => data.answersOf("rows" as never, [END]), says(ArgumentError, "answersOf", "rows"));
  assert.throws(() => data.answersOf([{} as never], [END]), says(ArgumentError, "answersOf", "rows[0]"));
  assert.throws(() => data.answersOf([], END as never), says(ArgumentError, "answersOf", "eosTokenIds"));
});

test.run();
