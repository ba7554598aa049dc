/** Combined adapters against dense sums in float64. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  DTypeError,
  init,
  memoryStats,
  scope,
  ShapeError,
  tensor,
  type Tensor,
} from "../../../src/index.js";
import { combineAdapters, type CombinationType, type WeightedFactors } from "../../../src/peft/weighted.js";
import { assertBits } from "../../support/golden.js";
import {
  assertNear,
  assertOrthonormal,
  compose,
  largest,
  orthonormal,
  product,
  transpose,
  uniform,
} from "../../support/float64.js";

await init();

const k = 13;
const d = 11;
let seed = 0;
const adapter = (r: number, weight: number, scaling: number): WeightedFactors => ({
  loraA: tensor(Float32Array.from(uniform(++seed, r * d)), [r, d]),
  loraB: tensor(Float32Array.from(uniform(++seed, k * r)), [k, r]),
  scaling,
  weight,
});
const delta = ({ loraA, loraB }: { loraA: Tensor; loraB: Tensor }): Float64Array =>
  product(loraB.data, loraA.data, k, loraA.shape[0]!, d);
/** Sum of w s B A. */
const sumOf = (all: readonly WeightedFactors[]): Float64Array =>
  all.reduce(
    (sum, f) => {
      const ba = delta(f);
      return sum.map((v, i) => v + f.weight * f.scaling * ba[i]!);
    },
    new Float64Array(k * d),
  );

test("cat is the sum, with ranks added; A times weight, then times scaling", () =>
  scope(() => {
    const all = [adapter(2, 0.7, 2), adapter(4, -0.3, 0.5), adapter(1, 1, 3)];
    const got = combineAdapters("cat", all);
    assert.deepEqual(
      [got.loraA.shape, got.loraB.shape],
      [
        [7, d],
        [k, 7],
      ],
    );
    assertNear("delta", delta(got), sumOf(all), 1e-6);
    const f32 = Math.fround;
    assertBits(
      "A",
      got.loraA.data.slice(0, 2 * d),
      all[0]!.loraA.data.map((v) => f32(v * f32(0.7)) * 2),
    );
    for (let i = 0; i < k; i++)
      assertBits("B", got.loraB.data.slice(i * 7 + 2, i * 7 + 6), all[1]!.loraB.data.slice(i * 4, i * 4 + 4));
  }));

test("linear: roots of the weights on both factors, the sign on A", () =>
  scope(() => {
    const all = [adapter(3, 0.7, 2), adapter(3, -0.3, 0.5), adapter(3, 0.2, -4), adapter(3, 0, 1)];
    const got = combineAdapters("linear", all);
    for (const [name, signed] of [
      ["loraA", true],
      ["loraB", false],
    ] as const) {
      const expected = all.reduce(
        (sum, f) =>
          sum.map((v, i) => {
            const ws = f.weight * f.scaling;
            return v + (signed && ws < 0 ? -1 : 1) * Math.sqrt(Math.abs(ws)) * f[name].data[i]!;
          }),
        new Float64Array(got[name].size),
      );
      assertNear(name, got[name].data, expected, 1e-6);
    }
    const one = combineAdapters("linear", [all[1]!]);
    assertNear("one negative adapter alone", delta(one), sumOf([all[1]!]), 1e-6);
  }));

test("svd: the whole sum when the rank suffices, s counted once; rows of A orthonormal", () =>
  scope(() => {
    for (const all of [
      [adapter(2, 0.7, 2), adapter(4, -0.3, 0.5)],
      [adapter(9, 1, 2), adapter(8, 0.5, 3)],
    ]) {
      const rank = Math.min(
        d,
        all.reduce((sum, f) => sum + f.loraA.shape[0]!, 0),
      );
      const got = combineAdapters("svd", all, rank);
      assert.deepEqual(
        [got.loraA.shape, got.loraB.shape],
        [
          [rank, d],
          [k, rank],
        ],
      );
      assertNear("delta", delta(got), sumOf(all), 4e-6);
      assertOrthonormal("A", transpose(got.loraA.data, rank, d), d, rank, 1e-6);
    }
  }));

