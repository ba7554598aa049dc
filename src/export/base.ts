/** What a target needs to know of an adapter's base: its config. */
import { familyOfConfig, type ModelConfig } from "../models/families.js";
import { configPath } from "../io/gguf/files.js";
import { readConfig } from "../models/load.js";
import type { LoraModel } from "../peft/model.js";
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";

/**
 * The config of the base: of the model that is adapted, of a folder, or of a GGUF file.
 * @throws FileError, FormatError, ArgumentError
 */
export function configOfBase(where: string, source: string | LoraModel, base: string | undefined): ModelConfig {
  if (base !== undefined) {
    if (typeof base !== "string")
      throw new ArgumentError(`${where}: base must be the path of a model's folder or GGUF file; got ${shown(base)}.`);
    const json = readConfig(where, base);
    const path = configPath(base);
    return familyOfConfig(json, path).parseConfig(json, path) as ModelConfig;
  }
  if (typeof source === "string")
    throw new ArgumentError(
      `${where}: say what the adapter was made for: base, the path of the model's folder or GGUF file.`,
    );
  const { config } = source.model as { config?: ModelConfig };
  if (config?.modelType === undefined)
    throw new ArgumentError(
      `${where}: the adapted model says nothing of its family (config); give base, its folder or GGUF file.`,
    );
  return config;
}

/** Heads of attention, in every family's words. */
export function headsOfConfig(config: ModelConfig): { heads: number; kvHeads: number } {
  const { numAttentionHeads, numKeyValueHeads, nHead } = config as Partial<
    Record<"numAttentionHeads" | "numKeyValueHeads" | "nHead", number>
  >;
  const heads = numAttentionHeads ?? nHead!;
  return { heads, kvHeads: numKeyValueHeads ?? heads };
}
