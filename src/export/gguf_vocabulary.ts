/**
 * A tokenizer inside a GGUF file: byte-level BPE as "gpt2", SentencePiece's BPE as "llama".
 * Source: ggml-org/llama.cpp, conversion/base.py (get_vocab_base, _set_vocab_*) and gguf-py/gguf/vocab.py.
 */
import { PRE_TOKENIZERS } from "../data/gguf_pre_tokenizers.js";
import { loadTokenizer } from "../data/tokenizer.js";
import { exists, readJson } from "../io/files.js";
import { isGgufFile, openGguf } from "../io/gguf/files.js";
import type { GgufValue } from "../io/gguf/types.js";
import { asObject, show } from "../io/json.js";
import type { ModelConfig } from "../models/families.js";
import { FormatError } from "../runtime/errors.js";
import { bool, text, uint32 } from "./gguf_metadata.js";

/** llama.cpp's kinds of tokens (llama_token_type). */
const KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The names of special tokens in tokenizer_config.json, and their keys. */
const NAMED = [
  ["bos_token", "bos_token_id"],
  ["eos_token", "eos_token_id"],
  ["unk_token", "unknown_token_id"],
  ["sep_token", "seperator_token_id"],
  ["pad_token", "padding_token_id"],
] as const;

type Values = [key: string, value: GgufValue][];

/**
 * What the tokenizer of a folder is in GGUF, which a GGUF file has already; of what has none, that there is none, and
 * the ids that end texts.
 * @throws FormatError for a kind that llama.cpp has no word for
 */
export function vocabularyOf(directory: string, { vocabSize, bosTokenId, eosTokenId }: ModelConfig): Values {
  if (isGgufFile(directory)) {
    const { metadata, close } = openGguf(directory);
    close();
    const own = [...metadata].filter(([key]) => key.startsWith("tokenizer."));
    if (own.length > 0) return own;
  }
  const path = `${directory}/tokenizer.json`;
  const eos = Array.isArray(eosTokenId) ? (eosTokenId as readonly number[])[0] : (eosTokenId as number | null);
  if (!exists(path)) {
    const ids: Values = [["tokenizer.ggml.model", text("none")]];
    if (bosTokenId !== null) ids.push(["tokenizer.ggml.bos_token_id", uint32(bosTokenId)]);
    if (eos != null) ids.push(["tokenizer.ggml.eos_token_id", uint32(eos)]);
    return ids;
  }
  const tokenizer = loadTokenizer(directory);
  const json = readJson(path) as Record<string, unknown>;
  const model = json["model"] as Record<string, unknown>;
  const fail = (message: string): never => {
    throw new FormatError(`${path}: ${message}, which GGUF cannot say; merge to safetensors instead.`);
  };
  if (model["type"] !== "BPE") fail(`its model is ${show(model["type"])}`);
  const isBytes = model["byte_fallback"] === true;
  const pre = isBytes ? "default" : preTokenizerOf(json);
  if (pre === undefined) return fail(`its pre_tokenizer is ${show(json["pre_tokenizer"])}`);
  if (!isBytes && json["normalizer"] != null && asObject(json["normalizer"])?.["type"] !== "NFC")
    fail(`its normalizer is ${show(json["normalizer"])}`);
  const merges = (model["merges"] as readonly (string | readonly string[])[]).map((pair) =>
    typeof pair === "string" ? pair : pair.join(" "),
  );
  const { tokens, kinds } = tokensOf(json, vocabSize, isBytes);
  const values: Values = [
    ["tokenizer.ggml.model", text(isBytes ? "llama" : "gpt2")],
    ["tokenizer.ggml.pre", text(pre)],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", value: tokens }],
  ];
  if (isBytes) values.push(["tokenizer.ggml.scores", { type: "array", of: "float32", value: scores(tokens, merges) }]);
  values.push(["tokenizer.ggml.token_type", { type: "array", of: "int32", value: kinds }]);
  if (!isBytes) values.push(["tokenizer.ggml.merges", { type: "array", of: "string", value: merges }]);
  const special = tokenizer.specialTokensMap;
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const others: Readonly<Record<string, number | null | undefined>> = { bos_token: bosTokenId, eos_token: eos };
  for (const [name, key] of NAMED) {
    const token = special[name];
    const id = (token === undefined ? undefined : ids.get(token)) ?? others[name];
    if (id != null) values.push([`tokenizer.ggml.${key}`, uint32(id)]);
  }
  const bare = tokenizer.encode("a", { addSpecialTokens: false });
  const whole = tokenizer.encode("a");
  const before = whole.findIndex((_, i) => bare.every((id, j) => whole[i + j] === id));
  values.push(["tokenizer.ggml.add_bos_token", bool(before > 0)]);
  values.push(["tokenizer.ggml.add_eos_token", bool(whole.length > before + bare.length)]);
  if (isBytes) values.push(["tokenizer.ggml.add_space_prefix", bool(prependsSpace(json))]);
  const { chatTemplate } = tokenizer;
  if (chatTemplate) values.push(["tokenizer.chat_template", text(chatTemplate.source)]);
  return values;
}

