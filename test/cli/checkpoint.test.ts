/** Checkpoints of a run on the disk: each damage is noticed, the one before is there, settings are judged. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import {
  findCheckpoint,
  hasCheckpoint,
  readCheckpoint,
  saveCheckpoint,
  type Checkpoint,
} from "../../src/cli/checkpoint.js";
import { FINETUNE_DEFAULTS, settingsOf } from "../../src/cli/settings.js";
import { digestOfTensors } from "../../src/io/digest.js";
import { parseSafetensors, serializeSafetensors } from "../../src/io/safetensors.js";
import { DivergedError, FormatError } from "../../src/runtime/errors.js";
import { temporaryFolder } from "../support/cli.js";

const folder = temporaryFolder();
const path = join(folder, "checkpoint.safetensors");
const previous = join(folder, "checkpoint.previous.safetensors");
const values = (n: number, by: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(i * by));
const run: Checkpoint = {
  settings: settingsOf({ ...FINETUNE_DEFAULTS, model: "m", data: "d" }, "text", new Set()),
  inputs: "abc",
  samplesBefore: ["The whale \u00e9"],
  arithmetic: "separate",
  metrics: [5.5, 4.25, 4].map((loss, i) => ({
    step: i + 1,
    epoch: null,
    loss,
    gradNorm: 1.5,
    learningRate: 0.005,
    tokens: 1024,
    scored: 1024,
  })),
  evaluations: [],
  bestFactors: null,
  factors: new Map([
    ["q.lora_A", { shape: [2, 8], data: values(16, 1) }],
    ["q.lora_B", { shape: [8, 2], data: values(16, 2) }],
  ]),
  optimizer: new Map(
    ["0.expAvg", "0.expAvgSq", "1.expAvg", "1.expAvgSq"].map((name, i) => [
      name,
      { shape: [16], data: values(16, i + 3) },
    ]),
  ),
};
const at = (step: number): Checkpoint => ({ ...run, metrics: run.metrics.slice(0, step) });
/** 31-bit linear congruential numbers, 0 .. 1. */
function random(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) / 0x80000000;
}

test("what is read is what was written, and the one before stays beside it", () => {
  assert.equal(hasCheckpoint(folder), false);
  for (const step of [1, 2, 3]) saveCheckpoint(folder, at(step), true);
  assert.deepEqual(readCheckpoint(path), run);
  assert.deepEqual(readCheckpoint(previous), at(2));
  assert.deepEqual(readdirSync(folder).sort(), ["checkpoint.previous.safetensors", "checkpoint.safetensors"]);
});

/** In a proof 200 of each (npm run proofs). */
const TIMES = process.env["WASM_LORA_PROOFS"] ? 200 : 30;

test("flipped bits in the header, in each kind of tensor, cuts: all noticed, and the one before is given", () => {
  const whole = readFileSync(path);
  const { tensors } = parseSafetensors(whole);
  const dataStart = 8 + Number(whole.readBigUInt64LE(0));
  const next = random(1);
  const regions = new Map([["header", [[0, dataStart]]]]);
  for (const kind of ["metrics", "factors", "optimizer"]) {
    regions.set(
      kind,
      [...tensors.values()]
        .filter((t) => t.name.startsWith(kind))
        .map((t) => [t.bytes.byteOffset - whole.byteOffset, t.bytes.byteOffset - whole.byteOffset + t.bytes.length]),
    );
  }
  const notice = (bytes: Uint8Array, what: string): void => {
    writeFileSync(path, bytes);
    const { checkpoint, damage } = findCheckpoint(folder);
    assert.ok(damage instanceof FormatError && damage.message.startsWith(path), what);
    assert.deepEqual(checkpoint, at(2), what);
  };
  for (const [kind, ranges] of regions) {
    for (let i = 0; i < TIMES; i++) {
      const [from, to] = ranges[Math.floor(next() * ranges.length)] as [number, number];
      const bytes = Buffer.from(whole);
      const byte = from + Math.floor(next() * (to - from));
      bytes[byte]! ^= 1 << Math.floor(next() * 8);
      notice(bytes, `${kind}, byte ${byte}`);
    }
  }
  for (let i = 0; i < TIMES; i++) notice(whole.subarray(0, Math.floor(next() * whole.length)), "cut");
  writeFileSync(path, whole);
  assert.equal(findCheckpoint(folder).damage, undefined);
});

