/**
 * What PEFT adapts where a config names nothing: by the model_type of config.json.
 * Source: huggingface/peft 0.21, utils/constants.py (TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING), those of it
 * that are families here; of gemma3 there is the text model alone.
 */
import type { LoraConfig } from "../io/peft/config.js";
import { show } from "../io/json.js";
import type { Module } from "../nn/module.js";
import { ArgumentError } from "../runtime/errors.js";

const QUERY_VALUE: readonly string[] = ["q_proj", "v_proj"];

const BY_MODEL_TYPE: ReadonlyMap<unknown, readonly string[]> = new Map([
  ...["llama", "mistral", "gemma", "gemma2", "gemma3_text", "gemma3", "qwen2", "qwen3"].map(
    (type) => [type, QUERY_VALUE] as const,
  ),
  ["gpt2", ["c_attn"]],
  ["gpt_neox", ["query_key_value"]],
  ...["bert", "roberta", "xlm-roberta"].map((type) => [type, ["query", "value"]] as const),
]);

/** The config with targetModules that were left out: by the model's type, or none beside targetParameters. */
export function withTargets(where: string, model: Module, config: LoraConfig): LoraConfig {
  if (config.targetModules !== null) return config;
  if (config.targetParameters !== null) return { ...config, targetModules: [] };
  const type = (model as { config?: { modelType?: unknown } }).config?.modelType;
  const targetModules = BY_MODEL_TYPE.get(type);
  if (!targetModules)
    throw new ArgumentError(
      `${where}: targetModules is null, and there are no default ones for ` +
        `${type === undefined ? "a model without config.modelType" : `modelType ${show(type)}`}; name the modules to ` +
        `adapt, or pass "all-linear".`,
    );
  return { ...config, targetModules };
}
