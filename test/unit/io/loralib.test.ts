/**
 * src/io/loralib/state.ts. The state dicts are loralib's own, from test/fixtures (lora_state_dict after 50 steps of
 * training).
 */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { loadLoralib, loralibFactor, type LoralibState, saveLoralib } from "../../../src/io/loralib/state.js";
import { parseSafetensors, serializeSafetensors, type TensorToWrite } from "../../../src/io/safetensors.js";
import { ArgumentError, FileError, FormatError } from "../../../src/runtime/errors.js";
import { f32, goldenNames, readGolden } from "../../support/golden.js";

const folder = mkdtempSync(join(tmpdir(), "loralib-"));
test.after(() => rmSync(folder, { recursive: true }));
let count = 0;
const newPath = (): string => join(folder, `${count++}.safetensors`);

const zeros = (...shape: number[]) => ({ shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)) });
const stateOf = (entries: Record<string, number[]>): LoralibState =>
  new Map(Object.entries(entries).map(([key, shape]) => [key, zeros(...shape)]));

test("loralib's trained states go through a file unchanged", () => {
  let states = 0;
  for (const name of goldenNames("train_")) {
    const golden = readGolden(name);
    const state: LoralibState = new Map(
      [...golden.tensors.keys()]
        .filter((key) => key.startsWith("final.") && (key.includes("lora_") || key.includes("bias")))
        .map((key) => [key.slice("final.".length), f32(golden, key)]),
    );
    if (state.size === 0) continue;
    states++;
    const path = newPath();
    saveLoralib(path, state);
    const back = loadLoralib(path);
    assert.equal(back.size, state.size);
    for (const [key, { shape, data }] of state) assert.deepEqual(back.get(key), { shape, data }, `${name} ${key}`);
  }
  assert.ok(states > 0);
});

test("the same state gives the same bytes in any order", () => {
  const state = stateOf({
    "b.lora_B": [4, 2],
    "b.lora_A": [2, 3],
    "a.lora_A": [2, 3],
    "a.lora_B": [4, 2],
    "a.bias": [4],
  });
  const [one, other] = [newPath(), newPath()];
  saveLoralib(one, state);
  saveLoralib(other, new Map([...state].reverse()));
  assert.deepEqual(readFileSync(one), readFileSync(other));
  assert.deepEqual({ ...parseSafetensors(readFileSync(one)).metadata }, { format: "pt" });
});

test("halves become float32", () => {
  const path = newPath();
  const half = (name: string, shape: number[]): TensorToWrite => ({
    name,
    dtype: "BF16",
    shape,
    data: new Float32Array(shape[0]! * shape[1]!).fill(1.5),
  });
  writeFileSync(path, serializeSafetensors([half("lora_A", [1, 2]), half("lora_B", [3, 1])]));
  assert.deepEqual(loadLoralib(path).get("lora_B"), { shape: [3, 1], data: Float32Array.of(1.5, 1.5, 1.5) });
});

test("keys say module and factor", () => {
  assert.deepEqual(loralibFactor("h.0.attn.lora_A"), { module: "h.0.attn", factor: "A" });
  assert.deepEqual(loralibFactor("lora_B"), { module: "", factor: "B" });
  for (const key of ["h.lora_A.weight", "h.lora_C", "xlora_A", "h.lora_Ax"])
    assert.equal(loralibFactor(key), null, key);
});

const accepted: Record<string, Record<string, number[]>> = {
  "a layer that is the model": { lora_A: [2, 3], lora_B: [4, 2] },
  "MergedLinear: A has the rows of all blocks": { "q.lora_A": [4, 3], "q.lora_B": [8, 2] },
  "an embedding: A is (r, V)": { "wte.lora_A": [2, 50], "wte.lora_B": [8, 2] },
  "biases, a convolution's twice": {
    "c.lora_A": [6, 9],
    "c.lora_B": [12, 6],
    "c.bias": [4],
    "c.conv.bias": [4],
    "norm.bias": [4],
  },
  nothing: {},
};
for (const [what, entries] of Object.entries(accepted)) {
  test(`accepted: ${what}`, () => {
    const path = newPath();
    saveLoralib(path, stateOf(entries));
    assert.equal(loadLoralib(path).size, Object.keys(entries).length);
  });
}

const PAIR = { "q.lora_A": [2, 3], "q.lora_B": [4, 2] };
const refused: Record<string, [Record<string, number[]>, string[]]> = {
  "PEFT's names": [
    { "base_model.model.q.lora_A.weight": [2, 3], "base_model.model.q.lora_B.weight": [4, 2] },
    ["readPeftAdapter"],
  ],
  "PEFT's names without their prefix": [{ ...PAIR, "k.lora_A.weight": [2, 3] }, ["k.lora_A.weight", "readPeftAdapter"]],
  "PEFT's embedding": [{ "wte.lora_embedding_A": [2, 3] }, ["wte.lora_embedding_A", "readPeftAdapter"]],
  "PEFT's magnitude": [{ ...PAIR, "q.lora_magnitude_vector": [4] }, ["lora_magnitude_vector", "readPeftAdapter"]],
  "PEFT's bias": [{ ...PAIR, "base_model.model.q.base_layer.bias": [4] }, ["readPeftAdapter"]],
  "a weight": [{ ...PAIR, "q.weight": [4, 3] }, ["q.weight", "neither"]],
  "A without B": [{ "q.lora_A": [2, 3] }, ['no partner "q.lora_B"']],
  "B without A": [{ "q.lora_B": [4, 2] }, ['no partner "q.lora_A"']],
  "one dimension": [{ "q.lora_A": [2], "q.lora_B": [4, 2] }, ["q.lora_A", "[2]"]],
  "four dimensions": [{ "q.lora_A": [2, 3], "q.lora_B": [4, 2, 1, 1] }, ["q.lora_B", "[4,2,1,1]"]],
  "rank 0": [{ "q.lora_A": [0, 3], "q.lora_B": [4, 0] }, ["q.lora_A", "[0,3]"]],
  "ranks that no layer has": [{ "q.lora_A": [3, 3], "q.lora_B": [4, 2] }, ["q.lora_A", "multiple of 2"]],
};
for (const [what, [entries, words]] of Object.entries(refused)) {
  test(`refused: ${what}`, () => {
    const names = (error: unknown, kind: typeof ArgumentError | typeof FormatError): boolean =>
      error instanceof kind && words.every((word) => error.message.includes(word));
    const path = newPath();
    assert.throws(
      () => saveLoralib(path, stateOf(entries)),
      (error: unknown) => names(error, ArgumentError),
    );
    assert.ok(!existsSync(path), "nothing was written");
    writeFileSync(
      path,
      serializeSafetensors([...stateOf(entries)].map(([name, tensor]) => ({ name, dtype: "F32", ...tensor }))),
    );
    assert.throws(
      () => loadLoralib(path),
      (error: unknown) => names(error, FormatError) && (error as Error).message.startsWith(path),
    );
  });
}

test("a missing and a damaged file", () => {
  const path = newPath();
  assert.throws(
    () => loadLoralib(path),
    (error: unknown) => error instanceof FileError && error.message.includes(path),
  );
  writeFileSync(path, "x");
  assert.throws(
    () => loadLoralib(path),
    (error: unknown) => error instanceof FormatError && error.message.includes(path),
  );
});

test.run();
