/** Text to tokens and back, with the tokenizer.json beside a model. */
import { ChatTemplate, decodeText, endOfTurnIds, loadTokenizer, specialTokens, type Tokenizer } from "../data/index.js";
import { encodingOf, type Encoding } from "../data/text.js";
import { readBytes } from "../io/files.js";
import type { ModelConfig } from "../models/index.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import type { TemplateSettings } from "./data_options.js";
import { oneLine } from "./format.js";

/** What a command needs of a model's folder to read and write text. */
export interface TextCodec {
  tokenizer: Tokenizer;
  /** Each of them ends a text, or an answer. */
  stopToken: readonly number[];
  /** Begins a text without a prompt; null: the model has none. */
  bosTokenId: number | null;
  vocabSize: number;
  /** Tokens of a text at most. */
  positions: number;
}

/**
 * @param settings of the chat template: a file in its place, and what it is given
 * @throws FileError, FormatError if tokenizer.json or the template is missing or not one
 */
export function loadCodec(folder: string, config: ModelConfig, settings?: TemplateSettings): TextCodec {
  const { template, templateArgs: kwargs, date } = settings ?? { templateArgs: {} };
  const { bosTokenId, eosTokenIds } = specialTokens(folder, config);
  const tokenizer = loadTokenizer(folder);
  if (template !== undefined) {
    const { specialTokensMap: specialTokens } = tokenizer;
    tokenizer.chatTemplate = new ChatTemplate(decodeText(readBytes(template), template), {
      name: template,
      specialTokens,
    });
  }
  const stopToken = endOfTurnIds(tokenizer, eosTokenIds, { date, kwargs });
  const { vocabSize, maxPositionEmbeddings: positions } = config;
  return { tokenizer, stopToken, bosTokenId, vocabSize, positions };
}

/**
 * The prompt's ids, with what the tokenizer puts around a text; where that is nothing, the begin-of-text token, as
 * transformers' generate() begins without a prompt.
 * @throws ArgumentError if there is none, FormatError for an id beyond the vocabulary
 */
export function promptIds(where: string, codec: TextCodec, prompt: string): number[] {
  const ids = codec.tokenizer.encode(prompt);
  if (ids.length === 0 && codec.bosTokenId !== null) ids.push(codec.bosTokenId);
  if (ids.length === 0)
    throw new ArgumentError(
      `${where}: the prompt is empty, and this model has no token that begins a text; give --prompt.`,
    );
  checkVocabulary(ids, codec, (place) => `${where}: --prompt, line ${lineOf(place, ids, codec)}`);
  return ids;
}

/**
 * A text file as token ids. Encoded in one piece: a tokenizer may treat the start of a text in its own way
 * (SentencePiece puts a space before it).
 * @throws FileError, FormatError if it is not text or a token is beyond the model's vocabulary
 */
export function encodeFile(path: string, codec: TextCodec, watch: EncodingWatch): Int32Array {
  const bytes = readBytes(path);
  const text = decodeText(bytes, path);
  watch.began(text.length, encodingOf(bytes));
  try {
    const ids = codec.tokenizer.encode(text, { onProgress: watch.progress });
    checkVocabulary(ids, codec, (place) => `${path}, line ${lineOf(place, ids, codec)}`);
    return Int32Array.from(ids);
  } finally {
    watch.ended();
  }
}

/** Told how a text comes along that is encoded. */
export interface EncodingWatch {
  /** Told of its size, and of how its bytes were read. */
  began(characters: number, read: Encoding): void;
  /** Told now and then how many of its characters are done. */
  progress(done: number, all: number): void;
  /** It is encoded, or could not be. */
  ended(): void;
}

/** The text without special tokens. */
export function decode({ tokenizer }: TextCodec, ids: Iterable<number>): string {
  return tokenizer.decode(ids, { skipSpecialTokens: true });
}

/**
 * A model has a row for each id of its vocabulary; a tokenizer that it was not trained with may know more.
 * @param sourceAt names the source of the id at a place
 * @throws FormatError
 */
export function checkVocabulary(
  ids: ArrayLike<number>,
  { tokenizer, vocabSize }: TextCodec,
  sourceAt: (place: number) => string,
): void {
  const place = Array.prototype.findIndex.call(ids, (id: number) => id >= vocabSize);
  if (place < 0) return;
  const id = ids[place]!;
  throw new FormatError(
    `${sourceAt(place)}: token ${id} (${JSON.stringify(oneLine(tokenizer.idToToken(id) ?? "", 40))}) is ` +
      `beyond the model's vocabulary ` +
      `of ${vocabSize}; take it out of the text, or use the tokenizer that the model was trained with.`,
  );
}

function lineOf(place: number, ids: readonly number[], { tokenizer }: TextCodec): number {
  return tokenizer.decode(ids.slice(0, place), { skipSpecialTokens: true }).split("\n").length;
}
