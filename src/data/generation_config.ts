/** generation_config.json: how a model's authors let it write. */
import { exists, readJson } from "../io/files.js";
import { asObject, show } from "../io/json.js";
import { FormatError } from "../runtime/errors.js";

/** What generation_config.json says of drawing tokens. */
export interface GenerationConfig {
  /** For `models.generate`, what the file says and nothing else. */
  sampling: {
    /** temperature; 0 where do_sample is false, 1 where it is true and there is none. */
    temperature?: number | undefined;
    /** top_k. */
    topK?: number | undefined;
    /** top_p. */
    topP?: number | undefined;
    /** min_p. */
    minP?: number | undefined;
    /** repetition_penalty. */
    repetitionPenalty?: number | undefined;
  };
  /** Keys that transformers would act by and this library does not. */
  unapplied: readonly string[];
}

/** Keys that change the text in transformers, with the values that do not. */
const OTHERS: Readonly<Record<string, readonly unknown[]>> = {
  num_beams: [1],
  typical_p: [1],
  top_h: [],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  no_repeat_ngram_size: [0],
  min_length: [0],
  min_new_tokens: [0],
  bad_words_ids: [],
  suppress_tokens: [],
  begin_suppress_tokens: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  sequence_bias: [],
  exponential_decay_length_penalty: [],
  guidance_scale: [1],
  penalty_alpha: [0],
  stop_strings: [],
};

/** The file's object, {} without a file. @throws FormatError @internal */
export function readGenerationConfig(directory: string): { path: string; json: Record<string, unknown> } {
  const path = `${directory}/generation_config.json`;
  const json = asObject(exists(path) ? readJson(path) : {});
  if (!json) throw new FormatError(`${path}: expected a JSON object.`);
  return { path, json };
}

/**
 * How the authors of a folder's model draw its tokens, from generation_config.json; a folder without one says nothing.
 * As in transformers temperature, top_k, top_p and min_p count where do_sample is true, and a do_sample of false takes
 * the likeliest token. (Where do_sample is true and there is no top_k, transformers takes 50; here it is off.)
 *
 * Source: transformers, GenerationConfig.
 * @throws FormatError naming the key of generation_config.json that is not a number in its range
 *
 * @example
 * const { model, tokenizer, path, eosTokenIds } = models.loadModel("models/base");
 * const { sampling } = data.generationConfig(path);
 * const options = { maxNewTokens: 8, ...sampling, stopToken: eosTokenIds };
 * console.log(tokenizer.decode(models.generate(model, tokenizer.encode("We"), options)).length > 0); // true
 */
export function generationConfig(directory: string): GenerationConfig {
  const { path, json } = readGenerationConfig(directory);
  const sampling: GenerationConfig["sampling"] = {};
  const samples = json["do_sample"] ?? undefined;
  if (samples !== undefined && typeof samples !== "boolean")
    throw new FormatError(`${path}: do_sample is ${show(samples)}; expected true or false.`);
  const read = (key: string, expected: string, valid: (value: number) => boolean): number | undefined => {
    const value = json[key] ?? undefined;
    if (value !== undefined && !(typeof value === "number" && Number.isFinite(value) && valid(value)))
      throw new FormatError(`${path}: ${key} is ${show(value)}; expected ${expected}.`);
    return value;
  };
  const share = "a number in 0 .. 1";
  const isShare = (value: number): boolean => value >= 0 && value <= 1;
  const given = {
    temperature: read("temperature", "a number of at least 0", (value) => value >= 0),
    topK: read("top_k", "an integer of at least 0", (value) => Number.isSafeInteger(value) && value >= 0),
    topP: read("top_p", share, isShare),
    minP: read("min_p", share, isShare),
  };
  if (samples === false) sampling.temperature = 0;
  if (samples === true)
    for (const [key, value] of Object.entries({ ...given, temperature: given.temperature ?? 1 }))
      if (value !== undefined) sampling[key as keyof typeof given] = value;
  const penalty = read("repetition_penalty", "a number above 0", (value) => value > 0);
  if (penalty !== undefined) sampling.repetitionPenalty = penalty;
  const unapplied = Object.keys(OTHERS).filter((key) => {
    const value = json[key] ?? undefined;
    return value !== undefined && !OTHERS[key]!.includes(value);
  });
  return { sampling, unapplied };
}
