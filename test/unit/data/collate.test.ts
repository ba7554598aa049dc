/** Tokenised rows as one batch: what lies where, padded and packed. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

function row(ids: readonly number[], labels: readonly number[] = ids): data.TrainingRow {
  return { ids: Int32Array.from(ids), labels: Int32Array.from(labels), where: "rows.jsonl:3" };
}
const ROWS = [row([5, 6, 7, 8], [-100, -100, 7, 8]), row([3, 4]), row([1, 2, 9], [1, -100, 9])];
const I = Int32Array;

test("padded: a row each, filled up on the right", () => {
  assert.deepEqual(data.collate(ROWS, { packing: false, padTokenId: 99 }), {
    ids: I.of(5, 6, 7, 3, 99, 99, 1, 2, 99),
    targets: I.of(-100, 7, 8, 4, -100, -100, -100, 9, -100),
    attentionMask: I.of(1, 1, 1, 1, 0, 0, 1, 1, 0),
    shape: [3, 3],
    scored: 4,
  });
});

test("packed: end to end, each a text of its own", () => {
  assert.deepEqual(data.collate(ROWS, { packing: true, padTokenId: 99 }), {
    ids: I.of(5, 6, 7, 3, 1, 2),
    targets: I.of(-100, 7, 8, 4, -100, 9),
    attentionMask: I.of(1, 1, 1, 2, 3, 3),
    shape: [1, 6],
    scored: 4,
  });
});

test("one row is the same either way, and needs no mask", () => {
  const expected = { ids: I.of(5, 6, 7), targets: I.of(-100, 7, 8), attentionMask: null, shape: [1, 3], scored: 2 };
  for (const packing of [true, false]) assert.deepEqual(data.collate(ROWS.slice(0, 1), { packing }), expected);
});

test("the label of a first token is nobody's target, and a row may score nothing", () => {
  const { targets, scored } = data.collate([row([4, 5, 6], [4, -100, -100])], { packing: true });
  assert.deepEqual([[...targets], scored], [[-100, -100], 0]);
});

test("a hundred thousand rows, and a row of a hundred thousand tokens", () => {
  const many = data.collate(
    Array.from({ length: 100_000 }, (_, i) => row([i, i + 1])),
    { packing: true },
  );
  assert.deepEqual([many.shape, many.scored, many.attentionMask![99_999]], [[1, 100_000], 100_000, 100_000]);
  const long = data.collate([row(Array.from({ length: 100_001 }, (_, i) => i)), row([1, 2])], { packing: false });
  assert.deepEqual([long.shape, long.scored], [[2, 100_000], 100_001]);
});

test("what are no rows or options is refused by name", () => {
  const packing = true;
  const refused: [() => unknown, ...string[]][] = [
    [() => data.collate([], { packing }), "collate", "rows"],
    [() => data.collate(ROWS[0] as never, { packing }), "rows"],
    [() => data.collate([ROWS[0]!, [1, 2, 3] as never], { packing }), "rows[1]"],
    [() => data.collate([null as never], { packing }), "rows[0]"],
    [() => data.collate([row([1, 2], [1])], { packing }), "rows[0]", "labels"],
    [() => data.collate([row([1])], { packing }), "rows[0]", "rows.jsonl:3", "1 tokens"],
    [() => data.collate(ROWS, {} as never), "packing"],
    [() => data.collate(ROWS, { packing: "yes" } as never), "packing", "yes"],
    [() => data.collate(ROWS, { packing, padTokenId: -1 }), "padTokenId"],
    [() => data.collate(ROWS, { packing, padding: true } as never), "padding"],
  ];
  for (const [call, ...words] of refused) assert.throws(call, says(ArgumentError, ...words));
});

test.run();
