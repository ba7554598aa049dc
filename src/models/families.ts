/** The table of families: loading, fetching and planning ask it, by transformers' model_type. */
import { readModelType } from "../io/config_reader.js";
import { show } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import type { CausalLM } from "./causal_lm.js";
import type { Family } from "./family.js";
import { gpt2 } from "./gpt2.js";
import { llama } from "./llama.js";
import { loadFamily, readConfig, type LoadedModel } from "./load.js";

/** The families, by model_type. The public types follow from it, so it stays in the declarations. */
export const FAMILIES = { llama, gpt2 };

type AnyFamily = (typeof FAMILIES)[keyof typeof FAMILIES];
type Loaded<F> = F extends Family<infer Config, infer Model> ? LoadedModel<Model, Config> : never;

/** The configuration of a model of any family; its modelType says of which. */
export type ModelConfig = ReturnType<AnyFamily["parseConfig"]>;

/** A model of any family and what its folder says; `config.modelType` says of which. */
export type AnyLoadedModel = Loaded<AnyFamily>;

/** The family of a model_type, if the library has it. @internal */
export function familyOf(modelType: unknown): Family<ModelConfig, CausalLM> | undefined {
  return typeof modelType === "string" && Object.hasOwn(FAMILIES, modelType)
    ? FAMILIES[modelType as keyof typeof FAMILIES]
    : undefined;
}

function supported(): string {
  const names = Object.keys(FAMILIES).map(show);
  return `supported are ${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/**
 * The model of a folder, of the family that its config.json names in model_type.
 * @throws FileError, FormatError; also for a model_type of no family here
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * console.log(model instanceof models.Llama); // true
 */
export function loadModel(directory: string): AnyLoadedModel {
  const json = readConfig("loadModel", directory);
  const path = `${directory}/config.json`;
  const modelType = readModelType(json, path);
  const family = familyOf(modelType);
  if (!family) throw new FormatError(`${path}: model_type is ${show(modelType)}; ${supported()}.`);
  return loadFamily(family, directory, json) as AnyLoadedModel;
}

/**
 * A model with initial weights, by its configuration. @internal
 * @throws ArgumentError for a modelType that is not in the table, and as the model's constructor
 */
export function createModel(where: string, config: ModelConfig): CausalLM {
  const { modelType } = config;
  const family = familyOf(modelType);
  if (!family) throw new ArgumentError(`${where}: model.modelType is ${shown(modelType)}; ${supported()}.`);
  return family.create(config);
}
