/** Models from folders in Hugging Face's layout. */
import { loadCheckpoint, parseGpt2Config, parseLlamaConfig, type Gpt2Config, type LlamaConfig } from "../io/huggingface.js";
import { readJson } from "../io/files.js";
import { show } from "../io/json.js";
import type { Module, StateEntry } from "../nn/module.js";
import { FormatError } from "../runtime/errors.js";
import { allOrNothing } from "../tensor/scope.js";
import { Gpt2, type Gpt2Lora } from "./gpt2.js";
import { Llama } from "./llama.js";

/** A model and what its config.json says. */
export interface LoadedModel<M extends Module, Config> {
  /** In training mode, all parameters trainable but those that LoRA freezes. */
  model: M;
  /** The same as model.config. */
  config: Config;
}

/**
 * A Llama from a folder with config.json and model.safetensors (or its shards), F32, F16 or BF16.
 *
 * Source: transformers, LlamaForCausalLM.from_pretrained.
 * @throws FileError, FormatError naming what is missing, unknown or of a wrong shape
 *
 * @example
 * const { model, config } = models.loadLlama("models/base");
 * const logits = noGrad(() => model.forward(tensor(new Int32Array([5, 6, 7]), [1, 3])));
 * console.log(logits.shape[2] === config.vocabSize); // true
 */
export function loadLlama(directory: string): LoadedModel<Llama, LlamaConfig> {
  const path = `${directory}/config.json`;
  const config = parseLlamaConfig(readJson(path), path);
  const weights: Map<string, StateEntry> = new Map(loadCheckpoint(directory));
  // A tied head may be stored beside the table it equals.
  if (config.tieWordEmbeddings) weights.delete("lm_head.weight");
  return { model: allOrNothing(() => fill(new Llama(config), weights, `loadLlama: ${directory}`)), config };
}

/**
 * A GPT-2 from such a folder. Keys may lack the "transformer." prefix, as the hub's own GPT-2 has them;
 * the stored causal masks (attn.bias, attn.masked_bias) are ignored.
 *
 * Source: transformers, GPT2LMHeadModel.from_pretrained.
 * @param options LoRA to add to every c_attn; its factors start as loralib's
 * @throws FileError, FormatError naming what is missing, unknown, there twice or of a wrong shape; ArgumentError for the
 * options
 *
 * @example
 * const { model } = models.loadGpt2("gpt2", { r: 8, loraAlpha: 16 });
 * lora.markOnlyLoraAsTrainable(model);
 */
export function loadGpt2(directory: string, options?: Gpt2Lora): LoadedModel<Gpt2, Gpt2Config> {
  const path = `${directory}/config.json`;
  const config = parseGpt2Config(readJson(path), path);
  const weights: Map<string, StateEntry> = new Map();
  for (const [name, entry] of loadCheckpoint(directory, (key) => !CAUSAL_MASK.test(key))) {
    const key = name.startsWith("transformer.") || name.startsWith("lm_head.") ? name : `transformer.${name}`;
    if (weights.has(key)) throw new FormatError(`loadGpt2: ${directory} has ${key} twice, with and without "transformer.".`);
    weights.set(key, entry);
  }
  if (config.tieWordEmbeddings) weights.delete("lm_head.weight");
  return { model: allOrNothing(() => fill(new Gpt2(config, options), weights, `loadGpt2: ${directory}`)), config };
}

const CAUSAL_MASK = /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/;

/**
 * The model of a folder, of the architecture that its config.json names in model_type.
 * @throws FileError, FormatError; also for a model_type other than "llama" and "gpt2"
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * console.log(model instanceof models.Llama); // true
 */
export function loadModel(directory: string): LoadedModel<Llama, LlamaConfig> | LoadedModel<Gpt2, Gpt2Config> {
  const path = `${directory}/config.json`, type = (readJson(path) as { model_type?: unknown } | null)?.model_type;
  if (type === "llama") return loadLlama(directory);
  if (type === "gpt2") return loadGpt2(directory);
  throw new FormatError(`${path}: model_type is ${show(type)}; supported are "llama" and "gpt2".`);
}

/** Loads the weights of everything but LoRA factors. @throws FormatError if they do not fit */
function fill<M extends Module>(model: M, weights: ReadonlyMap<string, StateEntry>, where: string): M {
  const base = new Set([...model.namedParameters()].map(([key]) => key).filter((key) => !key.includes("lora_")));
  const missing = [...base].filter((key) => !weights.has(key));
  const unexpected = [...weights.keys()].filter((key) => !base.has(key));
  if (missing.length + unexpected.length > 0) {
    throw new FormatError(`${where} does not fit its config.json: missing ${missing.slice(0, 4).join(", ") || "nothing"}, ` +
      `unexpected ${unexpected.slice(0, 4).join(", ") || "nothing"}.`);
  }
  model.loadStateDict(weights, false);
  return model;
}
