/** src/tensor/bfloat16.ts against io.toFloat32, which widens in a loop: every value, and lengths around a vector. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { DTypeError, full, init, io, ShapeError, zeros } from "../../../src/index.js";
import { setBfloat16 } from "../../../src/tensor/bfloat16.js";
import { assertBits } from "../../support/golden.js";

await init();

const widened = (bytes: Uint8Array): Float32Array =>
  io.toFloat32({ name: "x", dtype: "BF16", shape: [bytes.length / 2], bytes });

test("all 65,536 values, NaNs with their bits", () => {
  const bytes = new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
  const t = zeros([256, 256]);
  setBfloat16(t, bytes);
  const bits = new Uint32Array(t.data.buffer, t.data.byteOffset, t.size);
  bits.forEach((value, i) => assert.equal(value, (i << 16) >>> 0));
  t.dispose();
});

test("any length, from bytes at any address; what lies beside it stays", () => {
  for (let n = 0; n <= 40; n++) {
    const bytes = Uint8Array.from({ length: 2 * n + 1 }, (_, i) => (i * 37 + n) & 0x7e).subarray(1);
    const [before, t, after] = [full([3], 7), full([n], NaN), full([3], 7)];
    setBfloat16(t, bytes);
    assertBits(`${n} values`, t.data, widened(bytes));
    for (const beside of [before, after]) assert.deepEqual([...beside.data], [7, 7, 7]);
    for (const one of [before, t, after]) one.dispose();
  }
});

test("bytes of another number of values, and indices, are refused", () => {
  const t = full([4], 5);
  for (const length of [0, 4, 7, 16]) assert.throws(() => setBfloat16(t, new Uint8Array(length)), ShapeError);
  assert.deepEqual([...t.data], [5, 5, 5, 5]);
  const indices = zeros([2], "int32");
  assert.throws(() => setBfloat16(indices, new Uint8Array(4)), DTypeError);
  t.dispose();
  indices.dispose();
});

test.run();
