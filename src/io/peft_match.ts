/**
 * Which modules a LoraConfig adapts, and with which rank and alpha: PEFT's rules on dotted module paths.
 * Source: huggingface/peft 0.20, src/peft/tuners/tuners_utils.py (check_target_module_exists,
 * _maybe_include_all_linear_layers), src/peft/utils/other.py (get_pattern_key). PEFT 0.21 differs in one point: with
 * layersPattern, it also takes a layer's name at the very start of a path.
 */
import type { LoraConfig } from "./peft_config.js";
import { compilePattern, matcher } from "./python_regexp.js";

/** target_modules in any letter case that stands for every linear layer. */
const ALL_LINEAR = "all-linear";

/** The fields of a LoraConfig that choose modules. */
export type Selection = Pick<LoraConfig, "targetModules" | "excludeModules" | "layersToTransform" | "layersPattern" | "modulesToSave">;

/**
 * Whether `config` puts LoRA on the module at `path`.
 *
 * Excluded modules and those of modulesToSave (with all below them) are never adapted. A string must match the
 * whole path, or is "all-linear": every linear layer but the output layer. A name in a list is the path or its
 * end after a dot. Where it is the end only, layersToTransform must hold the module's layer: the number between
 * dots after a name that layersPattern matches, or without layersPattern the first number between dots. That
 * name must stand after a dot itself ("model.layers.0.x", not "layers.0.x").
 *
 * @param isLinear the module is a linear layer
 * @param isOutputLayer it is the model's output layer (get_output_embeddings in transformers)
 * @throws ArgumentError for a pattern that JavaScript cannot express
 *
 * @example
 * const config = { targetModules: ["q_proj"], excludeModules: null, layersToTransform: [1], layersPattern: null, modulesToSave: null };
 * const path = (layer: number): string => `model.layers.${layer}.self_attn.q_proj`;
 * console.log(io.targets(config, path(0), true, false), io.targets(config, path(1), true, false)); // false true
 */
export function targets(config: Selection, path: string, isLinear: boolean, isOutputLayer: boolean): boolean {
  const { targetModules, excludeModules, modulesToSave } = config;
  if (excludeModules && (typeof excludeModules === "string" ? matcher(excludeModules)(path) : isNamed(path, excludeModules))) return false;
  if (modulesToSave?.some((name) => compilePattern("(?:.*\\.)?", name, "(?:$|\\.)").test(path))) return false;
  if (typeof targetModules === "string") {
    return targetModules.toLowerCase() === ALL_LINEAR ? isLinear && !isOutputLayer : matcher(targetModules)(path);
  }
  return targetModules.includes(path) || (isNamed(path, targetModules) && isInLayers(config, path));
}

function isNamed(path: string, names: readonly string[]): boolean {
  return names.some((name) => path === name || path.endsWith(`.${name}`));
}

function isInLayers({ layersToTransform, layersPattern }: Selection, path: string): boolean {
  const wanted = typeof layersToTransform === "number" ? [layersToTransform] : layersToTransform;
  if (!wanted?.length) return true;
  const patterns = typeof layersPattern === "string" ? [layersPattern] : layersPattern;
  // An empty pattern is as good as none.
  for (const pattern of layersPattern?.length ? patterns! : ["[^.]*"]) {
    const layer = compilePattern(".*?\\.", pattern, "\\.(?<index>\\d+)\\.").exec(path);
    if (layer) return wanted.includes(Number(layer.groups!.index));
  }
  return false;
}

/**
 * The value of the first key of rankPattern or alphaPattern that is, as a regular expression, the whole path or its end
 * after a dot; else `fallback`.
 *
 * Source: PEFT, get_pattern_key.
 * @throws ArgumentError for a key that JavaScript cannot express
 *
 * @example
 * console.log(io.patternValue({ "^lin": 4, "q_proj": 16 }, "layers.0.q_proj", 8)); // 16
 */
export function patternValue(pattern: Readonly<Record<string, number>>, path: string, fallback: number): number {
  for (const [key, value] of Object.entries(pattern)) {
    if (compilePattern("(?:.*\\.)?", key, "$").test(path)) return value;
  }
  return fallback;
}

/**
 * What B(A(x)) of the module at `path` is multiplied by: alpha / r, or alpha / sqrt(r) with useRslora.
 *
 * Source: PEFT, LoraLayer.update_layer; Kalajdzievski 2023 (rsLoRA).
 * @throws ArgumentError for a pattern that JavaScript cannot express
 *
 * @example
 * const config = { r: 4, loraAlpha: 8, rankPattern: { k_proj: 16 }, alphaPattern: {}, useRslora: true };
 * console.log(io.scalingOf(config, "q_proj"), io.scalingOf(config, "k_proj")); // 4 2
 */
export function scalingOf(config: Pick<LoraConfig, "r" | "loraAlpha" | "rankPattern" | "alphaPattern" | "useRslora">, path: string): number {
  const r = patternValue(config.rankPattern, path, config.r);
  return patternValue(config.alphaPattern, path, config.loraAlpha) / (config.useRslora ? Math.sqrt(r) : r);
}
