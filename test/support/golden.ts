/** Reference cases written by PyTorch and loralib (test/fixtures/README.md), read without our own reader. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { compareBits } from "./bits.js";
import { ROOT } from "./root.js";

const fixtures = new URL("test/fixtures/", ROOT);

export interface GoldenTensor {
  dtype: string;
  shape: number[];
  data: Float32Array | BigInt64Array | Uint8Array;
}
export interface Golden {
  name: string;
  metadata: Record<string, string>;
  tensors: Map<string, GoldenTensor>;
}

/** For `readGolden`, of those in `folder` ("" or ending in a slash) that start with the prefix. */
export function goldenNames(prefix: string, folder = ""): string[] {
  return readdirSync(new URL(folder, fixtures))
    .filter((f) => f.startsWith(prefix) && f.endsWith(".safetensors"))
    .map((f) => folder + f.replace(".safetensors", ""))
    .sort();
}

export function readGolden(name: string): Golden {
  const file = readFileSync(new URL(`${name}.safetensors`, fixtures));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(file.toString("utf8", 8, 8 + headerBytes));
  const tensors = new Map<string, GoldenTensor>();
  for (const [
    key,
    {
      dtype,
      shape,
      data_offsets: [from, to],
    },
  ] of Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(entries)) {
    const bytes = new Uint8Array(file.subarray(8 + headerBytes + from, 8 + headerBytes + to)).buffer;
    const values = { I64: BigInt64Array, U8: Uint8Array }[dtype] ?? Float32Array;
    tensors.set(key, { dtype, shape, data: new values(bytes) });
  }
  return { name, metadata, tensors };
}

export function f32(g: Golden, key: string): { shape: number[]; data: Float32Array } {
  const t = g.tensors.get(key);
  assert(t?.data instanceof Float32Array, `${g.name} has no float tensor ${key}`);
  return { shape: t.shape, data: t.data };
}

export function ints(g: Golden, key: string): { shape: number[]; data: Int32Array } {
  const t = g.tensors.get(key);
  assert(t?.data instanceof BigInt64Array, `${g.name} has no integer tensor ${key}`);
  return { shape: t.shape, data: Int32Array.from(t.data, Number) };
}

/** |a - b| <= relative * max|b| + absolute, elementwise; the fixtures' tolerance for sums of float32. */
export function assertClose(
  label: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  relative = 1e-5,
  absolute = 1e-6,
): void {
  assert.equal(actual.length, expected.length, `${label}: length`);
  let largest = 0;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i]!));
  const bound = relative * largest + absolute;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (!(difference <= bound))
      assert.fail(`${label}[${i}]: got ${actual[i]}, expected ${expected[i]}: off by ${difference}, bound ${bound}`);
  }
}

/** Equal bits, a NaN's too. */
export function assertBits(label: string, actual: Float32Array, expected: Float32Array): void {
  compareBits(actual, expected, actual.length, false, () => label);
}
