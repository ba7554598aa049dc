/** Windows of a text, against Philox4x32-10 written out in BigInt and against windows cut by hand. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data, init, tensor } from "../../../src/index.js";

await init();

const MASK = 0xffffffffn;

/** First word of Philox4x32-10 (Salmon et al. 2011, section 3.3). */
function philoxWord(counter: [number, number], seed: bigint): bigint {
  let [c0, c1, c2, c3] = [BigInt(counter[0]), BigInt(counter[1]), 0n, 0n];
  let k0 = seed & MASK;
  let k1 = seed >> 32n;
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * c0;
    const b = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & MASK, (a >> 32n) ^ c3 ^ k1, a & MASK];
    k0 = (k0 + 0x9e3779b9n) & MASK;
    k1 = (k1 + 0xbb67ae85n) & MASK;
  }
  return c0;
}

const tokens = Int32Array.from({ length: 1000 }, (_, i) => 3 * i + 1);

test("each row of a step is the window that Philox names", () => {
  for (const seed of [0, 7, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER]) {
    for (const step of [0, 1, 399, 4294967295]) {
      const { ids, targets } = data.randomWindows(tokens, step, { batch: 5, seq: 17, seed });
      for (let row = 0; row < 5; row++) {
        const start = Number(philoxWord([step, row], BigInt(seed)) % BigInt(1000 - 17));
        assert.deepEqual([...ids.subarray(row * 17, row * 17 + 17)], [...tokens.subarray(start, start + 17)]);
        assert.deepEqual([...targets.subarray(row * 17, row * 17 + 17)], [...tokens.subarray(start + 1, start + 18)]);
      }
    }
  }
});

test("a text of one window gives that window in every row", () => {
  const { ids, targets } = data.randomWindows(Int32Array.of(4, 5, 6), 9, { batch: 2, seq: 2, seed: 1 });
  assert.deepEqual(
    [[...ids], [...targets]],
    [
      [4, 5, 4, 5],
      [5, 6, 5, 6],
    ],
  );
});

test("even windows do not overlap, cover a short text, and are spread over a long one", () => {
  const starts = (seq: number, most: number): number[] =>
    data.evenWindows(tokens, seq, most).map(({ ids, targets }) => {
      assert.equal(ids.length, seq);
      assert.deepEqual(
        [...targets],
        [...ids].map((id) => id + 3),
      );
      return (ids[0]! - 1) / 3;
    });
  assert.deepEqual(starts(333, 128), [0, 333, 666]);
  assert.deepEqual(starts(334, 128), [0, 334]);
  assert.deepEqual(starts(100, 3), [0, 300, 600]);
});

test("what is out of range is refused by name", () => {
  const refused = (run: () => unknown, part: string): void =>
    assert.throws(run, (error: unknown) => error instanceof ArgumentError && error.message.includes(part));
  const options = { batch: 1, seq: 1000, seed: 0 };
  refused(() => data.randomWindows(tokens, 0, options), "1000 tokens; expected more than seq = 1000");
  refused(() => data.evenWindows(tokens, 1000, 1), "1000 tokens; expected more than seq = 1000");
  refused(() => data.evenWindows(tokens, 10, 0), "most");
  refused(() => data.randomWindows(tokens, -1, { ...options, seq: 10 }), "step");
  refused(() => data.randomWindows(tokens, 0, { ...options, seq: 0 }), "seq");
  refused(() => data.randomWindows(tokens, 0, { ...options, seq: 10, batch: 1.5 }), "batch");
  refused(() => data.randomWindows(tokens, 0, { ...options, seq: 10, seed: -1 }), "seed");
  refused(() => data.randomWindows(tokens, 0, { ...options, seq: 10, batch: 1e9 }), "batch = 1000000000");
  refused(() => data.randomWindows(tokens, 0, { ...options, batchSize: 4 } as never), "Did you mean batch?");
  refused(() => data.randomWindows(tokens, 0, undefined as never), "{ batch, seq, seed }");
  refused(() => data.randomWindows(tokens, 0, null as never), "null");
});

test("a plain list of ids is a text too; a text, a tensor or what holds no ids is not", () => {
  const list = [...tokens];
  assert.deepEqual(
    data.randomWindows(list, 3, { batch: 2, seq: 5, seed: 1 }),
    data.randomWindows(tokens, 3, { batch: 2, seq: 5, seed: 1 }),
  );
  assert.deepEqual(data.evenWindows(list, 100, 2), data.evenWindows(tokens, 100, 2));
  for (const wrong of [
    "Call me Ishmael.",
    tensor(tokens.slice(0, 20)),
    new Float32Array(20),
    null,
    undefined,
    5,
    { length: 20 },
    [...list.slice(0, 10), 0.5],
    [...list.slice(0, 10), -1],
    [...list.slice(0, 10), "1"],
  ]) {
    for (const run of [
      () => data.randomWindows(wrong as never, 0, { batch: 1, seq: 2, seed: 0 }),
      () => data.evenWindows(wrong as never, 2, 1),
    ]) {
      assert.throws(run, (error: unknown) => error instanceof ArgumentError && error.message.includes("tokens"));
    }
  }
});

test("the end of a text is held out, without a copy", () => {
  for (const [length, testSize, cut] of [
    [1000, undefined, 900],
    [101, 0.1, 90],
    [10, 0.25, 7],
    [3, 0, 3],
    [0, 0.5, 0],
  ] as const) {
    const all = tokens.subarray(0, length);
    const { train, test } = data.trainTestSplit(all, testSize);
    assert.deepEqual([train.length, test.length], [cut, length - cut]);
    assert.deepEqual([...train, ...test], [...all]);
    assert.equal(train.buffer, all.buffer);
  }
  assert.deepEqual(data.trainTestSplit([1, 2, 3, 4], 0.5), { train: Int32Array.of(1, 2), test: Int32Array.of(3, 4) });
  for (const wrong of [1, -0.1, NaN, "0.1", 2])
    assert.throws(() => data.trainTestSplit(tokens, wrong as number), ArgumentError);
  assert.throws(() => data.trainTestSplit("text" as never), /encode it first/);
});

test.run();
