/** The table of families: loading, fetching and planning ask it, by transformers' model_type. */
import { readModelType } from "../io/config_reader.js";
import { show } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import type { CausalLM } from "./causal_lm.js";
import type { DecoderForCausalLM, DecoderModel } from "./decoder.js";
import type { Family, Head } from "./family.js";
import { gpt2, type Gpt2Config } from "./gpt2.js";
import { llama, type LlamaConfig } from "./llama.js";
import { loadFamily, readConfig, type LoadedModel } from "./load.js";

/** The configuration of a model of any family; its modelType says of which. */
export type ModelConfig = LlamaConfig | Gpt2Config;

/** What `loadModel` gives under each head. */
export interface HeadModels {
  /** The logits of the next token. */
  "causal-lm": DecoderForCausalLM;
  /** The states of the last layer. */
  none: DecoderModel;
}

/** A model of any family and what its folder says; `config.modelType` says of which, `head` what it gives. */
export type AnyLoadedModel<H extends Head = "causal-lm"> = LoadedModel<HeadModels[H], ModelConfig, H>;

/** Options of `loadModel`. */
export interface LoadModelOptions<H extends Head = "causal-lm"> {
  /**
   * What the model is to give. Default: what the folder's was trained for, by the architectures of config.json. What
   * the folder has for another head is left out.
   */
  head?: H | undefined;
}

const FAMILIES = new Map<unknown, Family<ModelConfig>>([llama, gpt2].map((family) => [family.modelType, family]));

/** The family of a model_type, if the library has it. @internal */
export function familyOf(modelType: unknown): Family<ModelConfig> | undefined {
  return FAMILIES.get(modelType);
}

/** The model_types there are. @internal */
export function modelTypes(): string[] {
  return [...FAMILIES.values()].map(({ modelType }) => modelType);
}

function supported(): string {
  const names = modelTypes().map(show);
  return `supported are ${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/**
 * The model of a folder, of the family that its config.json names in model_type, under the head that its architectures
 * name. TypeScript takes it for a language model unless `head` says otherwise.
 * @throws FileError, FormatError; also for a model_type of no family here; ArgumentError for a head that the family
 * lacks
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * console.log(model instanceof models.Llama); // true
 */
export function loadModel<H extends Head = "causal-lm">(
  directory: string,
  options?: LoadModelOptions<H>,
): AnyLoadedModel<H> {
  checkOptions("loadModel", options, ["head"]);
  const json = readConfig("loadModel", directory);
  const path = `${directory}/config.json`;
  const modelType = readModelType(json, path);
  const family = familyOf(modelType);
  if (!family) throw new FormatError(`${path}: model_type is ${show(modelType)}; ${supported()}.`);
  return loadFamily<ModelConfig, HeadModels[H], H>(family, options?.head, directory, json);
}

/**
 * A language model with initial weights, by its configuration. @internal
 * @throws ArgumentError for a modelType that is not in the table or of no language model, and as the model's
 * constructor
 */
export function createModel(where: string, config: ModelConfig): CausalLM {
  const { modelType } = config;
  const head = familyOf(modelType)?.heads["causal-lm"];
  if (!head) throw new ArgumentError(`${where}: model.modelType is ${shown(modelType)}; ${supported()}.`);
  return head.create(config) as CausalLM;
}
