/** config.json of decoders as the hub has them, abridged to what says something; and what is refused by name. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, train } from "../../../src/index.js";
import { familyOf, type ModelConfig } from "../../../src/models/families.js";
import { FormatError } from "../../../src/runtime/errors.js";

await init();
type Json = Readonly<Record<string, unknown>>;
const parse = (json: Json): Json => {
  const config = familyOf(json["model_type"])!.parseConfig(json, "config.json");
  return config as unknown as Json;
};
const plain = (ropeTheta: number) => ({ ropeType: "default", ropeTheta });

const LLAMA_3_2_1B = {
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 128000,
  eos_token_id: [128001, 128008, 128009],
  head_dim: 64,
  hidden_act: "silu",
  hidden_size: 2048,
  initializer_range: 0.02,
  intermediate_size: 8192,
  max_position_embeddings: 131072,
  mlp_bias: false,
  model_type: "llama",
  num_attention_heads: 32,
  num_hidden_layers: 16,
  num_key_value_heads: 8,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: {
    factor: 32.0,
    high_freq_factor: 4.0,
    low_freq_factor: 1.0,
    original_max_position_embeddings: 8192,
    rope_type: "llama3",
  },
  rope_theta: 500000.0,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 128256,
};
const MISTRAL_7B = {
  architectures: ["MistralForCausalLM"],
  bos_token_id: 1,
  eos_token_id: 2,
  hidden_act: "silu",
  hidden_size: 4096,
  initializer_range: 0.02,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  model_type: "mistral",
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 10000.0,
  sliding_window: 4096,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 32000,
};
const QWEN2_5_05B = {
  architectures: ["Qwen2ForCausalLM"],
  attention_dropout: 0.0,
  bos_token_id: 151643,
  eos_token_id: 151643,
  hidden_act: "silu",
  hidden_size: 896,
  initializer_range: 0.02,
  intermediate_size: 4864,
  max_position_embeddings: 32768,
  max_window_layers: 24,
  model_type: "qwen2",
  num_attention_heads: 14,
  num_hidden_layers: 24,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_theta: 1000000.0,
  sliding_window: 32768,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  use_mrope: false,
  use_sliding_window: false,
  vocab_size: 151936,
};
const QWEN3_06B = {
  architectures: ["Qwen3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 151643,
  eos_token_id: 151645,
  head_dim: 128,
  hidden_act: "silu",
  hidden_size: 1024,
  initializer_range: 0.02,
  intermediate_size: 3072,
  max_position_embeddings: 40960,
  max_window_layers: 28,
  model_type: "qwen3",
  num_attention_heads: 16,
  num_hidden_layers: 28,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: null,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  use_sliding_window: false,
  vocab_size: 151936,
};
const SMOLLM3 = {
  architectures: ["SmolLM3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 128000,
  eos_token_id: 128012,
  hidden_act: "silu",
  hidden_size: 2048,
  intermediate_size: 11008,
  max_position_embeddings: 65536,
  max_window_layers: 28,
  mlp_bias: false,
  model_type: "smollm3",
  no_rope_layer_interval: 4,
  num_attention_heads: 16,
  num_hidden_layers: 8,
  no_rope_layers: [1, 1, 1, 0, 1, 1, 1, 0],
  layer_types: Array.from({ length: 8 }, () => "full_attention"),
  num_key_value_heads: 4,
  pretraining_tp: 2,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 5000000.0,
  sliding_window: null,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: false,
  use_sliding_window: false,
  vocab_size: 128256,
};
const PHI3_MINI_4K = {
  architectures: ["Phi3ForCausalLM"],
  attention_dropout: 0.0,
  auto_map: { AutoModelForCausalLM: "modeling_phi3.Phi3ForCausalLM" },
  bos_token_id: 1,
  embd_pdrop: 0.0,
  eos_token_id: 32000,
  hidden_act: "silu",
  hidden_size: 3072,
  intermediate_size: 8192,
  max_position_embeddings: 4096,
  model_type: "phi3",
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 32,
  original_max_position_embeddings: 4096,
  pad_token_id: 32000,
  resid_pdrop: 0.0,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 10000.0,
  sliding_window: 2047,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  use_cache: true,
  attention_bias: false,
  vocab_size: 32064,
};
const SHORT = Array.from({ length: 48 }, (_, i) => 1 + i / 100);
const LONG = Array.from({ length: 48 }, (_, i) => 1 + i);
const PHI3_MINI_128K = {
  ...PHI3_MINI_4K,
  max_position_embeddings: 131072,
  rope_scaling: { long_factor: LONG, short_factor: SHORT, type: "longrope" },
  sliding_window: 262144,
};
const PHI4_MINI = {
  ...PHI3_MINI_128K,
  bos_token_id: 199999,
  eos_token_id: 199999,
  full_attn_mod: 1,
  interpolate_factor: 1,
  lm_head_bias: false,
  mlp_bias: false,
  num_attention_heads: 24,
  num_key_value_heads: 8,
  partial_rotary_factor: 0.75,
  tie_word_embeddings: true,
  vocab_size: 200064,
};
const OLMO2_1B = {
  architectures: ["Olmo2ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  eos_token_id: 100257,
  hidden_act: "silu",
  hidden_size: 2048,
  initializer_range: 0.02,
  intermediate_size: 8192,
  max_position_embeddings: 4096,
  model_type: "olmo2",
  num_attention_heads: 16,
  num_hidden_layers: 16,
  num_key_value_heads: 16,
  pad_token_id: 100277,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 500000,
  tie_word_embeddings: false,
  torch_dtype: "float32",
  use_cache: false,
  vocab_size: 100352,
};
const GRANITE_3_2B = {
  architectures: ["GraniteForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.1,
  attention_multiplier: 0.015625,
  bos_token_id: 0,
  embedding_multiplier: 12.0,
  eos_token_id: 0,
  hidden_act: "silu",
  hidden_size: 2048,
  initializer_range: 0.02,
  intermediate_size: 8192,
  logits_scaling: 8.0,
  max_position_embeddings: 4096,
  mlp_bias: false,
  model_type: "granite",
  num_attention_heads: 32,
  num_hidden_layers: 40,
  num_key_value_heads: 8,
  pad_token_id: 0,
  residual_multiplier: 0.22,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 10000.0,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 49155,
};
const GEMMA_2B = {
  architectures: ["GemmaForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 2,
  eos_token_id: 1,
  head_dim: 256,
  hidden_act: "gelu",
  hidden_size: 2048,
  initializer_range: 0.02,
  intermediate_size: 16384,
  max_position_embeddings: 8192,
  model_type: "gemma",
  num_attention_heads: 8,
  num_hidden_layers: 18,
  num_key_value_heads: 1,
  pad_token_id: 0,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 10000.0,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 256000,
};
const GEMMA2_2B = {
  architectures: ["Gemma2ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  attn_logit_softcapping: 50.0,
  bos_token_id: 2,
  cache_implementation: "hybrid",
  eos_token_id: 1,
  final_logit_softcapping: 30.0,
  head_dim: 256,
  hidden_act: "gelu_pytorch_tanh",
  hidden_activation: "gelu_pytorch_tanh",
  hidden_size: 2304,
  initializer_range: 0.02,
  intermediate_size: 9216,
  max_position_embeddings: 8192,
  model_type: "gemma2",
  num_attention_heads: 8,
  num_hidden_layers: 26,
  num_key_value_heads: 4,
  pad_token_id: 0,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_theta: 10000.0,
  sliding_window: 4096,
  torch_dtype: "float32",
  use_cache: true,
  vocab_size: 256000,
};
const GEMMA3_1B = {
  architectures: ["Gemma3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  attn_logit_softcapping: null,
  bos_token_id: 2,
  cache_implementation: "hybrid",
  eos_token_id: [1, 106],
  final_logit_softcapping: null,
  head_dim: 256,
  hidden_activation: "gelu_pytorch_tanh",
  hidden_size: 1152,
  initializer_range: 0.02,
  intermediate_size: 6912,
  max_position_embeddings: 32768,
  model_type: "gemma3_text",
  num_attention_heads: 4,
  num_hidden_layers: 26,
  num_key_value_heads: 1,
  pad_token_id: 0,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_local_base_freq: 10000,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: 512,
  sliding_window_pattern: 6,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 262144,
};
const GEMMA3_4B = {
  architectures: ["Gemma3ForConditionalGeneration"],
  boi_token_index: 255999,
  eoi_token_index: 256000,
  eos_token_id: [1, 106],
  image_token_index: 262144,
  initializer_range: 0.02,
  mm_tokens_per_image: 256,
  model_type: "gemma3",
  text_config: {
    hidden_size: 2560,
    intermediate_size: 10240,
    model_type: "gemma3_text",
    num_hidden_layers: 34,
    rope_scaling: { factor: 8.0, rope_type: "linear" },
    sliding_window: 1024,
  },
  torch_dtype: "bfloat16",
  vision_config: { hidden_size: 1152, model_type: "siglip_vision_model", num_hidden_layers: 27 },
};
const PYTHIA_160M = {
  architectures: ["GPTNeoXForCausalLM"],
  bos_token_id: 0,
  eos_token_id: 0,
  hidden_act: "gelu",
  hidden_size: 768,
  initializer_range: 0.02,
  intermediate_size: 3072,
  layer_norm_eps: 1e-5,
  max_position_embeddings: 2048,
  model_type: "gpt_neox",
  num_attention_heads: 12,
  num_hidden_layers: 12,
  rotary_emb_base: 10000,
  rotary_pct: 0.25,
  tie_word_embeddings: false,
  torch_dtype: "float16",
  use_cache: true,
  use_parallel_residual: true,
  vocab_size: 50304,
};

const published: Record<string, [json: Json, expected: Json]> = {
  "Llama-3.2-1B": [
    LLAMA_3_2_1B,
    {
      modelType: "llama",
      hiddenSize: 2048,
      headDim: 64,
      maxPositionEmbeddings: 131072,
      tieWordEmbeddings: true,
      eosTokenId: [128001, 128008, 128009],
      ropeParameters: {
        ropeType: "llama3",
        ropeTheta: 500000,
        factor: 32,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositionEmbeddings: 8192,
      },
    },
  ],
  "Mistral-7B-v0.1": [MISTRAL_7B, { slidingWindow: 4096, numKeyValueHeads: 8, headDim: 128 }],
  "Mistral-7B-v0.3": [{ ...MISTRAL_7B, sliding_window: null, rope_theta: 1e6 }, { slidingWindow: null }],
  "Qwen2.5-0.5B": [QWEN2_5_05B, { slidingWindow: null, headDim: 64, ropeParameters: plain(1e6) }],
  "Qwen3-0.6B": [QWEN3_06B, { headDim: 128, hiddenSize: 1024, attentionBias: false, slidingWindow: null }],
  "SmolLM3-3B": [SMOLLM3, { noRopeLayers: [1, 1, 1, 0, 1, 1, 1, 0], slidingWindow: null, ropeParameters: plain(5e6) }],
  "Phi-3-mini-4k": [PHI3_MINI_4K, { slidingWindow: 2047, headDim: 96, ropeParameters: plain(10000) }],
  "Phi-3-mini-128k": [
    PHI3_MINI_128K,
    {
      maxPositionEmbeddings: 131072,
      ropeParameters: {
        ropeType: "longrope",
        ropeTheta: 10000,
        shortFactor: SHORT,
        longFactor: LONG,
        originalMaxPositionEmbeddings: 4096,
      },
    },
  ],
  "Phi-4-mini": [PHI4_MINI, { headDim: 128, tieWordEmbeddings: true }],
  "OLMo-2-0425-1B": [OLMO2_1B, { rmsNormEps: 1e-6, bosTokenId: null, attentionBias: false }],
  "granite-3.0-2b": [
    GRANITE_3_2B,
    { embeddingMultiplier: 12, attentionMultiplier: 0.015625, residualMultiplier: 0.22, logitsScaling: 8 },
  ],
  "gemma-2b": [GEMMA_2B, { tieWordEmbeddings: true, headDim: 256, numKeyValueHeads: 1, hiddenAct: "gelu" }],
  "gemma-2-2b": [
    GEMMA2_2B,
    { attnLogitSoftcapping: 50, finalLogitSoftcapping: 30, slidingWindow: 4096, queryPreAttnScalar: 256 },
  ],
  "gemma-3-1b": [
    GEMMA3_1B,
    {
      modelType: "gemma3_text",
      ropeParameters: plain(1e6),
      slidingRopeParameters: plain(10000),
      slidingWindow: 512,
      slidingWindowPattern: 6,
      finalLogitSoftcapping: null,
    },
  ],
  "gemma-3-4b": [
    GEMMA3_4B,
    {
      modelType: "gemma3",
      hiddenSize: 2560,
      numAttentionHeads: 8,
      numKeyValueHeads: 4,
      vocabSize: 262208,
      tieWordEmbeddings: true,
      eosTokenId: [1, 106],
      ropeParameters: { ropeType: "linear", ropeTheta: 1e6, factor: 8 },
      slidingRopeParameters: plain(10000),
      slidingWindow: 1024,
    },
  ],
  "pythia-160m": [
    PYTHIA_160M,
    {
      hiddenAct: "gelu",
      useParallelResidual: true,
      attentionBias: true,
      ropeParameters: { ropeType: "default", ropeTheta: 10000, partialRotaryFactor: 0.25 },
    },
  ],
};
for (const [name, [json, expected]] of Object.entries(published)) {
  test(`${name}, and in the spelling of transformers 5`, () => {
    const config = parse(json);
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(config[key], value, key);
    const { rope_theta, rope_scaling, torch_dtype, ...rest } = json;
    if (rope_theta === undefined || json["model_type"] === "gemma3_text") return;
    const { type, ...scaling } = (rope_scaling ?? {}) as Json;
    const rope_parameters = { rope_theta, rope_type: type ?? "default", ...scaling };
    assert.deepEqual(parse({ ...rest, dtype: torch_dtype, rope_parameters }), config);
  });
}

/** As the hub's pages say, in millions; of gemma-3-4b without what looks at images. */
const PARAMETERS: Record<string, number> = {
  "Llama-3.2-1B": 1236,
  "Mistral-7B-v0.1": 7242,
  "Qwen2.5-0.5B": 494,
  "Qwen3-0.6B": 596,
  "Phi-3-mini-4k": 3821,
  "Phi-4-mini": 3836,
  "OLMo-2-0425-1B": 1485,
  "granite-3.0-2b": 2534,
  "gemma-2b": 2506,
  "gemma-2-2b": 2614,
  "gemma-3-1b": 1000,
  "gemma-3-4b": 3880,
  "pythia-160m": 162,
};
for (const [name, millions] of Object.entries(PARAMETERS)) {
  test(`${name} has as many parameters as it is said to have, and trains by plan`, () => {
    const config = parse(published[name]![0]) as unknown as ModelConfig;
    const adapter = { r: 8, targetModules: "all-linear" as const };
    const plan = train.planTraining(config, { batch: 1, seq: 16, adapter });
    const had = plan.weights / 4e6;
    assert.ok(Math.abs(had / millions - 1) < 0.003, `${had}`);
    assert.ok(plan.peak > plan.weights + plan.adapters);
  });
}

