/** Text to tokens and back, as transformers' tokenizer of the same folder does it. */
import { exists, readJson } from "../io/files.js";
import { show } from "../io/json.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { addedToken, AddedTokenSplitter, type AddedToken } from "./added_tokens.js";
import { cleanUp, decoderStage, type Stage, type StageMaker } from "./decoder.js";
import { asObject, type Fail } from "./json_fields.js";
import { normalizer } from "./normalizer.js";
import { postProcessor, type Surroundings } from "./post_processor.js";
import { preTokenizer, type PreTokenizer } from "./pre_tokenizer.js";
import { tokenModel, type TokenModel } from "./token_model.js";

/** Options of `Tokenizer.encode`. */
export interface EncodeOptions {
  /** Whether the tokenizer's post-processor adds its tokens: begin-of-text, mostly. Default true. */
  addSpecialTokens?: boolean | undefined;
}

/** Options of `Tokenizer.decode` and `decodeStream`. */
export interface DecodeOptions {
  /** Whether special tokens ("<|endoftext|>" and its like) are left out. Default false. */
  skipSpecialTokens?: boolean | undefined;
}

/**
 * The tokenizer of a model's folder: its tokenizer.json, and tokenizer_config.json if there is one.
 *
 * Source: transformers 5, AutoTokenizer.from_pretrained.
 * @throws FileError if there is no tokenizer.json; FormatError naming file and field of what is damaged or not supported
 *
 * @example
 * const tokenizer = data.loadTokenizer("models/base");
 * const ids = tokenizer.encode("Call me Ishmael.");
 * console.log(ids.length, tokenizer.decode(ids)); // 11 <|endoftext|>Call me Ishmael.
 */
export function loadTokenizer(directory: string): Tokenizer {
  const path = `${directory}/tokenizer.json`, configPath = `${directory}/tokenizer_config.json`;
  return new Tokenizer(readJson(path), exists(configPath) ? readJson(configPath) : {}, path);
}

/**
 * Text to token ids and back. `loadTokenizer` makes one from a folder.
 *
 * Which tokens go around a text is what tokenizer.json's post-processor says, as in transformers 5, which ignores
 * add_bos_token and add_eos_token beside a tokenizer.json.
 *
 * Source: huggingface/tokenizers 0.23; transformers 5, tokenization_utils_tokenizers.py.
 *
 * @example
 * const vocab = { "<s>": 0, low: 1, er: 2 };
 * const tokenizer = new data.Tokenizer({ model: { type: "WordLevel", vocab, unk_token: "<s>" }, pre_tokenizer: { type: "WhitespaceSplit" } });
 * console.log(tokenizer.encode("low er").join(" ")); // 1 2
 */
export class Tokenizer {
  readonly #model: TokenModel;
  readonly #normalize: (text: string) => string;
  readonly #preTokenize: PreTokenizer;
  readonly #surroundings: Surroundings;
  readonly #decoder: StageMaker;
  readonly #cleanUp: boolean;
  readonly #exact: AddedTokenSplitter;
  readonly #normalized: AddedTokenSplitter;
  readonly #tokens = new Map<number, string>();
  readonly #special = new Set<string>();

