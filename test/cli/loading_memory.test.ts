/**
 * What a process takes beside the weights while it loads them: from the disk, from files that a visitor picked, from a
 * server. Each in a process of its own, whose largest residence Linux tells.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import {
  closeSync,
  createReadStream,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { test } from "uvu";
import { init, models } from "../../src/index.js";
import type { GgufValue } from "../../src/io/gguf/types.js";
import { layOutGguf } from "../../src/io/gguf/writer.js";
import { ggufName } from "../../src/models/gguf_names.js";
import { rehearse } from "../../src/runtime/rehearsal.js";
import { LLAMA } from "../support/language_models.js";
import { ROOT } from "../support/root.js";

await init();
const folder = mkdtempSync(join(tmpdir(), "loading-"));
test.after(() => rmSync(folder, { recursive: true }));
const MB = 2 ** 20;
/** A table of so many rows of 64 values: 256 MB of bf16. The file is sparse: zeros, which take no room. */
const ROWS = 2 * MB;
const CONFIG = {
  model_type: "llama",
  vocab_size: ROWS,
  hidden_size: 64,
  intermediate_size: 64,
  num_hidden_layers: 1,
  num_attention_heads: 1,
  num_key_value_heads: 1,
  tie_word_embeddings: true,
};
const shapes = rehearse(() => {
  const config = { vocabSize: ROWS, hiddenSize: 64, intermediateSize: 64, numHiddenLayers: 1, numAttentionHeads: 1 };
  const model = new models.Llama({ ...LLAMA, ...config, numKeyValueHeads: 1, headDim: 64 });
  return Array.from(model.namedParameters(), ([name, { shape }]) => [name, shape] as const);
});
const path = join(folder, "model.safetensors");
const header: Record<string, unknown> = {};
let end = 0;
/** A head that is the table, stored beside it. */
for (const [name, shape] of [...shapes, ["lm_head.weight", [ROWS, 64]] as const]) {
  const begin = end;
  end += 2 * shape.reduce((a, b) => a * b, 1);
  header[name] = { dtype: "BF16", shape, data_offsets: [begin, end] };
}
const text = new TextEncoder().encode(JSON.stringify(header));
const start = new Uint8Array(8 + text.length);
new DataView(start.buffer).setBigUint64(0, BigInt(text.length), true);
start.set(text, 8);
const fd = openSync(path, "w");
writeSync(fd, start);
ftruncateSync(fd, start.length + end);
closeSync(fd);
writeFileSync(join(folder, "config.json"), JSON.stringify(CONFIG));

/** The same model in one GGUF file: its blocks are zeros, a table of 136 MB. */
const number = (value: number): GgufValue => ({ type: "uint32", value });
const float = (value: number): GgufValue => ({ type: "float32", value });
const said = new Map<string, GgufValue>([
  ["general.architecture", { type: "string", value: "llama" }],
  ["llama.context_length", number(64)],
  ["llama.embedding_length", number(64)],
  ["llama.block_count", number(1)],
  ["llama.feed_forward_length", number(64)],
  ["llama.attention.head_count", number(1)],
  ["llama.attention.layer_norm_rms_epsilon", float(1e-5)],
]);
const entries = shapes.map(([key, shape]) => ({
  name: ggufName("llama", key)!,
  dtype: shape.length === 2 ? ("q8_0" as const) : ("float32" as const),
  shape,
}));
const { header: ggufHeader, size: ggufSize } = layOutGguf(said, entries);
const gguf = openSync(join(folder, "model.gguf"), "w");
writeSync(gguf, ggufHeader);
ftruncateSync(gguf, ggufSize);
closeSync(gguf);

const server = createServer((request, response) => {
  const file = join(folder, request.url!.slice(1));
  if (!existsSync(file)) return response.writeHead(404).end();
  const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const { size } = statSync(file);
  const range = from > 0 ? { "content-range": `bytes ${from}-${size - 1}/${size}` } : {};
  response.writeHead(from > 0 ? 206 : 200, { "content-length": size - from, ...range });
  return createReadStream(file, { start: from }).pipe(response);
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
test.after(() => void server.close());

const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

/** Loads in a child, and tells the bytes of the weights and the most that was resident beside them. */
async function beside(load: string): Promise<{ weights: number; beside: number; tied: boolean }> {
  const code =
    `import { readFileSync, createReadStream, statSync } from "node:fs"; import { Readable } from "node:stream";` +
    `import { init, memoryStats, models } from ${JSON.stringify(new URL("dist/src/index.js", ROOT).href)};` +
    'const of = (key) => 1024 * /\\d+/.exec(readFileSync("/proc/self/status", "utf8").split(key + ":")[1])[0];' +
    // Node's own code that fetches is loaded by the first use of it.
    `await init(); await (await fetch(${JSON.stringify(url)} + "/config.json")).text();` +
    `const before = of("VmRSS"); const folder = ${JSON.stringify(folder)};` +
    `const picked = (name) => ({ name, size: statSync(folder + "/" + name).size, slice: (start) => ({ stream: () => ` +
    `Readable.toWeb(createReadStream(folder + "/" + name, { start, highWaterMark: 1e6 })) }) });` +
    `const { config } = await (${load}); const weights = memoryStats().liveBytes;` +
    `console.log(JSON.stringify({ weights, beside: of("VmHWM") - before - weights, tied: config.tieWordEmbeddings }));`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", code]);
  return JSON.parse(stdout) as { weights: number; beside: number; tied: boolean };
}

const onLinux = existsSync("/proc/self/status") ? test : test.skip;
for (const [what, load, table] of [
  ["the disk", "models.loadModel(folder)", 256],
  ["picked files", 'models.openModel(["config.json", "model.safetensors"].map(picked))', 256],
  ["a server", `models.fetchModel(${JSON.stringify(url)})`, 256],
  ["a GGUF file on the disk", 'models.loadModel(folder + "/model.gguf")', 136],
  ["a GGUF file that was picked", 'models.openModel(["model.gguf"].map(picked))', 136],
  ["a server's GGUF file", `models.fetchModel(${JSON.stringify(`${url}/model.gguf`)})`, 136],
] as const)
  onLinux(`from ${what}: the weights, and at most 64 MB`, async () => {
    const result = await beside(load);
    assert.ok(result.tied);
    // The table is there once, as it is stored.
    assert.ok(result.weights >= table * MB && result.weights < (table + 4) * MB, `${result.weights}`);
    assert.ok(result.beside < 64 * MB, `${(result.beside / MB).toFixed(1)} MB`);
    console.log(`beside the weights: ${(result.beside / MB).toFixed(1)} MB`);
  });

test.run();
