/**
 * tokenizer.json, checked field by field, and told to @huggingface/tokenizers in words that it takes as the original
 * does: what the library lacks or does otherwise (Metaspace's split, behaviours of Split, characters beyond ASCII, "$"
 * in what is put in) is said by other parts of it, and what cannot be said so is refused by name.
 *
 * Source: huggingface/tokenizers 0.23, src/{normalizers,pre_tokenizers,models,processors}/ and tokenizer/normalizer.rs
 * (split).
 */
import { asObject, show } from "../io/json.js";
import { fields, type Fail } from "./json_fields.js";
import { bpeCut } from "./bpe_cuts.js";
import { byteToken, SplitPreTokenizer, type Mends } from "./library.js";

type Part = Record<string, unknown> | null;

const BYTE = /^<0x[0-9A-F]{2}>$/;
const sequence = (key: "normalizers" | "pretokenizers", parts: readonly Part[]): Part => ({
  type: "Sequence",
  [key]: parts,
});
/** A normaliser or pre-tokeniser that replaces what a pattern matches; "$" in the replacement means itself. */
const replace = (pattern: object, content: string): Part => ({
  type: "Replace",
  pattern,
  content: content.replaceAll("$", "$$$$"),
});
const replaceRegex = (source: string, content: string): Part => replace({ Regex: source }, content);
/**
 * Rewrites a whole text that is not empty. The pattern takes it in stretches, since one that matches all of some MB
 * overflows the stack, and the first is replaced by all. What anchors a pattern would look behind (\A as the library
 * compiles it), and WebKit up to 2.50 takes the place behind a character of two code units for a beginning.
 */
const rewrite = (of: (text: string) => string): Part => ({
  type: "Replace",
  pattern: { Regex: "[\\s\\S]{1,32768}" },
  content: (_: string, offset: number, text: string) => (offset === 0 ? of(text) : ""),
});
/** Character by character, as the original does it: JavaScript alone would make a word's last sigma another letter. */
const LOWERCASE: readonly Part[] = [replace({ String: "Σ" }, "σ"), { type: "Lowercase" }];

/** A pattern's source, and itself compiled. */
export function patternOf(
  json: unknown,
  field: string,
  fail: Fail,
): { source: string; regexp: RegExp; text: string | null } {
  const { String: text, Regex: regex } = asObject(json) ?? {};
  if (typeof text === "string" && text === "") return fail(`${field}.String`, "is empty");
  const source = typeof text === "string" ? text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&") : regex;
  if (typeof source !== "string") return fail(field, 'is neither {"String": text} nor {"Regex": text}');
  if (typeof text !== "string" && repeatsRepetition(source))
    return fail(
      `${field}.Regex`,
      `is ${show(source)}: it repeats what can match in several ways, which may take time without end, and is not ` +
        `supported`,
    );
  try {
    const { pattern } = new SplitPreTokenizer({
      type: "Split",
      pattern: { Regex: source },
      behavior: "Isolated",
      invert: false,
    });
    if (pattern) return { source, regexp: pattern, text: typeof text === "string" ? text : null };
  } catch (cause) {
    return fail(`${field}.Regex`, `is a regular expression that is not supported: ${(cause as Error).message}`, cause);
  }
  return fail(`${field}.Regex`, "is a regular expression that is not supported");
}

/**
 * Whether a group that can match in several ways is repeated, as in (a+)+ or (a|a)*: JavaScript's engines try all of
 * them, which takes a time that doubles with each character. Tokenizers that people use have none.
 */
