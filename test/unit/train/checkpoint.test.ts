/** A run's state as bytes: what is read is what was written, and every damage is noticed. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, DivergedError, FormatError, init, io, train } from "../../../src/index.js";

await init();

const values = (n: number, by: number): Float32Array => Float32Array.from({ length: n }, (_, i) => ((i + 1) * by) / 7);
const state: train.FinetuningState = {
  losses: [5.5, 4.25, 4],
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
  dropoutStream: 12,
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
});

test("the same state gives the same bytes, which are a safetensors file with a digest", () => {
  assert.deepEqual(train.encodeCheckpoint(state, notes), bytes);
  const { metadata, tensors } = io.parseSafetensors(bytes);
  assert.equal(metadata["format"], "wasm-lora-run");
  assert.equal(metadata["digest"], io.digestOfTensors(tensors.values(), metadata));
});

test("a file without a digest, as it was written once, is read", () => {
  assert.deepEqual(train.decodeCheckpoint(changed(() => {}, { resealed: false })), { state, notes });
});

test("a bit that flipped in any byte, and every cut, is noticed", () => {
  const damaged = bytes.slice();
  for (let i = 0; i < bytes.length; i++) {
    damaged[i]! ^= 1 << (i % 8);
    try {
      // In the name of the digest's own entry: it is a file without one then, and nothing else in it is other.
      assert.deepEqual(train.decodeCheckpoint(damaged, "c"), { state, notes }, `byte ${i} is not noticed`);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      assert(error.message.startsWith("c"), error.message);
    }
    damaged[i] = bytes[i]!;
  }
  for (let length = 0; length < bytes.length; length += 11)
    assert.throws(() => train.decodeCheckpoint(bytes.subarray(0, length)), FormatError);
});

test("nothing that is not finite is written, or read", () => {
  const bad = (change: Partial<train.FinetuningState>): train.FinetuningState => ({ ...state, ...change });
  const entry = (value: number) => ({ shape: [2], data: Float32Array.of(1, value) });
  for (const [diverged, reason] of [
    [bad({ losses: [1, NaN, 2] }), "the loss of step 2 is NaN"],
    [bad({ losses: [1, 2, Infinity] }), "the loss of step 3 is Infinity"],
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
  for (const wrong of [undefined, null, {}, { ...state, factors: { f: 1 } }])
    assert.throws(() => train.encodeCheckpoint(wrong as never), ArgumentError);
  for (const name of ["step", "dropoutStream"])
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
            tensors.findIndex(({ name }) => name === "losses"),
            1,
          ),
      ),
      /not the checkpoint of a run/,
    ],
    [withCounter({ step: 2 }), /3 losses; expected one for each of 2 steps/],
    [withCounter({ step: "3" }), /lacks step or dropoutStream/],
    [withCounter({ step: undefined }), /lacks step/],
    [withCounter({ dropoutStream: -1 }), /lacks step or dropoutStream/],
    [withCounter({ dropoutStream: 0.5 }), /lacks step or dropoutStream/],
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
