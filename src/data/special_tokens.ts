/** The tokens that begin and end a model's texts, from where Hugging Face's generate() takes them. */
import { FormatError } from "../runtime/errors.js";
import { show } from "../io/json.js";
import { readGenerationConfig } from "./generation_config.js";

/** Token ids as config.json has them: one, several or none. */
export type TokenIds = number | readonly number[] | null;

/** What `specialTokens` finds. */
export interface SpecialTokens {
  /**
   * Begins a text; null: the model has none. A prompt gets what `Tokenizer.encode` puts before it, which may be
   * another.
   */
  bosTokenId: number | null;
  /** Each of them ends a text; for `stopToken` of `models.generate`. */
  eosTokenIds: readonly number[];
}

/**
 * The tokens that begin and end texts: each from generation_config.json if it has it, else from config.json. Ids that
 * the model's vocabulary lacks are left out, since no text can hold them.
 *
 * Source: transformers, GenerationConfig.from_pretrained and from_model_config.
 * @param config of the model, as `models.loadModel` gives it
 * @throws FormatError naming the key of generation_config.json that holds no token's id
 *
 * @example
 * const { config } = models.loadModel("models/base");
 * console.log(data.specialTokens("models/base", config)); // { bosTokenId: 0, eosTokenIds: [ 0 ] }
 */
export function specialTokens(
  directory: string,
  config: { bosTokenId: number | null; eosTokenId: TokenIds; vocabSize: number },
): SpecialTokens {
  const { path, json } = readGenerationConfig(directory);
  const ids = (key: string, fallback: TokenIds): number[] => {
    const value = json[key] ?? fallback ?? [];
    const list = Array.isArray(value) ? value : [value];
    if (!list.every((id) => Number.isSafeInteger(id)))
      throw new FormatError(`${path}: ${key} is ${show(value)}; expected a token's id or a list of them.`);
    return list.filter((id) => id >= 0 && id < config.vocabSize);
  };
  return {
    bosTokenId: ids("bos_token_id", config.bosTokenId)[0] ?? null,
    eosTokenIds: [...new Set(ids("eos_token_id", config.eosTokenId))],
  };
}