function repeatsRepetition(source: string): boolean {
  const open: { variable: boolean }[] = [{ variable: false }];
  let closed: { variable: boolean } | undefined;
  for (let i = 0; i < source.length; i++) {
    const rest = source.slice(i, i + 24);
    const before = closed;
    const inner = open.at(-1)!;
    closed = undefined;
    const repeat = /^(?:[*+]|\{\d*(,?)(\d*)\})[?+]?/.exec(rest);
    if (rest[0] === "\\") i++;
    else if (rest[0] === "[") i = endOfClass(source, i);
    else if (rest[0] === "(") {
      open.push({ variable: false });
      i += /^\((?:\?(?:[a-z-]*:|[=!>]|<[=!]|<\w{1,16}>))?/.exec(rest)![0].length - 1;
    } else if (rest[0] === ")" && open.length > 1) {
      closed = open.pop()!;
      open.at(-1)!.variable ||= closed.variable;
    } else if (repeat) {
      if (before?.variable) return true;
      inner.variable ||= rest[0] !== "{" || repeat[1] === ",";
      i += repeat[0].length - 1;
    } else if (rest[0] === "?" || rest[0] === "|") inner.variable = true;
  }
  return false;
}

function endOfClass(source: string, start: number): number {
  let depth = 0;
  for (let i = start; i < source.length; i++) {
    if (source[i] === "\\") i++;
    else if (source[i] === "[") depth++;
    else if (source[i] === "]" && --depth === 0) return i;
  }
  return source.length;
}

/** Where Oniguruma's \s is another than JavaScript's, this is the former. */
const WHITE_SPACE = /\p{White_Space}/u;

/** How many characters from one on, towards an end of the text, are white space. */
function blanks(text: string, from: number, step: 1 | -1): number {
  let count = 0;
  while (WHITE_SPACE.test(text.charAt(from + count * step))) count++;
  return count;
}

export function normalizer(json: unknown, field: string, fail: Fail): Part {
  if (json === null || json === undefined) return null;
  const { object, type, string, flag, parts, unsupported } = fields(json, field, fail);
  switch (type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
    case "StripAccents":
      return { type };
    case "Lowercase":
      return sequence("normalizers", LOWERCASE);
    case "Strip":
      return sequence("normalizers", [
        ...(flag("strip_left", true) ? [rewrite((text) => text.slice(blanks(text, 0, 1)))] : []),
        ...(flag("strip_right", true)
          ? [rewrite((text) => text.slice(0, text.length - blanks(text, text.length - 1, -1)))]
          : []),
      ]);
    case "Prepend": {
      const prefix = string("prepend");
      return rewrite((text) => prefix + text);
    }
    case "Replace":
      return replace(patternJson(object["pattern"], field, fail), string("content"));
    case "BertNormalizer": {
      const lower = flag("lowercase", true);
      const strips = object["strip_accents"] == null ? lower : flag("strip_accents");
      const bert = {
        type,
        clean_text: flag("clean_text", true),
        handle_chinese_chars: flag("handle_chinese_chars", true),
        strip_accents: false,
        lowercase: false,
      };
      return sequence("normalizers", [
        bert,
        ...(strips ? [{ type: "NFD" }, replaceRegex("\\p{Mn}", "")] : []),
        ...(lower ? LOWERCASE : []),
      ]);
    }
    case "Sequence":
      return sequence(
        "normalizers",
        parts("normalizers").map((one, i) => normalizer(one, `${field}.normalizers[${i}]`, fail)),
      );
    default:
      return unsupported(
        "NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace, BertNormalizer and Sequence",
      );
  }
}

function patternJson(json: unknown, field: string, fail: Fail): object {
  const { source, text } = patternOf(json, `${field}.pattern`, fail);
  return text === null ? { Regex: source } : { String: text };
}

const BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] as const;
const PUNCTUATION = "[\\p{P}\\u0021-\\u002F\\u003A-\\u0040\\u005B-\\u0060\\u007B-\\u007E]";
/** The characters of Rust's \w; Oniguruma's \w has superscript digits too. */
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d";
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/** A pre-tokeniser that keeps what a pattern matches and drops the rest. */
const only = (source: string): Part => ({
  type: "Split",
  pattern: { Regex: source },
  behavior: "Removed",
  invert: true,
});

