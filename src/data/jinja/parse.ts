/**
 * Jinja to a tree, by @huggingface/jinja. What its lexer does otherwise than Jinja's is mended before it sees the
 * text, and what its parser does not know, in the tokens.
 */
import { parse as parseTokens, tokenize } from "@huggingface/jinja";

/** A node of the tree: the library's classes, told apart by their type. */
export type Node =
  | { type: "Program"; body: Node[] }
  | { type: "If"; test: Node; body: Node[]; alternate: Node[] }
  | { type: "For"; loopvar: Node; iterable: Node; body: Node[]; defaultBlock: Node[] }
  | { type: "Break" | "Continue" | "Comment" }
  | { type: "Set"; assignee: Node; value: Node | null; body: Node[] }
  | { type: "Macro"; name: Identifier; args: Parameter[]; body: Node[] }
  | { type: "CallStatement"; call: Call; callerArgs: Parameter[] | null; body: Node[] }
  | { type: "FilterStatement"; filter: Identifier | Call; body: Node[] }
  | { type: "MemberExpression"; object: Node; property: Node; computed: boolean }
  | { type: "SliceExpression"; start: Node | undefined; stop: Node | undefined; step: Node | undefined }
  | { type: "IntegerLiteral" | "FloatLiteral"; value: number }
  | { type: "StringLiteral"; value: string }
  | { type: "ArrayLiteral" | "TupleLiteral"; value: Node[] }
  | { type: "ObjectLiteral"; value: ReadonlyMap<Node, Node> }
  | { type: "BinaryExpression"; operator: { value: string }; left: Node; right: Node }
  | { type: "UnaryExpression"; operator: { value: string }; argument: Node }
  | { type: "FilterExpression"; operand: Node; filter: Identifier | Call }
  | { type: "TestExpression"; operand: Node; negate: boolean; test: Identifier }
  | { type: "SelectExpression"; lhs: Node; test: Node }
  | { type: "Ternary"; condition: Node; trueExpr: Node; falseExpr: Node }
  | { type: "SpreadExpression" | "KeywordSpreadExpression"; argument: Node }
  | Identifier
  | Call
  | KeywordArgument;
export interface Identifier {
  type: "Identifier";
  value: string;
}
export interface Call {
  type: "CallExpression";
  callee: Node;
  args: Node[];
}
export interface KeywordArgument {
  type: "KeywordArgumentExpression";
  key: Identifier;
  value: Node;
}
export type Parameter = Identifier | KeywordArgument;

/** The filter block that transformers' generation block becomes. */
export const GENERATION = "__generation__";
/** A test with an argument becomes a filter of this and its name. */
export const TEST = /^is (not )?(.+)$/;

type Token = ReturnType<typeof tokenize>[number];

/** @throws Error for what is no Jinja */
export function parse(source: string): Node {
  const tokens = tokenize(mended(source), { trim_blocks: true, lstrip_blocks: true });
  return parseTokens(withTests(withTuples(tokens))) as unknown as Node;
}

