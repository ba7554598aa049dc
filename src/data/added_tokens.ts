/**
 * Tokens that are found in a text before it is normalised and split: "<|endoftext|>" and its like.
 *
 * Source: huggingface/tokenizers 0.23, src/tokenizer/added_vocabulary.rs (find_matches, extract_and_normalize).
 */
import { fields, type Fail } from "./json_fields.js";
import { SPACE, WORD } from "./pattern.js";

/** An entry of tokenizer.json's added_tokens. */
export interface AddedToken {
  id: number;
  content: string;
  /** Left out of decoded texts if those are to have no special tokens. */
  special: boolean;
  /** Looked for in the normalised text. */
  normalized: boolean;
  singleWord: boolean;
  /** Takes the white space before it along. */
  lstrip: boolean;
  /** Takes the white space after it along. */
  rstrip: boolean;
}

/** A part of a text: text of its own, or an added token. */
export type Section = string | AddedToken;

/** @param id where the entry itself has none */
export function addedToken(json: unknown, field: string, fail: Fail, id?: number): AddedToken {
  const { string, flag, count } = fields(json, field, fail), special = flag("special", false);
  return {
    id: count("id", id), content: string("content"), special, normalized: flag("normalized", !special),
    singleWord: flag("single_word", false), lstrip: flag("lstrip", false), rstrip: flag("rstrip", false),
  };
}

const IS_SPACE = new RegExp(SPACE, "u"), WORD_AT_END = new RegExp(`[${WORD}]$`, "u"), WORD_AT_START = new RegExp(`^[${WORD}]`, "u");

type Trie = Map<string, Trie> & { token?: AddedToken };

/** Splits texts at the given tokens: of those that begin at a place the longest counts, and the leftmost place goes first. */
export class AddedTokenSplitter {
  readonly #trie: Trie = new Map();

  /** @param entries what to look for, and which token it is */
  constructor(entries: Iterable<readonly [content: string, token: AddedToken]>) {
    for (const [content, token] of entries) {
      if (content === "") continue;
      let node = this.#trie;
      for (const unit of content.split("")) {
        if (!node.has(unit)) node.set(unit, new Map());
        node = node.get(unit)!;
      }
      node.token = token;
    }
  }

  split(text: string): Section[] {
    if (this.#trie.size === 0) return text === "" ? [] : [text];
    const sections: Section[] = [];
    let done = 0;
    for (let at = 0; at < text.length; at++) {
      const found = this.#longest(text, at);
      if (!found) continue;
      const [token, length] = found;
      let start = at, end = at + length;
      at = end - 1;
      // A character has two units at most.
      if (token.singleWord && (WORD_AT_END.test(text.slice(Math.max(0, start - 2), start)) || WORD_AT_START.test(text.slice(end, end + 2)))) continue;
      if (token.lstrip) start = Math.max(start, done);
      while (token.lstrip && start > done && IS_SPACE.test(text[start - 1]!)) start--;
      while (token.rstrip && end < text.length && IS_SPACE.test(text[end]!)) end++;
      if (start >= end) continue;
      if (done < start) sections.push(text.slice(done, start));
      sections.push(token);
      done = end;
    }
    if (done < text.length) sections.push(text.slice(done));
    return sections;
  }

  #longest(text: string, start: number): [AddedToken, number] | undefined {
    let node: Trie | undefined = this.#trie, found: [AddedToken, number] | undefined;
    for (let i = start; i < text.length; i++) {
      node = node.get(text[i]!);
      if (!node) break;
      if (node.token) found = [node.token, i + 1 - start];
    }
    return found;
  }
}
