/** A GGUF file of a Llama's or a Gemma's shape, with random blocks: nothing is downloaded. */
import { closeSync, openSync, writeSync } from "node:fs";
import { layOutGguf } from "../dist/src/io/gguf/writer.js";
import { familyOf } from "../dist/src/models/families.js";
import { ggufName } from "../dist/src/models/gguf_names.js";
import { skipInit } from "../dist/src/nn/skip_init.js";
import { rehearse } from "../dist/src/runtime/rehearsal.js";
import { BLOCKS } from "../dist/src/tensor/blocks.js";

/** The f16 scales that a block begins with: values become about as large as weights are. */
const SCALES = { q8_0: [0x0900], q4_k: [0x0c00, 0x1700] };

/** The types that it can write. */
export const GGUF_DTYPES = Object.keys(SCALES);

/** @param config of a config.json with model_type llama or gemma */
export function writeGgufModel(path, config, dtype) {
  const { model_type: architecture } = config;
  const family = familyOf(architecture);
  const parsed = family.parseConfig(config, "config.json");
  const create = () => skipInit(() => family.heads["causal-lm"].create(parsed));
  const entries = rehearse(
    () =>
      Array.from(create().namedParameters(), ([key, { shape }]) => ({
        name: ggufName(architecture, key),
        dtype: shape.length === 2 ? dtype : "float32",
        shape,
      })),
    Infinity,
  );
  const { header, places } = layOutGguf(metadataOf(config), entries);
  const fd = openSync(path, "w");
  const write = (bytes, at) => {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, at + done);
  };
  write(header, 0);
  for (const { name, dtype: own } of entries) {
    const { begin, end } = places.get(name);
    write(own === "float32" ? gains(end - begin, architecture) : blocks(end - begin, dtype), begin);
  }
  closeSync(fd);
}

function metadataOf(config) {
  const { model_type: architecture, hidden_size: width, num_attention_heads: heads } = config;
  const uint32 = (value) => ({ type: "uint32", value });
  const float32 = (value) => ({ type: "float32", value: Math.fround(value) });
  const dim = config.head_dim ?? width / heads;
  const values = {
    block_count: uint32(config.num_hidden_layers),
    context_length: uint32(config.max_position_embeddings),
    embedding_length: uint32(width),
    feed_forward_length: uint32(config.intermediate_size),
    "attention.head_count": uint32(heads),
    "attention.head_count_kv": uint32(config.num_key_value_heads),
    "attention.key_length": uint32(dim),
    "attention.value_length": uint32(dim),
    "attention.layer_norm_rms_epsilon": float32(config.rms_norm_eps),
    ...(architecture === "llama"
      ? {
          "rope.freq_base": float32(config.rope_theta),
          "rope.dimension_count": uint32(dim),
          vocab_size: uint32(config.vocab_size),
        }
      : {}),
  };
  return new Map([
    ["general.architecture", { type: "string", value: architecture }],
    ...Object.entries(values).map(([key, value]) => [`${architecture}.${key}`, value]),
  ]);
}

/** Weights of norms, of which Gemma's are stored with 1 added. */
function gains(length, architecture) {
  return new Uint8Array(new Float32Array(length / 4).fill(architecture === "gemma" ? 1.5 : 1).buffer);
}

function blocks(length, dtype) {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[i] = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
  }
  const bytes = new Uint8Array(words.buffer, 0, length);
  const view = new DataView(words.buffer);
  for (let at = 0; at < length; at += BLOCKS[dtype].bytes)
    for (const [i, scale] of SCALES[dtype].entries()) view.setUint16(at + 2 * i, scale, true);
  return bytes;
}
