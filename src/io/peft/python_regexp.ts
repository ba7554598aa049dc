/**
 * Python's regular expressions in module names, matched in linear time: steps are at most the pattern's size times the
 * text's, whatever both say. (They come from files of strangers; backtracking engines need exponential time for some.)
 *
 * Taken over: literals, ".", classes, groups "(...)" and "(?:...)", "|", greedy and lazy quantifiers, "^", "$",
 * \b \B \d \w \s and their negations (here of ASCII), \n \r \t \f \v, escaped punctuation, lookaround.
 * Whatever else Python knows (named groups, back-references, inline flags, atomic groups, possessive quantifiers,
 * \A, \Z, \x, \u, "{" for itself) is refused by name.
 *
 * All states that a text can have led to are kept at once, in the order in which backtracking would try them. What
 * looks around is matched at every position beforehand: backwards if it looks ahead.
 * Source: Python's library reference, re, "Regular Expression Syntax", before 3.14 (\B matches nowhere in an empty
 * text); Thompson 1968; Pike's order of threads as in Cox 2009, "Regular Expression Matching: the Virtual Machine
 * Approach".
 */
import { show } from "../json.js";

/** Throws the caller's error; the message says what is wrong. */
export type Fail = (message: string) => never;

/**
 * Steps that are left, so that many patterns on many names end, too; and instructions, so that they do not fill memory.
 */
export interface Budget {
  left: number;
  room: number;
  fail: Fail;
}

/** Half a second's (measured). 100 patterns on 1,000 names take a fifth of it. */
const STEPS = 20_000_000;
/** What it takes to begin. */
const COST_OF_A_RUN = 20;
/** Some 10 MB. */
const INSTRUCTIONS = 200_000;

export function newBudget(fail: Fail): Budget {
  return { left: STEPS, room: INSTRUCTIONS, fail };
}

export function spend(budget: Budget, steps: number): void {
  budget.left -= steps;
  if (budget.left < 0)
    budget.fail(
      `its patterns take more than ${STEPS} steps on these names; write names instead of patterns, or fewer of both`,
    );
}

/** Sorted pairs, lowest and highest code point. */
type Ranges = readonly number[];
type Place = "^" | "$" | "b" | "B" | "end";
type Node =
  | { kind: "set"; ranges: Ranges }
  | { kind: "sequence" | "choice"; nodes: readonly Node[] }
  | { kind: "repeat"; node: Node; min: number; max: number; lazy: boolean }
  | { kind: "at"; place: Place }
  | { kind: "look"; node: Node; behind: boolean; negated: boolean }
  | { kind: "mark" };

const LAST = 0x10ffff;
const DIGIT: Ranges = [48, 57];
const WORD: Ranges = [48, 57, 65, 90, 95, 95, 97, 122];
const SPACE: Ranges = [9, 13, 32, 32];
const ANY: Node = { kind: "set", ranges: [0, 9, 11, LAST] };
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

