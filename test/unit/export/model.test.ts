/**
 * Whole models for others. GGUF: tensors and metadata are those of gguf-py's files of the same models (fixtures/gguf),
 * byte for byte; the tokenizers, what Hugging Face's say. Safetensors: what merging in memory gives.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { ArgumentError, exportModel, FormatError, init, io, models, peft } from "../../../src/index.js";
import { readGgufHeader } from "../../../src/io/gguf/header.js";
import { serializeGguf } from "../../../src/io/gguf/writer.js";
import { familyPath } from "../../support/families.js";
import { assertBits } from "../../support/golden.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

await init();
const ZOO = familyPath("zoo");
const BASE = fileURLToPath(new URL("models/base", ROOT));

function headerOf(bytes: Uint8Array) {
  return readGgufHeader({
    path: "model.gguf",
    size: bytes.length,
    read: (at, into) => into.set(bytes.subarray(at, at + into.length)),
    close: () => {},
  });
}
const dataOf = (bytes: Uint8Array, { begin, length }: { begin: number; length: number }): Uint8Array =>
  bytes.slice(begin, begin + length);

/** Metadata that say what follows from others, or what this library alone writes. */
const OURS = /general\.(name|quantization_version)|vocab_size|rope\.(dimension_count|freq_base)|_length$|_pattern$/;

