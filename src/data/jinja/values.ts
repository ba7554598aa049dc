/**
 * Python's values as a template sees them. str, bool, None, list and dict are JavaScript's string, boolean, null, array
 * and Map; an int is a number, and a float a Float, since "1" and "1.0" are different texts.
 */

/** A value of a template. */
export type Value =
  | string
  | number
  | boolean
  | null
  | Float
  | Undefined
  | Namespace
  | Func
  | readonly Value[]
  | ReadonlyMap<Value, Value>;

/** What a template calls: arguments by place, and by name. */
export type Func = (args: readonly Value[], named: ReadonlyMap<string, Value>) => Value;

/** A float of Python's. */
export class Float {
  constructor(readonly value: number) {}
}

/** A tuple of Python's. */
export class Tuple extends Array<Value> {
  /** What map() and its like make of one is a list. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
}

export function tuple(...items: Value[]): Tuple {
  const made = new Tuple();
  made.push(...items);
  return made;
}

/** What is not there: to print as nothing, and to use for nothing else. */
export class Undefined {
  constructor(readonly message: string) {}
}

/** namespace(): what a loop can assign to. */
export class Namespace {
  constructor(readonly values: Map<string, Value>) {}
}

/** What Python or Jinja would raise. */
export class TemplateError extends Error {}

export function fail(message: string): never {
  throw new TemplateError(message);
}

/** Nesting beyond this is refused, so that hostile rows cannot exhaust the stack. */
const DEEPEST = 200;

/** Values of JSON, and those of templates as they are. */
export function valueOf(input: unknown, depth = 0): Value {
  if (depth > DEEPEST) return fail(`it is nested more than ${DEEPEST} deep`);
  switch (typeof input) {
    case "number":
      return Number.isInteger(input) ? input : new Float(input);
    case "string":
    case "boolean":
    case "function":
      return input as Value;
    case "object":
      if (input === null) return null;
      if (Array.isArray(input)) return input.map((one) => valueOf(one, depth + 1));
      return new Map(
        Object.entries(input).flatMap(([key, value]) =>
          value === undefined ? [] : [[key, valueOf(value, depth + 1)]],
        ),
      );
    default:
      return fail(`a ${typeof input} is no value of a template`);
  }
}

export function isMap(value: Value): value is ReadonlyMap<Value, Value> {
  return value instanceof Map;
}

export function isList(value: Value): value is readonly Value[] {
  return Array.isArray(value);
}

export function isNumber(value: Value): value is number | boolean | Float {
  return typeof value === "number" || typeof value === "boolean" || value instanceof Float;
}

/** The number that a number or a bool is. */
export function numberOf(value: number | boolean | Float): number {
  return value instanceof Float ? value.value : Number(value);
}

/** A number as an int, or as a float where one of those that it comes of is one. */
export function likeThese(result: number, ...from: Value[]): Value {
  return from.some((one) => one instanceof Float) ? new Float(result) : result;
}

/** Python's name of a value's type. */
export function typeName(value: Value): string {
  if (value === null) return "NoneType";
  if (typeof value === "string") return "str";
  if (typeof value === "number") return "int";
  if (typeof value === "boolean") return "bool";
  if (value instanceof Float) return "float";
  if (value instanceof Tuple) return "tuple";
  if (isList(value)) return "list";
  if (isMap(value)) return "dict";
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Namespace) return "Namespace";
  return "function";
}

/** As Jinja names it where it says what something lacks. */
export function objectName(value: Value): string {
  return value === null ? "None" : `${typeName(value)} object`;
}

/** The value, if it is there. */
export function defined<T extends Value>(value: T): Exclude<T, Undefined> {
  return value instanceof Undefined ? fail(value.message) : (value as Exclude<T, Undefined>);
}

export function isTrue(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (isNumber(value)) return numberOf(value) !== 0;
  if (typeof value === "string" || isList(value)) return value.length > 0;
  return isMap(value) ? value.size > 0 : true;
}

/** What a loop goes over. */
export function iterate(value: Value): readonly Value[] {
  if (isList(value)) return value;
  if (typeof value === "string") return [...value];
  if (isMap(value)) return [...value.keys()];
  if (value instanceof Undefined) return [];
  return fail(`'${typeName(value)}' object is not iterable`);
}

export function lengthOf(value: Value): number {
  if (typeof value === "string") return characters(value).length;
  if (isList(value)) return value.length;
  if (isMap(value)) return value.size;
  if (value instanceof Undefined) return 0;
  return fail(`object of type '${typeName(value)}' has no len()`);
}