test("svd: the best approximation of a lower rank, by default the largest of the ranks", () =>
  scope(() => {
    // B A of each adapter is a part of one matrix whose decomposition is known.
    const u = orthonormal(101, k, 5);
    const v = orthonormal(102, d, 5);
    const s = [9, 5, 3, 2, 1];
    const part = (columns: number[], weight: number, scaling: number): WeightedFactors => ({
      loraB: tensor(
        Float32Array.from(
          { length: k * columns.length },
          (_, i) => u[Math.floor(i / columns.length) * 5 + columns[i % columns.length]!]!,
        ),
        [k, columns.length],
      ),
      loraA: tensor(
        Float32Array.from({ length: columns.length * d }, (_, i) => {
          const c = columns[Math.floor(i / d)]!;
          return (s[c]! * v[(i % d) * 5 + c]!) / (weight * scaling);
        }),
        [columns.length, d],
      ),
      weight,
      scaling,
    });
    const all = [part([0, 3], 0.5, 2), part([4, 2, 1], -1, 0.25)];
    for (const rank of [undefined, 1, 2, 4]) {
      const got = combineAdapters("svd", all, rank);
      const kept = rank ?? 3;
      assert.equal(got.loraA.shape[0], kept);
      assertNear(
        `rank ${rank}`,
        delta(got),
        compose(
          u,
          s.map((x, i) => (i < kept ? x : 0)),
          v,
          k,
          d,
        ),
        4e-6,
      );
      // S is in B, as in PEFT.
      const column = Float64Array.from({ length: k }, (_, i) => got.loraB.data[i * kept]!);
      assertNear("largest singular value", [Math.sqrt(column.reduce((sum, x) => sum + x * x, 0))], [9], 1e-5);
    }
    const padded = combineAdapters("svd", [all[0]!], 4);
    assertNear("beyond its rank", delta(padded), sumOf([all[0]!]), 4e-6);
    const nothing = combineAdapters("svd", [{ ...all[0]!, weight: 0 }]);
    assert.equal(largest(delta(nothing)), 0);
  }));

test("convolutions keep their shapes", () =>
  scope(() => {
    const conv = (r: number): WeightedFactors => ({
      loraA: tensor(Float32Array.from(uniform(++seed, r * 18)), [r, 2, 3, 3]),
      loraB: tensor(Float32Array.from(uniform(++seed, 4 * r)), [4, r, 1, 1]),
      scaling: 2,
      weight: 0.5,
    });
    const all = [conv(2), conv(2)];
    const dense = all
      .map(({ loraA, loraB }) => product(loraB.data, loraA.data, 4, 2, 18))
      .reduce((x, y) => x.map((v, i) => v + y[i]!));
    for (const [type, r] of [
      ["cat", 4],
      ["svd", 4],
      ["linear", 2],
    ] as const) {
      const got = combineAdapters(type, all, type === "svd" ? 4 : undefined);
      assert.deepEqual(
        [got.loraA.shape, got.loraB.shape],
        [
          [r, 2, 3, 3],
          [4, r, 1, 1],
        ],
      );
      if (type !== "linear") assertNear(type, product(got.loraB.data, got.loraA.data, 4, r, 18), dense, 2e-6);
    }
  }));

test("what is refused leaves nothing behind", () =>
  scope(() => {
    const a = adapter(2, 1, 1);
    const b = adapter(3, 1, 1);
    const before = memoryStats().liveBytes;
    const refused = (
      type: string,
      all: readonly WeightedFactors[],
      error: new (...args: never[]) => Error,
      rank?: number,
    ): void => assert.throws(() => combineAdapters(type as CombinationType, all, rank), error);
    refused("cat", [], ArgumentError);
    refused("linear", [a, b], ShapeError);
    refused("ties", [a], ArgumentError);
    refused("cat", [a], ArgumentError, 2);
    refused("svd", [a], ArgumentError, 0);
    refused("cat", [a, { ...a, loraA: b.loraA }], ShapeError);
    refused("cat", [{ ...a, weight: NaN }], ArgumentError);
    refused("cat", [{ ...a, loraA: [1] as never }], DTypeError);
    assert.equal(memoryStats().liveBytes, before);
  }));

test.run();
