/**
 * Jinja by @huggingface/jinja, mended where it would silently write another text than Python's jinja2 does: values are
 * printed as Python prints them, strip() takes characters off, a turn of a loop does not see another's variables, a
 * dict's methods come before its keys, and transformers' generation tags tell where answers lie.
 */
import * as library from "@huggingface/jinja";

/** A value of the library's, by what it says of itself. */
interface Value {
  readonly type: string;
  readonly value: unknown;
  readonly builtins: ReadonlyMap<string, Value>;
}
interface Scope {
  set(name: string, value: unknown): Value;
}
interface Node {
  readonly type: string;
}
interface Member extends Node {
  readonly object: Node;
  readonly property: Node & { readonly value?: unknown };
  readonly computed: boolean;
}
type Loop = Node & { readonly iterable: Node & { readonly lhs?: Node }; readonly body: readonly Node[] };
type Filter = Node & { readonly value?: unknown; readonly callee?: { readonly value: unknown } };
interface Binary extends Node {
  readonly operator: { readonly value: string };
  readonly left: Node;
  readonly right: Node;
}
interface Test extends Node {
  readonly operand: Node;
  readonly negate: boolean;
  readonly test: { readonly value: string };
}
/** What we need of its interpreter; its declarations call most of it private. */
interface LibraryInterpreter {
  run(program: unknown): Value;
  evaluate(node: Node, scope: Scope): Value;
  evaluateBlock(nodes: readonly Node[], scope: Scope): Value;
  evaluateFor(node: Loop, scope: Scope): Value;
  evaluateMemberExpression(node: Member, scope: Scope): Value;
  evaluateBinaryExpression(node: Binary, scope: Scope): Value;
  evaluateTestExpression(node: Test, scope: Scope): Value;
  applyFilter(operand: Value, filter: Filter, scope: Scope): Value;
}
const { Environment, Interpreter, Template } = library as unknown as {
  Environment: new (outer?: Scope) => Scope;
  Interpreter: new (scope: Scope) => LibraryInterpreter;
  Template: new (source: string) => { readonly parsed: unknown };
};

/** A template that was read. */
export interface Parsed {
  readonly program: unknown;
}

/** What a template writes. */
export interface Written {
  text: string;
  /** Where in it the parts lie that the template marks as an assistant's. */
  generations: readonly (readonly [start: number, end: number])[];
}

/** Stand for generation tags in what is written: characters that no text has. */
const [BEGIN, END] = ["\u{f8ff0}", "\u{f8ff1}"];
const MARKS = new RegExp(`[${BEGIN}${END}]`, "u");

/** @throws Error for what is no template */
export function parse(source: string): Parsed {
  // The library takes these tags out. They are blocks: a newline after them goes (trim_blocks), or all space.
  const marked = source
    .replace(/\r\n?/g, "\n")
    .replace(
      /\{%([-+]?)\s*(end)?generation\s*(?:-%\}\s*|\+?%\}\n?)/g,
      (_, left: string, end?: string) => `{%${left} ${end ? "endif" : "if true"} %}${end ? END : BEGIN}`,
    );
  return { program: new Template(marked).parsed };
}

/** @throws Error with the template's words, or what it does that cannot be done */
export function render({ program }: Parsed, variables: Readonly<Record<string, unknown>>): Written {
  const scope = new Environment();
  for (const [name, value] of Object.entries({ ...CONSTANTS, range, ...variables })) scope.set(name, value);
  return parted(new PythonInterpreter(scope).run(program).value as string);
}

const CONSTANTS = { true: true, false: false, none: null, True: true, False: false, None: null };
/** As long as a range may be in jinja2's sandbox. */
const LONGEST_RANGE = 100_000;

function range(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const length = Math.max(0, Math.ceil((to - from) / step));
  if (!(length <= LONGEST_RANGE)) throw new Error(`a range of more than ${LONGEST_RANGE} numbers`);
  return Array.from({ length }, (_, i) => from + i * step);
}

