/** Models of GGUF files: those of the folders that they were made of, to the bit. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import {
  ArgumentError,
  FileError,
  FormatError,
  init,
  io,
  manualSeed,
  memoryStats,
  models,
  noGrad,
  peft,
  tensor,
} from "../../../src/index.js";
import { chooseGguf, openGguf } from "../../../src/io/gguf/files.js";
import type { GgufValue } from "../../../src/io/gguf/types.js";
import { layOutGguf, type GgufEntry } from "../../../src/io/gguf/writer.js";
import { parseHubName } from "../../../src/io/hub_name.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

await init();

const put = (from: string, to: string) =>
  io.memoryFiles.set(`memory:${to}`, new Uint8Array(readFileSync(new URL(`test/fixtures/${from}`, ROOT))));

/** The logits of a text, as bits. */
function logitsOf(model: models.CausalLM): Uint32Array {
  const ids = tensor(
    Int32Array.from({ length: 20 }, (_, i) => (i * i * 7 + 3) % 96),
    [2, 10],
  );
  const logits = noGrad(() => model.forward(ids));
  const bits = new Uint32Array(logits.data.slice().buffer);
  for (const t of [ids, logits]) t.dispose();
  return bits;
}

const FAMILIES =
  "llama_bias llama_rope_llama3 llama_rope_linear llama_rope_yarn mistral mistral_window qwen2 qwen3 gemma gemma2 " +
  "gemma3_text phi3 phi3_longrope gpt2 gpt_neox granite smollm3 olmo2";
for (const name of FAMILIES.split(" ")) {
  test(`${name}.gguf has the logits of its folder`, () => {
    for (const file of ["config.json", "model.safetensors"]) put(`families/${name}/${file}`, `gguf_folder/${file}`);
    put(`gguf/${name}.gguf`, "test.gguf");
    const { model: one } = models.loadModel("memory:gguf_folder");
    const loaded = models.loadModel("memory:test.gguf");
    const { model: other, path, config } = loaded;
    assert.equal(path, "memory:test.gguf");
    assert.deepEqual(config, other.config);
    assert.deepEqual(logitsOf(other), logitsOf(one));
    assert.deepEqual(
      [...other.namedParameters()].map(([key]) => key),
      [...one.namedParameters()].map(([key]) => key),
    );
    for (const model of [one, other]) model.dispose();
  });
}

test("the header is read once for the weights and the tokenizer", () => {
  put("gguf/qwen3.gguf", "test.gguf");
  const { get } = io.memoryFiles;
  let opened = 0;
  io.memoryFiles.get = function (path) {
    if (path === "memory:test.gguf") opened++;
    return get.call(this, path);
  };
  try {
    const loaded = models.loadModel("memory:test.gguf");
    assert.throws(() => loaded.tokenizer, says(FormatError, 'memory:test.gguf: tokenizer.ggml.model is "none"'));
    loaded.model.dispose();
  } finally {
    io.memoryFiles.get = get;
  }
  assert.equal(opened, 1);
});

/** The weights of two models, as bits. */
function assertSame(one: models.CausalLM, other: models.CausalLM): void {
  const bits = (model: models.CausalLM) =>
    [...model.namedParameters()].map(([key, { bytes, dtype }]) => [key, dtype, bytes.slice()]);
  assert.deepEqual(bits(one), bits(other));
}
/** As a server or a picked file has it: in parts of a length that no row has. */
const streamOf = (bytes: Uint8Array, from: number) =>
  new ReadableStream<Uint8Array>({
    start(controller) {
      for (let at = from; at < bytes.length; at += 1001) controller.enqueue(bytes.slice(at, at + 1001));
      controller.close();
    },
  });

