/** Files beyond what 32 bits count, and beyond what one array holds: sparse ones, which take no room on the disk. */
import assert from "node:assert/strict";
import {
  closeSync,
  createReadStream,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "uvu";
import { FormatError, init, io, memoryStats, models } from "../../src/index.js";
import { openFile } from "../../src/io/files.js";
import { succeed } from "../support/cli.js";

await init();
const folder = mkdtempSync(join(tmpdir(), "large-file-"));
test.after(() => rmSync(folder, { recursive: true }));

const GIB = 2 ** 30;
const CONFIG = {
  model_type: "llama",
  vocab_size: 8,
  hidden_size: 4,
  intermediate_size: 2,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  tie_word_embeddings: true,
};
const model = new models.Llama({
  vocabSize: 8,
  hiddenSize: 4,
  intermediateSize: 2,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 2,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10_000 },
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
});
const state = model.stateDict();
const path = join(folder, "model.safetensors");

/** A buffer of 5 GiB that no model keeps, which nothing is written of, and the weights behind it. */
const entries = [
  { name: "model.layers.0.self_attn.rotary_emb.inv_freq", shape: [5 * (GIB / 4)], data: undefined },
  ...Array.from(state, ([name, entry]) => ({ name, ...entry })),
];
const header: Record<string, unknown> = {};
let end = 0;
for (const { name, shape } of entries) {
  const begin = end;
  end += 4 * shape.reduce((a, b) => a * b, 1);
  header[name] = { dtype: "F32", shape, data_offsets: [begin, end] };
}
const text = new TextEncoder().encode(JSON.stringify(header));
const start = new Uint8Array(8 + text.length);
new DataView(start.buffer).setBigUint64(0, BigInt(text.length), true);
start.set(text, 8);
const size = start.length + end;
const fd = openSync(path, "w");
writeSync(fd, start);
ftruncateSync(fd, size);
let at = start.length;
for (const { shape, data } of entries) {
  if (data) writeSync(fd, new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 0, data.byteLength, at);
  at += 4 * shape.reduce((a, b) => a * b, 1);
}
closeSync(fd);
writeFileSync(join(folder, "config.json"), JSON.stringify(CONFIG));

const states = (loaded: models.AnyLoadedModel): unknown => loaded.model.stateDict();

test("any place of it is read", () => {
  const file = openFile(path);
  assert.equal(file.size, size);
  const last = new Uint8Array(16);
  file.read(size - 16, last);
  const { data } = [...state.values()].at(-1)!;
  assert.deepEqual(new Float32Array(last.buffer), data.subarray(-4));
  file.close();
  file.close();
});

test("a model whose weights lie behind 5 GiB loads, from the disk and from a picked folder", async () => {
  assert.deepEqual(states(models.loadModel(folder)), state);
  const weights = io.loadWeights(folder, (name) => name.endsWith("norm.weight"));
  assert.deepEqual(weights.get("model.norm.weight"), state.get("model.norm.weight"));
  // Not by openAsBlob: Node 20's counts in 32 bits.
  const files = ["config.json", "model.safetensors"].map((name) => ({
    name,
    size: statSync(join(folder, name)).size,
    slice: (start: number) => ({ stream: () => Readable.toWeb(createReadStream(join(folder, name), { start })) }),
  }));
  const seen: models.LoadProgress[] = [];
  const picked = await models.openModel(files as unknown as File[], { onProgress: (progress) => seen.push(progress) });
  assert.deepEqual(states(picked), state);
  assert.deepEqual(seen.at(-1), { file: "model.safetensors", loaded: size, total: size });
  assert.ok(memoryStats().reservedBytes < GIB);
});

test("it is refused by its header alone where it is cut off, and shown by inspect", async () => {
  const { stdout } = await succeed(folder, ["inspect", path]);
  assert.match(stdout, /inv_freq +F32 +\[1342177280\] +5,368,709,120 bytes/);
  const shorter = openSync(path, "r+");
  ftruncateSync(shorter, size - 1);
  closeSync(shorter);
  assert.throws(() => models.loadModel(folder), FormatError);
});

test.run();
