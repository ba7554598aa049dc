/**
 * The patterns of tokenizer.json: {"String": text} or {"Regex": text} in Oniguruma's syntax, which @huggingface/tokenizers
 * translates into JavaScript's.
 */
import { asObject, type Fail } from "./json_fields.js";
import { SplitPreTokenizer } from "./library.js";

/** Unicode's White_Space: JavaScript's \s has U+FEFF and lacks U+0085. */
export const SPACE = "\\p{White_Space}";
/** Oniguruma's and Rust's \w. */
export const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_C}";

/** A global, Unicode-aware expression. */
export function patternOf(json: unknown, field: string, fail: Fail): RegExp {
  const { String: text, Regex: source } = asObject(json) ?? {};
  if (typeof text === "string") {
    if (text === "") return fail(`${field}.String`, "is empty");
    return new RegExp(text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"), "gu");
  }
  if (typeof source !== "string") return fail(field, 'is neither {"String": text} nor {"Regex": text}');
  let pattern: RegExp | null;
  try {
    pattern = new SplitPreTokenizer({ type: "Split", pattern: { Regex: source }, behavior: "Isolated", invert: false }).pattern;
  } catch (cause) {
    return fail(`${field}.Regex`, `is a regular expression that is not supported: ${(cause as Error).message}`, cause);
  }
  return pattern ?? fail(`${field}.Regex`, "is a regular expression that is not supported");
}

/** `text` with every match replaced; `content` is taken as it is, "$" too. */
export function replaceAll(text: string, pattern: RegExp, content: string): string {
  return text.replace(pattern, () => content);
}