for (const name of ["llama_bias", "gpt2", "gpt_neox", "phi3_longrope", "llama_bf16", "qwen2_f16", "gemma2"]) {
  test(`${name}.gguf comes as a stream`, async () => {
    put(`gguf/${name}.gguf`, "test.gguf");
    const bytes = io.memoryFiles.get("memory:test.gguf")!;
    const { model: one } = models.loadModel("memory:test.gguf");
    const { fetch } = globalThis;
    globalThis.fetch = (async (_: unknown, init?: RequestInit) => {
      const range = new Headers(init?.headers).get("range");
      const from = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
      const headers = { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
      return new Response(streamOf(bytes, from), from > 0 ? { status: 206, headers } : {});
    }) as typeof globalThis.fetch;
    try {
      const address = `https://hub.example/folder/${name}.gguf`;
      const loaded = await models.fetchModel(address);
      const { model } = loaded;
      assert.equal(loaded.path, `memory:${address}`);
      assert.deepEqual(loaded.eosTokenIds, [2]);
      assert.throws(() => loaded.tokenizer, says(FormatError, `${address}: tokenizer.ggml.model is "none"`));
      assertSame(model, one);
      model.dispose();
    } finally {
      globalThis.fetch = fetch;
    }
    const { model: picked } = await models.openModel([new File([bytes.slice()], `${name}.gguf`)]);
    assertSame(picked, one);
    for (const model of [one, picked]) model.dispose();
  });
}

test("matrices of 16 bits stay so", () => {
  for (const [name, dtype] of [
    ["llama_bf16", "bfloat16"],
    ["qwen2_f16", "float16"],
  ] as const) {
    put(`gguf/${name}.gguf`, "test.gguf");
    const { model } = models.loadModel("memory:test.gguf");
    for (const [key, { shape, dtype: own }] of model.namedParameters())
      assert.equal(own, shape.length === 2 ? dtype : "float32", key);
    model.dispose();
  }
});

/** CRC-32, as zlib has it. */
function crc(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of bytes) {
    c ^= byte;
    for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  }
  return ~c >>> 0;
}
const BLOCKS = JSON.parse(readFileSync(new URL("test/fixtures/gguf/blocks.json", ROOT), "utf8")) as Record<
  string,
  Record<string, [crc: number, shape: number[], dtype: string]>
>;
test("quantize is refused where all matrices are in blocks already, or have no whole blocks", () => {
  put("gguf/small_q8_0.gguf", "test.gguf");
  const live = memoryStats().liveBytes;
  for (const quantize of ["q8_0", "nf4"] as const)
    assert.throws(
      () => models.loadModel("memory:test.gguf", { quantize }),
      says(
        ArgumentError,
        `quantize "${quantize}" finds no matrix`,
        "memory:test.gguf",
        "in blocks already",
        "Leave it out",
      ),
    );
  assert.equal(memoryStats().liveBytes, live);
});

for (const [name, expected] of Object.entries(BLOCKS)) {
  test(`${name} has the values that gguf-py makes of its blocks, and trains`, () => {
    put(`gguf/${name}`, "test.gguf");
    const { model, config } = models.loadModel("memory:test.gguf");
    const parameters = new Map(model.namedParameters());
    for (const [key, [sum, shape, dtype]] of Object.entries(expected)) {
      const parameter = parameters.get(key)!;
      assert.deepEqual([parameter.shape, parameter.dtype], [shape, dtype], key);
      assert.equal(crc(new Uint8Array(parameter.toFloat32().buffer)), sum, key);
    }
    const adapted = peft.getLoraModel(model, { r: 2, targetModules: "all-linear" });
    const ids = tensor(
      Int32Array.from({ length: 8 }, (_, i) => (3 * i) % 32),
      [1, 8],
    );
    const loss = model.loss(ids, ids);
    assert.equal(loss.shape.length, 0);
    loss.backward();
    for (const t of [ids, loss]) t.dispose();
    adapted.unload();
    assert.equal(config.vocabSize, expected["model.embed_tokens.weight"]![1][0]);
    model.dispose();
  });
}