test("both damaged: one error that names both; the newest missing: the one before it", () => {
  const whole = readFileSync(path);
  const before = readFileSync(previous);
  writeFileSync(path, "x");
  writeFileSync(previous, "y");
  assert.throws(
    () => findCheckpoint(folder),
    (error: unknown) =>
      error instanceof FormatError && error.message.includes(path) && error.message.includes(previous),
  );
  writeFileSync(previous, before);
  rmSync(path);
  assert.deepEqual(findCheckpoint(folder).checkpoint, at(2));
  assert.equal(hasCheckpoint(folder), true);
  writeFileSync(path, whole);
});

test("a damaged checkpoint does not take the place of the one before it", () => {
  writeFileSync(path, "damaged");
  saveCheckpoint(folder, at(3), false);
  assert.deepEqual([readCheckpoint(path), readCheckpoint(previous)], [run, at(2)]);
});

test("a state that diverged is not written: what is there stays", () => {
  const was = readFileSync(path);
  const metrics = run.metrics.map((m) => ({ ...m, loss: NaN }));
  assert.throws(() => saveCheckpoint(folder, { ...run, metrics }, true), DivergedError);
  assert.deepEqual(readFileSync(path), was);
  assert.equal(readdirSync(folder).length, 2);
});

test("settings of a stranger are judged as options are", () => {
  saveCheckpoint(folder, run, false);
  const { metadata, tensors } = parseSafetensors(readFileSync(path));
  const list = [...tensors.values()].map((t) => ({ name: t.name, dtype: t.dtype, shape: t.shape, data: t.bytes }));
  const sound = JSON.parse(metadata["run"]!);
  const write = (text: string): void => {
    const said = { format: metadata["format"]!, run: text };
    const digest = digestOfTensors(tensors.values(), said);
    writeFileSync(path, serializeSafetensors(list, { ...said, digest }));
  };
  const changed = (change: (run: any) => void): string => {
    const copy = structuredClone(sound);
    change(copy);
    return JSON.stringify(copy);
  };
  write(changed(() => {}));
  assert.deepEqual(readCheckpoint(path), run);
  const cases: [change: (run: any) => void, message: RegExp][] = [
    [
      (r) => {
        r.settings.batch = 1e18;
      },
      /setting batch/,
    ],
    [
      (r) => {
        r.settings.batch = "8";
      },
      /setting batch/,
    ],
    [
      (r) => {
        r.settings.seed = -1;
      },
      /setting seed/,
    ],
    [
      (r) => {
        r.settings.model = { length: 1 };
      },
      /setting model/,
    ],
    [
      (r) => {
        r.settings.dropout = 2;
      },
      /setting dropout/,
    ],
    [
      (r) => {
        r.settings.evil = 1;
      },
      /no setting "evil"/,
    ],
    [
      (r) => {
        r.settings = [];
      },
      /expected an object/,
    ],
    [
      (r) => {
        r.settings.steps = 2;
      },
      /of step 3, but the run has 2/,
    ],
    [
      (r) => {
        r.samplesBefore = ["a", 1];
      },
      /samplesBefore/,
    ],
    [
      (r) => {
        r.inputs = 5;
      },
      /inputs/,
    ],
  ];
  for (const [change, message] of cases) {
    write(changed(change));
    assert.throws(
      () => readCheckpoint(path),
      (error: unknown) => error instanceof FormatError && message.test(error.message),
      `${message}`,
    );
  }
});

test.run();
