/** A run's state as bytes: what is read is what was written, and every damage is noticed. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, DivergedError, FormatError, init, io, train } from "../../../src/index.js";
import { says } from "../../support/refuses.js";

await init();

const values = (n: number, by: number): Float32Array => Float32Array.from({ length: n }, (_, i) => ((i + 1) * by) / 7);
const state: train.FinetuningState = {
  arithmetic: "separate",
  metrics: [5.5, 4.1 + 0.2, 4].map((loss, i) => ({
    step: i + 1,
    epoch: (i + 1) / 3,
    loss,
    gradNorm: loss / 3,
    learningRate: 0.005 / (i + 1),
    tokens: 100 + i,
    scored: 90 - i,
  })),
  evaluations: [
    { step: 0, loss: 5.6 },
    { step: 3, loss: 4.2 },
  ],
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
const notes = { settings: { steps: 3, lr: 0.1 }, sample: "The whale \u00e9", before: [4.5, null] };
const bytes = train.encodeCheckpoint(state, notes);

/** The file with other metadata, or other tensors. */
function changed(
  change: (metadata: Record<string, string>, tensors: io.TensorToWrite[]) => void,
  { resealed = true } = {},
): Uint8Array {
  const { metadata, tensors } = io.parseSafetensors(bytes);
  const list = [...tensors.values()].map(({ name, dtype, shape, bytes }) => ({
    name,
    dtype,
    shape,
    data: bytes.slice(),
  }));
  change(metadata, list);
  delete metadata["digest"];
  if (resealed)
    metadata["digest"] = io.digestOfTensors(
      list.map((t) => ({ ...t, bytes: t.data })),
      metadata,
    );
  return io.serializeSafetensors(list, metadata);
}

test("what is read is what was written", () => {
  assert.deepEqual(train.decodeCheckpoint(bytes), { state, notes });
  assert.deepEqual(train.decodeCheckpoint(train.encodeCheckpoint(state)), { state, notes: {} });
  const best = { ...state, bestFactors: new Map([["q.lora_A", { shape: [2, 8], data: values(16, 9) }]]) };
  assert.deepEqual(train.decodeCheckpoint(train.encodeCheckpoint(best)).state, best);
  const ofText = { ...state, metrics: state.metrics.map((m) => ({ ...m, epoch: null })) };
  assert.deepEqual(train.decodeCheckpoint(train.encodeCheckpoint(ofText)).state, ofText);
});

test("the same state gives the same bytes, which are a safetensors file with a digest", () => {
  assert.deepEqual(train.encodeCheckpoint(state, notes), bytes);
  const { metadata, tensors } = io.parseSafetensors(bytes);
  assert.equal(metadata["format"], "wasm-lora-run");
  assert.equal(metadata["digest"], io.digestOfTensors(tensors.values(), metadata));
});

test("of the arithmetic, fused is written, and nothing of the default", () => {
  const fused = { ...state, arithmetic: "fused" as const };
  const written = train.encodeCheckpoint(fused, notes);
  assert.deepEqual(train.decodeCheckpoint(written), { state: fused, notes });
  const runIn = (file: Uint8Array) => JSON.parse(io.parseSafetensors(file).metadata["run"]!) as object;
  assert.deepEqual(runIn(written), { ...runIn(bytes), arithmetic: "fused" });
  assert(!("arithmetic" in runIn(bytes)));
  assert.throws(() => train.encodeCheckpoint({ ...state, arithmetic: "relaxed" as never }), ArgumentError);
});

test("a file without a digest is not taken on trust", () => {
  assert.throws(
    () =>
      train.decodeCheckpoint(
        changed(() => {}, { resealed: false }),
        "c",
      ),
    says(FormatError, "c: it is"),
  );
});

test("a bit that flipped in any byte, and every cut, is noticed", () => {
  const damaged = bytes.slice();
  for (let i = 0; i < bytes.length; i++) {
    damaged[i]! ^= 1 << (i % 8);
    assert.throws(() => train.decodeCheckpoint(damaged, "c"), says(FormatError, "c"), `byte ${i} is not noticed`);
    damaged[i] = bytes[i]!;
  }
  for (let length = 0; length < bytes.length; length += 11)
    assert.throws(() => train.decodeCheckpoint(bytes.subarray(0, length)), FormatError);
});

