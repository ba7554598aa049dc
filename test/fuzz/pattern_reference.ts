/**
 * What a pattern means, by its parts: the set of places where it may end, given where it starts. Greedy and lazy are
 * the same then, and nothing backtracks; written for clearness, good for short texts only.
 * Source: Python's library reference, re; \w, \d, \s and \b of ASCII, as ours are documented to be.
 */
import type { Random } from "./random.js";

export type Pattern =
  | { kind: "literal"; char: string }
  | { kind: "class"; dot: boolean; negated: boolean; chars: string[]; escape: string | null }
  | { kind: "edge"; which: string }
  | { kind: "choice" | "sequence"; of: Pattern[] }
  | { kind: "repeat"; low: number; high: number; lazy: boolean; of: Pattern }
  | { kind: "group"; capture: boolean; of: Pattern };

const ESCAPES: Record<string, RegExp> = {
  d: /[0-9]/,
  D: /[^0-9]/,
  w: /[A-Za-z0-9_]/,
  W: /[^A-Za-z0-9_]/,
  s: /[ \t\n\r\f\v]/,
  S: /[^ \t\n\r\f\v]/,
};

export function fullMatch(pattern: Pattern, text: string): boolean {
  return ends(pattern, text, 0).has(text.length);
}

function ends(pattern: Pattern, text: string, at: number): Set<number> {
  switch (pattern.kind) {
    case "literal":
      return text[at] === pattern.char ? new Set([at + 1]) : new Set();
    case "class":
      return at < text.length && isIn(pattern, text[at]!) ? new Set([at + 1]) : new Set();
    case "edge":
      return isEdge(pattern.which, text, at) ? new Set([at]) : new Set();
    case "group":
      return ends(pattern.of, text, at);
    case "choice":
      return new Set(pattern.of.flatMap((p) => [...ends(p, text, at)]));
    case "sequence":
      return pattern.of.reduce((from, p) => step(p, text, from), new Set([at]));
    default: {
      let from = new Set([at]);
      for (let i = 0; i < pattern.low; i++) from = step(pattern.of, text, from);
      const found = new Set(from);
      for (let i = pattern.low; i < pattern.high && from.size > 0; i++) {
        from = new Set([...step(pattern.of, text, from)].filter((end) => !found.has(end)));
        for (const end of from) found.add(end);
      }
      return found;
    }
  }
}

function step(pattern: Pattern, text: string, from: Set<number>): Set<number> {
  return new Set([...from].flatMap((at) => [...ends(pattern, text, at)]));
}

function isIn({ dot, negated, chars, escape }: Extract<Pattern, { kind: "class" }>, char: string): boolean {
  if (dot) return char !== "\n";
  return (chars.includes(char) || (escape !== null && ESCAPES[escape]!.test(char))) !== negated;
}

function isEdge(which: string, text: string, at: number): boolean {
  if (which === "^") return at === 0;
  if (which === "$") return at === text.length;
  const word = (i: number): boolean => i >= 0 && i < text.length && ESCAPES["w"]!.test(text[i]!);
  return (word(at - 1) !== word(at)) === (which === "\\b");
}

/** The pattern in Python's syntax. */
export function print(pattern: Pattern, random: Random): string {
  switch (pattern.kind) {
    case "literal":
      return /[A-Za-z0-9_]/.test(pattern.char) ? pattern.char : `\\${pattern.char}`;
    case "class": {
      if (pattern.dot) return ".";
      const chars = pattern.chars.map((char) => (char === "-" ? "\\-" : char)).join("");
      return `[${pattern.negated ? "^" : ""}${chars}${pattern.escape === null ? "" : `\\${pattern.escape}`}]`;
    }
    case "edge":
      return pattern.which;
    case "group":
      return `${pattern.capture ? "(" : "(?:"}${print(pattern.of, random)})`;
    case "choice":
      return `(?:${pattern.of.map((p) => print(p, random)).join("|")})`;
    case "sequence":
      return pattern.of.map((p) => print(p, random)).join("");
    default: {
      const { low, high } = pattern;
      const counts =
        low === 0 && high === Infinity
          ? "*"
          : low === 1 && high === Infinity
            ? "+"
            : low === 0 && high === 1
              ? "?"
              : low === high
                ? `{${low}}`
                : `{${low},${high === Infinity ? "" : high}}`;
      return `(?:${print(pattern.of, random)})${counts}${pattern.lazy ? "?" : ""}`;
    }
  }
}
