/**
 * Texts to pieces, within which tokens are found, as tokenizer.json's "pre_tokenizer" says. @huggingface/tokenizers has
 * these too, but leaves aside `split` of Metaspace, most behaviours of Split and all letters and digits beyond ASCII.
 *
 * Source: huggingface/tokenizers 0.23, src/pre_tokenizers/ and tokenizer/normalizer.rs (split).
 */
import { toByteCharacters } from "./byte_level.js";
import { fields, type Fail } from "./json_fields.js";
import { patternOf, SPACE, WORD } from "./pattern.js";

/** A piece of a text. */
export interface Piece {
  text: string;
  /** Whether it begins where the whole text does. */
  first: boolean;
}

export type PreTokenizer = (piece: Piece) => Piece[];

const BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] as const;
const PUNCTUATION = "\\p{P}\\u0021-\\u002F\\u003A-\\u0040\\u005B-\\u0060\\u007B-\\u007E";
const GPT2 = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** The text in pieces: matches and what lies between them, each with whether it is a match. */
function* matches(text: string, pattern: RegExp, invert: boolean): Generator<[string, boolean]> {
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (end < match.index) yield [text.slice(end, match.index), invert];
    if (match[0] !== "") yield [match[0], !invert];
    end = match.index + match[0].length;
  }
  if (end < text.length) yield [text.slice(end), invert];
}

function splitter(pattern: RegExp, behavior: string, invert = false): PreTokenizer {
  return ({ text, first }) => {
    const pieces: string[] = [];
    let before = false;
    for (const [part, match] of matches(text, pattern, invert)) {
      const last = pieces.length - 1;
      const joins = behavior === "MergedWithPrevious" ? match && !before && last >= 0
        : behavior === "MergedWithNext" ? before && !match
        : behavior === "Contiguous" ? match === before && last >= 0 : false;
      if (joins) pieces[last] += part;
      else if (!(match && behavior === "Removed")) pieces.push(part);
      before = match;
    }
    return located(pieces, text, first);
  };
}

/** Only the piece that begins where the text begins is first. */
function located(pieces: string[], text: string, first: boolean): Piece[] {
  return pieces.map((piece, i) => ({ text: piece, first: first && i === 0 && text.startsWith(piece) }));
}

function metaspace(replacement: string, scheme: string, split: boolean): PreTokenizer {
  const parts = splitter(new RegExp(replacement.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"), "gu"), "MergedWithNext");
  return ({ text, first }) => {
    let marked = text.replaceAll(" ", replacement);
    if ((scheme === "always" || (scheme === "first" && first)) && !marked.startsWith(replacement)) marked = replacement + marked;
    return split ? parts({ text: marked, first }) : [{ text: marked, first }];
  };
}

function byteLevel(addPrefixSpace: boolean, useRegex: boolean): PreTokenizer {
  const words = splitter(GPT2, "Isolated");
  return ({ text, first }) => {
    const whole = addPrefixSpace && !text.startsWith(" ") ? ` ${text}` : text;
    return (useRegex ? words({ text: whole, first }) : [{ text: whole, first }]).map((piece) => ({ ...piece, text: toByteCharacters(piece.text) }));
  };
}

const regex = (source: string, behavior = "Isolated"): PreTokenizer => splitter(new RegExp(source, "gu"), behavior);
const sequence = (all: readonly PreTokenizer[]): PreTokenizer => (piece) => all.reduce((pieces, one) => pieces.flatMap(one), [piece]);

/** prepend_scheme, or what older files say in add_prefix_space. */
export function prependScheme(json: unknown, field: string, fail: Fail): string {
  const { flag, only } = fields(json, field, fail);
  const scheme = only("prepend_scheme", ["always", "first", "never"], "always");
  return flag("add_prefix_space", true) ? scheme : "never";
}

/** @param json of the pre-tokenizer; null: a text is one piece */
export function preTokenizer(json: unknown, field: string, fail: Fail): PreTokenizer {
  if (json === null || json === undefined) return (piece) => [piece];
  const { object, type, character, flag, only, list, count, unsupported } = fields(json, field, fail);
  switch (type) {
    case "ByteLevel": return byteLevel(flag("add_prefix_space", true), flag("use_regex", true));
    case "Metaspace": return metaspace(character("replacement", "▁"), prependScheme(json, field, fail), flag("split", true));
    case "Whitespace": return splitter(new RegExp(`[${WORD}]+|[^${WORD}${SPACE}]+`, "gu"), "Removed", true);
    case "WhitespaceSplit": return regex(SPACE, "Removed");
    case "BertPreTokenizer": return sequence([regex(SPACE, "Removed"), regex(`[${PUNCTUATION}]`)]);
    case "Punctuation": return regex(`[${PUNCTUATION}]`, only("behavior", BEHAVIORS, "Isolated"));
    case "Digits": return regex("\\p{N}", flag("individual_digits", false) ? "Isolated" : "Contiguous");
    case "CharDelimiterSplit": return splitter(patternOf({ String: character("delimiter") }, `${field}.delimiter`, fail), "Removed");
    case "Split": return splitter(patternOf(object["pattern"], `${field}.pattern`, fail), only("behavior", BEHAVIORS), flag("invert", false));
    case "FixedLength": return fixedLength(count("length", 5));
    case "Sequence": return sequence(list("pretokenizers").map((one, i) => preTokenizer(one, `${field}.pretokenizers[${i}]`, fail)));
    default: return unsupported("ByteLevel, Metaspace, Whitespace, WhitespaceSplit, BertPreTokenizer, Punctuation, Digits, CharDelimiterSplit, Split, FixedLength and Sequence");
  }

  function fixedLength(length: number): PreTokenizer {
    if (length === 0) return fail(`${field}.length`, "is 0; expected at least 1");
    return ({ text, first }) => {
      const characters = Array.from(text), pieces: string[] = [];
      for (let i = 0; i < characters.length; i += length) pieces.push(characters.slice(i, i + length).join(""));
      return located(pieces, text, first);
    };
  }
}
