/**
 * A model's folder as Hugging Face has it, of any family and size, with random weights: nothing is downloaded.
 */
import { mkdirSync, writeFileSync, openSync, writeSync, closeSync } from "node:fs";
import { familyOf } from "../dist/src/models/families.js";
import { skipInit } from "../dist/src/nn/skip_init.js";
import { rehearse } from "../dist/src/runtime/rehearsal.js";

/** config.json of HuggingFaceTB/SmolLM2-135M, as far as it matters here: 134,515,008 weights. */
export const SMOLLM2_135M = {
  model_type: "llama",
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  vocab_size: 49152,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-5,
  rope_theta: 100000,
  tie_word_embeddings: true,
};

/** config.json of google/gemma-3-270m, as far as it matters here: of 268,098,176 weights 167,772,160 are the head's. */
export const GEMMA_3_270M = {
  model_type: "gemma3_text",
  hidden_size: 640,
  intermediate_size: 2048,
  num_hidden_layers: 18,
  num_attention_heads: 4,
  num_key_value_heads: 1,
  head_dim: 256,
  vocab_size: 262144,
  max_position_embeddings: 32768,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000,
  rope_local_base_freq: 10000,
  sliding_window: 512,
  tie_word_embeddings: true,
};

/** config.json of meta-llama/Llama-3.2-1B, as far as it matters here: 1,235,814,400 weights. */
export const LLAMA_32_1B = {
  model_type: "llama",
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 64,
  vocab_size: 128256,
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  rope_scaling: {
    factor: 32,
    high_freq_factor: 4,
    low_freq_factor: 1,
    original_max_position_embeddings: 8192,
    rope_type: "llama3",
  },
  tie_word_embeddings: true,
};

/** config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0, as far as it matters here: 1,100,048,384 weights. */
export const TINYLLAMA_11B = {
  model_type: "llama",
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  vocab_size: 32000,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
};

/** config.json of google/gemma-2b, as far as it matters here: 2,506,172,416 weights. */
export const GEMMA_2B = {
  model_type: "gemma",
  hidden_size: 2048,
  intermediate_size: 16384,
  num_hidden_layers: 18,
  num_attention_heads: 8,
  num_key_value_heads: 1,
  head_dim: 256,
  vocab_size: 256000,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  hidden_activation: "gelu_pytorch_tanh",
  tie_word_embeddings: true,
};

/** config.json of Qwen/Qwen2.5-0.5B, as far as it matters here: 494,032,768 weights. */
export const QWEN25_05B = {
  model_type: "qwen2",
  hidden_size: 896,
  intermediate_size: 4864,
  num_hidden_layers: 24,
  num_attention_heads: 14,
  num_key_value_heads: 2,
  vocab_size: 151936,
  max_position_embeddings: 32768,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000,
  tie_word_embeddings: true,
};

/** Numbers in 0 .. 2^32 - 1 (mulberry32). */
function randomOf(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return t ^ (t >>> 14);
  };
}

/** Random bf16: of either sign, around 1/64 in matrices and from 1 to 2 in vectors, which are gains and biases. */
function weights(shape, random) {
  const values = new Uint16Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < values.length; i++) {
    const bits = random();
    values[i] = shape.length === 1 ? 0x3f80 | (bits & 0x7f) : 0x3c00 | (bits & 0x80ff);
  }
  return new Uint8Array(values.buffer);
}

/** Writes one safetensors file, a tensor at a time: it may be larger than what fits twice into memory. */
function writeFile(path, entries, random) {
  const header = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const { name, shape, bytes } of entries)
    header[name] = { dtype: "BF16", shape, data_offsets: [end, (end += bytes)] };
  const text = JSON.stringify(header);
  const start = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(start.buffer).setBigUint64(0, BigInt(start.length - 8), true);
  new TextEncoder().encodeInto(text, start.subarray(8));
  const fd = openSync(path, "w");
  const write = (bytes) => {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
  };
  write(start);
  for (const { shape } of entries) write(weights(shape, random));
  closeSync(fd);
}

/**
 * Writes config.json and the weights in bf16: model.safetensors, or so many shards and their index. `init()` must have
 * run.
 * @param config the contents of a config.json, of any family that the library loads
 * @returns the names of the files with weights
 */
export function writeModelFolder(directory, config, { seed = 0, shards = 1 } = {}) {
  const family = familyOf(config.model_type);
  if (!family) throw new Error(`no family ${config.model_type}`);
  const read = family.parseConfig(config, "config.json");
  // A model that is only rehearsed says what it has.
  const parameters = () => Array.from(skipInit(() => family.heads["causal-lm"].create(read)).namedParameters());
  const entries = rehearse(parameters, Infinity).map(([name, { shape }]) => ({
    name,
    shape,
    bytes: 2 * shape.reduce((a, b) => a * b, 1),
  }));
  const all = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  const files = Array.from({ length: shards }, () => []);
  let before = 0;
  for (const entry of entries) {
    files[Math.min(shards - 1, Math.floor((before / all) * shards))].push(entry);
    before += entry.bytes;
  }
  mkdirSync(directory, { recursive: true });
  writeFileSync(`${directory}/config.json`, JSON.stringify(config, null, 2));
  const random = randomOf(seed);
  const number = (i) => String(i).padStart(5, "0");
  const names = files.map((_, i) =>
    shards === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${number(shards)}.safetensors`,
  );
  files.forEach((list, i) => writeFile(`${directory}/${names[i]}`, list, random));
  if (shards > 1) {
    const weight_map = Object.fromEntries(files.flatMap((list, i) => list.map(({ name }) => [name, names[i]])));
    const index = { metadata: { total_size: all }, weight_map };
    writeFileSync(`${directory}/model.safetensors.index.json`, JSON.stringify(index, null, 2));
  }
  return names;
}
