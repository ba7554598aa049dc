/**
 * Python's regular expressions as trees.
 *
 * Taken over: literals, ".", classes, groups "(...)" and "(?:...)", "|", greedy and lazy quantifiers, "^", "$",
 * \b \B \d \w \s and their negations (here of ASCII), \n \r \t \f \v, escaped punctuation, lookaround.
 * Whatever else Python knows (named groups, back-references, inline flags, atomic groups, possessive quantifiers,
 * \A, \Z, \x, \u, "{" for itself) is refused by name.
 * Source: Python's library reference, re, "Regular Expression Syntax", before 3.14 (\B matches nowhere in an empty
 * text).
 */
import { show } from "../../json.js";
import type { Fail } from "./budget.js";

/** Sorted pairs, lowest and highest code point. */
export type Ranges = readonly number[];
export type Place = "^" | "$" | "b" | "B" | "end";
export type Node =
  | { kind: "set"; ranges: Ranges }
  | { kind: "sequence" | "choice"; nodes: readonly Node[] }
  | { kind: "repeat"; node: Node; min: number; max: number; lazy: boolean }
  | { kind: "at"; place: Place }
  | { kind: "look"; node: Node; behind: boolean; negated: boolean }
  | { kind: "mark" };

const LAST = 0x10ffff;
export const DIGIT: Ranges = [48, 57];
export const WORD: Ranges = [48, 57, 65, 90, 95, 95, 97, 122];
const SPACE: Ranges = [9, 13, 32, 32];
export const ANY: Node = { kind: "set", ranges: [0, 9, 11, LAST] };
const CLASSES: Readonly<Record<string, Ranges>> = {
  d: DIGIT,
  w: WORD,
  s: SPACE,
  D: inverted(DIGIT),
  W: inverted(WORD),
  S: inverted(SPACE),
};
const CONTROLS: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, v: 11 };

const MAX_DEPTH = 200;
/** Signs of a pattern, and instructions beyond four for each. */
const MAX_LENGTH = 10_000;
const MAX_SIZE = 10_000;

function inverted(ranges: Ranges): number[] {
  const outside: number[] = [];
  let from = 0;
  for (let i = 0; i < ranges.length; i += 2) {
    if (ranges[i]! > from) outside.push(from, ranges[i]! - 1);
    from = ranges[i + 1]! + 1;
  }
  if (from <= LAST) outside.push(from, LAST);
  return outside;
}

function union(pairs: readonly (readonly [number, number])[]): number[] {
  const merged: number[] = [];
  for (const [low, high] of [...pairs].sort((a, b) => a[0] - b[0])) {
    if (merged.length > 0 && low <= merged.at(-1)! + 1) merged[merged.length - 1] = Math.max(merged.at(-1)!, high);
    else merged.push(low, high);
  }
  return merged;
}

/** Reads a pattern. */
export class Parser {
  readonly #signs: readonly string[];
  #at = 0;
  #depth = 0;

  constructor(
    pattern: string,
    readonly fail: Fail,
  ) {
    if (pattern.length > MAX_LENGTH) fail(`it is ${pattern.length} signs long; at most ${MAX_LENGTH} are taken`);
    this.#signs = [...pattern];
  }

