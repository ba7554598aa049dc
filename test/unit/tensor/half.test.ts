/** Half tensors: every value widened against arithmetic on doubles, and what a tensor of 16 bits does and refuses. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  clone,
  DTypeError,
  full,
  init,
  memoryStats,
  nn,
  ops,
  optim,
  StateError,
  tensor,
  zeros,
  type Tensor,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { rehearse } from "../../../src/runtime/rehearsal.js";
import { skipInit } from "../../../src/nn/skip_init.js";
import { widenedBytes } from "../../../src/tensor/widened.js";
import { compareBits } from "../../support/bits.js";
import { HALVES, halfBits, halfParameter, widenedBits } from "../../support/half.js";

await init();

const ALL = Uint16Array.from({ length: 65536 }, (_, i) => i);
const bytesOf = (bits: Uint16Array): Uint8Array => new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
const bitsOf = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

for (const dtype of HALVES) {
  test(`${dtype}: all 65,536 values, NaNs with their bits, by each way of widening`, () => {
    const expected = Uint32Array.from(ALL, (bits) => widenedBits(bits, dtype));
    const p = halfParameter([256, 256], ALL, dtype);
    assert.deepEqual(bitsOf(p.toFloat32()), expected);
    assert.deepEqual(bitsOf(widenedBytes(bytesOf(ALL), dtype)), expected);
    const t = zeros([256, 256]);
    // One at a time, as rows that fill no vector have them.
    const { kernels } = engine();
    for (let i = 0; i < 65536; i++)
      kernels.widen(t.address + 4 * i, p.address + 2 * i, 1, dtype === "bfloat16" ? 1 : 2);
    assert.deepEqual(bitsOf(t.data), expected);
    p.widen();
    assert.deepEqual(bitsOf(p.data), expected);
    for (const one of [p, t]) one.dispose();
  });

  test(`${dtype}: any length, from any even address, also within the memory that it goes to`, () => {
    const { kernels } = engine();
    const format = dtype === "bfloat16" ? 1 : 2;
    for (let n = 0; n <= 40; n++) {
      const bits = halfBits(n, dtype, n + 1);
      const expected = Uint32Array.from(bits, (b) => widenedBits(b, dtype));
      const p = halfParameter([1, n + 1], Uint16Array.of(0x7fff, ...bits), dtype);
      const [before, t, after] = [full([3], 7), full([n], NaN), full([3], 7)];
      kernels.widen(t.address, p.address + 2, n, format);
      assert.deepEqual(bitsOf(t.data), expected);
      t.bytes.subarray(2 * n).set(bytesOf(bits));
      kernels.widen(t.address, t.address + 2 * n, n, format);
      assert.deepEqual(bitsOf(t.data), expected);
      for (const beside of [before, after]) assert.deepEqual([...beside.data], [7, 7, 7]);
      for (const one of [p, before, t, after]) one.dispose();
    }
  });

  test(`${dtype}: half the memory, and that of float32 after widen()`, () => {
    const live = memoryStats().liveBytes;
    const p = halfParameter([64, 33], halfBits(64 * 33, dtype, 5), dtype);
    assert.equal(memoryStats().liveBytes - live, 64 * 33 * 2 + 64);
    const values = p.toFloat32();
    assert.equal(p.widen(), p);
    assert.equal(memoryStats().liveBytes - live, 64 * 33 * 4 + 64);
    assert.equal(p.dtype, "float32");
    compareBits(p.data, values, 33, false, () => "widened");
    p.dispose();
    assert.equal(memoryStats().liveBytes, live);
  });

  test(`${dtype}: more values than one piece of the working space`, () => {
    const n = 3 * 32768 + 5;
    const bits = halfBits(n, dtype, 9);
    const expected = Uint32Array.from(bits, (b) => widenedBits(b, dtype));
    const p = halfParameter([1, n], bits, dtype);
    assert.deepEqual(bitsOf(p.toFloat32()), expected);
    const before = p.stored();
    p.widen();
    assert.deepEqual(bitsOf(p.data), expected);
    p.restore(before);
    assert.equal(p.dtype, dtype);
    assert.deepEqual(bitsOf(p.toFloat32()), expected);
    p.dispose();
  });
}

test("kernels are told that a float16 weight is finite as long as it is", () => {
  for (const n of [1, 7, 8, 9, 16, 21]) {
    const p = halfParameter(
      [1, n],
      Uint16Array.from({ length: n }, (_, i) => [0x7bff, 0xfbff, 1, 0x8000][i % 4]!),
      "float16",
    );
    const bits = (): Uint16Array => new Uint16Array(p.bytes.buffer, p.address, n);
    assert.equal(p.format, 3);
    for (let i = 0; i < n; i++)
      for (const special of [0x7c00, 0xfc00, 0x7c01, 0xffff]) {
        const before = bits()[i]!;
        bits()[i] = special;
        assert.equal(p.format, 2);
        bits()[i] = before;
        assert.equal(p.format, 3);
      }
    p.restore({ dtype: "float16", bytes: bytesOf(new Uint16Array(n).fill(0x7e00)) });
    assert.equal(p.format, 2);
    assert.equal(p.widen().format, 0);
    p.dispose();
  }
});

test("a half tensor says what to do where its values are asked for as float32", () => {
  const p = halfParameter([1, 2], Uint16Array.of(0x3f80, 0xc000), "bfloat16");
  assert.throws(() => p.data, /DTypeError: Tensor\.data: this tensor is bfloat16.*toFloat32\(\).*widen\(\)/);
  assert.throws(() => p.indices, /use toFloat32\(\)/);
  assert.throws(() => ops.add(p, p), /must be float32; got bfloat16\. Turn it into float32 by widen\(\)/);
  assert.throws(() => ops.matmul(p, p), DTypeError);
  assert.equal(String(p), "Parameter([[1, -2]], [1, 2], bfloat16)");
  assert.equal(JSON.stringify(p), '{"dtype":"bfloat16","shape":[1,2],"data":[1,-2]}');
  const copy = clone(p);
  assert.equal(copy.dtype, "bfloat16");
  assert.deepEqual([...copy.toFloat32()], [1, -2]);
  assert.equal(halfParameter([1, 1], Uint16Array.of(0x3c00), "float16").item(), 1);
  const indices: Tensor = tensor(new Int32Array([1, 2]));
  assert.throws(() => indices.toFloat32(), DTypeError);
  assert.equal(indices.widen().dtype, "int32");
});

test("what writes values widens first", () => {
  const make = (): nn.Parameter => halfParameter([2, 2], Uint16Array.of(0x3f80, 0, 0xbf80, 0x4000), "bfloat16");
  assert.deepEqual([...make().set([1, 2, 3, 4.1]).data], [1, 2, 3, Math.fround(4.1)]);
  assert.deepEqual([...nn.zeros_(make()).data], [0, 0, 0, 0]);
  assert.equal(nn.uniform_(make()).dtype, "float32");
  assert.equal(nn.kaimingUniform_(make()).dtype, "float32");
  const frozen = make();
  new optim.SGD([frozen]);
  assert.equal(frozen.dtype, "bfloat16");
  const trained = make();
  trained.requiresGrad = true;
  const optimizer = new optim.SGD([trained], { lr: 1 });
  assert.equal(trained.dtype, "float32");
  ops.sum(trained).backward();
  optimizer.step();
  assert.deepEqual([...trained.data], [0, -1, -2, 1]);
});

test("under skipInit a parameter has a shape and no memory", () => {
  const live = memoryStats().liveBytes;
  const layer = skipInit(() => new nn.Linear(6, 5));
  assert.equal(memoryStats().liveBytes, live);
  assert.deepEqual(layer.weight.shape, [5, 6]);
  assert.throws(() => layer.weight.data, StateError);
  const x = zeros([1, 6]);
  assert.throws(() => layer.forward(x), StateError);
  x.dispose();
  assert.equal(String(layer.bias), "Parameter([5], float32, requiresGrad, without memory)");
  layer.weight.materialize("float16");
  layer.bias!.materialize();
  assert.equal(layer.weight.dtype, "float16");
  assert.equal(memoryStats().liveBytes - live, 128 + 128);
  layer.dispose();
  skipInit(() => new nn.Embedding(3, 4, { paddingIdx: 0 })).dispose();
  assert.equal(memoryStats().liveBytes, live);
});

test("a state dict has float32 copies; loading one makes float32 of what it sets", () => {
  const layer = skipInit(() => new nn.Linear(2, 1, { bias: false }));
  layer.weight.materialize("bfloat16").bytes.set(bytesOf(Uint16Array.of(0x3f80, 0x4000)));
  const state = layer.stateDict();
  assert.deepEqual([...state.get("weight")!.data], [1, 2]);
  assert.equal(layer.weight.dtype, "bfloat16");
  layer.loadStateDict(state);
  assert.equal(layer.weight.dtype, "float32");
  assert.deepEqual([...layer.weight.data], [1, 2]);
  layer.dispose();
});

test("a rehearsal counts half weights to the byte", () => {
  const planned = rehearse((stats) => {
    const before = stats().liveBytes;
    const p = skipInit(() => new nn.Parameter([50000, 2000], false)).materialize("bfloat16");
    const stored = stats().liveBytes - before;
    assert.equal(p.toFloat32().length, 1e8);
    clone(p).dispose();
    p.widen();
    return [stored, stats().liveBytes - before];
  });
  assert.deepEqual(planned, [2e8 + 64, 4e8 + 64]);
});

test.run();
