/**
 * The tokenizer inside a GGUF file as tokenizer.json and tokenizer_config.json: byte pairs (tokenizer.ggml.model
 * "gpt2") and SentencePiece's pairs by scores ("llama", Gemma's too).
 *
 * Source: ggml-org/llama.cpp, src/llama-vocab.cpp; transformers, convert_slow_tokenizer.py (generate_merges).
 */
import { show } from "../io/json.js";
import { shownValue } from "../io/gguf/header.js";
import type { GgufMetadata } from "../io/gguf/types.js";
import { FormatError } from "../runtime/errors.js";
import { PRE_TOKENIZERS } from "./gguf_pre_tokenizers.js";

type Json = Record<string, unknown>;

/** What the file has in the places of a folder's two. */
export interface TokenizerFiles {
  /** tokenizer.json. */
  tokenizer: Json;
  /** tokenizer_config.json. */
  config: Json;
}

/** llama.cpp's kinds of tokens, by their numbers. */
const [UNKNOWN, CONTROL, USER_DEFINED, UNUSED] = [2, 3, 4, 5];

/** Reads keys below tokenizer. */
class Reader {
  constructor(
    readonly path: string,
    readonly metadata: GgufMetadata,
  ) {}

  fail(message: string): never {
    throw new FormatError(`${this.path}: ${message}.`);
  }

  /** A list of `length` items; undefined where the file has none. */
  list<T extends "string" | "number">(
    key: string,
    of: T,
    length?: number,
  ): readonly (T extends "string" ? string : number)[] | undefined {
    const found = this.metadata.get(key);
    if (!found) return undefined;
    if (found.type !== "array" || !found.value.every((item) => typeof item === of))
      return this.fail(`${key} is ${shownValue(found)}; expected a list of ${of}s`);
    if (length !== undefined && found.value.length !== length)
      this.fail(`${key} has ${found.value.length} items; expected ${length}, as many as tokenizer.ggml.tokens`);
    return found.value as readonly (T extends "string" ? string : number)[];
  }

  scalar<T extends "string" | "boolean">(key: string, of: T): (T extends "string" ? string : boolean) | undefined {
    const found = this.metadata.get(key);
    if (!found) return undefined;
    if (typeof found.value !== of) return this.fail(`${key} is ${shownValue(found)}; expected a ${of}`);
    return found.value as T extends "string" ? string : boolean;
  }

  /** A token's id. */
  id(key: string, tokens: number): number | undefined {
    const found = this.metadata.get(key);
    // The largest number of 32 bits stands for none.
    if (!found || found.value === 0xffff_ffff || found.value === -1) return undefined;
    const { value } = found;
    return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < tokens
      ? (value as number)
      : this.fail(`${key} is ${shownValue(found)}; expected the id of one of ${tokens} tokens`);
  }
}

/**
 * The tokenizer of a file.
 * @param path of the file, for errors
 * @throws FormatError naming the key that is missing, or of which this library does not know what it means
 */
export function tokenizerOfGguf(metadata: GgufMetadata, path: string): TokenizerFiles {
  const reader = new Reader(path, metadata);
  const model = reader.scalar("tokenizer.ggml.model", "string");
  if (model !== "gpt2" && model !== "llama")
    return reader.fail(
      `tokenizer.ggml.model is ${model === undefined ? "missing" : show(model)}; supported are "gpt2" and "llama". ` +
        `Name the folder that the file was made of, which has a tokenizer.json, or another file of the model`,
    );
  const tokens = reader.list("tokenizer.ggml.tokens", "string") ?? reader.fail("tokenizer.ggml.tokens is missing");
  const types = reader.list("tokenizer.ggml.token_type", "number", tokens.length) ?? [];
  const added = tokens.flatMap((content, id) =>
    types[id] === CONTROL || types[id] === USER_DEFINED || types[id] === UNKNOWN
      ? [{ id, content, special: types[id] !== USER_DEFINED }]
      : [],
  );
  const vocab = new Map<string, number>();
  for (const [id, token] of tokens.entries())
    if (types[id] !== UNUSED && types[id] !== USER_DEFINED && !vocab.has(token)) vocab.set(token, id);
  const part = model === "gpt2" ? bytePairs(reader, vocab) : sentencePiece(reader, tokens, vocab);
  const named = (name: string): number | undefined => reader.id(`tokenizer.ggml.${name}_token_id`, tokens.length);
  const [bos, eos] = [named("bos"), named("eos")];
  const addsBos = reader.scalar("tokenizer.ggml.add_bos_token", "boolean") ?? part.addsBos;
  const addsEos = reader.scalar("tokenizer.ggml.add_eos_token", "boolean") ?? false;
  const around = {
    before: addsBos && bos !== undefined ? [{ id: bos, content: tokens[bos]! }] : [],
    after: addsEos && eos !== undefined ? [{ id: eos, content: tokens[eos]! }] : [],
  };
  const text = (id: number | undefined): string | null => (id === undefined ? null : tokens[id]!);
  return {
    tokenizer: {
      version: "1.0",
      added_tokens: added.map((token) => ({
        ...token,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
      })),
      normalizer: part.normalizer,
      pre_tokenizer: part.preTokenizer,
      post_processor: postProcessor(around),
      decoder: part.decoder,
      model: part.model,
    },
    config: {
      bos_token: text(bos),
      eos_token: text(eos),
      unk_token: text(named("unknown")),
      pad_token: text(named("padding")),
      clean_up_tokenization_spaces: false,
      ...chatTemplates(reader),
    },
  };
}

