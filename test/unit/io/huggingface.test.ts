/** src/io/huggingface.ts: weights in one file and in shards. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { loadWeights } from "../../../src/io/huggingface.js";
import { serializeSafetensors, type TensorToWrite } from "../../../src/io/safetensors.js";
import { FileError, FormatError } from "../../../src/runtime/errors.js";
import { says } from "../../support/refuses.js";

const folder = mkdtempSync(join(tmpdir(), "huggingface-"));
test.after(() => rmSync(folder, { recursive: true }));

const tensor = (name: string, ...values: number[]): TensorToWrite => ({
  name,
  dtype: "F32",
  shape: [values.length],
  data: Float32Array.from(values),
});

/** A checkpoint folder from shards, with an index unless one file is named model.safetensors. */
function checkpoint(files: Record<string, TensorToWrite[]>, weightMap?: object): string {
  const directory = mkdtempSync(join(folder, "checkpoint-"));
  for (const [name, tensors] of Object.entries(files))
    writeFileSync(join(directory, name), serializeSafetensors(tensors));
  if (weightMap)
    writeFileSync(
      join(directory, "model.safetensors.index.json"),
      JSON.stringify({ metadata: { total_size: 1 }, weight_map: weightMap }),
    );
  return directory;
}

function refuses(directory: string, ...words: string[]): void {
  assert.throws(() => loadWeights(directory), says(FormatError, ...words));
}

const S1 = "model-00001-of-00002.safetensors";
const S2 = "model-00002-of-00002.safetensors";

test("one file: its tensors as float32, a BF16 one too", () => {
  const half: TensorToWrite = { name: "h", dtype: "BF16", shape: [1, 2], data: Float32Array.of(0.5, -2) };
  const weights = loadWeights(checkpoint({ "model.safetensors": [tensor("a", 1, 2), half] }));
  assert.deepEqual(
    weights,
    new Map([
      ["a", { shape: [2], data: Float32Array.of(1, 2) }],
      ["h", { shape: [1, 2], data: Float32Array.of(0.5, -2) }],
    ]),
  );
});

test("shards: all tensors of the index, names of Object.prototype among them", () => {
  const files = { [S1]: [tensor("a", 1), tensor("__proto__", 2)], [S2]: [tensor("b", 3)] };
  const weightMap = JSON.parse(`{"a": "${S1}", "b": "${S2}", "__proto__": "${S1}"}`);
  const weights = loadWeights(checkpoint(files, weightMap));
  assert.deepEqual([...weights].map(([name, { data }]) => [name, ...data]).sort(), [
    ["__proto__", 2],
    ["a", 1],
    ["b", 3],
  ]);
});

test("tensors that are not wanted are left out, whatever their dtype, but not their places in the index", () => {
  const mask: TensorToWrite = { name: "mask", dtype: "U8", shape: [1], data: Uint8Array.of(1) };
  const wanted = (name: string): boolean => name !== "mask";
  const one = checkpoint({ "model.safetensors": [tensor("a", 1), mask] });
  const shards = checkpoint({ [S1]: [tensor("a", 1)], [S2]: [mask] }, { a: S1, mask: S2 });
  for (const directory of [one, shards]) assert.deepEqual([...loadWeights(directory, wanted).keys()], ["a"]);
  assert.throws(
    () => loadWeights(one),
    (e: unknown) => e instanceof FormatError && e.message.includes("mask"),
  );
  assert.throws(() => loadWeights(checkpoint({ [S1]: [tensor("a", 1)] }, { a: S1, mask: S1 }), wanted), FormatError);
});

test("one file is preferred to an index, as transformers does", () => {
  const directory = checkpoint({ "model.safetensors": [tensor("a", 1)] }, { b: "none.safetensors" });
  assert.deepEqual([...loadWeights(directory).keys()], ["a"]);
});

test("an index that does not fit its shards names the tensor", () => {
  refuses(
    checkpoint({ [S1]: [tensor("a", 1)] }, { a: S1, "model.norm.weight": S1 }),
    "model.norm.weight",
    "missing",
    S1,
  );
  refuses(checkpoint({ [S1]: [tensor("a", 1), tensor("extra", 1)] }, { a: S1 }), "extra", "does not list it");
  refuses(
    checkpoint({ [S1]: [tensor("a", 1)], [S2]: [tensor("b", 1), tensor("a", 2)] }, { a: S1, b: S2 }),
    '"a"',
    S1,
    S2,
  );
  refuses(
    checkpoint({ [S1]: [{ ...tensor("ids", 1), dtype: "I32", data: Int32Array.of(1) }] }, { ids: S1 }),
    "ids",
    "I32",
  );
});

test("shard names that are not plain names are refused", () => {
  const names = [
    "../x.safetensors",
    "/etc/x.safetensors",
    "a/b.safetensors",
    "a\\b.safetensors",
    "C:x.safetensors",
    "..",
    "",
    ".safetensors",
    "x.bin",
    "x.safetensors\0",
    "x.safetensors\n",
    `${"x".repeat(300)}.safetensors`,
    1,
    null,
    ["x.safetensors"],
  ];
  for (const name of names) refuses(checkpoint({}, { a: name }), "index.json", '"a"');
});

test("missing files and wrong indices", () => {
  const isFileError =
    (word: string) =>
    (error: unknown): boolean =>
      error instanceof FileError && error.message.includes(word);
  assert.throws(() => loadWeights(checkpoint({})), isFileError("neither model.safetensors nor"));
  assert.throws(() => loadWeights(checkpoint({}, { a: S1 })), isFileError(S1));
  for (const text of ["[]", "{}", '{"weight_map": []}', '{"weight_map": null}']) {
    const directory = checkpoint({});
    writeFileSync(join(directory, "model.safetensors.index.json"), text);
    refuses(directory, "weight_map");
  }
});

test.run();