test("nothing that is not finite is written, or read", () => {
  const bad = (change: Partial<train.FinetuningState>): train.FinetuningState => ({ ...state, ...change });
  const step = (number: number, change: Partial<train.StepMetrics>): train.StepMetrics[] =>
    state.metrics.map((m) => (m.step === number ? { ...m, ...change } : m));
  const entry = (value: number) => ({ shape: [2], data: Float32Array.of(1, value) });
  for (const [diverged, reason] of [
    [bad({ metrics: step(2, { loss: NaN }) }), "the loss of step 2 is NaN"],
    [bad({ metrics: step(3, { gradNorm: Infinity }) }), "the gradNorm of step 3 is Infinity"],
    [bad({ evaluations: [{ step: 3, loss: NaN }] }), "the held-out loss after step 3 is NaN"],
    [bad({ bestFactors: new Map([["f", entry(NaN)]]) }), "the best factor f holds NaN"],
    [bad({ factors: new Map([["f", entry(NaN)]]) }), "factor f holds NaN"],
    [bad({ optimizer: new Map([["0.expAvg", entry(-Infinity)]]) }), "the optimiser's state 0.expAvg holds -Infinity"],
  ] as const)
    assert.throws(
      () => train.encodeCheckpoint(diverged),
      (error) => error instanceof DivergedError && error.reason === reason,
    );
  const file = changed((_, tensors) => {
    const { data } = tensors.find(({ name }) => name === "factors.q.lora_B")!;
    new Float32Array(data.buffer)[5] = Infinity;
  });
  assert.throws(() => train.decodeCheckpoint(file), {
    name: "FormatError",
    message: "checkpoint: factor q.lora_B holds Infinity: the run had diverged.",
  });
});

test("notes keep to names of their own, and to what JSON holds", () => {
  const circle: Record<string, unknown> = {};
  circle["circle"] = circle;
  for (const wrong of [null, 3, "a", [], { n: 1n }, circle])
    assert.throws(() => train.encodeCheckpoint(state, wrong as never), ArgumentError);
  for (const wrong of [undefined, null, {}, { ...state, factors: { f: 1 } }, { ...state, metrics: [3] }])
    assert.throws(() => train.encodeCheckpoint(wrong as never), ArgumentError);
  for (const name of ["arithmetic", "step", "evaluations", "hasBest"])
    assert.throws(() => train.encodeCheckpoint(state, { [name]: 1 }), ArgumentError);
});

test("other files, and counters that cannot be, are refused", () => {
  const run = JSON.parse(io.parseSafetensors(bytes).metadata["run"]!);
  const withRun = (text: string): Uint8Array =>
    changed((metadata) => {
      metadata["run"] = text;
    });
  const withCounter = (counter: object): Uint8Array => withRun(JSON.stringify({ ...run, ...counter }));
  for (const [file, message] of [
    [io.serializeSafetensors([], { format: "pt" }), /^r: not the checkpoint of a run \(its metadata's format is pt\)/],
    [io.serializeSafetensors([]), /format is absent/],
    [
      changed(
        (_, tensors) =>
          void tensors.splice(
            tensors.findIndex(({ name }) => name === "metrics"),
            1,
          ),
      ),
      /not the checkpoint of a run/,
    ],
    [withCounter({ step: 2 }), /3 steps' metrics; expected those of 2/],
    [withCounter({ step: "3" }), /lacks step/],
    [withCounter({ step: undefined }), /lacks step/],
    [withCounter({ arithmetic: "separate" }), /has arithmetic "separate"; expected "fused", or none/],
    [withCounter({ arithmetic: null }), /has arithmetic null/],
    [withCounter({ hasBest: 1 }), /lacks step, a count, hasBest/],
    [withCounter({ evaluations: {} }), /or evaluations/],
    [withCounter({ evaluations: [{ step: 0.5, loss: 1 }] }), /or evaluations/],
    [withCounter({ evaluations: [{ step: 0, loss: null }] }), /or evaluations/],
    [
      changed((_, tensors) => {
        tensors.find(({ name }) => name === "metrics")!.shape = [7, 3];
      }),
      /its metrics are F64 of shape \[7,3\]; expected F64 of 7 columns/,
    ],
    [withRun(""), /is not JSON/],
    [withRun("{"), /is not JSON/],
    [withRun("[".repeat(10_000)), /is not JSON/],
    [withRun("null"), /is no object/],
    [withRun("[]"), /is no object/],
    [withRun('"x"'), /is no object/],
    [new TextEncoder().encode("Call me Ishmael."), /^r/],
  ] as const)
    assert.throws(() => train.decodeCheckpoint(file, "r"), { name: "FormatError", message });
});

test.run();