/** What differs between the two kinds. */
interface Kind {
  normalizer: Json | null;
  preTokenizer: Json | null;
  decoder: Json;
  model: Json;
  addsBos: boolean;
}

function bytePairs(reader: Reader, vocab: ReadonlyMap<string, number>): Kind {
  const name = reader.scalar("tokenizer.ggml.pre", "string") ?? "default";
  const pre =
    PRE_TOKENIZERS.get(name) ??
    reader.fail(
      `tokenizer.ggml.pre is ${show(name)}; supported are ${[...PRE_TOKENIZERS.keys()].join(", ")}. Use the ` +
        `tokenizer.json of the model that the file was made of`,
    );
  const merges = reader.list("tokenizer.ggml.merges", "string") ?? reader.fail("tokenizer.ggml.merges is missing");
  return {
    normalizer: pre.normalizer,
    preTokenizer: pre.preTokenizer,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
      vocab: Object.fromEntries(vocab),
      merges,
    },
    addsBos: pre.addsBos,
  };
}

function sentencePiece(reader: Reader, tokens: readonly string[], vocab: ReadonlyMap<string, number>): Kind {
  const scores =
    reader.list("tokenizer.ggml.scores", "number", tokens.length) ?? reader.fail("tokenizer.ggml.scores is missing");
  const unknown = reader.id("tokenizer.ggml.unknown_token_id", tokens.length) ?? vocab.get("<unk>");
  const prefixes = reader.scalar("tokenizer.ggml.add_space_prefix", "boolean") ?? true;
  const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
  return {
    normalizer: prefixes ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, replace] } : replace,
    preTokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefixes ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknown === undefined ? null : tokens[unknown],
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab),
      merges: mergesByScores(vocab, scores),
    },
    addsBos: true,
  };
}

/** Longer ones can be cut in more ways than is worth the time; no vocabulary has them. */
const LONGEST = 512;

/**
 * The merges that make tokens of two others, those of a higher score first; then those of longer parts, as transformers
 * sorts them.
 */
function mergesByScores(vocab: ReadonlyMap<string, number>, scores: readonly number[]): [string, string][] {
  const merges: { pair: [string, string]; score: number; left: number; right: number }[] = [];
  for (const [token, id] of vocab) {
    if (token.length > LONGEST) continue;
    const characters = [...token];
    let at = 0;
    for (let i = 1; i < characters.length; i++) {
      at += characters[i - 1]!.length;
      const pair: [string, string] = [token.slice(0, at), token.slice(at)];
      if (vocab.has(pair[0]) && vocab.has(pair[1]))
        merges.push({ pair, score: scores[id]!, left: i, right: characters.length - i });
    }
  }
  merges.sort((a, b) => b.score - a.score || b.left - a.left || b.right - a.right);
  return merges.map(({ pair }) => pair);
}

interface Token {
  id: number;
  content: string;
}

function postProcessor({ before, after }: { before: Token[]; after: Token[] }): Json | null {
  const all = [...before, ...after];
  if (all.length === 0) return null;
  const special = ({ content }: Token): Json => ({ SpecialToken: { id: content, type_id: 0 } });
  const template = (ids: string[]): Json[] =>
    ids.flatMap((id) => [...before.map(special), { Sequence: { id, type_id: 0 } }, ...after.map(special)]);
  return {
    type: "TemplateProcessing",
    single: template(["A"]),
    pair: template(["A", "B"]),
    special_tokens: Object.fromEntries(
      all.map(({ id, content }) => [content, { id: content, ids: [id], tokens: [content] }]),
    ),
  };
}

/** chat_template, as tokenizer_config.json has one or several. */
function chatTemplates(reader: Reader): Json {
  const key = "tokenizer.chat_template";
  const own = reader.scalar(key, "string");
  const named = [...reader.metadata.keys()]
    .filter((name) => name.startsWith(`${key}.`))
    .map((name) => ({ name: name.slice(key.length + 1), template: reader.scalar(name, "string")! }));
  if (named.length === 0) return own === undefined ? {} : { chat_template: own };
  const all = own === undefined ? named : [{ name: "default", template: own }, ...named];
  return { chat_template: all };
}