/** A text's code points, which Python counts. */
export function characters(text: string): string | readonly string[] {
  return /[\ud800-\udfff]/.test(text) ? [...text] : text;
}

export function equal(a: Value, b: Value): boolean {
  if (isNumber(a) && isNumber(b)) return numberOf(a) === numberOf(b);
  if (isList(a) && isList(b))
    return (
      a instanceof Tuple === b instanceof Tuple && a.length === b.length && a.every((item, i) => equal(item, b[i]!))
    );
  if (isMap(a) && isMap(b))
    return a.size === b.size && [...a].every(([key, value]) => b.has(key) && equal(value, b.get(key)!));
  if (a instanceof Undefined && b instanceof Undefined) return true;
  return a === b;
}

/** Below 0: a comes before b; above 0: behind it. */
export function compare(a: Value, b: Value, sign: string): number {
  defined(a);
  defined(b);
  if (isNumber(a) && isNumber(b)) return numberOf(a) - numberOf(b);
  if (typeof a === "string" && typeof b === "string") return a === b ? 0 : byCodePoint(a, b);
  if (isList(a) && isList(b) && typeName(a) === typeName(b)) {
    const at = a.findIndex((item, i) => i >= b.length || !equal(item, b[i]!));
    return at < 0 ? a.length - b.length : at >= b.length ? 1 : compare(a[at]!, b[at]!, sign);
  }
  return fail(`'${sign}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

/** JavaScript orders halves of surrogate pairs before characters that come before them. */
function byCodePoint(a: string, b: string): number {
  const [first, second] = [[...a], [...b]];
  for (let i = 0; i < Math.min(first.length, second.length); i++) {
    const difference = first[i]!.codePointAt(0)! - second[i]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return first.length - second.length;
}

export function contains(container: Value, item: Value): boolean {
  if (typeof container === "string")
    return typeof item === "string"
      ? container.includes(item)
      : fail(`'in <string>' requires string as left operand, not ${typeName(item)}`);
  if (isMap(container)) return container.has(item instanceof Float ? item.value : item);
  if (isList(container)) return container.some((one) => equal(one, item));
  if (container instanceof Undefined) return false;
  return fail(`argument of type '${typeName(container)}' is not iterable`);
}

/** str(value). */
export function textOf(value: Value): string {
  return typeof value === "string" ? value : value instanceof Undefined ? "" : represent(value);
}

/** repr(value). */
export function represent(value: Value): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return integer(value);
  if (typeof value === "string") return quoted(value);
  if (value instanceof Float) return floating(value.value);
  if (value instanceof Tuple) return `(${value.map(represent).join(", ")}${value.length === 1 ? "," : ""})`;
  if (isList(value)) return `[${value.map(represent).join(", ")}]`;
  if (isMap(value)) return `{${Array.from(value, ([key, one]) => `${represent(key)}: ${represent(one)}`).join(", ")}}`;
  if (value instanceof Undefined) return "Undefined";
  return value instanceof Namespace ? `<Namespace ${represent(new Map(value.values))}>` : "<function>";
}

/** An int in digits, however large it is. */
export function integer(value: number): string {
  return Number.isSafeInteger(value) || !Number.isFinite(value) ? String(value) : BigInt(value).toString();
}

/** repr of a float: the shortest digits that give it back, as in JavaScript, with an exponent where Python has one. */
export function floating(value: number): string {
  if (Number.isNaN(value)) return "nan";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  if (!Number.isFinite(value)) return `${sign}inf`;
  const [mantissa, power] = Math.abs(value).toExponential().split("e") as [string, string];
  const digits = mantissa.replace(".", "");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    const fraction = digits.length > 1 ? `.${digits.slice(1)}` : "";
    return `${sign}${digits[0]}${fraction}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  return `${sign}${digits.slice(0, exponent + 1).padEnd(exponent + 1, "0")}.${digits.slice(exponent + 1) || "0"}`;
}

const NAMED_ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };

/** repr of a str. */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = text.replace(/[\\\n\r\t'"]|[\p{C}\p{Z}]/gu, (character) => {
    if (character === " ") return character;
    if (character === "'" || character === '"') return character === quote ? `\\${character}` : character;
    const named = NAMED_ESCAPES[character];
    if (named !== undefined) return named;
    const code = character.codePointAt(0)!;
    const hex = (digits: number): string => code.toString(16).padStart(digits, "0");
    return code < 0x100 ? `\\x${hex(2)}` : code < 0x10000 ? `\\u${hex(4)}` : `\\U${hex(8)}`;
  });
  return `${quote}${body}${quote}`;
}
