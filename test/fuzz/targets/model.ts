/**
 * Model folders: config.json, generation_config.json, weights whole or in shards with their index. What loads must
 * compute and generate, or say why not; nothing outside the folder is ever read, and a disposed model leaves nothing.
 */
import { io, manualSeed, models, noGrad, scope, tensor } from "../../../src/index.js";
import { createModel, familyOf } from "../../../src/models/families.js";
import { damage, damageText, textOf, treeOf } from "../json_tree.js";
import type { Random } from "../random.js";
import { must, type Files, type Target } from "../target.js";
import { damageWeights, encode, fileOf, FOLDER, weightsOf, withFiles, type Weight } from "../weights.js";

const LLAMA = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 8,
  hidden_size: 4,
  intermediate_size: 6,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 2,
  max_position_embeddings: 8,
  hidden_act: "silu",
  rms_norm_eps: 0.01,
  rope_theta: 10000,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: [2, 3],
  attention_bias: false,
  mlp_bias: false,
  torch_dtype: "float32",
  transformers_version: "5.0.0",
  use_cache: true,
};
const GPT2 = {
  architectures: ["GPT2LMHeadModel"],
  model_type: "gpt2",
  vocab_size: 8,
  n_embd: 4,
  n_head: 2,
  n_layer: 2,
  n_positions: 8,
  n_inner: null,
  activation_function: "gelu_new",
  layer_norm_epsilon: 0.01,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: 2,
  attn_pdrop: 0.1,
  n_ctx: 8,
};
/** What the other decoders' files say beside what a Llama's says. */
const DECODERS: readonly object[] = [
  { model_type: "mistral", sliding_window: 2 },
  { model_type: "qwen2", use_sliding_window: true, sliding_window: 2, max_window_layers: 1 },
  { model_type: "qwen3", layer_types: ["full_attention", "sliding_attention"], use_sliding_window: true },
  { model_type: "smollm3", no_rope_layers: [1, 0], no_rope_layer_interval: 2 },
  { model_type: "phi3", original_max_position_embeddings: 4, sliding_window: null },
  { model_type: "olmo2" },
  {
    model_type: "granite",
    embedding_multiplier: 2,
    attention_multiplier: 0.5,
    residual_multiplier: 0.3,
    logits_scaling: 4,
  },
  { model_type: "gemma", hidden_act: "gelu" },
  { model_type: "gemma2", query_pre_attn_scalar: 2, attn_logit_softcapping: 5, final_logit_softcapping: 3 },
  { model_type: "gemma3_text", sliding_window_pattern: 2, rope_local_base_freq: 100, sliding_window: 2 },
  { model_type: "gpt_neox", hidden_act: "gelu", rotary_pct: 1, use_parallel_residual: false, layer_norm_eps: 0.01 },
].map((own) => ({
  ...LLAMA,
  hidden_act: /gemma/.test(own.model_type) ? "gelu_pytorch_tanh" : "silu",
  ...own,
  architectures: null,
}));
const WORDS = [
  '"llama"',
  '"gemma3"',
  '"sliding_attention"',
  '"layer_types"',
  '"sliding_window"',
  '"final_logit_softcapping"',
  '"logits_scaling"',
  '{"rope_type":"yarn","factor":2,"original_max_position_embeddings":4}',
  '{"rope_type":"dynamic","factor":2}',
  '{"type":"longrope","short_factor":[1],"long_factor":[2]}',
  '{"full_attention":{"rope_type":"default"},"sliding_attention":{"rope_theta":5}}',
  '"gpt2"',
  '"silu"',
  '"relu"',
  '"gelu_new"',
  '"gelu"',
  '"rope_scaling"',
  '"rope_parameters"',
  '"quantization_config"',
  '"default"',
  '{"rope_type":"default","rope_theta":500}',
  '{"rope_type":"linear","factor":2}',
  '{"type":"dynamic"}',
  '"partial_rotary_factor"',
  '"n_inner"',
  '"head_dim"',
  '"num_key_value_heads"',
  "[1,2]",
  "[]",
  "[[2]]",
  "9",
  "16",
  "1000000000",
  "300000",
  "200000000",
  '"tie_word_embeddings"',
  '"lm_head.weight"',
];
const GENERATION = {
  bos_token_id: 1,
  eos_token_id: [2, 3],
  pad_token_id: 0,
  do_sample: true,
  temperature: 0.8,
  top_p: 0.9,
  max_length: 20,
  _from_model_config: true,
};
const EXTRA = [
  "lm_head.weight",
  "model.layers.0.self_attn.rotary_emb.inv_freq",
  "model.layers.9.mlp.up_proj.weight",
  "transformer.h.0.attn.bias",
  "h.1.attn.masked_bias",
  "wte.weight",
  "model.embed_tokens.weight",
  "__proto__",
  "constructor",
  "model.layers.00.mlp.up_proj.weight",
  "transformer.h.1e3.ln_1.weight",
];
const SHARDS = [
  '"../outside.safetensors"',
  '"/outside.safetensors"',
  '"a/../../outside.safetensors"',
  '"C:\\\\outside.safetensors"',
  '"..\\\\outside.safetensors"',
  '"model.safetensors\\u0000.safetensors"',
  '""',
  '".safetensors"',
  '"..safetensors"',
  '"config.json"',
  '"model-00002-of-00002.safetensors"',
  '"weight_map"',
  '"model-00003-of-00002.safetensors"',
  '"memory:outside.safetensors"',
  '"file:///outside.safetensors"',
  '"http://x/outside.safetensors"',
  '"%2e%2e/outside.safetensors"',
];

