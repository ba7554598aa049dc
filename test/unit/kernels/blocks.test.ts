/**
 * Kernels that read a weight in blocks, with the weight in the last bytes of linear memory: one byte read beyond it
 * traps. It may lie at any even address. What they give is what the float32 weight gives, by the same kernels.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init } from "../../../src/index.js";
import type { Engine } from "../../../src/runtime/engine.js";
import { BLOCKS, type BlockType } from "../../../src/tensor/blocks.js";
import { formatOf } from "../../../src/tensor/dtype.js";
import { compareBits } from "../../support/bits.js";
import { BLOCK_TYPES, randomBlocks } from "../../support/blocks.js";
import { randomArray } from "../../support/random.js";

const { kernels, memory, scratch }: Engine = await init();

const random = randomArray(3, 1 << 17);

/** What `run` leaves in `size` floats, which begin as random ones, for the weight in blocks and for its floats. */
function compare(
  label: string,
  size: number,
  dtype: BlockType,
  count: number,
  run: (out: number, weight: number, format: number) => void,
): void {
  const bytes = randomBlocks(count, dtype, count);
  const wide = memory.alloc(4 * count);
  const out = memory.alloc(4 * size);
  const blocks = memory.wasm.buffer.byteLength - bytes.length;
  const at = new Uint8Array(memory.wasm.buffer, blocks, bytes.length);
  at.set(bytes);
  kernels.widen(wide, blocks, count, formatOf(dtype));
  const result = (weight: number, format: number): Float32Array => {
    memory.f32(out, size).set(random.subarray(0, size));
    run(out, weight, format);
    return memory.f32(out, size).slice();
  };
  const expected = result(wide, 0);
  compareBits(result(blocks, formatOf(dtype)), expected, size, false, () => `${dtype} ${label}`);
  assert.deepEqual(at, bytes, "the weight was changed");
  for (const address of [wide, out]) memory.free(address);
}

/** Linear forward and backward of n rows. */
function linear(n: number, d: number, k: number, fanInFanOut: boolean, dtype: BlockType): void {
  const input = memory.alloc(4 * n * Math.max(d, k));
  memory.f32(input, n * Math.max(d, k)).set(random.subarray(1000, 1000 + n * Math.max(d, k)));
  const label = `n ${n} d ${d} k ${k} ${fanInFanOut}`;
  const rest = { n, d, k, r: 0, s: 0, fanInFanOut, bias: 0, a: 0, b: 0, hs: 0, scratch, xDropped: 0 };
  compare(label, n * k, dtype, d * k, (y, weight, format) =>
    kernels.loraLinearForward({ ...rest, y, x: input, weight, format }),
  );
  const none = { x: 0, dxDropped: 0, dWeight: 0, dBias: 0, da: 0, db: 0, zs: 0 };
  compare(label, n * d, dtype, d * k, (dx, weight, format) =>
    kernels.loraLinearBackward({ ...rest, ...none, dx, dy: input, weight, format }),
  );
  memory.free(input);
}

for (const dtype of BLOCK_TYPES) {
  const { values } = BLOCKS[dtype];

  test(`${dtype}: linear forward and backward, both layouts, every path and remainder`, () => {
    for (const n of [1, 2, 5, 12, 13, 17])
      for (const blocks of [1, 2, 3])
        for (const other of [1, 2, 7, 8, 12, 16, 17, 33])
          for (const fanInFanOut of [false, true])
            linear(
              n,
              ...(fanInFanOut ? ([other, blocks * values] as const) : ([blocks * values, other] as const)),
              fanInFanOut,
              dtype,
            );
  });

  test(`${dtype}: more values than are packed at a time, in either direction`, () => {
    for (const n of [1, 3, 14])
      for (const fanInFanOut of [false, true])
        linear(n, fanInFanOut ? 40 : 1280, fanInFanOut ? 1280 : 40, fanInFanOut, dtype);
  });

  test(`${dtype}: rows of a table, norms of rows and columns`, () => {
    const [vocab, dim] = [5, 2 * values];
    const ids = memory.alloc(16);
    memory.i32(ids, 3).set([4, 0, 4]);
    const factors = memory.alloc(4 * 2 * dim);
    memory.f32(factors, 2 * dim).set(random.subarray(1000, 1000 + 2 * dim));
    const rows = memory.alloc(kernels.mergeRowsBytes(dim));
    const sums = memory.alloc(8 * dim);
    compare("rows", 3 * dim, dtype, vocab * dim, (y, weight, format) =>
      kernels.embeddingForward(y, weight, ids, 3, dim, format),
    );
    for (const fanInFanOut of [false, true]) {
      const [k, d] = fanInFanOut ? [dim, 37] : [37, dim];
      compare(`norms ${fanInFanOut}`, k, dtype, k * d, (norm, weight, format) =>
        kernels.doraNorm({
          norm,
          weight,
          a: factors,
          b: factors,
          k,
          d,
          r: 2,
          s: 0.5,
          fanInFanOut,
          format,
          rows,
          sums,
          scratch,
        }),
      );
    }
    for (const address of [ids, factors, rows, sums]) memory.free(address);
  });
}

test.run();
