/** A model's folder small enough to start a run in a tenth of a second: a Llama of one layer over single characters. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { init, io, manualSeed, models, peft } from "../../src/index.js";

/** Token 0 begins a text, 1 ends it; a character's token is its place here. */
export const CHARACTERS = ["<s>", "</s>", ..."abcdefghijklmnopqrstuvwxyz .,'\n"];

const CONFIG = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: CHARACTERS.length,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 128,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  bos_token_id: 0,
  eos_token_id: 1,
};

export interface TinyModelOptions {
  seed?: number;
  /** Changes of config.json. */
  config?: Record<string, unknown>;
  /** The tokenizer's own characters, more than the model's perhaps. */
  characters?: readonly string[];
  /** Whether the weights are in two files with an index. */
  shards?: boolean;
}

export async function writeTinyModel(
  folder: string,
  { seed = 1, config = {}, characters = CHARACTERS, shards = false }: TinyModelOptions = {},
): Promise<void> {
  await init();
  mkdirSync(folder, { recursive: true });
  const json = { ...CONFIG, ...config };
  writeFileSync(join(folder, "config.json"), JSON.stringify(json));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ bos_token: "<s>", eos_token: "</s>" }));
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(tokenizer(characters)));
  manualSeed(seed);
  const model = new models.Llama({
    modelType: "llama",
    vocabSize: json.vocab_size,
    hiddenSize: json.hidden_size,
    intermediateSize: json.intermediate_size,
    numHiddenLayers: json.num_hidden_layers,
    numAttentionHeads: json.num_attention_heads,
    numKeyValueHeads: json.num_key_value_heads,
    headDim: json.hidden_size / json.num_attention_heads,
    maxPositionEmbeddings: json.max_position_embeddings,
    rmsNormEps: json.rms_norm_eps,
    ropeParameters: { ropeType: "default" as const, ropeTheta: json.rope_theta },
    tieWordEmbeddings: json.tie_word_embeddings,
    bosTokenId: 0,
    eosTokenId: 1,
  });
  const tensors = [...model.namedParameters()].map(([name, p]) => ({
    name,
    dtype: "F32" as const,
    shape: p.shape,
    data: p.data.slice(),
  }));
  model.dispose();
  const parts = shards ? [tensors.slice(0, 5), tensors.slice(5)] : [tensors];
  const file = (i: number): string => (shards ? `model-0000${i + 1}-of-00002.safetensors` : "model.safetensors");
  for (const [i, part] of parts.entries())
    writeFileSync(join(folder, file(i)), io.serializeSafetensors(part, { format: "pt" }));
  if (shards)
    writeFileSync(
      join(folder, "model.safetensors.index.json"),
      JSON.stringify({
        weight_map: Object.fromEntries(parts.flatMap((part, i) => part.map(({ name }) => [name, file(i)]))),
      }),
    );
}

/** An adapter whose update is not zero. */
export async function writeTinyAdapter(folder: string, base: string, baseName: string | null = base): Promise<void> {
  await init();
  manualSeed(2);
  const { model } = models.loadModel(base);
  const adapted = peft.getLoraModel(model, {
    r: 2,
    loraAlpha: 4,
    targetModules: ["q_proj", "v_proj"],
    initLoraWeights: false,
    baseModelNameOrPath: baseName,
    taskType: "CAUSAL_LM",
  });
  adapted.savePretrained(folder);
  model.dispose();
}

/** Text that the tokenizer knows every character of. */
export const TEXT = "call me ishmael. some years ago, never mind how long, having little or no money.\n".repeat(20);

function tokenizer(characters: readonly string[]): object {
  const added = (content: string, id: number): object => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    normalizer: null,
    pre_tokenizer: null,
    decoder: { type: "Fuse" },
    added_tokens: [added("<s>", 0), added("</s>", 1)],
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
      special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(characters.map((c, i) => [c, i])),
      merges: [],
    },
  };
}
