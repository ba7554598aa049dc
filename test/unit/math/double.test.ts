/** exp64 and log64 against the host's float64 functions: relative error below 1e-14, special values. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init } from "../../../src/runtime/engine.js";
import { loadProbes } from "../../support/probes.js";

const LIMIT = 1e-14;

function largestError(kernel: (x: number) => number, reference: (x: number) => number, points: Float64Array): number {
  let largest = 0;
  for (const x of points) {
    const expected = reference(x);
    const error = Math.abs(kernel(x) - expected) / Math.abs(expected);
    if (!(error <= largest)) largest = error;
  }
  return largest;
}

test("exp64: relative error", async () => {
  const { kernels } = await init();
  const error = largestError(
    kernels.exp64,
    Math.exp,
    new Float64Array(200_001).map((_, i) => -700 + 1400 * (i / 200_000)),
  );
  console.log(`exp64: at most ${error}`);
  assert.ok(error < LIMIT);
  for (const [x, y] of [
    [0, 1],
    [-Infinity, 0],
    [Infinity, Infinity],
    [NaN, NaN],
    [1, Math.E],
  ] as const) {
    assert.ok(Object.is(kernels.exp64(x), y), `exp64(${x})`);
  }
});

test("log64: relative error", async () => {
  const { kernels } = await loadProbes();
  const powers = new Float64Array(200_000).map((_, i) => 2 ** ((i - 100_000.5) / 100));
  const error = largestError(kernels.log64, Math.log, powers);
  console.log(`log64: at most ${error}`);
  assert.ok(error < LIMIT);
  for (const [x, y] of [
    [1, 0],
    [0, -Infinity],
    [-1, NaN],
    [Infinity, Infinity],
    [NaN, NaN],
    [2, Math.LN2],
    [10, Math.LN10],
  ] as const) {
    assert.ok(Object.is(kernels.log64(x), y), `log64(${x})`);
  }
});

test.run();