/** The library knows Isolated and Removed; a merging behaviour is a pattern of the pieces that it makes. */
function split(source: string, behavior: string, invert: boolean): Part {
  const match = `(?:${source})`;
  const gap = `(?:(?!${source})[\\s\\S])`;
  switch (
    invert
      ? ({ MergedWithNext: "MergedWithPrevious", MergedWithPrevious: "MergedWithNext" }[behavior] ?? behavior)
      : behavior
  ) {
    case "MergedWithNext":
      return only(`${match}${gap}*|${gap}+`);
    case "MergedWithPrevious":
      return only(`${gap}+${match}?|${match}`);
    case "Contiguous":
      return only(`${match}+|${gap}+`);
    case "Isolated":
      return { type: "Split", pattern: { Regex: source }, behavior: "Isolated", invert: false };
    default:
      return { type: "Split", pattern: { Regex: source }, behavior: "Removed", invert };
  }
}

/** prepend_scheme, or what older files say in add_prefix_space. */
export function prependScheme(json: unknown, field: string, fail: Fail): string {
  const { flag, only: oneOf } = fields(json, field, fail);
  const scheme = oneOf("prepend_scheme", ["always", "first", "never"], "always");
  return flag("add_prefix_space", true) ? scheme : "never";
}

/** @param inside whether something else comes before it in a Sequence */
export function preTokenizer(json: unknown, field: string, fail: Fail, inside = false): Part {
  if (json === null || json === undefined) return null;
  const { object, type, character, flag, only: oneOf, parts, count, unsupported } = fields(json, field, fail);
  const chain = (...all: Part[]): Part => sequence("pretokenizers", all);
  switch (type) {
    case "ByteLevel":
      return chain(
        ...(flag("add_prefix_space", true) ? [rewrite((text) => (text.startsWith(" ") ? text : ` ${text}`))] : []),
        ...(flag("use_regex", true) ? [split(GPT2, "Isolated", false)] : []),
        { type, add_prefix_space: false, use_regex: false },
      );
    case "Metaspace": {
      const replacement = character("replacement", "▁");
      const scheme = prependScheme(json, field, fail);
      const { source } = patternOf({ String: replacement }, `${field}.replacement`, fail);
      if (scheme === "first" && inside)
        return fail(`${field}.prepend_scheme`, 'is "first" behind another pre-tokenizer, which is not supported');
      return chain(
        { type, replacement, prepend_scheme: scheme },
        ...(flag("split", true) ? [split(source, "MergedWithNext", false)] : []),
      );
    }
    case "Whitespace":
      return only(`[${WORD}]+|[^${WORD}\\s]+`);
    case "WhitespaceSplit":
      return only("\\S+");
    case "BertPreTokenizer":
      return chain(only("\\S+"), split(PUNCTUATION, "Isolated", false));
    case "Punctuation":
      return split(PUNCTUATION, oneOf("behavior", BEHAVIORS, "Isolated"), false);
    case "Digits":
      return split("\\p{N}", flag("individual_digits", false) ? "Isolated" : "Contiguous", false);
    case "CharDelimiterSplit":
      return split(patternOf({ String: character("delimiter") }, `${field}.delimiter`, fail).source, "Removed", false);
    case "Split": {
      const { source, regexp } = patternOf(object["pattern"], `${field}.pattern`, fail);
      const behavior = oneOf("behavior", BEHAVIORS);
      const invert = flag("invert", false);
      if (behavior !== "Isolated" && "".replace(regexp, "x") !== "")
        return fail(`${field}.pattern`, "matches what is empty, which is supported with behavior Isolated only");
      // A group that captures would come out as a piece of its own.
      if (behavior === "Removed" && !invert && new RegExp(`${regexp.source}|`, "u").exec("")!.length > 1)
        return fail(
          `${field}.pattern`,
          "has a group that captures, which is not supported with behavior Removed; write (?:...)",
        );
      return split(source, behavior, invert);
    }
    case "FixedLength": {
      const length = count("length", 5);
      return length === 0 ? fail(`${field}.length`, "is 0; expected at least 1") : only(`[\\s\\S]{1,${length}}`);
    }
    case "Sequence":
      return chain(
        ...parts("pretokenizers").map((one, i) =>
          preTokenizer(one, `${field}.pretokenizers[${i}]`, fail, inside || i > 0),
        ),
      );
    default:
      return unsupported(
        "ByteLevel, Metaspace, Whitespace, WhitespaceSplit, BertPreTokenizer, Punctuation, Digits, " +
          "CharDelimiterSplit, Split, FixedLength and Sequence",
      );
  }
}