class Parser {
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

function single(code: number): Node {
  return { kind: "set", ranges: [code, code] };
}

/** Instructions that a node becomes, with its repetitions written out. */
function size(node: Node): number {
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

const SET = 0;
const SPLIT = 1;
const JUMP = 2;
const AT = 3;
const LOOK = 4;
const MARK = 5;
const MATCH = 6;
const PLACES: readonly Place[] = ["^", "$", "b", "B", "end"];

/** A node as instructions. Backwards, it reads from the end of a text to its beginning. */
class Program {
  readonly #kinds: number[] = [];
  /** By instruction: where to go first, and else; or the number of its ranges, place or look. */
  readonly #operands: number[] = [];
  readonly #others: number[] = [];
  readonly #ranges: Ranges[] = [];
  readonly #looks: { program: Program; negated: boolean }[] = [];
  readonly #backwards: boolean;
  /**
   * Of what runs now: the text, where its looks match, and the number of the position at which each instruction was
   * reached.
   */
  #text: readonly number[] = [];
  #hits: readonly Uint8Array[] = [];
  readonly #reached: Int32Array;
  #position = 0;
  #steps = 0;
  readonly #waiting: number[] = [];

  constructor(node: Node, backwards: boolean) {
    this.#backwards = backwards;
    this.#emit(node);
    this.#add(MATCH, 0);
    this.#reached = new Int32Array(this.#kinds.length);
  }

  #add(kind: number, operand: number): number {
    this.#others.push(0);
    this.#operands.push(operand);
    return this.#kinds.push(kind) - 1;
  }

  /** A fork into what follows it and past it; the latter is set when it is known. */
  #fork(lazy: boolean): (past: number) => void {
    const at = this.#add(SPLIT, 0);
    const [near, far] = lazy ? [this.#others, this.#operands] : [this.#operands, this.#others];
    near[at] = at + 1;
    return (past) => {
      far[at] = past;
    };
  }

  #emit(node: Node): void {
    switch (node.kind) {
      case "set":
        this.#add(SET, this.#ranges.push(node.ranges) - 1);
        break;
      case "at":
        this.#add(AT, PLACES.indexOf(node.place));
        break;
      case "mark":
        this.#add(MARK, 0);
        break;
      case "look":
        this.#add(LOOK, this.#looks.push({ program: new Program(node.node, !node.behind), negated: node.negated }) - 1);
        break;
      case "sequence":
        for (const n of this.#backwards ? [...node.nodes].reverse() : node.nodes) this.#emit(n);
        break;
      case "choice": {
        const ends: number[] = [];
        for (const [i, n] of node.nodes.entries()) {
          const fork = i < node.nodes.length - 1 ? this.#fork(false) : null;
          this.#emit(n);
          if (!fork) break;
          ends.push(this.#add(JUMP, 0));
          fork(this.#kinds.length);
        }
        for (const at of ends) this.#operands[at] = this.#kinds.length;
        break;
      }
      case "repeat": {
        for (let i = 0; i < node.min; i++) this.#emit(node.node);
        const start = this.#kinds.length;
        const forks = [];
        for (let i = node.min; i < (node.max === Infinity ? node.min + 1 : node.max); i++) {
          forks.push(this.#fork(node.lazy));
          this.#emit(node.node);
        }
        if (node.max === Infinity) this.#add(JUMP, start);
        for (const fork of forks) fork(this.#kinds.length);
      }
    }
  }

  /**
   * As re.match: the position at the mark of the match that Python finds, 0 without a mark; -1 if there is none.
   * @param text code points
   */
  match(text: readonly number[], budget: Budget): number {
    this.#begin(text, budget);
    const kinds = this.#kinds;
    const operands = this.#operands;
    const allRanges = this.#ranges;
    let threads: number[] = [];
    let next: number[] = [];
    let found = -1;
    this.#enter(0, 0, 0, threads);
    for (let at = 0; threads.length > 0; at++) {
      next.length = 0;
      this.#position++;
      for (let i = 0; i < threads.length; i += 2) {
        const pc = threads[i]!;
        const mark = threads[i + 1]!;
        if (kinds[pc] === MATCH) {
          if (mark === 0) return 0;
          // What follows in the list would have been tried later.
          found = mark;
          break;
        }
        if (at < text.length && includes(allRanges[operands[pc]!]!, text[at]!)) this.#enter(pc + 1, mark, at + 1, next);
      }
      this.#pay(budget);
      [threads, next] = [next, threads];
    }
    return found;
  }

  /**
   * At which positions a match begins (or ends, of a program that does not run backwards), wherever its other end is.
   */
  #everywhere(text: readonly number[], budget: Budget): Uint8Array {
    this.#begin(text, budget);
    const hits = new Uint8Array(text.length + 1);
    const step = this.#backwards ? -1 : 1;
    let threads: number[] = [];
    let next: number[] = [];
    for (let i = 0, at = this.#backwards ? text.length : 0; i <= text.length; i++, at += step) {
      this.#enter(0, 0, at, threads);
      next.length = 0;
      this.#position++;
      const code = text[this.#backwards ? at - 1 : at];
      for (let t = 0; t < threads.length; t += 2) {
        const pc = threads[t]!;
        if (this.#kinds[pc] === MATCH) hits[at] = 1;
        else if (code !== undefined && includes(this.#ranges[this.#operands[pc]!]!, code))
          this.#enter(pc + 1, 0, at + step, next);
      }
      this.#pay(budget);
      [threads, next] = [next, threads];
    }
    return hits;
  }

  #begin(text: readonly number[], budget: Budget): void {
    this.#text = text;
    this.#hits = this.#looks.map(({ program, negated }) => {
      const hits = program.#everywhere(text, budget);
      return negated ? hits.map((hit) => 1 - hit) : hits;
    });
    this.#steps = COST_OF_A_RUN;
    this.#position++;
  }

  #pay(budget: Budget): void {
    spend(budget, this.#steps + 1);
    this.#steps = 0;
  }

  /**
   * Adds the instructions that take a sign, or end, and are reached from `start` at this position, in their order, each
   * with its mark.
   */
  #enter(start: number, startMark: number, at: number, threads: number[]): void {
    const waiting = this.#waiting;
    let pc = start;
    let mark = startMark;
    let isLive = true;
    while (isLive || waiting.length > 0) {
      if (!isLive) {
        mark = waiting.pop()!;
        pc = waiting.pop()!;
      }
      isLive = false;
      this.#steps++;
      if (this.#reached[pc] === this.#position) continue;
      this.#reached[pc] = this.#position;
      const operand = this.#operands[pc]!;
      switch (this.#kinds[pc]) {
        case SPLIT:
          waiting.push(this.#others[pc]!, mark);
          [pc, isLive] = [operand, true];
          break;
        case JUMP:
          [pc, isLive] = [operand, true];
          break;
        case AT:
          [pc, isLive] = [pc + 1, isAt(PLACES[operand]!, this.#text, at)];
          break;
        case LOOK:
          [pc, isLive] = [pc + 1, this.#hits[operand]![at] === 1];
          break;
        case MARK:
          [pc, mark, isLive] = [pc + 1, at, true];
          break;
        default:
          threads.push(pc, mark);
      }
    }
  }
}

function includes(ranges: Ranges, code: number): boolean {
  if (ranges.length === 2) return code >= ranges[0]! && code <= ranges[1]!;
  let low = 0;
  let high = ranges.length / 2;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[2 * middle + 1]! < code) low = middle + 1;
    else high = middle;
  }
  return 2 * low < ranges.length && ranges[2 * low]! <= code;
}

function isAt(place: Place, text: readonly number[], at: number): boolean {
  const isWord = (code: number | undefined): boolean => code !== undefined && includes(WORD, code);
  switch (place) {
    case "^":
      return at === 0;
    case "end":
      return at === text.length;
    // Before a line feed at the end, too.
    case "$":
      return at === text.length || (at === text.length - 1 && text[at] === 10);
    case "b":
      return isWord(text[at - 1]) !== isWord(text[at]);
    case "B":
      return text.length > 0 && isWord(text[at - 1]) === isWord(text[at]);
  }
}

/** What stands around a pattern where PEFT matches it. */
const AROUND = {
  /** re.fullmatch */
  whole: (node: Node): Node[] => [node, { kind: "at", place: "end" }],
  /** (.*\.)?(pattern)$ */
  end: (node: Node): Node[] => [BEFORE, node, { kind: "at", place: "$" }],
  /** (.*\.)?(pattern)($|\.) */
  module: (node: Node): Node[] => [BEFORE, node, { kind: "choice", nodes: [{ kind: "at", place: "$" }, DOT] }],
  /** .*?\.(pattern)\.(\d+)\. with a mark before the number */
  layer: (node: Node): Node[] => [
    { kind: "repeat", node: ANY, min: 0, max: Infinity, lazy: true },
    DOT,
    node,
    DOT,
    { kind: "mark" },
    { kind: "repeat", node: { kind: "set", ranges: DIGIT }, min: 1, max: Infinity, lazy: false },
    DOT,
  ],
};
const DOT = single(46);
const BEFORE: Node = {
  kind: "repeat",
  min: 0,
  max: 1,
  lazy: false,
  node: { kind: "sequence", nodes: [{ kind: "repeat", node: ANY, min: 0, max: Infinity, lazy: false }, DOT] },
};

/** A pattern that becomes a program when it is first used. */
export class Pattern {
  #program: Program | null = null;

  /** @param around how it is to be matched */
  constructor(
    readonly text: string,
    readonly around: keyof typeof AROUND,
  ) {}

  /** As `Program.match`. */
  match(text: readonly number[], budget: Budget): number {
    this.#program ??= this.#compile(budget);
    return this.#program.match(text, budget);
  }

  #compile(budget: Budget): Program {
    const node: Node = { kind: "sequence", nodes: AROUND[this.around](new Parser(this.text, budget.fail).pattern()) };
    budget.room -= size(node);
    if (budget.room < 0)
      budget.fail(
        `its patterns are more than ${INSTRUCTIONS} steps long together when written out; write names instead of ` +
          `patterns, or fewer`,
      );
    return new Program(node, false);
  }

  /**
   * The text that alone it matches, where that is so but for signs that any sign may replace, marked by "."; with ^ in
   * front or $ behind. Most patterns in configs are names.
   */
  name(fail: Fail): { text: string; open: boolean; anchored: boolean } | null {
    const node = new Parser(this.text, fail).pattern();
    if (node.kind !== "sequence") return null;
    const isPlace = (sign: Node | undefined, place: Place): boolean => sign?.kind === "at" && sign.place === place;
    const { nodes } = node;
    const anchored = isPlace(nodes[0], "^");
    const signs = nodes.slice(anchored ? 1 : 0, isPlace(nodes.at(-1), "$") ? -1 : undefined);
    const codes: number[] = [];
    for (const sign of signs) {
      if (sign.kind !== "set" || (sign !== ANY && (sign.ranges.length !== 2 || sign.ranges[0] !== sign.ranges[1])))
        return null;
      codes.push(sign === ANY ? -1 : sign.ranges[0]!);
    }
    const open = codes.includes(-1);
    // Of the two kinds of dots one would be lost; what is beyond 16 bits has another length in JavaScript.
    if ((open && codes.includes(46)) || codes.some((code) => code > 0xffff)) return null;
    return { text: codes.map((code) => (code < 0 ? "." : String.fromCharCode(code))).join(""), open, anchored };
  }
}

/** @param fail throws the caller's error; the message says what is wrong with the pattern */
export function checkPattern(pattern: string, fail: Fail): void {
  if (!isPlain(pattern)) new Parser(pattern, fail).pattern();
}

/**
 * Whether it is a name, of which only the dots mean more than themselves: the quick way to know most patterns in
 * configs.
 */
export function isPlain(pattern: string): boolean {
  return /^[\w.]*$/.test(pattern);
}

/** Code points. */
export function codesOf(text: string): number[] {
  return Array.from(text, (sign) => sign.codePointAt(0)!);
}

/** A pattern that matches exactly this text (Python's re.escape). */
export function escapePattern(text: string): string {
  return text.replace(/[^0-9A-Za-z_]/gu, "\\$&");
}
