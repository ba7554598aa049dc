/**
 * Python's regular expressions in module names, for JavaScript.
 *
 * Taken over: literals, ".", classes, groups "(...)" and "(?:...)", "|", greedy and lazy quantifiers, "^", "$",
 * \b \B \d \w \s and their negations (here of ASCII), \n \r \t \f \v, escaped punctuation, lookaround.
 * Whatever else Python knows (named groups, back-references, inline flags, atomic groups, possessive
 * quantifiers, \A, \Z, \x, \u) is refused: JavaScript rejects it or takes it for something else.
 * As in Python, a pattern can be written that takes exponential time.
 * Source: Python's library reference, re, "Regular Expression Syntax"; ECMA-262, "Patterns", with flag u.
 */
import { ArgumentError } from "../runtime/errors.js";
import { show } from "./json.js";

const SHARED_ESCAPES = "bBdDwWsSnrtfv";
const SHARED_GROUPS = ["(?:", "(?=", "(?!", "(?<=", "(?<!"];

/**
 * The same pattern as the source of a RegExp with flag u.
 * @param fail throws the caller's error; the message says what is wrong with the pattern
 */
export function translatePattern(pattern: string, fail: (message: string) => never): string {
  const unsupported = (what: string): never => fail(`${show(what)} is not supported in patterns`);
  let source = "", inClass = false;
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern[i]!;
    if (char === "\\") {
      const code = pattern.codePointAt(i + 1);
      if (code === undefined) return fail("the pattern ends in a backslash");
      const escaped = String.fromCodePoint(code);
      if (!/[0-9A-Za-z]/.test(escaped)) source += `\\u{${code.toString(16)}}`;
      else if (SHARED_ESCAPES.includes(escaped)) source += `\\${escaped}`;
      else unsupported(`\\${escaped}`);
      i += escaped.length;
    } else if (inClass) {
      inClass = char !== "]";
      source += char;
    } else if (char === "[") {
      inClass = true;
      // A bracket in first place stands for itself in Python; in JavaScript it closes an empty class.
      const opening = /^\[\^?\]?/.exec(pattern.slice(i, i + 3))![0];
      source += opening.replace("]", "\\]");
      i += opening.length - 1;
    } else if (char === ".") {
      source += "[^\\n]";
    } else {
      if (pattern.startsWith("(?", i) && !SHARED_GROUPS.some((group) => pattern.startsWith(group, i))) unsupported(pattern.slice(i, i + 3));
      source += char;
    }
  }
  try {
    new RegExp(source, "u");
  } catch (error) {
    fail(`the pattern is not valid: ${(error as Error).message}`);
  }
  return source;
}

/** A pattern that matches exactly this text (Python's re.escape). */
export function escapePattern(text: string): string { return text.replace(/[^0-9A-Za-z_]/gu, "\\$&"); }

/** `before`, the pattern and `after`, anchored at the start; `before` and `after` are JavaScript's. */
export function compilePattern(before: string, pattern: string, after: string): RegExp {
  const source = translatePattern(pattern, (message) => { throw new ArgumentError(`pattern ${show(pattern)}: ${message}.`); });
  return new RegExp(`^${before}(?:${source})${after}`, "u");
}

/**
 * Whether a Python regular expression matches all of a text (re.fullmatch).
 *
 * @throws ArgumentError for a pattern that is not valid or that JavaScript cannot express
 *
 * @example
 * console.log(io.matcher(".*\\.(q|v)_proj")("model.layers.0.self_attn.q_proj")); // true
 */
export function matcher(pattern: string): (text: string) => boolean {
  const whole = compilePattern("", pattern, "$");
  return (text) => whole.test(text);
}