/** A model for the library, and what is known of it. */
interface ModelPart {
  json: Record<string, unknown>;
  isBpe: boolean;
  /** Where it names the token for text that no other has. */
  unknownField: string;
  mends: Mends;
}

export function modelPart(json: unknown, field: string, fail: Fail): ModelPart {
  const { object, type: given, string, count, flag, list } = fields(json, field, fail);
  // Older files do not name the model's type; its fields tell it.
  const type =
    given ??
    (Array.isArray(object["vocab"])
      ? "Unigram"
      : object["merges"] !== undefined
        ? "BPE"
        : object["continuing_subword_prefix"] !== undefined
          ? "WordPiece"
          : "WordLevel");
  const ids =
    type === "Unigram"
      ? unigramIds(object["vocab"], `${field}.vocab`, fail)
      : vocabulary(object["vocab"], `${field}.vocab`, fail);
  const { vocab } = object;
  switch (type) {
    case "BPE":
      return bpe();
    case "WordPiece": {
      const unknown = string("unk_token", "[UNK]");
      const part = {
        type,
        vocab,
        unk_token: unknown,
        continuing_subword_prefix: string("continuing_subword_prefix", "##"),
        max_input_chars_per_word: count("max_input_chars_per_word", 100),
      };
      return {
        json: part,
        isBpe: false,
        unknownField: `${field}.unk_token`,
        mends: { ids, unknown, fuseUnknown: false, dropUnknown: false, byteFallback: false, cut: null },
      };
    }
    case "WordLevel":
      return {
        json: { type, vocab },
        isBpe: false,
        unknownField: `${field}.unk_token`,
        mends: {
          ids,
          unknown: string("unk_token", "<unk>"),
          fuseUnknown: false,
          dropUnknown: false,
          byteFallback: false,
          cut: null,
        },
      };
    case "Unigram": {
      const unknown = object["unk_id"] ?? null;
      if (
        unknown !== null &&
        !(Number.isSafeInteger(unknown) && (unknown as number) >= 0 && (unknown as number) < ids.size)
      )
        return fail(`${field}.unk_id`, `is ${show(unknown)}; expected null or the number of a token`);
      const mends = {
        ids,
        unknown: unknown === null ? null : (vocab as [string, number][])[unknown as number]![0],
        fuseUnknown: true,
        dropUnknown: false,
        byteFallback: flag("byte_fallback", false),
        cut: null,
      };
      return { json: { type, vocab, unk_id: unknown }, isBpe: false, unknownField: `${field}.unk_id`, mends };
    }
    default:
      return fail(`${field}.type`, `is ${show(type)}; supported are BPE, WordPiece, WordLevel and Unigram`);
  }

  function bpe(): ModelPart {
    const text = (key: string): string => (object[key] == null ? "" : string(key));
    if (text("continuing_subword_prefix") !== "")
      return fail(
        `${field}.continuing_subword_prefix`,
        `is ${show(object["continuing_subword_prefix"])}; only null and "" are supported`,
      );
    if (object["dropout"] != null && object["dropout"] !== 0)
      return fail(
        `${field}.dropout`,
        `is ${show(object["dropout"])}; only null is supported, since texts would have other tokens each time`,
      );
    const suffix = text("end_of_word_suffix");
    const unknown = object["unk_token"] == null ? null : string("unk_token");
    const byteFallback = flag("byte_fallback", false);
    const ignoreMerges = flag("ignore_merges", false);
    if (suffix !== "" && unknown === null)
      return fail(`${field}.unk_token`, "is null beside an end_of_word_suffix, which is not supported");
    const merges = list("merges").map((merge, rank) => {
      const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
      if (!Array.isArray(pair) || pair.length !== 2)
        return fail(`${field}.merges[${rank}]`, `is ${show(merge)}; expected two tokens`);
      if (!(ids.has(pair[0]) && ids.has(pair[1]) && ids.has(`${pair[0]}${pair[1]}`)))
        return fail(
          `${field}.merges[${rank}]`,
          `is ${show(merge)}, of which or for whose result the vocabulary has no token`,
        );
      const special = pair.find((token) => token === unknown || (byteFallback && BYTE.test(token as string)));
      if (special !== undefined)
        return fail(
          `${field}.merges[${rank}]`,
          `merges ${show(special)}, which stands for unknown text; that is not supported`,
        );
      return pair;
    });
    const lost = byteFallback
      ? Array.from({ length: 256 }, (_, byte) => byteToken(byte)).find((token) => !ids.has(token))
      : undefined;
    if (lost !== undefined) return fail(`${field}.byte_fallback`, `is true, but the vocabulary lacks ${lost}`);
    const part = {
      type,
      vocab,
      merges,
      unk_token: unknown,
      end_of_word_suffix: suffix || null,
      byte_fallback: byteFallback,
      ignore_merges: ignoreMerges,
      fuse_unk: false,
    };
    return {
      json: part,
      isBpe: true,
      unknownField: `${field}.unk_token`,
      mends: {
        ids,
        unknown,
        fuseUnknown: flag("fuse_unk", false),
        dropUnknown: unknown === null && !byteFallback,
        byteFallback: false,
        // A suffix is for the end of the whole piece, and so is the look whether the vocabulary has it as it stands.
        cut: suffix === "" && !ignoreMerges ? bpeCut(merges as [string, string][]) : null,
      },
    };
  }
}

