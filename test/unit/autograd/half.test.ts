/**
 * Ops on weights of 16 bits against the same ops on these weights as float32: every result and every gradient has the
 * same bits, whatever the path: one row, few rows, packed panels, and each remainder of all of them.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, nn, ops, type Tensor } from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { compareBits } from "../../support/bits.js";
import { gridTensor as grid } from "../../support/gradcheck.js";
import { HALVES, halfBits, halfParameter } from "../../support/half.js";
import { int } from "../../support/op_calls.js";
import type { HalfType } from "../../../src/tensor/dtype.js";

await init();

/** A half weight, and the same as float32. */
function pair(shape: [number, number], dtype: HalfType, isTrained = false): [half: nn.Parameter, wide: nn.Parameter] {
  const half = halfParameter(shape, halfBits(shape[0] * shape[1], dtype, shape[0] * 1000 + shape[1]), dtype);
  const wide = new nn.Parameter(shape).set(half.toFloat32());
  half.requiresGrad = wide.requiresGrad = isTrained;
  return [half, wide];
}

/** Runs with the half weight and with the wide one; all that comes of it, by name. */
function same(
  label: string,
  weights: readonly [nn.Parameter, nn.Parameter],
  run: (weight: nn.Parameter) => Record<string, Tensor | null>,
): void {
  const [half, wide] = weights;
  const dtype = half.dtype;
  const [actual, expected] = [run(half), run(wide)];
  assert.equal(half.dtype, dtype, `${label}: the weight was widened`);
  for (const [name, t] of Object.entries(expected)) {
    if (!t) continue;
    const got = actual[name]!;
    compareBits(got.data, t.data, t.shape.at(-1) ?? 1, false, () => `${label}: ${name}`);
    if (t.grad) {
      assert.equal(got.grad!.dtype, "float32");
      compareBits(got.grad!.data, t.grad.data, t.shape.at(-1) ?? 1, false, () => `${label}: gradient of ${name}`);
    }
  }
  if (wide.grad) compareBits(half.grad!.data, wide.grad.data, wide.shape[1]!, false, () => `${label}: gradient of W`);
  for (const t of [...Object.values(actual), ...Object.values(expected)]) t?.dispose();
  half.dispose();
  wide.dispose();
}

/** Some rows, each path's and its neighbours'. */
const ROWS = [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 14, 16, 17, 20];
const SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 31, 33];

const trained = (shape: number[], seed: number): Tensor => grid(shape, seed).keep();
const loss = (y: Tensor): void => ops.sum(ops.mul(y, y)).backward();