  pattern(): Node {
    const node = this.#choice();
    if (this.#at < this.#signs.length) this.fail('")" closes no group');
    if (size(node) > MAX_SIZE + 4 * this.#signs.length)
      this.fail(`its counted repetitions make ${size(node)} steps when written out; at most ${MAX_SIZE} are taken`);
    return node;
  }

  #accept(text: string): boolean {
    for (let i = 0; i < text.length; i++) if (this.#signs[this.#at + i] !== text[i]) return false;
    this.#at += text.length;
    return true;
  }

  #choice(): Node {
    if (++this.#depth > MAX_DEPTH) this.fail(`groups are nested more than ${MAX_DEPTH} deep`);
    const nodes = [this.#sequence()];
    while (this.#accept("|")) nodes.push(this.#sequence());
    this.#depth--;
    return nodes.length === 1 ? nodes[0]! : { kind: "choice", nodes };
  }

  #sequence(): Node {
    const nodes: Node[] = [];
    for (
      let sign = this.#signs[this.#at];
      sign !== undefined && sign !== "|" && sign !== ")";
      sign = this.#signs[this.#at]
    ) {
      this.#at++;
      nodes.push(this.#repeated(this.#atom(sign)));
    }
    return { kind: "sequence", nodes };
  }

  #atom(sign: string): Node {
    switch (sign) {
      case ".":
        return ANY;
      case "^":
      case "$":
        return { kind: "at", place: sign };
      case "[":
        return this.#set();
      case "(":
        return this.#group();
      case "\\":
        return this.#escape();
      case "*":
      case "+":
      case "?":
        return this.fail(`${show(sign)} repeats nothing`);
      case "{":
      case "}":
      case "]":
        return this.fail(`${show(sign)} stands alone; for the sign itself write ${show(`\\${sign}`)}`);
      default:
        return single(sign.codePointAt(0)!);
    }
  }

  #group(): Node {
    const look = this.#accept("?=")
      ? "ahead"
      : this.#accept("?!")
        ? "not ahead"
        : this.#accept("?<=")
          ? "behind"
          : this.#accept("?<!")
            ? "not behind"
            : null;
    if (!look && this.#signs[this.#at] === "?" && !this.#accept("?:"))
      this.#unsupported(`(${this.#signs.slice(this.#at, this.#at + 2).join("")}`);
    const node = this.#choice();
    if (!this.#accept(")")) this.fail('")" is missing');
    if (!look) return node;
    const behind = look.endsWith("behind");
    if (behind && Number.isNaN(width(node))) this.fail("what looks behind must be of one width");
    return { kind: "look", node, behind, negated: look.startsWith("not") };
  }

  #repeated(node: Node): Node {
    const range = this.#quantifier();
    if (!range) return node;
    if (node.kind === "at") this.fail(`a quantifier repeats ${show(node.place)}, which takes no sign`);
    const lazy = this.#accept("?");
    if (this.#signs[this.#at] === "+") this.#unsupported("a possessive quantifier");
    if (this.#quantifier()) this.fail("a quantifier repeats a quantifier");
    return { kind: "repeat", node, ...range, lazy };
  }

  #quantifier(): { min: number; max: number } | null {
    if (this.#accept("*")) return { min: 0, max: Infinity };
    if (this.#accept("+")) return { min: 1, max: Infinity };
    if (this.#accept("?")) return { min: 0, max: 1 };
    if (!this.#accept("{")) return null;
    const min = this.#number();
    const max = !this.#accept(",") ? min : (this.#number() ?? Infinity);
    if (min === null || max === null || !this.#accept("}"))
      return this.fail('"{" must be followed by a count, as in {2}, {2,} or {2,3}');
    if (max < min) this.fail(`{${min},${max}} has its counts in the wrong order`);
    return { min, max };
  }

  #number(): number | null {
    const from = this.#at;
    while (/^[0-9]$/.test(this.#signs[this.#at] ?? "")) this.#at++;
    return this.#at > from ? Number(this.#signs.slice(from, this.#at).join("")) : null;
  }

  #escape(): Node {
    const sign = this.#signs[this.#at++] ?? this.fail("the pattern ends in a backslash");
    if (sign === "b" || sign === "B") return { kind: "at", place: sign };
    return Object.hasOwn(CLASSES, sign) ? { kind: "set", ranges: CLASSES[sign]! } : single(this.#escaped(sign));
  }

  #escaped(sign: string): number {
    if (Object.hasOwn(CONTROLS, sign)) return CONTROLS[sign]!;
    if (/^[0-9A-Za-z]$/.test(sign)) this.#unsupported(`\\${sign}`);
    return sign.codePointAt(0)!;
  }

  /** A bracket in first place stands for itself. */
  #set(): Node {
    const negated = this.#accept("^");
    const pairs: [number, number][] = [];
    for (let first = true; first || this.#signs[this.#at] !== "]"; first = false) {
      const low = this.#member();
      const isRange =
        this.#signs[this.#at] === "-" && this.#signs[this.#at + 1] !== "]" && this.#signs[this.#at + 1] !== undefined;
      if (isRange) this.#at++;
      const high = isRange ? this.#member() : low;
      if (typeof low === "number" && typeof high === "number") {
        if (high < low)
          this.fail(
            `a range of a class runs backwards, from ${show(String.fromCodePoint(low))} to ` +
              `${show(String.fromCodePoint(high))}`,
          );
        pairs.push([low, high]);
      } else if (isRange || typeof low === "number") {
        this.fail("a range of a class begins or ends with a class");
      } else {
        for (let i = 0; i < low.length; i += 2) pairs.push([low[i]!, low[i + 1]!]);
      }
    }
    this.#at++;
    const ranges = union(pairs);
    return { kind: "set", ranges: negated ? inverted(ranges) : ranges };
  }

  #member(): number | Ranges {
    const sign = this.#signs[this.#at++] ?? this.fail('"]" is missing');
    if (sign !== "\\") return sign.codePointAt(0)!;
    const escaped = this.#signs[this.#at++] ?? this.fail("the pattern ends in a backslash");
    if (escaped === "b") return 8;
    return Object.hasOwn(CLASSES, escaped) ? CLASSES[escaped]! : this.#escaped(escaped);
  }

  #unsupported(what: string): never {
    return this.fail(`${show(what)} is not supported in patterns`);
  }
}

export function single(code: number): Node {
  return { kind: "set", ranges: [code, code] };
}

/** Instructions that a node becomes, with its repetitions written out. */
export function size(node: Node): number {
  switch (node.kind) {
    case "sequence":
      return node.nodes.reduce((sum, n) => sum + size(n), 1);
    case "choice":
      return node.nodes.reduce((sum, n) => sum + size(n) + 2, 0);
    case "repeat":
      return 1 + (size(node.node) + 1) * Math.max(1, node.max === Infinity ? node.min + 1 : node.max);
    case "look":
      return 1 + size(node.node);
    default:
      return 1;
  }
}

/** Signs that a node takes; NaN where that differs from match to match. */
function width(node: Node): number {
  switch (node.kind) {
    case "set":
      return 1;
    case "sequence":
      return node.nodes.reduce((sum, n) => sum + width(n), 0);
    case "choice":
      return node.nodes.map(width).reduce((a, b) => (a === b ? a : NaN));
    case "repeat":
      return node.min === node.max || width(node.node) === 0 ? node.min * width(node.node) : NaN;
    default:
      return 0;
  }
}
