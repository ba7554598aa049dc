/** Blocks: every format's reference values to the bit, what quantising makes, and what a tensor of blocks does. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { clone, init, memoryStats, nn, ops, ShapeError } from "../../../src/index.js";
import { skipInit } from "../../../src/nn/skip_init.js";
import { engine } from "../../../src/runtime/engine.js";
import { rehearse } from "../../../src/runtime/rehearsal.js";
import { BLOCKS } from "../../../src/tensor/blocks.js";
import { formatOf, storedBytes } from "../../../src/tensor/dtype.js";
import { widenedBytes } from "../../../src/tensor/widened.js";
import { compareBits } from "../../support/bits.js";
import { BLOCK_TYPES, blockParameter, blocksFixture, randomBlocks, referenceBlocks } from "../../support/blocks.js";

await init();

for (const dtype of BLOCK_TYPES) {
  const { values: perBlock } = BLOCKS[dtype];

  test(`${dtype}: the reference's values, by each way of widening`, () => {
    const { blocks, values } = referenceBlocks(dtype);
    const p = skipInit(() => new nn.Parameter([values.length / perBlock, perBlock], false)).materialize(dtype);
    p.bytes.set(blocks);
    const same = (actual: Float32Array, label: string): void =>
      compareBits(actual, values, perBlock, true, () => `${dtype} ${label}`);
    same(p.toFloat32(), "toFloat32");
    same(widenedBytes(blocks, dtype), "widenedBytes");
    same(
      Float32Array.from(values, (_, i) => p.valueAt(i)),
      "valueAt",
    );
    same(clone(p).toFloat32(), "clone");
    const before = p.stored();
    same(p.widen().data, "widen");
    assert.equal(p.dtype, "float32");
    p.restore(before);
    assert.equal(p.dtype, dtype);
    assert.deepEqual(p.bytes, blocks);
    p.dispose();
  });

  test(`${dtype}: any number of blocks from any address, more than one piece, and the memory of blocks`, () => {
    const { kernels, memory } = engine();
    const n = 33024 + 256;
    const bytes = randomBlocks(n, dtype, 7);
    const live = memoryStats().liveBytes;
    const p = skipInit(() => new nn.Parameter([n / 256, 256], false)).materialize(dtype);
    assert.equal(memoryStats().liveBytes - live, Math.ceil(storedBytes(n, dtype) / 64) * 64 + 64);
    p.bytes.set(bytes);
    const all = p.toFloat32();
    for (const first of [0, 256, 32768, 33024]) {
      const part = bytes.subarray(storedBytes(first, dtype), storedBytes(first + 256, dtype));
      const [from, to] = [memory.alloc(part.length + 2), memory.alloc(4 * 256)];
      memory.u8(from + 2, part.length).set(part);
      kernels.widen(to, from + 2, 256, formatOf(dtype));
      compareBits(memory.f32(to, 256), all.subarray(first, first + 256), 256, true, () => `${dtype} from ${first}`);
      for (const address of [from, to]) memory.free(address);
    }
    p.dispose();
    assert.equal(memoryStats().liveBytes, live);
  });
}

test("quantised to q8_0 it is ggml's reference to the bit", () => {
  const { kernels, memory } = engine();
  const x = blocksFixture("Q8_0.quantise.x").floats();
  const expected = blocksFixture("Q8_0.quantise.blocks").bytes;
  const [from, to] = [memory.alloc(4 * x.length), memory.alloc(expected.length)];
  memory.f32(from, x.length).set(x);
  assert.ok(kernels.quantise(to, from, x.length, 8));
  assert.deepEqual(memory.u8(to, expected.length).slice(), expected);
  // Half away from zero, where scale and inverse are exact.
  memory.f32(from, 32).set([127, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 0.49999997, -0.49999997, 126.5, -126.5]);
  memory.f32(from, 32).fill(0, 11);
  assert.ok(kernels.quantise(to, from, 32, 8));
  const codes = new Int8Array(memory.u8(to, 34).slice().buffer);
  assert.deepEqual([...codes.subarray(0, 13)], [0, 0x3c, 127, 1, -1, 2, -2, 3, -3, 0, 0, 127, -127]);
  for (const special of [NaN, Infinity, -Infinity, 65520 * 127]) {
    memory.f32(from, 32)[31] = special;
    assert.ok(!kernels.quantise(to, from, 32, 8), String(special));
  }
  for (const address of [from, to]) memory.free(address);
});

test("quantised to nf4 it is bitsandbytes' to the bit", () => {
  const { kernels, memory } = engine();
  const x = blocksFixture("NF4.x").floats();
  const { blocks } = referenceBlocks("nf4");
  const [from, to] = [memory.alloc(4 * x.length), memory.alloc(blocks.length)];
  memory.f32(from, x.length).set(x);
  assert.ok(kernels.quantise(to, from, x.length, 14));
  assert.deepEqual(memory.u8(to, blocks.length).slice(), blocks);
  for (const special of [NaN, Infinity]) {
    memory.f32(from, 64)[40] = special;
    assert.ok(!kernels.quantise(to, from, 64, 14), String(special));
  }
  for (const address of [from, to]) memory.free(address);
});

test("a scale becomes the nearest float16, subnormal ones too", () => {
  const { kernels, memory } = engine();
  const [from, to] = [memory.alloc(128), memory.alloc(34)];
  const bits = new DataView(new ArrayBuffer(4));
  for (let half = 0; half < 0x7c00; half += 7) {
    const exponent = half >> 10;
    const [mantissa, unit] = exponent === 0 ? [half & 1023, 2 ** -24] : [1024 + (half & 1023), 2 ** (exponent - 25)];
    // A little below, at and above the middle between this one and the next.
    for (const [d, expected] of [
      [mantissa * unit, half],
      [(mantissa + 0.498) * unit, half],
      [(mantissa + 0.5) * unit, half + (half & 1)],
      [(mantissa + 0.502) * unit, half + 1],
    ] as const) {
      bits.setFloat32(0, d);
      const float = bits.getFloat32(0);
      const largest = Math.fround(float * 127);
      if (expected === 0x7c00 || Math.fround(largest / 127) !== float) continue;
      memory.f32(from, 32).fill(0)[3] = largest;
      assert.ok(kernels.quantise(to, from, 32, 8));
      assert.equal(new DataView(memory.u8(to, 2).slice().buffer).getUint16(0, true), expected, `${d}`);
    }
  }
  for (const address of [from, to]) memory.free(address);
});

test("a tensor of blocks says what to do where it is asked for float32, and refuses rows that are not whole", () => {
  const p = blockParameter([2, 64], "q8_0", 1);
  assert.throws(() => p.data, /DTypeError: Tensor\.data: this tensor is q8_0.*toFloat32\(\).*widen\(\)/);
  assert.throws(() => ops.add(p, p), /must be float32; got q8_0\. Turn it into float32 by widen\(\)/);
  assert.throws(
    () => skipInit(() => new nn.Parameter([64, 33], false)).materialize("q8_0"),
    (error: Error) => error instanceof ShapeError && /\[64,33\] cannot be q8_0.*multiple of 32/.test(error.message),
  );
  assert.match(String(p), /\[2, 64\], q8_0\)$/);
  assert.equal(p.set(new Float32Array(128).fill(3)).dtype, "float32");
  p.dispose();
});

test("a rehearsal counts blocks to the byte", () => {
  const planned = rehearse((stats) => {
    const before = stats().liveBytes;
    const p = skipInit(() => new nn.Parameter([50000, 2048], false)).materialize("q4_k");
    const stored = stats().liveBytes - before;
    assert.equal(p.toFloat32().length, 50000 * 2048);
    clone(p).dispose();
    p.widen();
    return [stored, stats().liveBytes - before];
  });
  assert.deepEqual(planned, [50000 * 8 * 144 + 64, 50000 * 2048 * 4 + 64]);
});

test.run();