/** Takes the marks out of a text. */
function parted(text: string): Written {
  if (!MARKS.test(text)) return { text, generations: [] };
  const generations: [number, number][] = [];
  let plain = "";
  let start = 0;
  for (const piece of text.split(new RegExp(`(${MARKS.source})`, "u"))) {
    if (piece === BEGIN) start = plain.length;
    else if (piece === END) generations.push([start, plain.length]);
    else plain += piece;
  }
  return { text: plain, generations };
}

/** A value in the place of what it was evaluated from: nothing is evaluated twice. */
class Given implements Node {
  readonly type = "Given";
  constructor(readonly value: Value) {}
}

/** Blocks that print nothing themselves: what they give back is no value. */
const SILENT: ReadonlySet<string> = new Set(["Set", "Macro", "Comment", "Break", "Continue"]);
const DICT_METHODS: ReadonlySet<string> = new Set(["items", "keys", "values", "get"]);
/** Filters of texts, which print what is none. */
const TEXT_FILTERS: ReadonlySet<unknown> = new Set(["upper", "lower", "title", "capitalize"]);
/** Filters of lists; of None and of texts there is nothing that has attributes. */
const LIST_FILTERS: ReadonlySet<unknown> = new Set(["map", "select", "selectattr", "reject", "rejectattr"]);
/** What takes a thing that is not there for what it is, and not for a list of nothing. */
const FOR_UNDEFINED: ReadonlySet<unknown> = new Set(["default", "d", "string", "trim", ...TEXT_FILTERS]);

class PythonInterpreter extends Interpreter {
  readonly #turns = new WeakSet<readonly Node[]>();

  override evaluate(node: Node, scope: Scope): Value {
    return node instanceof Given ? node.value : super.evaluate(node, scope);
  }

  override evaluateBlock(nodes: readonly Node[], scope: Scope): Value {
    const inner = this.#turns.has(nodes) ? new Environment(scope) : scope;
    let text = "";
    for (const node of nodes) {
      const value = this.evaluate(node, inner);
      if (!SILENT.has(node.type)) text += printed(value);
    }
    return valueOf(text);
  }

  override evaluateFor(node: Loop, scope: Scope): Value {
    this.#turns.add(node.body);
    const { iterable } = node;
    const list = this.evaluate(iterable.lhs ?? iterable, scope);
    const items = new Given(isText(list) ? valueOf([...(list.value as string)]) : isMissing(list) ? valueOf([]) : list);
    return super.evaluateFor({ ...node, iterable: iterable.lhs ? { ...iterable, lhs: items } : items } as Loop, scope);
  }

  override evaluateMemberExpression(node: Member, scope: Scope): Value {
    const object = this.evaluate(node.object, scope);
    if (isMissing(object)) throw new Error(`${spelled(node.object)} is undefined`);
    const name = node.computed ? undefined : node.property.value;
    if (typeof name === "string") {
      const strip = object.type === "StringValue" ? STRIPS[name] : undefined;
      if (strip) return valueOf((characters?: string | null) => strip(object.value as string, characters ?? undefined));
      if (object.type === "ObjectValue" && DICT_METHODS.has(name)) return object.builtins.get(name)!;
    }
    return super.evaluateMemberExpression({ ...node, object: new Given(object) } as Member, scope);
  }

  override evaluateBinaryExpression(node: Binary, scope: Scope): Value {
    const { value: operator } = node.operator;
    if (operator !== "~" && operator !== "+") return super.evaluateBinaryExpression(node, scope);
    const left = this.evaluate(node.left, scope);
    const right = this.evaluate(node.right, scope);
    if (operator === "~") return valueOf(printed(left) + printed(right));
    if (isText(left) !== isText(right))
      throw new Error(`can only concatenate str to str (${left.type} + ${right.type})`);
    return super.evaluateBinaryExpression({ ...node, left: new Given(left), right: new Given(right) } as Binary, scope);
  }

