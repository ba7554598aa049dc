/**
 * Published encoders' config.json, abridged to what is read and what must not disturb, and the number of parameters
 * that transformers tells of each.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init } from "../../../src/index.js";
import { readLabels } from "../../../src/models/parts/classification.js";
import { familyOf } from "../../../src/models/families.js";
import type { FamilyConfig, Head } from "../../../src/models/parts/family.js";
import { skipInit } from "../../../src/nn/skip_init.js";
import { rehearse } from "../../../src/runtime/rehearsal.js";

await init();

const BERT_BASE = {
  architectures: ["BertForMaskedLM"],
  attention_probs_dropout_prob: 0.1,
  gradient_checkpointing: false,
  hidden_act: "gelu",
  hidden_dropout_prob: 0.1,
  hidden_size: 768,
  initializer_range: 0.02,
  intermediate_size: 3072,
  layer_norm_eps: 1e-12,
  max_position_embeddings: 512,
  model_type: "bert",
  num_attention_heads: 12,
  num_hidden_layers: 12,
  pad_token_id: 0,
  position_embedding_type: "absolute",
  type_vocab_size: 2,
  use_cache: true,
  vocab_size: 30522,
};
const ROBERTA_BASE = {
  ...BERT_BASE,
  architectures: ["RobertaForMaskedLM"],
  bos_token_id: 0,
  eos_token_id: 2,
  layer_norm_eps: 1e-5,
  max_position_embeddings: 514,
  model_type: "roberta",
  pad_token_id: 1,
  type_vocab_size: 1,
  vocab_size: 50265,
};
const DISTILBERT_SST2 = {
  activation: "gelu",
  architectures: ["DistilBertForSequenceClassification"],
  attention_dropout: 0.1,
  dim: 768,
  dropout: 0.1,
  finetuning_task: "sst-2",
  hidden_dim: 3072,
  id2label: { 0: "NEGATIVE", 1: "POSITIVE" },
  initializer_range: 0.02,
  label2id: { NEGATIVE: 0, POSITIVE: 1 },
  max_position_embeddings: 512,
  model_type: "distilbert",
  n_heads: 12,
  n_layers: 6,
  output_past: true,
  pad_token_id: 0,
  qa_dropout: 0.1,
  seq_classif_dropout: 0.2,
  sinusoidal_pos_embds: false,
  tie_weights_: true,
  vocab_size: 30522,
};
const MODERNBERT_BASE = {
  architectures: ["ModernBertForMaskedLM"],
  attention_bias: false,
  attention_dropout: 0,
  bos_token_id: 50281,
  classifier_activation: "gelu",
  classifier_bias: false,
  classifier_pooling: "mean",
  decoder_bias: true,
  deterministic_flash_attn: false,
  eos_token_id: 50282,
  global_attn_every_n_layers: 3,
  global_rope_theta: 160000,
  hidden_activation: "gelu",
  hidden_size: 768,
  initializer_cutoff_factor: 2,
  initializer_range: 0.02,
  intermediate_size: 1152,
  layer_norm_eps: 1e-5,
  local_attention: 128,
  local_rope_theta: 10000,
  max_position_embeddings: 8192,
  mlp_bias: false,
  model_type: "modernbert",
  norm_bias: false,
  norm_eps: 1e-5,
  num_attention_heads: 12,
  num_hidden_layers: 22,
  pad_token_id: 50283,
  position_embedding_type: "absolute",
  reference_compile: null,
  sparse_prediction: false,
  tie_word_embeddings: true,
  torch_dtype: "float32",
  vocab_size: 50368,
};
const VIT_BASE = {
  architectures: ["ViTForImageClassification"],
  attention_probs_dropout_prob: 0,
  hidden_act: "gelu",
  hidden_dropout_prob: 0,
  hidden_size: 768,
  id2label: Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [i, `class ${i}`])),
  image_size: 224,
  initializer_range: 0.02,
  intermediate_size: 3072,
  layer_norm_eps: 1e-12,
  model_type: "vit",
  num_attention_heads: 12,
  num_channels: 3,
  num_hidden_layers: 12,
  patch_size: 16,
  qkv_bias: true,
};
const MINILM = {
  ...BERT_BASE,
  architectures: ["BertModel"],
  hidden_size: 384,
  intermediate_size: 1536,
  num_hidden_layers: 6,
};

const PUBLISHED: [name: string, json: Record<string, unknown>, head: Head, parameters: number, expected: object][] = [
  ["bert-base-uncased", BERT_BASE, "none", 109_482_240, { hiddenAct: "gelu", padTokenId: 0, typeVocabSize: 2 }],
  ["all-MiniLM-L6-v2", MINILM, "none", 22_713_216, { hiddenSize: 384, layerNormEps: 1e-12 }],
  ["roberta-base", ROBERTA_BASE, "none", 124_645_632, { padTokenId: 1, maxPositionEmbeddings: 514 }],
  [
    "distilbert-base-uncased-finetuned-sst-2-english",
    DISTILBERT_SST2,
    "sequence-classification",
    66_955_010,
    { hiddenSize: 768, numHiddenLayers: 6 },
  ],
  [
    "ModernBERT-base",
    MODERNBERT_BASE,
    "none",
    149_014_272,
    {
      classifierPooling: "mean",
      localAttention: 128,
      fullRope: { ropeType: "default", ropeTheta: 160000 },
      slidingRope: { ropeType: "default", ropeTheta: 10000 },
    },
  ],
  [
    "vit-base-patch16-224",
    VIT_BASE,
    "image-classification",
    86_567_656,
    { imageSize: [224, 224], patchSize: [16, 16] },
  ],
];

for (const [name, json, head, parameters, expected] of PUBLISHED)
  test(name, () => {
    const family = familyOf(json["model_type"])!;
    const config = family.parseConfig(json, "config.json");
    for (const [key, value] of Object.entries(expected))
      assert.deepEqual((config as unknown as Record<string, unknown>)[key], value, key);
    const labels = head === "none" ? {} : readLabels(json, "config.json");
    const count = rehearse(() => {
      const model = skipInit(() => family.heads[head]!.create({ ...labels, ...config } as FamilyConfig));
      return model.parameters().reduce((total, p) => total + p.size, 0);
    }, Infinity);
    assert.equal(count, parameters);
  });

test.run();
