/** Python's regular expressions where PEFT uses them: on the names of modules. */
import { type Budget, type Fail, INSTRUCTIONS } from "./budget.js";
import { ANY, DIGIT, type Node, Parser, type Place, single, size } from "./parser.js";
import { Program } from "./program.js";

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
