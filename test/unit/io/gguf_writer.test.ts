/** GGUF files, byte by byte: expected are those that gguf-py 0.19 writes of the same metadata and tensors. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { layOutGguf, serializeGguf } from "../../../src/io/gguf/writer.js";
import type { GGML_TYPES, GgufMetadata } from "../../../src/io/gguf/types.js";
import { ArgumentError, ShapeError } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

const METADATA: GgufMetadata = new Map([
  ["general.architecture", { type: "string", value: "llama" }],
  ["a.uint8", { type: "uint8", value: 200 }],
  ["a.int8", { type: "int8", value: -3 }],
  ["a.uint16", { type: "uint16", value: 65535 }],
  ["a.int16", { type: "int16", value: -2 }],
  ["a.uint32", { type: "uint32", value: 4294967295 }],
  ["a.int32", { type: "int32", value: -7 }],
  ["a.float32", { type: "float32", value: 0.1 }],
  ["a.uint64", { type: "uint64", value: 2n ** 63n }],
  ["a.int64", { type: "int64", value: -5 }],
  ["a.float64", { type: "float64", value: 0.1 }],
  ["a.bool", { type: "bool", value: true }],
  ["a.strings", { type: "array", of: "string", value: ["é", "", "xyz"] }],
  ["a.ints", { type: "array", of: "int32", value: [1, -1] }],
]);
const bytesOf = (values: Float32Array): Uint8Array => new Uint8Array(values.buffer);
const TENSORS = [
  { name: "x", dtype: "float32", shape: [2, 3], bytes: bytesOf(Float32Array.of(0, 1, 2, 3, 4, 5)) },
  { name: "y.weight", dtype: "float32", shape: [5], bytes: bytesOf(Float32Array.of(5, 4, 3, 2, 1)) },
] as const;
const EXPECTED =
  "474755460300000002000000000000000e00000000000000140000000000000067656e6572616c2e61726368697465637475726508000000" +
  "05000000000000006c6c616d610700000000000000612e75696e743800000000c80600000000000000612e696e743801000000fd08000000" +
  "00000000612e75696e74313602000000ffff0700000000000000612e696e74313603000000feff0800000000000000612e75696e74333204" +
  "000000ffffffff0700000000000000612e696e74333205000000f9ffffff0900000000000000612e666c6f6174333206000000cdcccc3d08" +
  "00000000000000612e75696e7436340a00000000000000000000800700000000000000612e696e7436340b000000fbffffffffffffff0900" +
  "000000000000612e666c6f617436340c0000009a9999999999b93f0600000000000000612e626f6f6c07000000010900000000000000612e" +
  "737472696e6773090000000800000003000000000000000200000000000000c3a90000000000000000030000000000000078797a06000000" +
  "00000000612e696e74730900000005000000020000000000000001000000ffffffff01000000000000007802000000030000000000000002" +
  "000000000000000000000000000000000000000800000000000000792e776569676874010000000500000000000000000000002000000000" +
  "0000000000000000000000000000803f0000004000004040000080400000a04000000000000000000000a040000080400000404000000040" +
  "0000803f000000000000000000000000";

test("a file is the one that gguf-py writes", () => {
  const hex = Array.from(serializeGguf(METADATA, TENSORS), (byte) => byte.toString(16).padStart(2, "0"));
  assert.equal(hex.join(""), EXPECTED);
});

test("places are aligned, in the order given, and rows of blocks are whole", () => {
  const entries = [
    { name: "a", dtype: "q8_0", shape: [3, 64] },
    { name: "b", dtype: "float16", shape: [1] },
    { name: "c", dtype: "q4_k", shape: [256] },
  ] as const;
  const { header, places, size } = layOutGguf(new Map(), entries);
  assert.equal(header.length % 32, 0);
  const at = (name: string) => [places.get(name)!.begin - header.length, places.get(name)!.end - header.length];
  assert.deepEqual(at("a"), [0, 3 * 2 * 34]);
  assert.deepEqual(at("b"), [224, 226]);
  assert.deepEqual(at("c"), [256, 256 + 144]);
  assert.equal(size - header.length, 416);
});

test("what llama.cpp would not read is refused", () => {
  const f = (name: string, dtype: keyof typeof GGML_TYPES, shape: number[]) => () =>
    layOutGguf(new Map(), [{ name, dtype, shape }]);
  assert.throws(f("a", "q8_0", [2, 33]), says(ShapeError, "writeGguf", '"a"', "multiple of 32 in q8_0"));
  assert.throws(f("a", "float32", [1, 1, 1, 1, 1]), says(ShapeError, "1 to 4 dimensions"));
  assert.throws(f("a".repeat(64), "float32", [1]), says(ArgumentError, "63 bytes"));
  const twice = [
    { name: "a", dtype: "float32", shape: [1] },
    { name: "a", dtype: "float32", shape: [1] },
  ] as const;
  assert.throws(() => layOutGguf(new Map(), twice), says(ArgumentError, '"a"', "twice"));
  assert.throws(
    () => serializeGguf(new Map(), [{ name: "a", dtype: "float32", shape: [2], bytes: new Uint8Array(4) }]),
    says(ShapeError, "4 bytes", "8"),
  );
});

test.run();
