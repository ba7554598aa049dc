/** src/models/tensor_writer.ts against io.toFloat32, which takes a whole tensor's bytes and widens them in a loop. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { FormatError, full, init, io, zeros } from "../../../src/index.js";
import { TensorWriter } from "../../../src/models/tensor_writer.js";
import { assertBits } from "../../support/golden.js";

await init();

const BYTES = { F32: 4, F16: 2, BF16: 2, F64: 8 };
type Dtype = keyof typeof BYTES;
const DTYPES = Object.keys(BYTES) as Dtype[];

const storedOf = (dtype: Dtype, size: number) => ({
  name: "x",
  dtype,
  shape: [size],
  begin: 0,
  length: BYTES[dtype] * size,
});
/** Any bits, but of doubles those within float32. */
function bytesOf(dtype: Dtype, size: number): Uint8Array {
  const bytes = Uint8Array.from({ length: BYTES[dtype] * size }, (_, i) => (i * 37 + size) & 0x7e);
  if (dtype === "F64") new Float64Array(bytes.buffer).set(Float64Array.from({ length: size }, (_, i) => (i - 3) * 1.1));
  return bytes;
}

test("all 65,536 halves of either kind, NaNs with their bits", () => {
  const bytes = new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
  for (const dtype of ["BF16", "F16"] as const) {
    const t = zeros([256, 256]);
    new TensorWriter(t, storedOf(dtype, 65536)).write(bytes);
    assertBits(dtype, t.data, io.toFloat32({ name: "x", dtype, shape: [65536], bytes }));
    t.dispose();
  }
});

test("any length in parts of any length; what lies beside it stays", () => {
  for (const dtype of DTYPES)
    for (let n = 0; n <= 20; n++) {
      const bytes = bytesOf(dtype, n);
      for (const part of [1, 3, 8, 13, 1000]) {
        const [before, t, after] = [full([3], 7), full([n], NaN), full([3], 7)];
        const writer = new TensorWriter(t, storedOf(dtype, n));
        for (let from = 0; from < bytes.length; from += part) writer.write(bytes.slice(from, from + part));
        assertBits(`${dtype}, ${n} values`, t.data, io.toFloat32({ name: "x", dtype, shape: [n], bytes }));
        for (const beside of [before, after]) assert.deepEqual([...beside.data], [7, 7, 7]);
        for (const one of [before, t, after]) one.dispose();
      }
    }
});

test("memory may grow between two parts", () => {
  const t = zeros([4]);
  const writer = new TensorWriter(t, storedOf("F32", 4));
  const values = Float32Array.of(1, 2, 3, 4);
  const bytes = new Uint8Array(values.buffer);
  writer.write(bytes.subarray(0, 6));
  zeros([2 ** 22]).dispose();
  writer.write(bytes.subarray(6));
  assert.deepEqual(t.data, values);
  t.dispose();
});

test("a double beyond float32 is refused by its number", () => {
  const t = zeros([3]);
  const bytes = new Uint8Array(Float64Array.of(1, 2, 3.5e38).buffer);
  const writer = new TensorWriter(t, storedOf("F64", 3));
  writer.write(bytes.subarray(0, 12));
  assert.throws(
    () => writer.write(bytes.subarray(12)),
    (error: unknown) => error instanceof FormatError && error.message.includes("element 2 is 3.5e+38"),
  );
  t.dispose();
});

test.run();
