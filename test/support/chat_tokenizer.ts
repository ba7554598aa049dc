/** A tokenizer with the marks that the tests' chat templates write, and what an eye sees of its rows. */
import { readFileSync } from "node:fs";
import { data } from "../../src/index.js";
import { ROOT } from "./root.js";

export const MARKS = [
  "<BOS>",
  "<EOS>",
  "<|im_start|>",
  "<|im_end|>",
  "<|start_header_id|>",
  "<|end_header_id|>",
  "<|eot_id|>",
  "<start_of_turn>",
  "<end_of_turn>",
  "<|system|>",
  "<|user|>",
  "<|assistant|>",
  "<|end|>",
  "<｜User｜>",
  "<｜Assistant｜>",
  "<｜end▁of▁sentence｜>",
  "<|start|>",
  "<|message|>",
  "<|channel|>",
  "<|return|>",
  "<|call|>",
];

const read = (name: string): Record<string, unknown> =>
  JSON.parse(readFileSync(new URL(`models/base/${name}`, ROOT), "utf8")) as Record<string, unknown>;

/** The embedded model's tokenizer, which spells bytes, with further tokens. */
export function tokenizerWith(marks: readonly string[]): data.Tokenizer {
  const { chat_template: _, ...config } = read("tokenizer_config.json");
  return new data.Tokenizer(read("tokenizer.json"), { ...config, additional_special_tokens: marks });
}

/**
 * Where each token of a text begins and ends, in bytes of UTF-8: a token of the vocabulary has a character for each of
 * its bytes, and a mark is what it says.
 */
export function byteSpans(tokenizer: data.Tokenizer, ids: ArrayLike<number>): [start: number, end: number][] {
  let end = 0;
  return Array.from(ids, (id) => {
    const token = tokenizer.idToToken(id)!;
    const start = end;
    end += /^<.+>$/.test(token) ? bytesOf(token) : token.length;
    return [start, end];
  });
}

export function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}