test("an adapter of a file is one of its folder", () => {
  for (const file of ["config.json", "model.safetensors"]) put(`gguf/small/${file}`, `gguf_folder/${file}`);
  put("gguf/small_f32.gguf", "test.gguf");
  manualSeed(1);
  const { model: one } = models.loadModel("memory:test.gguf");
  const adapted = peft.getLoraModel(one, { r: 2, targetModules: ["q_proj", "k_proj"], initLoraWeights: false });
  adapted.savePretrained("memory:gguf_adapter");
  const { model: other } = models.loadModel("memory:gguf_folder");
  peft.LoraModel.fromPretrained(other, "memory:gguf_adapter");
  for (const model of [one, other]) model.eval();
  assert.deepEqual(logitsOf(other), logitsOf(one));
  for (const model of [one, other]) model.dispose();
});

test("all parts of a file that was split are one model", async () => {
  const parts = [1, 2, 3].map((i) => `qwen3_split-0000${i}-of-00003.gguf`);
  for (const part of parts) put(`gguf/${part}`, part);
  put("gguf/qwen3.gguf", "test.gguf");
  const { model: one } = models.loadModel("memory:test.gguf");
  const { model: other } = models.loadModel(`memory:${parts[1]}`);
  const files = parts.map((name) => new File([io.memoryFiles.get(`memory:${name}`)!.slice()], name));
  const { model: picked } = await models.openModel(files);
  for (const model of [other, picked]) assertSame(model, one);
  for (const model of [one, other, picked]) model.dispose();
  await assert.rejects(models.openModel([...files, new File([], "b.gguf")]), says(FileError, "2 GGUF files", "b.gguf"));
});

/** A file of another's header, with something else in it, and data of zeros. */
function changed(
  name: string,
  values: Record<string, GgufValue | undefined>,
  tensors: (entries: GgufEntry[]) => GgufEntry[] = (all) => all,
): string {
  put(`gguf/${name}.gguf`, "changed.gguf");
  const { metadata, tensors: own } = openGguf("memory:changed.gguf");
  const all = new Map(metadata);
  for (const [key, value] of Object.entries(values)) value ? all.set(key, value) : all.delete(key);
  const { header, size } = layOutGguf(all, tensors([...own.values()]));
  const bytes = new Uint8Array(size);
  bytes.set(header);
  io.memoryFiles.set("memory:changed.gguf", bytes);
  return "memory:changed.gguf";
}
const number = (value: number): GgufValue => ({ type: "uint32", value });
const text = (value: string): GgufValue => ({ type: "string", value });

const REFUSED: [title: string, path: () => string, ...words: string[]][] = [
  ["another architecture", () => changed("qwen2", { "general.architecture": text("mamba") }), '"mamba"', "qwen3"],
  ["an adapter", () => changed("qwen2", { "general.type": text("adapter") }), "it is no model but an adapter"],
  ["no number of layers", () => changed("qwen2", { "qwen2.block_count": undefined }), "qwen2.block_count is missing"],
  [
    "a number that is none",
    () => changed("qwen2", { "qwen2.block_count": text("2") }),
    'qwen2.block_count is "2" (string)',
  ],
  [
    "sizes that differ by layer",
    () => changed("qwen2", { "qwen2.feed_forward_length": { type: "array", of: "uint32", value: [80, 96] } }),
    "qwen2.feed_forward_length is a list of 2",
  ],
  [
    "what it does not know",
    () => changed("qwen2", { "qwen2.expert_count": number(8) }),
    "qwen2.expert_count is 8",
    "does not know",
  ],
  [
    "attention both ways",
    () => changed("qwen2", { "qwen2.attention.causal": { type: "bool", value: false } }),
    "attention.causal is false",
  ],
  [
    "another scaling",
    () => changed("qwen2", { "qwen2.rope.scaling.type": text("bent") }),
    'rope.scaling.type is "bent"',
  ],
  ["more layers than there are", () => changed("qwen2", { "qwen2.block_count": number(3) }), "num_hidden_layers is 3"],
  [
    "another width",
    () => changed("qwen2", { "qwen2.embedding_length": number(64) }),
    "hidden_size or num_attention_heads * head_dim is 64",
  ],
  [
    "an unknown tensor",
    () => changed("qwen2", {}, (all) => [...all, { name: "blk.0.attn_sinks.weight", dtype: "float32", shape: [4] }]),
    "does not fit its metadata",
    "blk.0.attn_sinks.weight",
  ],
  [
    "a missing tensor",
    () => changed("qwen2", {}, (all) => all.filter(({ name }) => name !== "blk.1.ffn_up.weight")),
    "missing model.layers.1.mlp.up_proj.weight",
  ],
  [
    "values that no weight has",
    () =>
      changed("qwen2", {}, (all) => all.map((e) => (e.name === "blk.1.ffn_up.weight" ? { ...e, dtype: "int8" } : e))),
    "has dtype int8",
  ],
  [
    "factors that are not one for each pair",
    () =>
      changed("llama_rope_llama3", {}, (all) =>
        all.map((e) => (e.name === "rope_freqs.weight" ? { ...e, shape: [5] } : e)),
      ),
    "tensor rope_freqs.weight has 5 values; expected 6",
  ],
];
for (const [title, path, ...words] of REFUSED)
  test(`refused: ${title}`, () => {
    const before = memoryStats().liveBytes;
    const at = path();
    assert.throws(() => models.loadModel(at), says(FormatError, "memory:changed.gguf", ...words));
    assert.equal(memoryStats().liveBytes, before);
  });