/** A template's comments, statements, expressions and texts between them; none of the first three ends in a string. */
const PARTS =
  /\{#.*?#\}|\{%(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.)*?%\}|\{\{(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.)*?\}\}/gs;
const STRINGS = /'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"/gs;
const RAW = /\{%([-+]?)\s*raw\s*(-?)%\}(.*?)\{%(-?)\s*endraw\s*([-+]?)%\}/gs;
/** Escapes; the lexer refuses those that it does not know, which Python keeps. */
const ESCAPE = /\\(U[\da-fA-F]{8}|.)/gs;
const KNOWN_ESCAPES = "ntrbfv'\"\\xu";

function escaped(all: string, what: string): string {
  if (KNOWN_ESCAPES.includes(what)) return all;
  if (what === "\n") return "";
  if (what === "a") return "\\x07";
  if (what.length > 1) return String.fromCodePoint(Number.parseInt(what.slice(1), 16));
  return `\\\\${what}`;
}

/** The same template in what the lexer knows. */
function mended(source: string): string {
  return source
    .replace(/\r\n?/g, "\n")
    .replace(RAW, (_, before: string, first: string, text: string, last: string, after: string) => {
      const begun = first ? text.replace(/^\s+/, "") : text;
      const whole = last ? begun.replace(/\s+$/, "") : begun;
      const string = JSON.stringify(whole).replace(/[{}%#]/g, (c) => `\\x${c.charCodeAt(0).toString(16)}`);
      return `{{${before === "-" ? "-" : ""} ${string} ${after === "-" ? "-" : ""}}}`;
    })
    .replace(PARTS, (part) => {
      if (part.startsWith("{#")) return part;
      // What keeps white space is an expression that writes nothing: neither side of one is stripped.
      const before = part.startsWith("{%+") || part.startsWith("{{+") ? '{{ "" }}' : "";
      const after = part.endsWith("+%}") ? '{{ "" }}' : "";
      const bare = part.replace(/^(\{[{%])\+/, "$1").replace(/\+%\}$/, "%}");
      const block = bare
        .replace(STRINGS, (string) => string.replace(ESCAPE, escaped))
        .replace(/^(\{%-?\s*)generation(\s*-?%\})$/, `$1filter ${GENERATION}$2`)
        .replace(/^(\{%-?\s*)endgeneration(\s*-?%\})$/, "$1endfilter$2");
      return before + block + after;
    });
}

/** Stands in a tuple where nothing does: the parser knows none of fewer than two. */
export const NO_ITEM = "__no_item__";
const KEYWORDS = new Set(["in", "not", "and", "or", "if", "elif", "else", "is", "set", "for"]);

/** () and (1,) as the parser can take them. */
function withTuples(tokens: readonly Token[]): Token[] {
  const isGroup: boolean[] = [];
  return tokens.flatMap((token, i) => {
    const [before, next] = [tokens[i - 1], tokens[i + 1]];
    if (token.type === "OpenParen") {
      const isCall =
        before?.type === "CloseParen" ||
        before?.type === "CloseSquareBracket" ||
        (before?.type === "Identifier" && !KEYWORDS.has(before.value));
      isGroup.push(!isCall);
      if (!isCall && next?.type === "CloseParen") return [token, NOTHING, COMMA, NOTHING];
    } else if (token.type === "CloseParen") isGroup.pop();
    else if (token.type === "Comma" && next?.type === "CloseParen" && isGroup.at(-1)) return [token, NOTHING];
    return [token];
  });
}

const NOTHING: Token = { type: "Identifier", value: NO_ITEM };
const COMMA: Token = { type: "Comma", value: "," };

const OPENING = new Set(["OpenParen", "OpenSquareBracket", "OpenCurlyBracket"]);
const CLOSING = new Set(["CloseParen", "CloseSquareBracket", "CloseCurlyBracket"]);
const LITERAL = new Set(["NumericLiteral", "StringLiteral", "OpenParen", "OpenSquareBracket", "OpenCurlyBracket"]);
const NO_ARGUMENT = new Set(["else", "or", "and", "is", "if", "in", "not"]);

/** Tests with an argument (x is divisibleby 3), of which the parser knows none, as filters. */
function withTests(tokens: readonly Token[]): Token[] {
  const made: Token[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!;
    const negated = isWord(tokens[i + 1], "not");
    const name = tokens[i + (negated ? 2 : 1)];
    const first = tokens[i + (negated ? 3 : 2)];
    const isTest =
      isWord(token, "is") &&
      name?.type === "Identifier" &&
      first !== undefined &&
      (LITERAL.has(first.type) || (first.type === "Identifier" && !NO_ARGUMENT.has(first.value)));
    if (!isTest) {
      made.push(token);
      continue;
    }
    const start = i + (negated ? 3 : 2);
    const end = argumentEnd(tokens, start);
    const argument = withTests(tokens.slice(start, end));
    const isList = first.type === "OpenParen" && end === closing(tokens, start) + 1;
    made.push(
      { type: "Pipe", value: "|" },
      { type: "Identifier", value: `is ${negated ? "not " : ""}${name.value}` },
      ...(isList
        ? argument
        : [{ type: "OpenParen", value: "(" } as Token, ...argument, { type: "CloseParen", value: ")" } as Token]),
    );
    i = end - 1;
  }
  return made;
}

function isWord(token: Token | undefined, word: string): boolean {
  return token?.type === "Identifier" && token.value === word;
}

/** Where the bracket that opens there is closed. */
function closing(tokens: readonly Token[], open: number): number {
  let depth = 0;
  for (let i = open; i < tokens.length; i++) {
    if (OPENING.has(tokens[i]!.type)) depth++;
    if (CLOSING.has(tokens[i]!.type) && --depth === 0) return i;
  }
  return tokens.length - 1;
}

/** The end of one primary with what is called, taken or sliced of it. */
function argumentEnd(tokens: readonly Token[], start: number): number {
  let end = OPENING.has(tokens[start]!.type) ? closing(tokens, start) + 1 : start + 1;
  for (;;) {
    const type = tokens[end]?.type;
    if (type === "Dot") end += 2;
    else if (type === "OpenParen" || type === "OpenSquareBracket") end = closing(tokens, end) + 1;
    else return end;
  }
}