for (const dtype of HALVES) {
  test(`${dtype}: linear, every remainder of rows, inputs and outputs, both layouts`, () => {
    for (const big of [false, true]) {
      engine().kernels.useBigTile(big);
      for (const n of ROWS)
        for (const d of SIZES)
          for (const k of [1, 3, 4, 6, 8, 11, 16, 19, 33])
            for (const fanInFanOut of [false, true])
              same(
                `n ${n} d ${d} k ${k} ${fanInFanOut ? "fanInFanOut" : ""}`,
                pair(fanInFanOut ? [d, k] : [k, d], dtype),
                (weight) => {
                  const x = trained([n, d], 3);
                  const y = ops.linear(x, weight, null, [], fanInFanOut).keep();
                  loss(y);
                  return { x, y };
                },
              );
    }
  });

  test(`${dtype}: linear beyond a block of k and a strip of columns`, () => {
    for (const [n, d, k] of [
      [1, 1040, 70],
      [3, 1025, 67],
      [14, 1037, 130],
      [2, 66, 2050],
      [13, 129, 1029],
    ] as const)
      for (const fanInFanOut of [false, true])
        same(`n ${n} d ${d} k ${k}`, pair(fanInFanOut ? [d, k] : [k, d], dtype), (weight) => {
          const x = trained([n, d], 3);
          const y = ops.linear(x, weight, null, [], fanInFanOut).keep();
          loss(y);
          return { x, y };
        });
  });

  test(`${dtype}: linear with bias, branches, dropout, and a weight that is trained`, () => {
    for (const n of [1, 2, 5, 13])
      for (const fanInFanOut of [false, true])
        for (const p of [0, 0.4])
          for (const isTrained of [false, true])
            for (const count of [0, 1, 2]) {
              const [d, k] = [23, 37];
              same(
                `n ${n} ${JSON.stringify({ fanInFanOut, p, isTrained, count })}`,
                pair(fanInFanOut ? [d, k] : [k, d], dtype, isTrained),
                (weight) => {
                  const x = trained([n, d], 3);
                  const bias = trained([k], 4);
                  const mask = p > 0 ? { p, seed: 7, stream: 1 } : null;
                  const factors = [trained([4, d], 5), trained([k, 4], 6), trained([3, d], 7), trained([k, 3], 8)];
                  const branches = [
                    { loraA: factors[0]!, loraB: factors[1]!, scaling: 0.5, mask },
                    { loraA: factors[2]!, loraB: factors[3]!, scaling: 2, mask, from: n - 1, to: n },
                  ].slice(0, count);
                  const y = ops.linear(x, weight, bias, branches, fanInFanOut).keep();
                  loss(y);
                  return { x, y, bias, a: factors[0]!, b: factors[1]!, a2: factors[2]!, b2: factors[3]! };
                },
              );
            }
  });

  test(`${dtype}: mergedLinear`, () => {
    for (const n of [1, 3, 14])
      for (const fanInFanOut of [false, true])
        same(`n ${n}`, pair(fanInFanOut ? [10, 12] : [12, 10], dtype), (weight) => {
          const x = trained([n, 10], 3);
          const [loraA, loraB] = [trained([4, 10], 5), trained([8, 2], 6)];
          const enableLora = [true, false, true];
          const lora = { loraA, loraB, scaling: 0.5, mask: null, enableLora };
          const y = ops.mergedLinear(x, weight, null, lora, fanInFanOut).keep();
          loss(y);
          return { x, y, loraA, loraB };
        });
  });

  test(`${dtype}: linearCrossEntropy, frozen and trained, by chunks`, () => {
    for (const isTrained of [false, true])
      for (const chunk of [1, 2, 5])
        same(`chunk ${chunk}`, pair([19, 13], dtype, isTrained), (weight) => {
          const x = trained([5, 13], 3);
          const bias = trained([19], 4);
          const y = ops.linearCrossEntropy(x, weight, bias, int(3, 18, -100, 0, 7), chunk).keep();
          y.backward();
          return { x, y, bias };
        });
  });

  test(`${dtype}: embedding, with branches, frozen and trained`, () => {
    for (const dim of [1, 3, 4, 8, 9, 17])
      for (const isTrained of [false, true])
        same(`dim ${dim}`, pair([11, dim], dtype, isTrained), (weight) => {
          const [loraA, loraB] = [trained([2, 11], 5), trained([dim, 2], 6)];
          const branches = [{ loraA, loraB, scaling: 0.5 }];
          const y = ops.embedding(int(10, 0, 3, 3, 7), weight, { paddingIdx: 3 }, branches).keep();
          loss(y);
          return { y, loraA, loraB };
        });
  });

  test(`${dtype}: embedding with maxNorm scales rows, so it widens`, () => {
    const [half, wide] = pair([5, 3], dtype);
    const [y, expected] = [half, wide].map((w) => ops.embedding(int(4, 1), w, { maxNorm: 0.001 }));
    compareBits(y!.data, expected!.data, 3, false, () => "rows");
    assert.equal(half.dtype, "float32");
    for (const t of [half, wide, y, expected]) t!.dispose();
  });

  test(`${dtype}: doraNorm, both layouts`, () => {
    for (const [k, d] of [
      [1, 1],
      [5, 7],
      [33, 18],
      [40, 33],
    ] as const)
      for (const fanInFanOut of [false, true])
        same(`k ${k} d ${d}`, pair(fanInFanOut ? [d, k] : [k, d], dtype), (weight) => ({
          norm: ops.doraNorm(weight, grid([2, d], 5), grid([k, 2], 6), 0.5, fanInFanOut),
        }));
  });
}

test("a half weight with infinities and NaN gives what its float32 gives", () => {
  const bits = Uint16Array.from({ length: 40 * 24 }, (_, i) => [0x7c00, 0xfc00, 0x7e01, 0, 0x8000, 1, 0x3c00][i % 7]!);
  const half = halfParameter([40, 24], bits, "float16");
  const wide = new nn.Parameter([40, 24], false).set(half.toFloat32());
  for (const n of [1, 3, 14]) {
    const x = grid([n, 24], 3, false);
    const [y, expected] = [half, wide].map((w) => ops.linear(x, w));
    compareBits(y!.data, expected!.data, 40, true, () => `${n} rows`);
  }
});

test("one row by a float16 weight has float32's bits whatever is in the row", () => {
  for (const fanInFanOut of [false, true])
    for (const value of [0, -0, 1e-45, -1e-38, 65535.99, 65536, -1e30, Infinity, NaN]) {
      const x = grid([1, 33], 3, false);
      x.data[20] = value;
      same(`${value} ${fanInFanOut}`, pair(fanInFanOut ? [33, 41] : [41, 33], "float16"), (weight) => ({
        y: ops.linear(x, weight, null, [], fanInFanOut),
      }));
      x.dispose();
    }
});

test.run();