test("factors that no formula makes are taken as they are", () => {
  put("gguf/llama_rope_llama3.gguf", "changed.gguf");
  const bytes = io.memoryFiles.get("memory:changed.gguf")!;
  const { begin } = openGguf("memory:changed.gguf").tensors.get("rope_freqs.weight")!;
  new Uint8Array(bytes.buffer, begin, 24).set(new Uint8Array(Float32Array.of(1, 2, 3, 3, 4, 7).buffer));
  const { config } = models.loadModel("memory:changed.gguf");
  const rope = (config as { ropeParameters?: unknown }).ropeParameters;
  const factors = [1, 2, 3, 3, 4, 7];
  assert.deepEqual(rope, {
    ropeType: "longrope",
    ropeTheta: 500000,
    shortFactor: factors,
    longFactor: factors,
    originalMaxPositionEmbeddings: 64,
    attentionFactor: 1,
  });
});

test("a name on the hub may be that of a file", () => {
  const names = [
    "README.md",
    "a-Q4_K_M.gguf",
    "a-q8_0.gguf",
    "b/a-F16-00001-of-00002.gguf",
    "b/a-F16-00002-of-00002.gguf",
    "mmproj-F16.gguf",
  ];
  for (const [wanted, file] of [
    ["a-q8_0.gguf", "a-q8_0.gguf"],
    ["Q8_0", "a-q8_0.gguf"],
    ["Q4_K_M", "a-Q4_K_M.gguf"],
    ["F16", "b/a-F16-00001-of-00002.gguf"],
    ["b/a-F16-00002-of-00002.gguf", "b/a-F16-00002-of-00002.gguf"],
  ] as const)
    assert.equal(chooseGguf(names, wanted, "org/name"), file);
  assert.throws(
    () => chooseGguf(names, "_M0", "org/name"),
    says(FileError, "org/name has no GGUF files called", "a-q8_0.gguf"),
  );
  assert.throws(
    () => chooseGguf(names, undefined, "org/name"),
    says(FileError, "org/name has 3 GGUF files", "name one"),
  );
  assert.deepEqual(parseHubName("org/name:Q4_K_M"), { repo: "org/name", revision: undefined, file: "Q4_K_M" });
  assert.deepEqual(parseHubName("org/name@main:b/a.gguf"), { repo: "org/name", revision: "main", file: "b/a.gguf" });
  assert.equal(parseHubName("org/name:../a.gguf"), undefined);
});

test.run();
