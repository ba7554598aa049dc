/**
 * Checkpoints of a run, through their reader and finetune --resume: what is taken must end in a finite adapter, and an
 * undamaged one in the adapter of the run that was never interrupted.
 */
import { finetune, FINETUNE_DEFAULTS, type FinetuneCommand } from "../../../src/cli/finetune.js";
import { init, io, manualSeed, models, peft } from "../../../src/index.js";
import { digestOfTensors } from "../../../src/io/digest.js";
import { engine } from "../../../src/runtime/engine.js";
import { damage, damageText, textOf, treeOf } from "../json_tree.js";
import type { Random } from "../random.js";
import { must, type Files, type Target } from "../target.js";
import { damageWeights, encode, fileOf, FOLDER, weightsOf, withFiles, type Weight } from "../weights.js";

const BASE = "memory:fuzz-base";
const COMMAND: FinetuneCommand = {
  ...FINETUNE_DEFAULTS,
  model: BASE,
  data: `${BASE}/text.txt`,
  out: `${FOLDER}/run`,
  r: 2,
  alpha: 4,
  dropout: 0.1,
  targetModules: ["q_proj", "v_proj"],
  steps: 3,
  batch: 2,
  seq: 4,
  lr: 0.01,
  evalEvery: 1,
  patience: 3,
  prompt: "ab",
  checkpointEvery: 1,
};
const WORDS = [
  '"steps"',
  '"batch"',
  '"targetModules"',
  '"q_proj"',
  '"all-linear"',
  '".*"',
  '"(.*)*x"',
  '"../text.txt"',
  '"/dev/zero"',
  '"memory:x"',
  `"${BASE}"`,
  '"$(x)"',
  "2",
  "3",
  "16",
  "1e-30",
  "0.99",
];

interface Original {
  weights: Weight[];
  run: string;
  digest: string;
  adapter: Uint8Array;
}
let original: Original | undefined;

function put(name: string, contents: Uint8Array | string): void {
  io.memoryFiles.set(`${BASE}/${name}`, typeof contents === "string" ? encode(contents) : contents);
}

async function prepare(): Promise<void> {
  const letters = [..."abcdefgh .,"];
  manualSeed(1);
  const llama = new models.Llama({
    modelType: "llama",
    vocabSize: 11,
    hiddenSize: 4,
    intermediateSize: 6,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 2,
    maxPositionEmbeddings: 12,
    rmsNormEps: 0.01,
    ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
    tieWordEmbeddings: true,
    bosTokenId: null,
    eosTokenId: null,
  });
  put("model.safetensors", io.serializeSafetensors(weightsOf(llama), { format: "pt" }));
  llama.dispose();
  put(
    "config.json",
    JSON.stringify({
      model_type: "llama",
      vocab_size: 11,
      hidden_size: 4,
      intermediate_size: 6,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 2,
      max_position_embeddings: 12,
      hidden_act: "silu",
      rms_norm_eps: 0.01,
      tie_word_embeddings: true,
      bos_token_id: null,
      eos_token_id: null,
    }),
  );
  put(
    "tokenizer.json",
    JSON.stringify({
      added_tokens: [],
      model: { type: "BPE", vocab: Object.fromEntries(letters.map((c, i) => [c, i])), merges: [] },
    }),
  );
  put("text.txt", "abc. fed, bag. ".repeat(12));
  await withFiles({}, async () => {
    await finetune(COMMAND, new Set());
    const { tensors, metadata } = io.parseSafetensors(
      io.memoryFiles.get(`${FOLDER}/run/checkpoint.previous.safetensors`)!,
    );
    original = {
      weights: [...tensors.values()].map((t) => ({
        name: t.name,
        dtype: t.dtype,
        shape: t.shape,
        data: t.dtype === "F32" ? io.toFloat32(t) : t.bytes.slice(),
      })),
      run: metadata["run"]!,
      digest: digestOfTensors(tensors.values(), metadata),
      adapter: io.memoryFiles.get(`${FOLDER}/run/adapter/adapter_model.safetensors`)!,
    };
  });
  await anew();
}

/** A command leaves its model in memory, since its process ends. */
async function anew(): Promise<void> {
  engine().close();
  await init({ maximumBytes: 1 << 29 });
}

/** More steps than these are honest work. */
function isLong(run: string): boolean {
  try {
    const { settings, step } = JSON.parse(run) as {
      settings: { steps: number; seq: number; batch: number };
      step: number;
    };
    return settings.steps - step > 20 || settings.batch * settings.seq > 50_000;
  } catch {
    return false;
  }
}

function damaged(random: Random): Uint8Array {
  const { weights, run } = original!;
  const times = random.few(4);
  const ofRun = random.once(2);
  let text = textOf(damage(treeOf(JSON.parse(run)), ofRun ? times : 0, random, WORDS));
  if (random.once(12)) text = damageText(text, random);
  if (isLong(text)) text = run;
  const list = damageWeights(weights, ofRun ? 0 : times, random, [
    "metrics",
    "factors.x",
    "optimizer.0.step",
    "optimizer.99.expAvg",
  ]);
  const metadata: Record<string, string> = {
    format: random.once(30) ? "pt" : "wasm-lora-run",
    run: /\p{Surrogate}/u.test(text) ? run : text,
  };
  const tensors = list.map((t) => ({ ...t, bytes: t.data }));
  if (!random.once(6)) metadata["digest"] = random.once(20) ? "0" : digestOfTensors(tensors, metadata);
  return fileOf(list, random, metadata);
}

function generate(random: Random): Files {
  const files: Files = { "run/checkpoint.safetensors": damaged(random) };
  if (random.once(4)) files["run/checkpoint.previous.safetensors"] = damaged(random);
  return files;
}

/**
 * Whether it says what the original said, with its digest or without; under another it is damaged, and the one before
 * it is taken.
 */
function isWhole(file: Uint8Array): boolean {
  try {
    const { tensors, metadata } = io.parseSafetensors(file);
    const { digest } = original!;
    return digestOfTensors(tensors.values(), metadata) === digest && (metadata["digest"] ?? digest) === digest;
  } catch {
    return false;
  }
}

async function run(files: Files): Promise<void> {
  try {
    await withFiles(files, async () => {
      await finetune({ ...COMMAND, resume: true }, new Set());
      const { tensors } = peft.readPeftAdapter(`${FOLDER}/run/adapter`);
      for (const [name, { data }] of tensors)
        must(data.every(Number.isFinite), () => `${name} is written and not finite`);
      JSON.parse(new TextDecoder().decode(io.memoryFiles.get(`${FOLDER}/run/result.json`)));
      if (isWhole(files["run/checkpoint.safetensors"]!)) {
        must(
          Buffer.compare(original!.adapter, io.memoryFiles.get(`${FOLDER}/run/adapter/adapter_model.safetensors`)!) ===
            0,
          () => "the resumed run ends with another adapter",
        );
      }
    });
  } finally {
    await anew();
  }
}

export const checkpoint: Target<Files> = { name: "checkpoint", inputs: 250, prepare, generate, run, allowance: 48e6 };
