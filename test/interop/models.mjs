/** Tiny models of four families with an adapter each: random weights that make logits of some size, from a seed. */
import { mkdirSync, writeFileSync } from "node:fs";
import { io, manualSeed, models, peft } from "../../dist/src/index.js";

/** Sizes of which rows are whole blocks of 32. */
const SIZES = {
  vocab_size: 96,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-6,
  bos_token_id: 1,
  eos_token_id: 2,
};

/** What config.json says of each. */
export const FAMILIES = {
  llama: { architectures: ["LlamaForCausalLM"], model_type: "llama", rope_theta: 10000, tie_word_embeddings: false },
  qwen2: { architectures: ["Qwen2ForCausalLM"], model_type: "qwen2", rope_theta: 1e6, tie_word_embeddings: true },
  qwen3: {
    architectures: ["Qwen3ForCausalLM"],
    model_type: "qwen3",
    rope_theta: 1e6,
    head_dim: 32,
    tie_word_embeddings: true,
  },
  gemma3: {
    architectures: ["Gemma3ForCausalLM"],
    model_type: "gemma3_text",
    head_dim: 32,
    query_pre_attn_scalar: 32,
    sliding_window: 8,
    layer_types: ["sliding_attention", "sliding_attention", "full_attention"],
    rope_theta: 1e6,
    rope_local_base_freq: 10000,
    hidden_activation: "gelu_pytorch_tanh",
    tie_word_embeddings: true,
  },
};

/** Byte-level BPE without merges: each printable ASCII character is a token, so texts tell tokens. */
function tokenizer() {
  const vocab = { "<unk>": 0, "<s>": 1, "</s>": 2, Ċ: 3, Ġ: 4 };
  for (let code = 33; Object.keys(vocab).length < SIZES.vocab_size; code++)
    vocab[String.fromCharCode(code)] = Object.keys(vocab).length;
  const added = ["<unk>", "<s>", "</s>"].map((content, id) => ({ id, content, special: true, normalized: false }));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    added_tokens: added,
    pre_tokenizer: byteLevel,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
    },
    decoder: byteLevel,
    model: { type: "BPE", vocab, merges: [] },
  };
}

/** Numbers of (-1, 1), the same each time. */
function stream(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Writes the folder of a model, and adapter/ in it. */
export function makeModel(folder, family, seed) {
  const config = { ...SIZES, ...FAMILIES[family], dtype: "float32" };
  const next = stream(seed);
  const { vocab_size: vocab, hidden_size: hidden, intermediate_size: wide, num_hidden_layers: layers } = config;
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: dim = hidden / heads } = config;
  const tensors = [];
  const add = (name, shape, scale, around = 0) => {
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => around + scale * next());
    tensors.push({ name, dtype: "F32", shape, data });
  };
  const isGemma = family === "gemma3";
  const norm = (name, size) => add(`${name}.weight`, [size], 0.2, isGemma ? 0 : 1);
  add("model.embed_tokens.weight", [vocab, hidden], isGemma ? 0.2 : 1);
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    norm(`${at}.input_layernorm`, hidden);
    for (const [name, size] of [
      ["q", heads * dim],
      ["k", kvHeads * dim],
      ["v", kvHeads * dim],
    ]) {
      add(`${at}.self_attn.${name}_proj.weight`, [size, hidden], 0.25);
      if (family === "qwen2") add(`${at}.self_attn.${name}_proj.bias`, [size], 0.3);
    }
    add(`${at}.self_attn.o_proj.weight`, [hidden, heads * dim], 0.2);
    if (family === "qwen3" || isGemma) for (const name of ["q_norm", "k_norm"]) norm(`${at}.self_attn.${name}`, dim);
    norm(`${at}.post_attention_layernorm`, hidden);
    if (isGemma)
      for (const name of ["pre_feedforward_layernorm", "post_feedforward_layernorm"]) norm(`${at}.${name}`, hidden);
    add(`${at}.mlp.gate_proj.weight`, [wide, hidden], 0.25);
    add(`${at}.mlp.up_proj.weight`, [wide, hidden], 0.25);
    add(`${at}.mlp.down_proj.weight`, [hidden, wide], 0.15);
  }
  norm("model.norm", hidden);
  if (!config.tie_word_embeddings) add("lm_head.weight", [vocab, hidden], 0.4);
  mkdirSync(folder, { recursive: true });
  const write = (name, json) => writeFileSync(`${folder}/${name}`, JSON.stringify(json));
  write("config.json", config);
  write("tokenizer.json", tokenizer());
  write("tokenizer_config.json", { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>" });
  writeFileSync(`${folder}/model.safetensors`, io.serializeSafetensors(tensors));
  const { model } = models.loadModel(folder);
  manualSeed(seed);
  const adapted = peft.getLoraModel(model, {
    r: 4,
    loraAlpha: 8,
    targetModules: "all-linear",
    // Another rank, another alpha and alpha / sqrt(r): what llama.cpp knows of none of it is folded.
    useRslora: true,
    rankPattern: { v_proj: 2 },
    alphaPattern: { down_proj: 5 },
  });
  for (const [name, p] of adapted.namedParameters())
    if (name.includes("lora_B")) p.set(Float32Array.from({ length: p.size }, () => 0.1 * next()));
  adapted.savePretrained(`${folder}/adapter`);
  adapted.dispose();
}