function vocabulary(json: unknown, field: string, fail: Fail): Map<string, number> {
  const object = asObject(json) ?? fail(field, "is no object of tokens and ids");
  const ids = new Map<string, number>();
  for (const token in object) {
    const id = object[token];
    if (!isId(id))
      return fail(field, `has ${show(id)} for token ${show(token)}; expected an integer of 0 to ${MOST_ID}`);
    ids.set(token, id);
  }
  return ids;
}

function unigramIds(json: unknown, field: string, fail: Fail): Map<string, number> {
  if (!Array.isArray(json)) return fail(field, "is no list of tokens and scores");
  return new Map(
    json.map((pair: unknown, id) =>
      Array.isArray(pair) && typeof pair[0] === "string" && Number.isFinite(pair[1])
        ? [pair[0], id]
        : fail(`${field}[${id}]`, `is ${show(pair)}; expected a token and its score`),
    ),
  );
}

/** @param tokenOf the token of an id: the library adds special tokens by their text */
export function postProcessor(
  json: unknown,
  field: string,
  tokenOf: (id: number) => string | undefined,
  fail: Fail,
): Part {
  if (json === null || json === undefined) return null;
  const { object, type, list, parts, unsupported } = fields(json, field, fail);
  const token = (id: unknown, place: string): string =>
    (isId(id) ? tokenOf(id) : undefined) ?? fail(place, `has the id ${show(id)}; expected that of a token`);
  switch (type) {
    case "ByteLevel":
      return { type };
    case "BertProcessing":
    case "RobertaProcessing": {
      const pair = (key: string): [string, unknown] => {
        const value = object[key];
        return Array.isArray(value)
          ? [token(value[1], `${field}.${key}`), value[1]]
          : fail(`${field}.${key}`, "is no pair of a token and its id");
      };
      return { type, cls: pair("cls"), sep: pair("sep") };
    }
    case "TemplateProcessing": {
      const known = asObject(object["special_tokens"]) ?? {};
      const single: object[] = [];
      for (const [i, item] of list("single").entries()) {
        const place = `${field}.single[${i}]`;
        const { Sequence: text, SpecialToken: special } = asObject(item) ?? {};
        if (asObject(text)?.["id"] === "A") single.push({ Sequence: { id: "A", type_id: 0 } });
        else {
          const name = fields(special, `${place}.SpecialToken`, fail).string("id");
          const ids = Object.hasOwn(known, name) ? asObject(known[name])?.["ids"] : undefined;
          if (!Array.isArray(ids)) return fail(`${field}.special_tokens`, `has no ids for the token of ${place}`);
          for (const id of ids) single.push({ SpecialToken: { id: token(id, `${field}.special_tokens`), type_id: 0 } });
        }
      }
      if (single.filter((item) => "Sequence" in item).length !== 1)
        return fail(`${field}.single`, "has not one place for the text (Sequence A)");
      return { type, single, pair: [] };
    }
    case "Sequence":
      return {
        type,
        processors: parts("processors")
          .map((one, i) => postProcessor(one, `${field}.processors[${i}]`, tokenOf, fail))
          .filter((one) => one !== null),
      };
    default:
      return unsupported("TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing and Sequence");
  }
}

