/** Llama models and adapters from and to folders in Hugging Face's and PEFT's layout. */
import { loadCheckpoint, parseLlamaConfig, type LlamaConfig } from "../io/huggingface.js";
import { readJson } from "../io/files.js";
import { peftKey, readPeftAdapter, writePeftAdapter, type LoraConfig } from "../io/peft.js";
import * as lora from "../lora/index.js";
import type { StateDict, StateEntry } from "../nn/module.js";
import { FormatError } from "../runtime/errors.js";
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
  const base = new Set([...model.namedParameters()].map(([key]) => key).filter((key) => !key.includes("lora_")));
  const missing = [...base].filter((key) => !weights.has(key));
  const unexpected = [...weights.keys()].filter((key) => !base.has(key));
  if (missing.length + unexpected.length > 0) {
    model.dispose();
    throw new FormatError(`loadLlama: ${directory} does not fit its config.json: missing ${missing.slice(0, 4).join(", ") || "nothing"}, ` +
      `unexpected ${unexpected.slice(0, 4).join(", ") || "nothing"}.`);
  }
  model.loadStateDict(weights, false);
  return { model, config };
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
