/** Text to tokens and back, with the tokenizer.json beside a model. */
import { Tokenizer } from "@huggingface/tokenizers";
import { exists, readBytes, readJson } from "../io/files.js";
import { ArgumentError, FormatError } from "../runtime/errors.js";
import { oneLine } from "./format.js";

export interface TextCodec {
  encode(text: string): number[];
  decode(ids: readonly number[]): string;
}

/** @throws FileError, FormatError if tokenizer.json is missing or not one */
export function loadTokenizer(model: string): TextCodec {
  const path = `${model}/tokenizer.json`;
  const json = readJson(path) as object;
  const configPath = `${model}/tokenizer_config.json`;
  const config = exists(configPath) ? readJson(configPath) as object : {};
  let tokenizer: Tokenizer;
  try {
    tokenizer = new Tokenizer(json, config);
  } catch (cause) {
    throw new FormatError(`${path}: not a tokenizer: ${(cause as Error).message}`, { cause });
  }
  return {
    encode: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
    decode: (ids) => tokenizer.decode([...ids], { skip_special_tokens: true }),
  };
}

/** What a model's tokens must fit. */
interface Vocabulary { bosTokenId: number | null; vocabSize: number }

/** The begin-of-text token, if the model has one, then the prompt. @throws ArgumentError if that is nothing, or beyond the vocabulary */
export function promptIds(where: string, codec: TextCodec, config: Vocabulary, prompt: string): number[] {
  const ids = [...(config.bosTokenId === null ? [] : [config.bosTokenId]), ...(prompt ? codec.encode(prompt) : [])];
  if (ids.length === 0) throw new ArgumentError(`${where}: the prompt is empty, and this model's tokenizer puts nothing in front of a text; give --prompt.`);
  checkVocabulary(`${where}: --prompt`, ids, prompt, codec, config);
  return ids;
}

/**
 * A text file as token ids, begin-of-text first. Encoded in one piece, though that takes longer: a
 * tokenizer may treat the start of a text in its own way (SentencePiece puts a space before it).
 * @param began is told the number of characters and, of a long text, the seconds that it will take
 * @throws FileError, FormatError if it is not text or a token is beyond the model's vocabulary
 */
export function encodeFile(path: string, codec: TextCodec, config: Vocabulary, began: (characters: number, seconds?: number) => void): Int32Array {
  const text = decodeText(readBytes(path), path);
  began(text.length, text.length > 4 * TRIAL ? trial(text, codec) : undefined);
  const ids = [...(config.bosTokenId === null ? [] : [config.bosTokenId]), ...codec.encode(text)];
  checkVocabulary(path, ids, text, codec, config);
  return Int32Array.from(ids);
}

/** Characters whose time tells that of a long text. */
const TRIAL = 100_000;

function trial(text: string, codec: TextCodec): number {
  const start = performance.now();
  codec.encode(text.slice(0, TRIAL));
  return (performance.now() - start) / 1000 * (text.length / TRIAL);
}

function decodeText(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(`${path}: not UTF-8 text.`, { cause });
  }
}

/** A model has a row for each id of its vocabulary; a tokenizer that it was not trained with may know more. */
function checkVocabulary(source: string, ids: readonly number[], text: string, codec: TextCodec, { vocabSize }: Vocabulary): void {
  const isBeyond = (id: number): boolean => !(Number.isInteger(id) && id >= 0 && id < vocabSize);
  const bad = ids.find(isBeyond);
  if (bad === undefined) return;
  // Only now: encoded line by line, a text may have other tokens where lines meet.
  const line = text.split("\n").findIndex((l) => codec.encode(l).includes(bad));
  throw new FormatError(`${source}${line < 0 ? "" : `, line ${line + 1}`}: token ${bad} (${JSON.stringify(oneLine(codec.decode([bad]), 40))}) is beyond the model's vocabulary ` +
    `of ${vocabSize}; take it out of the text, or use the tokenizer that the model was trained with.`);
}