interface Base {
  config: object;
  weights: Weight[];
}
let bases: Base[] | undefined;

/** Made when first asked for: in a worker after init(), in the watchdog never. */
function base(random: Random): Base {
  if (bases === undefined) manualSeed(1);
  bases ??= [
    {
      config: LLAMA,
      weights: weightsOf(
        new models.Llama({
          ...SHARED,
          numKeyValueHeads: 1,
          headDim: 2,
          modelType: "llama",
          rmsNormEps: 0.01,
          ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
        }),
      ),
    },
    {
      config: GPT2,
      weights: weightsOf(
        new models.Gpt2({ ...SHARED, intermediateSize: 16, modelType: "gpt2", layerNormEpsilon: 0.01 }),
      ),
    },
    ...DECODERS.map((config) => {
      const { model_type } = config as { model_type: string };
      const own = familyOf(model_type)!.parseConfig(config, "config.json") as models.ModelConfig;
      return { config, weights: weightsOf(createModel("fuzz", own)) };
    }),
  ];
  return random.pick(bases);
}
const SHARED = {
  vocabSize: 8,
  hiddenSize: 4,
  intermediateSize: 6,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  maxPositionEmbeddings: 8,
  tieWordEmbeddings: true,
  bosTokenId: 1,
  eosTokenId: 2,
};

/** A model's folder, damaged or not. */
export function folderOf(random: Random): Files {
  const { config, weights } = base(random);
  const damages = random.few(4);
  const where = random.below(3);
  const json = (value: unknown, times: number, words: readonly string[]): Uint8Array => {
    const text = textOf(damage(treeOf(value), times, random, words));
    return encode(random.once(20) ? damageText(text, random) : text);
  };
  const files: Files = { "config.json": json(config, where === 0 ? damages : 0, WORDS) };
  if (random.once(3)) files["generation_config.json"] = json(GENERATION, random.few(3), WORDS);
  const tensors = damageWeights(weights, where === 1 ? damages : 0, random, EXTRA);
  if (random.once(2)) {
    files["model.safetensors"] = fileOf(tensors, random);
    return files;
  }
  const cut = random.below(tensors.length + 1);
  const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const weightMap = Object.fromEntries(tensors.map(({ name }, i) => [name, shards[i < cut ? 0 : 1]]));
  files[shards[0]!] = fileOf(tensors.slice(0, cut), random);
  files[shards[1]!] = fileOf(tensors.slice(cut), random);
  files["model.safetensors.index.json"] = json(
    { metadata: { total_size: 1 }, weight_map: weightMap },
    where === 2 ? damages : 0,
    [...SHARDS, ...WORDS],
  );
  return files;
}

function prepare(): void {
  io.memoryFiles.set(
    "memory:outside.safetensors",
    io.serializeSafetensors(
      weightsOf(
        new models.Llama({
          ...SHARED,
          numKeyValueHeads: 1,
          headDim: 2,
          modelType: "llama",
          rmsNormEps: 0.01,
          ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
        }),
      ),
    ),
  );
}

/** Runs and refuses to read what lies outside the folder. */
function enclosed(run: () => void): void {
  const { get } = io.memoryFiles;
  io.memoryFiles.get = function (path) {
    must(
      path.startsWith(`${FOLDER}/`) && !/\/\.\.|\\|\0/.test(path),
      () => `${JSON.stringify(path)} is read, outside the folder`,
    );
    return get.call(this, path);
  };
  try {
    run();
  } finally {
    io.memoryFiles.get = get;
  }
}

async function run(files: Files): Promise<void> {
  await withFiles(files, () =>
    enclosed(() => {
      const { model, config } = models.loadModel(FOLDER);
      try {
        const ids = [0, Math.min(1, config.vocabSize - 1)].slice(0, config.maxPositionEmbeddings);
        const logits = noGrad(() =>
          scope(() => model.forward(tensor(Int32Array.from(ids), [1, ids.length])).data.slice()),
        );
        must(
          logits.length === ids.length * config.vocabSize,
          () => `${logits.length} logits for a vocabulary of ${config.vocabSize}`,
        );
        for (const token of models.generate(model, ids, { maxNewTokens: 2, temperature: 0 })) {
          must(Number.isInteger(token) && token >= 0 && token < config.vocabSize, () => `token ${token} was drawn`);
        }
      } finally {
        model.dispose();
      }
    }),
  );
}

export const model: Target<Files> = { name: "model", inputs: 4000, prepare, generate: folderOf, run };
