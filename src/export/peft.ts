/**
 * PEFT folders for readers that know only lora_alpha / r: one rank, one alpha, no rsLoRA, no patterns. Most servers are
 * such readers. And those of Cloudflare's Workers AI, which are the same with a model_type, and limits.
 * Source: huggingface/peft, LoraConfig; Cloudflare's documentation, Workers AI, "Using LoRA adapters".
 */
import { parsePeftConfig, serializePeftConfig, type LoraConfig } from "../io/peft/config.js";
import { factorKeys } from "../io/peft/keys.js";
import { isAllLinear } from "../io/peft/match.js";
import { lastName, lastNames } from "../io/peft/paths.js";
import { parseSafetensors, serializeSafetensors, toFloat32 } from "../io/safetensors.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import type { ModelConfig } from "../models/families.js";
import { atRank, atScaling, mostFrequent } from "./scaling.js";
import type { Update } from "./source.js";
import type { Task, Written } from "./target.js";
import { SAFETENSORS_DTYPES, toBytes } from "./values.js";

const MODEL_FILE = "adapter_model.safetensors";
const CONFIG_FILE = "adapter_config.json";

export function writePortablePeft(task: Task): Written {
  return write(task, {});
}

function write({ config, updates, dtype }: Task, extra: Readonly<Record<string, unknown>>): Written {
  const r = updates.reduce((most, { rank }) => Math.max(most, rank), 1);
  // Some readers take whole alphas only; where that of most modules is none, all of it goes into B.
  const frequent = mostFrequent(updates.map(({ scaling }) => scaling));
  const loraAlpha = Number.isSafeInteger(frequent * r) ? frequent * r : r;
  const scaling = loraAlpha / r;
  const tensors = updates.flatMap((update) => {
    const { path, inputs, outputs, a, b } = atRank(atScaling(update, scaling), r);
    const [keyA, keyB] = factorKeys(path, "linear");
    const file = SAFETENSORS_DTYPES[dtype];
    return [
      { name: keyA, dtype: file, shape: [r, inputs], data: toBytes(a, dtype) },
      { name: keyB, dtype: file, shape: [outputs, r], data: toBytes(b, dtype) },
    ];
  });
  const plain: LoraConfig = {
    ...config,
    ...targetsOf(config, updates),
    r,
    loraAlpha,
    useRslora: false,
    rankPattern: {},
    alphaPattern: {},
    initLoraWeights: true,
  };
  const bytes = serializeSafetensors(tensors, { format: "pt" });
  const json = withKeys(serializePeftConfig(plain), extra);
  return {
    files: new Map([
      [CONFIG_FILE, json],
      [MODEL_FILE, bytes],
    ]),
    readBack: () => readBack(bytes, json, updates),
    folded: updates.filter((update) => update.scaling !== scaling).length,
    notes: [],
  };
}

/** Names that every reader takes: no pattern, no word for all. */
function targetsOf(config: LoraConfig, updates: readonly Update[]): Partial<LoraConfig> {
  if (Array.isArray(config.targetModules)) return {};
  const paths = updates.map(({ path }) => path);
  const isByName = config.targetModules === null || isAllLinear(config.targetModules);
  return { targetModules: isByName ? lastNames(paths).sort() : paths, targetParameters: null };
}

/** The config with keys of another's, sorted as all are. */
function withKeys(text: string, extra: Readonly<Record<string, unknown>>): Uint8Array {
  if (Object.keys(extra).length === 0) return new TextEncoder().encode(text);
  const lines = Object.entries(extra).map(([key, value]) => `  "${key}": ${JSON.stringify(value)}`);
  return new TextEncoder().encode(text.replace(/\n {2}"peft_type"/, `\n${lines.join(",\n")},\n  "peft_type"`));
}

/** As a reader of lora_alpha / r alone has it. */
function readBack(bytes: Uint8Array, json: Uint8Array, updates: readonly Update[]): Update[] {
  const { r, loraAlpha } = parsePeftConfig(JSON.parse(new TextDecoder().decode(json)), CONFIG_FILE);
  const { tensors } = parseSafetensors(bytes, { name: MODEL_FILE });
  return updates.map(({ path }) => {
    const [a, b] = factorKeys(path, "linear").map((key) => tensors.get(key));
    if (!a || !b) throw new StateError(`${MODEL_FILE}: the factors of ${path} were written and are not there.`);
    const inputs = a.shape[1]!;
    const outputs = b.shape[0]!;
    return { path, rank: r, inputs, outputs, a: toFloat32(a), b: toFloat32(b), scaling: loraAlpha / r };
  });
}

/** What Cloudflare takes, of an adapter's rank and its file's size. */
const MAX_RANK = 32;
const MAX_BYTES = 300_000_000;
/** What it calls the families that it has bases of. */
const MODEL_TYPES: Readonly<Partial<Record<ModelConfig["modelType"], string>>> = {
  llama: "llama",
  mistral: "mistral",
  gemma: "gemma",
  gemma2: "gemma",
  gemma3: "gemma",
  gemma3_text: "gemma",
};
const TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/** @throws ArgumentError for what Cloudflare would refuse */
export function writeWorkersAi(task: Task): Written {
  const { where, updates, base } = task;
  const { modelType } = base!;
  const model_type = MODEL_TYPES[modelType];
  if (model_type === undefined)
    throw new ArgumentError(
      `${where}: the base is a ${modelType}; Workers AI takes adapters whose model_type is "llama", "mistral" or ` +
        `"gemma".`,
    );
  for (const { path, rank } of updates) {
    if (!TARGETS.includes(lastName(path)))
      throw new ArgumentError(`${where}: the adapter is on ${path}; Workers AI takes ${TARGETS.join(", ")}.`);
    if (rank > MAX_RANK)
      throw new ArgumentError(
        `${where}: the rank of ${path} is ${rank}; Workers AI takes at most ${MAX_RANK}. peft.LoraModel's ` +
          `addWeightedAdapter with svd makes a smaller one.`,
      );
  }
  const written = write(task, { model_type });
  const size = written.files.get(MODEL_FILE)!.length;
  if (size > MAX_BYTES)
    throw new ArgumentError(
      `${where}: ${MODEL_FILE} has ${size} bytes; Workers AI takes at most ${MAX_BYTES}. A dtype of 16 bits halves it.`,
    );
  written.notes.push(`Upload it: npx wrangler ai finetune create <model> <name> <folder>.`);
  return written;
}
