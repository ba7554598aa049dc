/** config.json of a Llama. Configs are published models' (SmolLM2-135M, TinyLlama), abridged to the keys read. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { llama } from "../../../src/models/families/llama.js";
import { FormatError } from "../../../src/runtime/errors.js";

const SMOLLM2 = {
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 0,
  eos_token_id: 0,
  hidden_act: "silu",
  hidden_size: 576,
  initializer_range: 0.041666666666666664,
  intermediate_size: 1536,
  is_llama_config: true,
  max_position_embeddings: 8192,
  model_type: "llama",
  num_attention_heads: 9,
  num_hidden_layers: 30,
  num_key_value_heads: 3,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_interleaved: false,
  rope_scaling: null,
  rope_theta: 100000,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  vocab_size: 49152,
};
const MINIMAL = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 172,
  num_hidden_layers: 5,
  num_attention_heads: 8,
  vocab_size: 512,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
};
const parse = (changes: object) => llama.parseConfig({ ...MINIMAL, ...changes }, "config.json");

test("a published config", () => {
  assert.deepEqual(llama.parseConfig(SMOLLM2, "config.json"), {
    modelType: "llama",
    hiddenSize: 576,
    intermediateSize: 1536,
    numHiddenLayers: 30,
    numAttentionHeads: 9,
    numKeyValueHeads: 3,
    headDim: 64,
    vocabSize: 49152,
    maxPositionEmbeddings: 8192,
    rmsNormEps: 1e-5,
    ropeParameters: { ropeType: "default" as const, ropeTheta: 100000 },
    attentionBias: false,
    mlpBias: false,
    tieWordEmbeddings: true,
    bosTokenId: 0,
    eosTokenId: 0,
  });
});

test("defaults are transformers'", () => {
  const expected = {
    modelType: "llama" as const,
    hiddenSize: 64,
    intermediateSize: 172,
    numHiddenLayers: 5,
    numAttentionHeads: 8,
    numKeyValueHeads: 8,
    headDim: 8,
    vocabSize: 512,
    maxPositionEmbeddings: 256,
    rmsNormEps: 1e-5,
    ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
    attentionBias: false,
    mlpBias: false,
    tieWordEmbeddings: false,
    bosTokenId: 1,
    eosTokenId: 2,
  };
  assert.deepEqual(parse({}), expected);
  assert.deepEqual(
    parse({
      num_key_value_heads: null,
      head_dim: null,
      rope_theta: null,
      tie_word_embeddings: null,
      rope_scaling: null,
    }),
    expected,
  );
});

test("a config without anything is transformers' LlamaConfig()", () => {
  assert.deepEqual(llama.parseConfig({ model_type: "llama", rope_scaling: { type: "default" } }, "config.json"), {
    modelType: "llama",
    hiddenSize: 4096,
    intermediateSize: 11008,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    numKeyValueHeads: 32,
    headDim: 128,
    vocabSize: 32000,
    maxPositionEmbeddings: 2048,
    rmsNormEps: 1e-6,
    ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
    attentionBias: false,
    mlpBias: false,
    tieWordEmbeddings: false,
    bosTokenId: 1,
    eosTokenId: 2,
  });
});

test("values that differ from the defaults", () => {
  assert.equal(parse({ head_dim: 128, hidden_size: 60 }).headDim, 128);
  assert.deepEqual(parse({ eos_token_id: [128001, 128009] }).eosTokenId, [128001, 128009]);
  assert.equal(parse({ eos_token_id: null }).eosTokenId, null);
  assert.equal(parse({ bos_token_id: null }).bosTokenId, null);
  assert.equal(
    parse({ rope_parameters: { rope_type: "default", rope_theta: 500000 } }).ropeParameters.ropeTheta,
    500000,
  );
  assert.equal(parse({ rope_parameters: null, rope_theta: 7 }).ropeParameters.ropeTheta, 7);
});

const refused: [object, string][] = [
  [{ model_type: "mistral" }, "model_type"],
  [{ model_type: undefined }, "model_type"],
  [{ hidden_act: "gelu" }, "hidden_act"],
  [{ attention_bias: 1 }, "attention_bias"],
  [{ mlp_bias: "true" }, "mlp_bias"],
  [{ rope_scaling: { rope_type: "llama3", factor: 8 } }, "rope_scaling"],
  [{ rope_parameters: { factor: 8 } }, "rope_parameters has factor"],
  [{ rope_parameters: { rope_theta: 0 } }, "rope_theta"],
  [{ rope_parameters: [] }, "rope_parameters"],
  [{ quantization_config: { bits: 4 } }, "quantization_config"],
  [{ partial_rotary_factor: 0.5 }, "partial_rotary_factor"],
  [{ hidden_size: 64.5 }, "hidden_size is 64.5"],
  [{ hidden_size: "64" }, 'hidden_size is "64"'],
  [{ hidden_size: 65 }, "multiple of num_attention_heads"],
  [{ hidden_size: 72 }, "head_dim is 9"],
  [{ head_dim: 7 }, "head_dim is 7"],
  [{ intermediate_size: 0 }, "intermediate_size"],
  [{ num_hidden_layers: -1 }, "num_hidden_layers"],
  [{ num_attention_heads: 0 }, "num_attention_heads"],
  [{ num_key_value_heads: 3 }, "num_key_value_heads = 3"],
  [{ vocab_size: 0 }, "vocab_size"],
  [{ max_position_embeddings: 1e300 }, "max_position_embeddings"],
  [{ rms_norm_eps: 0 }, "rms_norm_eps"],
  [{ rms_norm_eps: Infinity }, "rms_norm_eps is Infinity"],
  [{ rope_theta: -1 }, "rope_theta"],
  [{ tie_word_embeddings: 1 }, "tie_word_embeddings"],
  [{ bos_token_id: -1 }, "bos_token_id"],
  [{ eos_token_id: [] }, "eos_token_id"],
  [{ eos_token_id: "2" }, "eos_token_id"],
];
for (const [change, word] of refused) {
  test(`refused by name: ${JSON.stringify(change)}`, () => {
    assert.throws(
      () => parse(change),
      (error: unknown) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.ok(error.message.startsWith("config.json: ") && error.message.includes(word), error.message);
        return true;
      },
    );
  });
}

test("refused: what is no object", () => {
  for (const json of [null, [], "llama", 1, undefined])
    assert.throws(() => llama.parseConfig(json, "config.json"), FormatError);
});

test.run();
