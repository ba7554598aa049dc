/**
 * Text from files and callers, made safe to show. A terminal obeys control characters (title, colours, clipboard), and
 * bidirectional marks reorder what a reader sees: both are written as escapes, so that they show instead of act.
 * Source: ECMA-48 (C0 and C1 controls); Unicode Standard Annex 9 (bidirectional formatting characters).
 */

/**
 * Controls but tab and newline, line and paragraph separators, bidirectional formatting characters, lone surrogates.
 */
const UNSAFE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\p{Surrogate}/gu;

/** The text with every such character as \u and its four hexadecimal digits. */
export function printable(text: string): string {
  return text.replace(UNSAFE, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
