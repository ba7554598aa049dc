/**
 * Kernels that read a weight of 16 bits, with the weight in the last bytes of linear memory: one byte read beyond it
 * traps. It may lie at any even address. What they give is what the float32 weight gives, by the same kernels.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init } from "../../../src/index.js";
import type { Engine } from "../../../src/runtime/engine.js";
import { FINITE16, formatOf, type HalfType } from "../../../src/tensor/dtype.js";
import { compareBits } from "../../support/bits.js";
import { HALVES, halfBits, widenedBits } from "../../support/half.js";
import { randomArray } from "../../support/random.js";

const { kernels, memory, scratch }: Engine = await init();

const random = randomArray(3, 1 << 16);

/** The weight as halves at the end of memory, and as float32 elsewhere. */
function place(size: number, dtype: HalfType): { half: number; wide: number; end: () => void } {
  const bits = halfBits(size, dtype, size);
  const wide = memory.alloc(4 * size);
  new Uint32Array(memory.wasm.buffer, wide, size).set(Uint32Array.from(bits, (b) => widenedBits(b, dtype)));
  const half = memory.wasm.buffer.byteLength - 2 * size;
  const at = new Uint16Array(memory.wasm.buffer, half, size);
  at.set(bits);
  return {
    half,
    wide,
    end() {
      assert.deepEqual(at, bits, "the weight was changed");
      memory.free(wide);
    },
  };
}

/** What `run` leaves in `size` floats, which begin as random ones, for each weight. */
function compare(
  label: string,
  size: number,
  dtype: HalfType,
  count: number,
  run: (out: number, weight: number, format: number) => void,
): void {
  const out = memory.alloc(4 * size);
  const { half, wide, end } = place(count, dtype);
  const result = (weight: number, format: number): Float32Array => {
    memory.f32(out, size).set(random.subarray(0, size));
    run(out, weight, format);
    return memory.f32(out, size).slice();
  };
  const expected = result(wide, 0);
  for (const format of dtype === "float16" ? [formatOf(dtype), FINITE16] : [formatOf(dtype)])
    compareBits(result(half, format), expected, size, false, () => `${label} format ${format}`);
  end();
  memory.free(out);
}

for (const dtype of HALVES) {
  test(`${dtype}: linear forward and backward, both layouts, every path and remainder`, () => {
    const input = memory.alloc(4 * 20 * 40);
    memory.f32(input, 800).set(random.subarray(1000, 1800));
    for (const n of [1, 2, 5, 12, 13, 14, 17])
      for (const d of [1, 3, 4, 7, 8, 9, 16, 21, 37])
        for (const k of [1, 2, 7, 8, 12, 15, 16, 17, 24, 33])
          for (const fanInFanOut of [false, true]) {
            const label = `n ${n} d ${d} k ${k} ${fanInFanOut}`;
            const rest = { n, d, k, r: 0, s: 0, fanInFanOut, bias: 0, a: 0, b: 0, hs: 0, scratch, xDropped: 0 };
            compare(label, n * k, dtype, d * k, (y, weight, format) =>
              kernels.loraLinearForward({ ...rest, y, x: input, weight, format }),
            );
            const none = { x: 0, dxDropped: 0, dWeight: 0, dBias: 0, da: 0, db: 0, zs: 0 };
            compare(label, n * d, dtype, d * k, (dx, weight, format) =>
              kernels.loraLinearBackward({ ...rest, ...none, dx, dy: input, weight, format }),
            );
          }
    memory.free(input);
  });

  test(`${dtype}: one row by the long rows of a transposed weight`, () => {
    const x = memory.alloc(4 * 1000);
    memory.f32(x, 1000).set(random.subarray(2000, 3000));
    for (const d of [769, 770, 803, 960])
      for (const k of [15, 16, 17, 31, 33])
        compare(`d ${d} k ${k}`, k, dtype, d * k, (y, weight, format) =>
          kernels.loraLinearForward({
            n: 1,
            d,
            k,
            r: 0,
            s: 0,
            fanInFanOut: false,
            bias: 0,
            a: 0,
            b: 0,
            hs: 0,
            scratch,
            xDropped: 0,
            y,
            x,
            weight,
            format,
          }),
        );
    memory.free(x);
  });

  test(`${dtype}: rows of a table, norms of rows and columns, plain widening`, () => {
    const [vocab, k] = [5, 40];
    const ids = memory.alloc(16);
    memory.i32(ids, 3).set([4, 0, 4]);
    const factors = memory.alloc(4 * 200);
    memory.f32(factors, 200).set(random.subarray(1000, 1200));
    const rows = memory.alloc(kernels.mergeRowsBytes(k));
    const sums = memory.alloc(8 * k);
    for (const dim of [1, 2, 7, 8, 9, 23]) {
      compare(`dim ${dim}`, 3 * dim, dtype, vocab * dim, (y, weight, format) =>
        kernels.embeddingForward(y, weight, ids, 3, dim, format),
      );
      for (const fanInFanOut of [false, true])
        compare(`d ${dim}`, k, dtype, k * dim, (norm, weight, format) =>
          kernels.doraNorm({
            norm,
            weight,
            a: factors,
            b: factors,
            k,
            d: dim,
            r: 2,
            s: 0.5,
            fanInFanOut,
            format,
            rows,
            sums,
            scratch,
          }),
        );
      compare(`n ${dim}`, dim, dtype, dim, (y, weight, format) => {
        if (format === 0) memory.f32(y, dim).set(memory.f32(weight, dim));
        else kernels.widen(y, weight, dim, format);
      });
    }
    for (const address of [ids, factors, rows, sums]) memory.free(address);
  });
}

test.run();
