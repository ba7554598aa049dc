/** Text to tokens and back, with the tokenizer.json beside a model. */
import { existsSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";
import { readBytes, readJson } from "../io/files.js";
import { FormatError } from "../runtime/errors.js";

export interface TextCodec {
  encode(text: string): number[];
  decode(ids: readonly number[]): string;
}

/** @throws FileError, FormatError if tokenizer.json is missing or not one */
export function loadTokenizer(model: string): TextCodec {
  const path = `${model}/tokenizer.json`;
  const json = readJson(path) as object;
  const configPath = `${model}/tokenizer_config.json`;
  const config = existsSync(configPath) ? readJson(configPath) as object : {};
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

/** The begin-of-text token, if the model has one, then the prompt. */
export function promptIds(codec: TextCodec, config: { bosTokenId: number | null }, prompt: string): number[] {
  return [...(config.bosTokenId === null ? [] : [config.bosTokenId]), ...(prompt ? codec.encode(prompt) : [])];
}

/**
 * A text file as token ids, begin-of-text first. Encoded in one piece, though that takes longer: a
 * tokenizer may treat the start of a text in its own way (SentencePiece puts a space before it).
 */
export function encodeFile(path: string, codec: TextCodec, config: { bosTokenId: number | null }): Int32Array {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(readBytes(path));
  } catch (cause) {
    if (cause instanceof TypeError) throw new FormatError(`${path}: not UTF-8 text.`, { cause });
    throw cause;
  }
  return Int32Array.from(promptIds(codec, config, text));
}