/** GGUF's name of how texts are cut; undefined: it has none that is known here. */
function preTokenizerOf(json: Record<string, unknown>): string | undefined {
  const wanted = essence(json["pre_tokenizer"]);
  const ignores = asObject(json["model"])?.["ignore_merges"] === true;
  const same = [...PRE_TOKENIZERS].filter(
    ([, { preTokenizer, ignoreMerges }]) => essence(preTokenizer) === wanted && ignoreMerges === ignores,
  );
  const normalizer = essence(json["normalizer"]);
  // llama.cpp normalises nothing, so a name of another normalizer cuts the same.
  return (same.find(([, one]) => essence(one.normalizer) === normalizer) ?? same[0])?.[0];
}

/** What of a stage changes its result, as a text. */
function essence(json: unknown): string {
  const stage = asObject(json);
  if (!stage) return "";
  const { type, pretokenizers, pattern, behavior, invert, individual_digits, add_prefix_space, use_regex } = stage;
  if (type === "Sequence") return (Array.isArray(pretokenizers) ? pretokenizers : []).map(essence).join(" > ");
  if (type === "Split") return JSON.stringify([type, asObject(pattern)?.["Regex"], behavior, invert ?? false]);
  if (type === "Digits") return JSON.stringify([type, individual_digits ?? false]);
  if (type === "ByteLevel") return JSON.stringify([type, add_prefix_space ?? true, use_regex ?? true]);
  return JSON.stringify(stage);
}

/** Every id of the model's table has a token, of one kind or another. */
function tokensOf(json: Record<string, unknown>, size: number, isBytes: boolean) {
  const model = json["model"] as Record<string, unknown>;
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`);
  const kinds = new Array<number>(size).fill(KIND.unused);
  for (const [token, id] of Object.entries(model["vocab"] as Record<string, number>)) {
    if (id >= size) continue;
    tokens[id] = token;
    const isByte = isBytes && /^<0x[0-9A-F]{2}>$/.test(token);
    kinds[id] = isByte ? KIND.byte : token === model["unk_token"] ? KIND.unknown : KIND.normal;
  }
  const added = (json["added_tokens"] ?? []) as readonly { id: number; content: string; special?: boolean }[];
  for (const { id, content, special } of added) {
    if (id >= size) continue;
    const isControl = special === true || looksSpecial(content);
    tokens[id] = isControl ? content : content.replaceAll("\u2581", " ");
    if (kinds[id] !== KIND.unknown) kinds[id] = isControl ? KIND.control : KIND.userDefined;
  }
  return { tokens, kinds };
}

/** Some models mark tokens as not special that nobody writes. */
function looksSpecial(token: string): boolean {
  return /^(<pad>|<mask>|<2mass>|\[@BOS@\]|<\|.*\|>|<｜.*｜>|<unused.*>)$/s.test(token);
}

/** SentencePiece joins first what has the highest score when joined; a BPE says in which order pairs are joined. */
function scores(tokens: readonly string[], merges: readonly string[]): number[] {
  const ranks = new Map<string, number>();
  for (const [rank, pair] of merges.entries()) {
    const joined = pair.replace(" ", "");
    if (!ranks.has(joined)) ranks.set(joined, rank);
  }
  return tokens.map((token) => {
    const rank = ranks.get(token);
    return rank === undefined ? -merges.length - 1 : -rank;
  });
}

/** Whether a space is put before a text. */
function prependsSpace(json: Record<string, unknown>): boolean {
  const stages = ["normalizer", "pre_tokenizer"].flatMap((key) => {
    const stage = asObject(json[key]);
    const inner = stage?.["normalizers"] ?? stage?.["pretokenizers"];
    return (Array.isArray(inner) ? inner : [stage]) as (Record<string, unknown> | null | undefined)[];
  });
  return stages.some(
    (stage) =>
      stage?.["type"] === "Prepend" ||
      (stage?.["type"] === "Metaspace" && (stage["prepend_scheme"] ?? "always") !== "never"),
  );
}
