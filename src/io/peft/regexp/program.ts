/**
 * A regular expression as a program that matches in linear time: steps are at most the pattern's size times the text's,
 * whatever both say. (Backtracking engines need exponential time for some.)
 *
 * All states that a text can have led to are kept at once, in the order in which backtracking would try them. What
 * looks around is matched at every position beforehand: backwards if it looks ahead.
 * Source: Thompson 1968; Pike's order of threads as in Cox 2009, "Regular Expression Matching: the Virtual Machine
 * Approach".
 */
import { type Budget, COST_OF_A_RUN, spend } from "./budget.js";
import { type Node, type Place, type Ranges, WORD } from "./parser.js";

const SET = 0;
const SPLIT = 1;
const JUMP = 2;
const AT = 3;
const LOOK = 4;
const MARK = 5;
const MATCH = 6;
const PLACES: readonly Place[] = ["^", "$", "b", "B", "end"];

/** A node as instructions. Backwards, it reads from the end of a text to its beginning. */
export class Program {
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
