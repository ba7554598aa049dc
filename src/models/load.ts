/** Models from folders in Hugging Face's layout, of any family. */
import { loadTokenizer, specialTokens, type Tokenizer } from "../data/index.js";
import { exists, readJson } from "../io/files.js";
import { show } from "../io/json.js";
import type { Module } from "../nn/module.js";
import { ArgumentError, FileError } from "../runtime/errors.js";
import { allOrNothing } from "../tensor/scope.js";
import type { CausalLM } from "./causal_lm.js";
import type { Family, FamilyConfig } from "./family.js";
import { Weights } from "./weights.js";

/** A model and what its folder says. */
export interface LoadedModel<M extends Module, Config> {
  /** In training mode, all parameters trainable but those that LoRA freezes. */
  model: M;
  /** The same as model.config: config.json's, but for tieWordEmbeddings, which says what the weights are. */
  config: Config;
  /** The folder. */
  path: string;
  /** The folder's tokenizer, read when it is first asked for. Errors as `data.loadTokenizer`. */
  readonly tokenizer: Tokenizer;
  /**
   * The tokens that end a text, from generation_config.json or config.json, read when first asked for. Errors as
   * `data.specialTokens`.
   */
  readonly eosTokenIds: readonly number[];
}

/**
 * The model of a folder.
 * @param json of its config.json, as `readConfig` gives it
 * @throws FileError, FormatError naming what is missing, unknown or of another shape than config.json says
 */
export function loadFamily<Config extends FamilyConfig, Model extends CausalLM>(
  family: Family<Config, Model>,
  path: string,
  json: unknown,
): LoadedModel<Model, Config> {
  const read = family.parseConfig(json, `${path}/config.json`);
  const weights = new Weights(path, family);
  const config = { ...read, tieWordEmbeddings: weights.tie(read.tieWordEmbeddings) };
  weights.check(config);
  let tokenizer: Tokenizer | undefined;
  let eosTokenIds: readonly number[] | undefined;
  return {
    model: allOrNothing(() => weights.fill(() => family.create(config))),
    config,
    path,
    get tokenizer() {
      return (tokenizer ??= loadTokenizer(path));
    },
    get eosTokenIds() {
      return (eosTokenIds ??= specialTokens(path, config).eosTokenIds);
    },
  };
}

/** config.json of a folder; what is no folder here is told apart. */
export function readConfig(where: string, directory: string): unknown {
  if (typeof directory !== "string")
    throw new ArgumentError(`${where}: directory must be the path of a folder; got ${show(directory)}.`);
  const path = `${directory}/config.json`;
  if (/^https?:/i.test(directory)) {
    throw new ArgumentError(
      `${where}: ${directory} is a web address, and ${where} reads a folder on disk or in io.memoryFiles: use ` +
        `await models.fetchModel(url).`,
    );
  }
  if (!exists(path) && exists(`${directory}/adapter_config.json`)) {
    throw new FileError(
      `cannot read ${path}: the folder holds a PEFT adapter, not a model. Load its base model and then the ` +
        `adapter: peft.LoraModel.fromPretrained(model, ${show(directory)}).`,
    );
  }
  if (!directory.startsWith("memory:") && !exists(path)) {
    if (/\.(safetensors|bin|pt|gguf|json)$/.test(directory) && exists(directory)) {
      throw new FileError(
        `cannot read ${path}: ${directory} is a file; name the folder that holds config.json and model.safetensors.`,
      );
    }
    if (/^[\w-][\w.-]*\/[\w.-]+$/.test(directory) && !exists(directory)) {
      throw new FileError(
        `cannot read ${path}: it does not exist. ${where} reads a local folder; if ${directory} is a model on the ` +
          `Hugging Face hub, download it ` +
          `(hf download ${directory} --local-dir ${directory.split("/")[1]}) and name that folder, or use await ` +
          `models.fetchModel("https://huggingface.co/${directory}/resolve/main").`,
      );
    }
  }
  return readJson(path);
}
