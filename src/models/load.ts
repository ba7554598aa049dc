/** Models and adapters from and to folders in Hugging Face's and PEFT's layout. */
import { loadCheckpoint, parseGpt2Config, parseLlamaConfig, type Gpt2Config, type LlamaConfig } from "../io/huggingface.js";
import { readJson } from "../io/files.js";
import { show } from "../io/json.js";
import { peftKey, readPeftAdapter, writePeftAdapter, type LoraConfig } from "../io/peft.js";
import * as lora from "../lora/index.js";
import type { Module, StateDict, StateEntry } from "../nn/module.js";
import { FormatError } from "../runtime/errors.js";
import { Gpt2, type Gpt2Lora } from "./gpt2.js";
import { Llama, type LlamaLora } from "./llama.js";

/**
 * A Llama from a folder with config.json and model.safetensors (or its shards), F32, F16 or BF16.
 *
 * @param options LoRA to add; its factors start as loralib's
 * @throws FileError, FormatError naming what is missing, unknown or of a wrong shape
 */
export function loadLlama(directory: string, options?: LlamaLora): { model: Llama; config: LlamaConfig } {
  const path = `${directory}/config.json`;
  const config = parseLlamaConfig(readJson(path), path);
  const weights: Map<string, StateEntry> = new Map(loadCheckpoint(directory));
  // A tied head may be stored beside the table it equals.
  if (config.tieWordEmbeddings) weights.delete("lm_head.weight");
  const model = new Llama(config, options);
  return { model: fill(model, weights, `loadLlama: ${directory}`), config };
}

/**
 * A GPT-2 from such a folder. Keys may lack the "transformer." prefix, as the hub's own GPT-2 has them;
 * the stored causal masks (attn.bias, attn.masked_bias) are ignored.
 *
 * @param options LoRA to add to every c_attn; its factors start as loralib's
 * @throws FileError, FormatError naming what is missing, unknown, there twice or of a wrong shape
 *
 * @example
 * const { model } = models.loadGpt2("gpt2", { r: 8, loraAlpha: 16 });
 * lora.markOnlyLoraAsTrainable(model);
 */
export function loadGpt2(directory: string, options?: Gpt2Lora): { model: Gpt2; config: Gpt2Config } {
  const path = `${directory}/config.json`;
  const config = parseGpt2Config(readJson(path), path);
  const weights: Map<string, StateEntry> = new Map();
  for (const [name, entry] of loadCheckpoint(directory, (key) => !CAUSAL_MASK.test(key))) {
    const key = name.startsWith("transformer.") || name.startsWith("lm_head.") ? name : `transformer.${name}`;
    if (weights.has(key)) throw new FormatError(`loadGpt2: ${directory} has ${key} twice, with and without "transformer.".`);
    weights.set(key, entry);
  }
  if (config.tieWordEmbeddings) weights.delete("lm_head.weight");
  return { model: fill(new Gpt2(config, options), weights, `loadGpt2: ${directory}`), config };
}

const CAUSAL_MASK = /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/;

/**
 * The model of a folder, of the architecture that its config.json names in model_type.
 * @throws FileError, FormatError; also for a model_type other than "llama" and "gpt2"
 */
export function loadModel(directory: string): { model: Llama; config: LlamaConfig } | { model: Gpt2; config: Gpt2Config } {
  const path = `${directory}/config.json`, type = (readJson(path) as { model_type?: unknown } | null)?.model_type;
  if (type === "llama") return loadLlama(directory);
  if (type === "gpt2") return loadGpt2(directory);
  throw new FormatError(`${path}: model_type is ${show(type)}; supported are "llama" and "gpt2".`);
}

/** Loads the weights of everything but LoRA factors. @throws FormatError if they do not fit; then the model is disposed */
function fill<M extends Module>(model: M, weights: ReadonlyMap<string, StateEntry>, where: string): M {
  const base = new Set([...model.namedParameters()].map(([key]) => key).filter((key) => !key.includes("lora_")));
  const missing = [...base].filter((key) => !weights.has(key));
  const unexpected = [...weights.keys()].filter((key) => !base.has(key));
  try {
    if (missing.length + unexpected.length > 0) {
      throw new FormatError(`${where} does not fit its config.json: missing ${missing.slice(0, 4).join(", ") || "nothing"}, ` +
        `unexpected ${unexpected.slice(0, 4).join(", ") || "nothing"}.`);
    }
    model.loadStateDict(weights, false);
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

const FACTOR = /^(.*)\.lora_([AB])$/;

/**
 * Writes a PEFT adapter folder: adapter_model.safetensors and adapter_config.json.
 * @param baseModel name or path of the base model, for the config
 */
export function savePeftAdapter(directory: string, model: Llama, options: LlamaLora, baseModel: string): void {
  const tensors = [...lora.loraStateDict(model)].map(([key, entry]) => {
    const [, path, factor] = FACTOR.exec(key)!;
    return { name: peftKey(path!, factor === "A" ? "lora_A" : "lora_B"), ...entry };
  });
  writePeftAdapter(directory, {
    r: options.r, loraAlpha: options.loraAlpha, loraDropout: options.loraDropout ?? 0,
    targetModules: [...options.targetModules], baseModelNameOrPath: baseModel, taskType: "CAUSAL_LM",
  }, tensors);
}

/** A Llama's layers have one rank and alpha, plain LoRA, and are chosen by their last names. */
function llamaLora(config: LoraConfig, adapter: string): LlamaLora {
  const { r, loraAlpha, loraDropout, targetModules } = config;
  const refuse = (field: keyof LoraConfig): never => { throw new FormatError(`${adapter}: ${field} asks for what a Llama here does not support.`); };
  if (typeof targetModules === "string") return refuse("targetModules");
  for (const field of ["useRslora", "useDora", "excludeModules", "layersToTransform", "layersPattern", "rankPattern", "alphaPattern", "modulesToSave"] as const) {
    const value = config[field];
    const isUnused = value === null || value === false || value === "" || (typeof value === "object" && Object.keys(value).length === 0);
    if (!isUnused) refuse(field);
  }
  return { r, loraAlpha, loraDropout, targetModules };
}

/**
 * A Llama with a PEFT adapter folder's factors on it.
 * @throws FileError, FormatError if the adapter does not fit the model
 */
export function loadLlamaWithAdapter(directory: string, adapter: string): { model: Llama; config: LlamaConfig; options: LlamaLora } {
  const { config: peft, tensors } = readPeftAdapter(adapter);
  const options = llamaLora(peft, adapter);
  const { model, config } = loadLlama(directory, options);
  const factors: StateDict = new Map();
  for (const key of lora.loraStateDict(model).keys()) {
    const [, path, factor] = FACTOR.exec(key)!;
    const name = peftKey(path!, factor === "A" ? "lora_A" : "lora_B");
    const entry = tensors.get(name);
    if (!entry) throw new FormatError(`${adapter}: tensor ${name} is missing.`);
    factors.set(key, entry);
    tensors.delete(name);
  }
  if (tensors.size > 0) throw new FormatError(`${adapter}: tensor ${[...tensors.keys()][0]} fits no LoRA layer of ${directory}.`);
  model.loadStateDict(factors, false);
  return { model, config, options };
}