for (const name of [
  ...["llama_bias", "llama_rope_llama3", "llama_rope_linear", "llama_rope_yarn", "mistral", "mistral_window", "qwen2"],
  ...["qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "phi3_longrope", "gpt2", "gpt_neox", "granite", "smollm3"],
  "olmo2",
])
  test(`${name} in GGUF is the file that gguf-py writes`, () => {
    const expected = new Uint8Array(readFileSync(new URL(`test/fixtures/gguf/${name}.gguf`, ROOT)));
    const { files, tensors, largestRounding } = exportModel(familyPath(name), { to: "gguf" });
    const written = files.get("model.gguf")!;
    const [ours, theirs] = [headerOf(written), headerOf(expected)];
    assert.deepEqual([...ours.tensors.keys()].sort(), [...theirs.tensors.keys()].sort());
    assert.deepEqual([tensors, largestRounding], [ours.tensors.size, 0]);
    for (const [key, tensor] of theirs.tensors) {
      const own = ours.tensors.get(key)!;
      assert.deepEqual([own.dtype, own.shape], [tensor.dtype, tensor.shape], key);
      assert.deepEqual(dataOf(written, own), dataOf(expected, tensor), key);
    }
    for (const [key, value] of theirs.metadata)
      if (key !== "tokenizer.ggml.padding_token_id") assert.deepEqual(ours.metadata.get(key), value, key);
    for (const key of ours.metadata.keys()) assert.ok(theirs.metadata.has(key) || OURS.test(key), key);
  });

test("a GGUF file without a word of a tokenizer is written again, as one that has none", () => {
  const bytes = new Uint8Array(readFileSync(new URL("test/fixtures/gguf/qwen3.gguf", ROOT)));
  const { metadata, tensors } = headerOf(bytes);
  const silent = new Map([...metadata].filter(([key]) => !key.startsWith("tokenizer.")));
  const all = [...tensors.values()].map((tensor) => ({ ...tensor, bytes: dataOf(bytes, tensor) }));
  io.memoryFiles.set("memory:silent.gguf", serializeGguf(silent, all));
  const { files, notes } = exportModel("memory:silent.gguf", { to: "gguf" });
  io.memoryFiles.delete("memory:silent.gguf");
  assert.equal(headerOf(files.get("model.gguf")!).metadata.get("tokenizer.ggml.model")!.value, "none");
  assert.ok(notes.some((note) => note.includes("token ids alone")));
});

test("a weight that 16 bits cannot hold is refused by its name", () => {
  const [from, to] = [familyPath("llama_bias"), "memory:large"];
  const name = "model.layers.1.mlp.up_proj.weight";
  const tensors = io.loadStateDict(`${from}/model.safetensors`);
  tensors.get(name)!.data[3] = 1e6;
  io.saveStateDict(`${to}/model.safetensors`, tensors);
  io.memoryFiles.set(`${to}/config.json`, new Uint8Array(readFileSync(`${from}/config.json`)));
  for (const [format, known] of [
    ["safetensors", name],
    ["gguf", "blk.1.ffn_up.weight"],
  ] as const)
    assert.throws(
      () => exportModel(to, { to: format, dtype: "float16" }),
      says(ArgumentError, `${known} has a weight of 1000000, which float16 cannot hold`),
    );
  for (const file of ["model.safetensors", "config.json"]) io.memoryFiles.delete(`${to}/${file}`);
});

for (const [name, dtype, fixture] of [
  ["llama_bias", "bfloat16", "llama_bf16"],
  ["qwen2", "float16", "qwen2_f16"],
] as const)
  test(`${fixture}: matrices round as gguf-py's do, and the largest rounding is told`, () => {
    const expected = new Uint8Array(readFileSync(new URL(`test/fixtures/gguf/${fixture}.gguf`, ROOT)));
    const { files, largestRounding } = exportModel(familyPath(name), { to: "gguf", dtype });
    const written = files.get("model.gguf")!;
    const [ours, theirs] = [headerOf(written), headerOf(expected)];
    let largest = 0;
    const exact = headerOf(exportModel(familyPath(name), { to: "gguf" }).files.get("model.gguf")!);
    const floats = exportModel(familyPath(name), { to: "gguf" }).files.get("model.gguf")!;
    for (const [key, tensor] of theirs.tensors) {
      const own = ours.tensors.get(key)!;
      assert.deepEqual([own.dtype, dataOf(written, own)], [tensor.dtype, dataOf(expected, tensor)], key);
      if (own.dtype !== dtype) continue;
      const file = dtype === "float16" ? "F16" : "BF16";
      const rounded = io.toFloat32({ name: key, dtype: file, shape: [], bytes: dataOf(written, own) });
      const values = new Float32Array(dataOf(floats, exact.tensors.get(key)!).buffer);
      rounded.forEach((value, i) => {
        largest = Math.max(largest, Math.abs(value - values[i]!));
      });
    }
    assert.ok(largest > 0);
    assert.equal(largestRounding, largest);
  });

test("q8_0: blocks of 32 values, each within half a step; rows without whole blocks are f16, which is told", () => {
  const exact = exportModel(BASE, { to: "gguf" }).files.get("model.gguf")!;
  const { files, largestRounding, notes } = exportModel(BASE, { to: "gguf", dtype: "q8_0" });
  const written = files.get("model.gguf")!;
  const [blocks, floats] = [headerOf(written), headerOf(exact)];
  const matrix = "blk.0.ffn_down.weight";
  assert.equal(blocks.tensors.get(matrix)!.dtype, "q8_0");
  assert.equal(blocks.tensors.get("blk.0.attn_norm.weight")!.dtype, "float32");
  const bytes = dataOf(written, blocks.tensors.get(matrix)!);
  const values = new Float32Array(dataOf(exact, floats.tensors.get(matrix)!).buffer);
  for (let block = 0; block < values.length / 32; block++) {
    const at = 34 * block;
    const [d] = io.toFloat32({ name: "d", dtype: "F16", shape: [1], bytes: bytes.slice(at, at + 2) }) as never as [
      number,
    ];
    for (let i = 0; i < 32; i++) {
      const q = (bytes[at + 2 + i]! << 24) >> 24;
      assert.ok(Math.abs(d * q - values[32 * block + i]!) <= 0.51 * d + 1e-3 * Math.abs(values[32 * block + i]!));
    }
  }
  assert.ok(largestRounding > 0 && notes.length === 0);
  const narrow = exportModel(familyPath("qwen2"), { to: "gguf", dtype: "q8_0" });
  assert.ok(narrow.notes.some((note) => /matrices .* no multiple of 32/.test(note)));
  assert.equal(headerOf(narrow.files.get("model.gguf")!).tensors.get("blk.0.attn_q.weight")!.dtype, "float16");
});

for (const name of ["plain", "dora", "save_head", "tied_save", "embed", "tokens", "bias_lora_only"])
  test(`${name} merged into safetensors and GGUF: the weights of mergeAndUnload`, () => {
    const { model } = models.loadModel(`${ZOO}/base`);
    const merged = peft.LoraModel.fromPretrained(model, `${ZOO}/${name}`).mergeAndUnload();
    const expected = new Map([...merged.namedParameters()].map(([key, p]) => [key, p.toFloat32()]));
    const isTied = merged.config.tieWordEmbeddings;
    model.dispose();
    const options = { adapter: `${ZOO}/${name}` };
    const { files } = exportModel(`${ZOO}/base`, { ...options, to: "safetensors" });
    const { tensors } = io.parseSafetensors(files.get("model.safetensors")!);
    assert.deepEqual([...tensors.keys()].sort(), [...expected.keys()].sort());
    for (const [key, values] of expected) assertBits(key, io.toFloat32(tensors.get(key)!), values);
    const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
    assert.equal(config.tie_word_embeddings, isTied);
    const gguf = exportModel(`${ZOO}/base`, { ...options, to: "gguf" }).files.get("model.gguf")!;
    const header = headerOf(gguf);
    assert.equal(header.tensors.has("output.weight"), !isTied);
    assert.equal(header.tensors.size, expected.size);
    const head = header.tensors.get(isTied ? "token_embd.weight" : "output.weight")!;
    const key = isTied ? "model.embed_tokens.weight" : "lm_head.weight";
    assertBits(key, new Float32Array(dataOf(gguf, head).buffer), expected.get(key)!);
  });

test("the tokenizer and the chat template are inside", () => {
  const { files, notes } = exportModel(BASE, { to: "gguf", dtype: "bfloat16" });
  const { metadata } = headerOf(files.get("model.gguf")!);
  const value = (key: string) => metadata.get(`tokenizer.${key}`)?.value;
  const json = JSON.parse(readFileSync(new URL("models/base/tokenizer.json", ROOT), "utf8"));
  const config = JSON.parse(readFileSync(new URL("models/base/tokenizer_config.json", ROOT), "utf8"));
  assert.deepEqual([value("ggml.model"), value("ggml.pre")], ["gpt2", "gpt-2"]);
  const tokens = value("ggml.tokens") as readonly string[];
  assert.equal(tokens.length, 1024);
  for (const [token, id] of Object.entries(json.model.vocab as Record<string, number>)) assert.equal(tokens[id], token);
  assert.deepEqual(
    value("ggml.merges"),
    json.model.merges.map((pair: string | string[]) => (typeof pair === "string" ? pair : pair.join(" "))),
  );
  const kinds = value("ggml.token_type") as readonly number[];
  assert.deepEqual([kinds[0], kinds[1], kinds[1023]], [3, 1, 1]);
  assert.deepEqual([value("ggml.bos_token_id"), value("ggml.eos_token_id")], [0, 0]);
  assert.deepEqual([value("ggml.add_bos_token"), value("ggml.add_eos_token")], [true, false]);
  assert.equal(value("chat_template"), config.chat_template);
  assert.deepEqual(notes, []);
});

/** A folder in memory: a tiny model with this tokenizer. */
function withTokenizer(name: string, json: object, config: object = {}): string {
  const encode = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  const folder = `memory:export-${name}`;
  for (const file of ["config.json", "model.safetensors"])
    io.memoryFiles.set(`${folder}/${file}`, new Uint8Array(readFileSync(`${familyPath("llama_bias")}/${file}`)));
  io.memoryFiles.set(`${folder}/tokenizer.json`, encode(json));
  io.memoryFiles.set(`${folder}/tokenizer_config.json`, encode(config));
  return folder;
}

test("SentencePiece's tokenizers are llama.cpp's kind, whose scores join pairs in the BPE's order", () => {
  const hex = (byte: number): string => byte.toString(16).toUpperCase().padStart(2, "0");
  const bytes = Object.fromEntries(Array.from({ length: 256 }, (_, i) => [`<0x${hex(i)}>`, 11 + i]));
  const vocab = { "<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, a: 4, b: 5, "▁a": 6, ab: 7, "▁ab": 8, ...bytes };
  const special = ["<unk>", "<s>", "</s>"].map((content, id) => ({ id, content, special: true, normalized: false }));
  const folder = withTokenizer(
    "spm",
    {
      added_tokens: [...special, { id: 9, content: "▁▁", special: false, normalized: false }],
      normalizer: {
        type: "Sequence",
        normalizers: [
          { type: "Prepend", prepend: "▁" },
          { type: "Replace", pattern: { String: " " }, content: "▁" },
        ],
      },
      pre_tokenizer: null,
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [],
        special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
      },
      decoder: null,
      model: {
        type: "BPE",
        unk_token: "<unk>",
        byte_fallback: true,
        fuse_unk: true,
        vocab,
        merges: ["a b", "▁ a", "▁a b", "▁ ab"],
      },
    },
    { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>" },
  );
  const { metadata } = headerOf(exportModel(folder, { to: "gguf" }).files.get("model.gguf")!);
  const value = (key: string) => metadata.get(`tokenizer.ggml.${key}`)?.value;
  assert.deepEqual([value("model"), value("pre"), value("add_space_prefix")], ["llama", "default", true]);
  assert.deepEqual((value("tokens") as string[]).slice(0, 12), [
    ...Object.keys(vocab).slice(0, 9),
    ...["  ", "[PAD10]", "<0x00>"],
  ]);
  assert.deepEqual((value("token_type") as number[]).slice(0, 12), [2, 3, 3, 1, 1, 1, 1, 1, 1, 4, 5, 6]);
  const scores = value("scores") as number[];
  assert.ok(scores[7]! > scores[6]! && scores[6]! > scores[8]! && scores[8]! > scores[4]!);
  assert.deepEqual([value("unknown_token_id"), value("bos_token_id"), value("add_bos_token")], [0, 1, true]);
});

test("what GGUF cannot say is refused by name", () => {
  const f = (model: string, options: object) => () => exportModel(model, { to: "gguf", ...options } as never);
  const bert = familyPath("bert_cls");
  assert.throws(f(bert, {}), says(ArgumentError, "bert", "architecture"));
  const word = { type: "WordLevel", vocab: { a: 0 }, unk_token: "a" };
  assert.throws(f(withTokenizer("word", { model: word }), {}), says(FormatError, "WordLevel", "safetensors"));
  const bpe = { type: "BPE", vocab: { a: 0 }, merges: [] };
  const odd = { model: bpe, pre_tokenizer: { type: "Whitespace" } };
  assert.throws(f(withTokenizer("odd", odd), {}), says(FormatError, "pre_tokenizer", "Whitespace"));
  assert.throws(f(BASE, { to: "onnx" }), says(ArgumentError, "to must be", '"onnx"'));
  assert.throws(f(BASE, { dtype: "q4_0" }), says(ArgumentError, "dtype", "q8_0"));
  assert.throws(f(BASE, { to: "safetensors", dtype: "q8_0" }), says(ArgumentError, "q8_0", "gguf"));
  assert.throws(f(BASE, { quantize: true }), says(ArgumentError, "quantize"));
});

test("a window that llama.cpp reads past is told", () => {
  const { notes } = exportModel(familyPath("mistral_window"), { to: "gguf" });
  assert.ok(notes.some((note) => note.includes("window") && note.includes("5 tokens")));
});

test.run();