test("windows and layers without positions follow from counts where a file has no lists", () => {
  const { no_rope_layers: _, layer_types: __, ...rest } = SMOLLM3;
  assert.equal(parse(rest)["noRopeLayers"], undefined);
  assert.equal(parse(rest)["noRopeLayerInterval"], 4);
  assert.equal(parse({ ...QWEN2_5_05B, use_sliding_window: true })["slidingWindow"], 32768);
});

test("positions are made for longer texts where the kind of scaling says so", () => {
  const yarn = { type: "yarn", factor: 4.0, original_max_position_embeddings: 32768 };
  const config = parse({ ...QWEN2_5_05B, rope_scaling: yarn });
  assert.equal(config["maxPositionEmbeddings"], 131072);
  assert.equal(config["originalMaxPositionEmbeddings"], 32768);
  const dynamic = parse({ ...MISTRAL_7B, rope_scaling: { type: "dynamic", factor: 2.0 } });
  assert.equal(dynamic["maxPositionEmbeddings"], 65536);
});

const refused: [json: Json, change: Json, word: string][] = [
  [MISTRAL_7B, { sliding_window: 0 }, "sliding_window"],
  [MISTRAL_7B, { hidden_act: "gelu" }, "hidden_act"],
  [MISTRAL_7B, { partial_rotary_factor: 0.5 }, "partial_rotary_factor"],
  [QWEN2_5_05B, { layer_types: ["full_attention"] }, "layer_types"],
  [QWEN2_5_05B, { layer_types: Array.from({ length: 24 }, () => "chunked_attention") }, "layer_types"],
  [QWEN2_5_05B, { max_window_layers: -1 }, "max_window_layers"],
  [QWEN3_06B, { use_sliding_window: "no" }, "use_sliding_window"],
  [SMOLLM3, { no_rope_layers: [1, 0] }, "no_rope_layers"],
  [SMOLLM3, { no_rope_layer_interval: 0 }, "no_rope_layer_interval"],
  [PHI3_MINI_4K, { attention_bias: true }, "attention_bias"],
  [PHI3_MINI_128K, { rope_scaling: { type: "longrope", long_factor: LONG, short_factor: [1] } }, "short_factor"],
  [GRANITE_3_2B, { logits_scaling: 0 }, "logits_scaling"],
  [GEMMA_2B, { hidden_act: "relu" }, "hidden_act"],
  [GEMMA2_2B, { hidden_activation: "gelu" }, "hidden_activation"],
  [GEMMA2_2B, { final_logit_softcapping: -1 }, "final_logit_softcapping"],
  [GEMMA3_1B, { use_bidirectional_attention: true }, "use_bidirectional_attention"],
  [GEMMA3_1B, { attn_logit_softcapping: 50 }, "attn_logit_softcapping"],
  [GEMMA3_4B, { text_config: null }, "text_config"],
  [PYTHIA_160M, { hidden_act: "no such" }, "hidden_act"],
  [PYTHIA_160M, { hidden_size: 770 }, "num_attention_heads = 12"],
  [LLAMA_3_2_1B, { quantization_config: { bits: 4 } }, "quantization_config"],
];
for (const [json, change, word] of refused) {
  test(`refused by name: ${String(json["model_type"])} with ${JSON.stringify(change).slice(0, 60)}`, () =>
    assert.throws(
      () => parse({ ...json, ...change }),
      (e: unknown) => e instanceof FormatError && e.message.startsWith("config.json: ") && e.message.includes(word),
    ));
}

test.run();