  /**
   * @param json of tokenizer.json
   * @param config of tokenizer_config.json
   * @param name of the file, for errors
   * @throws FormatError naming the field that is damaged or not supported
   */
  constructor(json: unknown, config: unknown = {}, name = "tokenizer.json") {
    const fail: Fail = (field, message, cause) => { throw new FormatError(`${name}: ${field} ${message}.`, cause === undefined ? undefined : { cause }); };
    const file = asObject(json) ?? fail("the file", "holds no JSON object"), settings = asObject(config) ?? fail("tokenizer_config.json", "holds no JSON object");
    this.#model = tokenModel(file["model"], "model", fail);
    this.#normalize = normalizer(file["normalizer"], "normalizer", fail);
    this.#preTokenize = preTokenizer(file["pre_tokenizer"], "pre_tokenizer", fail);
    this.#surroundings = postProcessor(file["post_processor"], "post_processor", fail);
    this.#decoder = decoderStage(file["decoder"], "decoder", fail);
    const evenForBpe = settings["clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"] === true;
    this.#cleanUp = settings["clean_up_tokenization_spaces"] === true && (evenForBpe || !this.#model.isBpe);

    const added = addedTokens(file["added_tokens"] ?? [], settings, this.#model.ids, fail);
    for (const [token, id] of this.#model.ids) this.#tokens.set(id, token);
    for (const { id, content, special, normalized } of added) {
      this.#tokens.set(id, normalized ? this.#normalize(content) : content);
      if (special) this.#special.add(content);
    }
    this.#exact = new AddedTokenSplitter(added.filter((token) => !token.normalized).map((token) => [token.content, token]));
    this.#normalized = new AddedTokenSplitter(added.filter((token) => token.normalized).map((token) => [this.#normalize(token.content), token]));
  }

  /**
   * The ids of a text; with addSpecialTokens those that the post-processor puts around it too.
   * @throws ArgumentError if text is no string; FormatError if it holds what the tokenizer has no token for
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * console.log(tokenizer.encode("Call me", { addSpecialTokens: false })); // [ 35, 489, 478 ]
   */
  encode(text: string, options?: EncodeOptions): number[] {
    checkOptions("Tokenizer.encode", options, ["addSpecialTokens"]);
    if (typeof text !== "string") throw new ArgumentError(`Tokenizer.encode: text must be a string; got ${text === null ? "null" : typeof text}.`);
    const { before, after } = options?.addSpecialTokens ?? true ? this.#surroundings : { before: [], after: [] };
    const ids = [...before];
    let first = true;
    // Lone surrogates have no UTF-8.
    for (const section of this.#exact.split(text.replace(/\p{Surrogate}/gu, "\ufffd"))) {
      if (typeof section !== "string") ids.push(section.id);
      else for (const part of this.#normalized.split(this.#normalize(section))) {
        if (typeof part !== "string") ids.push(part.id);
        else for (const piece of this.#preTokenize({ text: part, first })) if (piece.text !== "") this.#model.encode(piece.text, ids);
        first = false;
      }
      first = false;
    }
    for (const id of after) ids.push(id);
    return ids;
  }

  /**
   * The text of ids. Ids that the tokenizer has no token for are left out, as transformers leaves them out: a model may have
   * more rows than there are tokens.
   * @throws ArgumentError if ids are not integers of at least 0
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * console.log(tokenizer.decode([0, 35, 489, 478], { skipSpecialTokens: true })); // Call me
   */
  decode(ids: Iterable<number>, options?: DecodeOptions): string {
    return [...this.decodeStream(ids, options)].join("");
  }

  /**
   * The text of ids in pieces, each as soon as no later id can change it: for a text that is shown while it is generated.
   * Joined, the pieces are `decode` of all ids, whatever the decoder does to spaces, joiners and characters of several tokens.
   * @throws ArgumentError if ids are not integers of at least 0
   *
   * @example
   * const tokenizer = data.loadTokenizer("models/base");
   * const pieces = [...tokenizer.decodeStream(tokenizer.encode("naïve", { addSpecialTokens: false }))];
   * console.log(pieces.join("") === "naïve"); // true
   */
  decodeStream(ids: Iterable<number>, options?: DecodeOptions): IterableIterator<string> {
    checkOptions("Tokenizer.decodeStream", options, ["skipSpecialTokens"]);
    if (typeof ids !== "object" || ids === null || !(Symbol.iterator in ids)) throw new ArgumentError(`Tokenizer.decode: ids must be a list of token ids; got ${ids === null ? "null" : typeof ids}.`);
    return this.#decode(ids, options?.skipSpecialTokens ?? false);
  }

  *#decode(ids: Iterable<number>, skipSpecialTokens: boolean): IterableIterator<string> {
    let text = "";
    const sink: Stage = { add(more) { text += more; }, next() {}, end() {} };
    const stage = this.#decoder(this.#cleanUp ? cleanUp(sink) : sink);
    const settled = (): string => {
      const piece = text;
      text = "";
      return piece;
    };
    for (const id of ids) {
      if (!Number.isSafeInteger(id) || id < 0) throw new ArgumentError(`Tokenizer.decode: ids must be integers of at least 0; got ${show(id)}.`);
      const token = this.#tokens.get(id);
      if (token === undefined || (skipSpecialTokens && this.#special.has(token))) continue;
      stage.add(token);
      stage.next();
      if (text !== "") yield settled();
    }
    stage.end();
    if (text !== "") yield settled();
  }

  /**
   * A token as the vocabulary spells it, or undefined: to name an id in a message.
   *
   * @example
   * console.log(data.loadTokenizer("models/base").idToToken(0)); // <|endoftext|>
   */
  idToToken(id: number): string | undefined {
    return this.#tokens.get(id);
  }
}

const NAMED = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/** tokenizer.json's added tokens, and those of tokenizer_config.json that it lacks. */
function addedTokens(json: unknown, settings: Record<string, unknown>, ids: ReadonlyMap<string, number>, fail: Fail): AddedToken[] {
  if (!Array.isArray(json)) return fail("added_tokens", `is ${show(json)}; expected a list`);
  const added = new Map<string, AddedToken>(), taken = new Map([...ids].map(([token, id]) => [id, token]));
  const add = (token: AddedToken, field: string): void => {
    const { content, id } = token, own = ids.get(content), other = taken.get(id);
    if (own !== undefined && own !== id) return fail(field, `is ${show(content)} with id ${id}, but the vocabulary has it as ${own}`);
    if (other !== undefined && other !== content) return fail(field, `is ${show(content)} with id ${id}, which the vocabulary has for ${show(other)}`);
    taken.set(id, content);
    added.set(content, token);
  };
  json.forEach((one, i) => add(addedToken(one, `added_tokens[${i}]`, fail), `added_tokens[${i}]`));
  for (const [id, one] of Object.entries(asObject(settings["added_tokens_decoder"]) ?? {})) {
    const field = `added_tokens_decoder[${show(id)}]`, token = addedToken(one, field, fail, Number(id));
    if (!added.has(token.content)) add(token, field);
  }
  let next = [...taken.keys()].reduce((most, id) => Math.max(most, id), -1) + 1;
  const extra = settings["extra_special_tokens"] ?? settings["additional_special_tokens"] ?? [];
  for (const value of [...NAMED.map((key) => settings[key]), ...(Array.isArray(extra) ? extra : Object.values(asObject(extra) ?? {}))]) {
    const content = typeof value === "string" ? value : asObject(value)?.["content"];
    if (typeof content !== "string" || content === "") continue;
    const before = added.get(content), id = before?.id ?? ids.get(content) ?? next++;
    added.set(content, before ? { ...before, special: true } : { id, content, special: true, normalized: false, singleWord: false, lstrip: false, rstrip: false });
  }
  return [...added.values()];
}