  override evaluateTestExpression(node: Test, scope: Scope): Value {
    const operand = this.evaluate(node.operand, scope);
    // Python goes over a dict's keys, and over what is undefined as over nothing.
    if (/^(iterable|sequence)$/.test(node.test.value) && (isMissing(operand) || operand.type === "ObjectValue"))
      return valueOf(!node.negate);
    return super.evaluateTestExpression({ ...node, operand: new Given(operand) } as Test, scope);
  }

  override applyFilter(operand: Value, filter: Filter, scope: Scope): Value {
    const name = filter.callee?.value ?? filter.value;
    if (name === "tojson" && isMissing(operand)) throw new Error("what is undefined is not JSON serializable");
    if (TEXT_FILTERS.has(name) && !isText(operand)) return super.applyFilter(valueOf(printed(operand)), filter, scope);
    if (isMissing(operand) ? !FOR_UNDEFINED.has(name) : LIST_FILTERS.has(name) && !isList(operand))
      return this.applyFilter(valueOf([]), filter, scope);
    if (filter.value === "string") return valueOf(printed(operand));
    if (filter.value === "trim") return valueOf(STRIPS["strip"]!(printed(operand)));
    return super.applyFilter(operand, filter, scope);
  }
}

function isText({ type }: Value): boolean {
  return type === "StringValue";
}

function isList({ type }: Value): boolean {
  return type === "ArrayValue" || type === "TupleValue";
}

function isMissing({ type }: Value): boolean {
  return type === "UndefinedValue";
}

/** An expression for an error: messages[0].role. */
function spelled(node: Node): string {
  const { value, object, property, computed } = node as Partial<Member & { value: unknown }>;
  if (!object || !property) return value === undefined ? "what it asks" : String(value);
  return computed ? `${spelled(object)}[${spelled(property)}]` : `${spelled(object)}.${spelled(property)}`;
}

function valueOf(value: unknown): Value {
  return new Environment().set("value", value);
}

/** Python's str.isspace: other characters than JavaScript's trim takes. */
const SPACE = "\t-\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

type Strip = (text: string, characters?: string) => string;
const STRIPS: Readonly<Record<string, Strip | undefined>> = {
  __proto__: null as never,
  lstrip: (text, characters) => text.slice(text.length - withoutStart([...text], characters).length),
  rstrip: (text, characters) => text.slice(0, withoutStart([...text].reverse(), characters).length),
  strip: (text, characters) => STRIPS["rstrip"]!(STRIPS["lstrip"]!(text, characters), characters),
};

/** What is left behind the characters that go. */
function withoutStart(text: readonly string[], characters?: string): string {
  const goes = characters === undefined ? new RegExp(`[${SPACE}]`) : null;
  const taken = new Set(characters);
  const from = text.findIndex((character) => !(goes ? goes.test(character) : taken.has(character)));
  return from < 0 ? "" : text.slice(from).join("");
}

/** Python's str(). */
function printed(value: Value): string {
  if (value.type === "StringValue") return value.value as string;
  return value.type === "UndefinedValue" ? "" : represented(value);
}

/** Python's repr(). */
function represented(value: Value): string {
  if (value.type === "StringValue") return quoted(value.value as string);
  if (value.type === "BooleanValue") return value.value ? "True" : "False";
  if (value.type === "ArrayValue") return `[${(value.value as Value[]).map(represented).join(", ")}]`;
  if (value.type === "ObjectValue") {
    const entries = [...(value.value as ReadonlyMap<string, Value>)];
    return `{${entries.map(([key, one]) => `${quoted(key)}: ${represented(one)}`).join(", ")}}`;
  }
  return value.type === "NullValue" || value.type === "UndefinedValue" ? "None" : String(value);
}

function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(
    /[\\\n\r\t\x00-\x1f\x7f-\xa0\xad]|['"]/g,
    (c) =>
      ESCAPES[c] ??
      (c === quote ? `\\${c}` : /['"]/.test(c) ? c : `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`),
  );
  return `${quote}${escaped}${quote}`;
}
const ESCAPES: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };
