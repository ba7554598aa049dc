/** Which rows a step takes: permutations by seed and epoch, and transformers' grouping by length. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data, init } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

await init();

const LENGTHS = Array.from({ length: 23 }, (_, i) => 2 + ((i * 7) % 11));

/** All rows of an epoch, in its order. */
function epoch(lengths: readonly number[], number: number, options: data.RowsOfStepOptions): number[] {
  const steps = data.stepsPerEpoch(lengths.length, options.batch);
  return Array.from({ length: steps }, (_, i) => data.rowsOfStep(lengths, number * steps + i, options)).flat();
}
const sorted = (rows: readonly number[]): number[] => [...rows].sort((a, b) => a - b);
const ALL = LENGTHS.map((_, i) => i);

test("each epoch takes every row once, the last step what is left", () => {
  assert.equal(data.stepsPerEpoch(23, 4), 6);
  assert.equal(data.stepsPerEpoch(24, 4), 6);
  assert.equal(data.stepsPerEpoch(1, 8), 1);
  for (const groupByLength of [false, true])
    for (const batch of [1, 4, 5, 23, 40])
      for (const number of [0, 1, 7]) {
        const options = { batch, seed: 3, groupByLength };
        assert.deepEqual(sorted(epoch(LENGTHS, number, options)), ALL);
        const last = data.rowsOfStep(LENGTHS, data.stepsPerEpoch(23, batch) - 1, options);
        assert.equal(last.length, 23 % batch || batch);
      }
});

test("seed and epoch name the order, whatever was asked before; batch cuts it", () => {
  const order = epoch(LENGTHS, 2, { batch: 4, seed: 5 });
  assert.deepEqual(data.rowsOfStep(LENGTHS, 12, { batch: 4, seed: 5 }), order.slice(0, 4));
  assert.deepEqual(epoch(LENGTHS, 2, { batch: 7, seed: 5 }), order);
  assert.notDeepEqual(epoch(LENGTHS, 3, { batch: 4, seed: 5 }), order);
  assert.notDeepEqual(epoch(LENGTHS, 2, { batch: 4, seed: 6 }), order);
  // The upper half of a seed is one of its bits, too.
  assert.notDeepEqual(epoch(LENGTHS, 2, { batch: 4, seed: 5 + 4294967296 }), order);
});

test("the order is that of Fisher and Yates by Philox4x32-10, written again in Python", () => {
  assert.deepEqual(
    epoch(LENGTHS, 0, { batch: 23, seed: 0 }),
    [10, 15, 5, 2, 3, 14, 11, 4, 17, 6, 16, 21, 1, 18, 8, 7, 20, 9, 22, 0, 13, 19, 12],
  );
  assert.deepEqual(
    epoch(LENGTHS, 3, { batch: 23, seed: 5 + 4294967296 }),
    [21, 9, 20, 0, 19, 7, 18, 14, 11, 22, 12, 3, 5, 4, 17, 10, 2, 6, 1, 16, 15, 8, 13],
  );
});

test("all orders of four rows come up, each about as often as the others", () => {
  const counts = new Map<string, number>();
  for (let seed = 0; seed < 2400; seed++) {
    const key = epoch([1, 1, 1, 1], 0, { batch: 4, seed }).join("");
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  assert.equal(counts.size, 24);
  // The mean is 100 and the standard deviation 9.8.
  for (const [key, count] of counts) assert(count > 55 && count < 145, `${key}: ${count}`);
});

test("groupByLength is transformers' LengthGroupedSampler on the same permutation", () => {
  // Python: get_length_grouped_indices(lengths, batch), with torch.randperm replaced by the first permutation above.
  for (const [batch, expected] of [
    [1, [3, 15, 10, 2, 5, 14, 17, 6, 4, 11, 1, 18, 21, 16, 8, 20, 9, 7, 22, 0, 12, 13, 19]],
    [2, [3, 10, 2, 5, 15, 14, 4, 11, 17, 6, 21, 16, 1, 18, 7, 8, 20, 9, 22, 0, 12, 13, 19]],
    [4, [3, 10, 2, 5, 15, 14, 4, 11, 17, 6, 21, 16, 1, 18, 7, 8, 20, 9, 22, 0, 12, 13, 19]],
    [30, [3, 14, 17, 6, 20, 9, 1, 12, 15, 4, 18, 7, 10, 21, 2, 13, 5, 16, 8, 19, 11, 22, 0]],
  ] as const) {
    const got = epoch(LENGTHS, 0, { batch, seed: 0, groupByLength: true });
    assert.deepEqual(got, expected, `batch ${batch}`);
  }
});

test("what are no rows, steps or options is refused by name", () => {
  const options = { batch: 2, seed: 0 };
  const refused: [() => unknown, ...string[]][] = [
    [() => data.rowsOfStep([], 0, options), "rowsOfStep", "lengths"],
    [() => data.rowsOfStep("abc" as never, 0, options), "lengths", "abc"],
    [() => data.rowsOfStep([3, Number.NaN], 0, options), "lengths[1]", "NaN"],
    [() => data.rowsOfStep([3], -1, options), "step"],
    [() => data.rowsOfStep([3], 0, { ...options, batch: 0 }), "batch"],
    [() => data.rowsOfStep([3], 0, { batch: 2 } as never), "seed"],
    [() => data.rowsOfStep([3], 0, { ...options, groupByLength: 1 } as never), "groupByLength"],
    [() => data.rowsOfStep([3], 0, { ...options, shuffle: true } as never), "shuffle"],
    [() => data.rowsOfStep([3], 0, undefined as never), "batch"],
    [() => data.stepsPerEpoch(0, 2), "stepsPerEpoch", "rows"],
    [() => data.stepsPerEpoch(2, 0.5), "stepsPerEpoch", "batch"],
  ];
  for (const [call, ...words] of refused) assert.throws(call, says(ArgumentError, ...words));
});

test.run();