/** An entry of added_tokens. */
export interface AddedToken {
  id: number;
  content: string;
  /** Left out of decoded texts if those are to have no special tokens. */
  special: boolean;
  /** Looked for in the normalised text. */
  normalized: boolean;
  /** Takes the white space before it along. */
  lstrip: boolean;
  /** Takes the white space after it along. */
  rstrip: boolean;
}

/** @param id where the entry itself has none */
export function addedToken(json: unknown, field: string, fail: Fail, id?: number): AddedToken {
  const { string, flag, count } = fields(json, field, fail);
  const special = flag("special", false);
  const content = string("content");
  const own = count("id", id);
  if (flag("single_word", false)) return fail(`${field}.single_word`, "is true, which is not supported");
  if (!isId(own)) return fail(`${field}.id`, `is ${show(own)}; expected at most ${MOST_ID}`);
  return {
    id: own,
    content,
    special,
    normalized: flag("normalized", !special),
    lstrip: flag("lstrip", false),
    rstrip: flag("rstrip", false),
  };
}

/** Refuses added tokens that the library would confuse with other parts of the file, though each is supported alone. */
export function checkTogether(
  added: readonly AddedToken[],
  preTokenizer: unknown,
  hasNormalizer: boolean,
  fail: Fail,
): void {
  const stripping = added.find(({ lstrip, rstrip }) => lstrip || rstrip);
  const spaced = added.find(({ content }) => content !== content.trim());
  if (stripping && spaced)
    fail(
      "added_tokens",
      `has ${show(stripping.content)}, which takes white space along, beside ${show(spaced.content)}, which has ` +
        `some; that is not supported`,
    );
  const found = hasNormalizer ? added.find(({ normalized }) => normalized) : undefined;
  if (found && beginsOnlyTheText(preTokenizer))
    fail(
      "added_tokens",
      `has ${show(found.content)}, looked for in normalised text, beside a Metaspace that is put in front of the ` +
        `first word only; that is not supported`,
    );
}

function beginsOnlyTheText(part: unknown): boolean {
  const { prepend_scheme, pretokenizers } = asObject(part) ?? {};
  return prepend_scheme === "first" || (Array.isArray(pretokenizers) && pretokenizers.some(beginsOnlyTheText));
}

/** Token ids are int32 in a model. */
const MOST_ID = 2147483647;

function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= MOST_ID;
}
