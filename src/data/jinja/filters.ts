/** Jinja's filters and tests: those that chat templates have a use for. */
import { asInteger, asText, bind, type Named } from "./arguments.js";
import { toJson } from "./json.js";
import { capitalize, replace, slice, splitLines, stringMethod, strip } from "./strings.js";
import {
  compare,
  contains,
  defined,
  equal,
  fail,
  Float,
  isList,
  isMap,
  isNumber,
  isTrue,
  iterate,
  lengthOf,
  likeThese,
  Namespace,
  numberOf,
  textOf,
  tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

/** What filters and tests need of who evaluates them. */
export interface Evaluation {
  /** What value[key] is. */
  item(value: Value, key: Value): Value;
  /** What value.name is. */
  attribute(value: Value, name: string): Value;
}

type Given = readonly (Value | undefined)[];
type Filter = (value: Value, args: Given, evaluation: Evaluation) => Value;

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
};

/** What `attribute="a.b.0"` takes of an item. */
function getter(path: Value | undefined, fallback: Value | undefined, evaluation: Evaluation): (item: Value) => Value {
  if (path === undefined || path === null) return (item) => item;
  const keys = typeof path === "number" ? [path] : asText("attribute", path).split(".");
  return (item) => {
    const found = keys.reduce<Value>(
      (value, key) => evaluation.item(value, typeof key === "string" && /^\d+$/.test(key) ? Number(key) : key),
      item,
    );
    return found instanceof Undefined && fallback !== undefined ? fallback : found;
  };
}

/** Texts that are to be compared whatever their case. */
function folded(value: Value, caseSensitive: Value | undefined): Value {
  return typeof value === "string" && !isTrue(caseSensitive ?? false) ? value.toLowerCase() : value;
}

function sorted(list: readonly Value[], key: (item: Value) => Value, reverse: Value | undefined): Value[] {
  const turn = isTrue(reverse ?? false) ? -1 : 1;
  return list
    .map((item) => [key(item), item] as const)
    .sort(([a], [b]) => turn * compare(a, b, "<"))
    .map(([, item]) => item);
}

function extreme(sign: 1 | -1): Filter {
  return (value, [caseSensitive, attribute], evaluation) => {
    const get = getter(attribute, undefined, evaluation);
    const list = iterate(value);
    if (list.length === 0) return new Undefined("No aggregated item, sequence was empty.");
    return list.reduce((best, item) =>
      sign * compare(folded(get(item), caseSensitive), folded(get(best), caseSensitive), "<") < 0 ? item : best,
    );
  };
}

/** Rounds halves to even, as Python does; to a number of digits. */
function rounded(value: number, digits: number, method: string): number {
  let scale = 1;
  for (let i = 0; i < Math.abs(digits); i++) scale *= 10;
  const scaled = digits < 0 ? value / scale : value * scale;
  const low = Math.floor(scaled);
  const isHalf = scaled - low === 0.5;
  const whole =
    method === "ceil"
      ? Math.ceil(scaled)
      : method === "floor"
        ? low
        : isHalf
          ? low + (low % 2 === 0 ? 0 : 1)
          : Math.round(scaled);
  return digits < 0 ? whole * scale : whole / scale;
}

/** items: keys and values of a dict. */
export function items(value: Value): Value[] {
  if (value instanceof Undefined) return [];
  return isMap(value)
    ? Array.from(value, ([key, one]) => tuple(key, one))
    : fail("Can only get item pairs from a mapping.");
}

function asInt(value: Value, fallback: Value | undefined, base: Value | undefined): Value {
  if (isNumber(value)) return Math.trunc(numberOf(value));
  const radix = asInteger(base, 10);
  const text = textOf(value).replace(/_/g, "").trim();
  if (radix === 10 && /^[+-]?\d+$/.test(text)) return Number(text);
  if (radix === 10 && /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return Math.trunc(Number(text));
  const other = radix === 10 ? Number.NaN : Number.parseInt(text.replace(/^0[xob]/i, ""), radix);
  return Number.isNaN(other) ? (fallback ?? 0) : other;
}

function indent(value: Value, [width = 4, first, blank]: Given): string {
  const by = typeof width === "string" ? width : " ".repeat(asInteger(width, 4));
  const lines = splitLines(`${textOf(value)}\n`);
  const [head = "", ...rest] = lines;
  const text = isTrue(blank ?? false)
    ? lines.join(`\n${by}`)
    : [head, ...rest.map((line) => (line === "" ? line : by + line))].join("\n");
  return isTrue(first ?? false) ? by + text : text;
}

/** Filters by their names, with the names of their arguments. */
const FILTERS: Readonly<Record<string, readonly [names: readonly string[], filter: Filter]>> = {
  abs: [
    [],
    (value) =>
      isNumber(value)
        ? likeThese(Math.abs(numberOf(value)), value)
        : fail(`bad operand type for abs(): '${typeName(value)}'`),
  ],
  attr: [["name"], (value, [name], { attribute }) => attribute(value, asText("name", name))],
  capitalize: [[], (value) => capitalize(textOf(value))],
  center: [["width"], (value, [width = 80]) => stringMethod(textOf(value), "center")!([width], new Map())],
  default: [
    ["default_value", "boolean"],
    (value, [fallback = "", boolean = false]) =>
      value instanceof Undefined || (isTrue(boolean) && !isTrue(value)) ? fallback : value,
  ],
  dictsort: [
    ["case_sensitive", "by", "reverse"],
    (value, [caseSensitive, by = "key", reverse]) =>
      sorted(
        items(value),
        (pair) => folded((pair as readonly Value[])[by === "value" ? 1 : 0]!, caseSensitive),
        reverse,
      ),
  ],
  escape: [[], (value) => textOf(value).replace(/[&<>"']/g, (character) => ESCAPES[character]!)],
  first: [[], (value) => iterate(value)[0] ?? new Undefined("No first item, sequence was empty.")],
  float: [
    ["default"],
    (value, [fallback = new Float(0)]) => {
      if (isNumber(value)) return new Float(numberOf(value));
      const text = textOf(value).trim();
      return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? new Float(Number(text)) : fallback;
    },
  ],
  indent: [["width", "first", "blank"], (value, args) => indent(value, args)],
  int: [["default", "base"], (value, [fallback, base]) => asInt(value, fallback, base)],
  items: [[], (value) => items(value)],
  join: [
    ["d", "attribute"],
    (value, [by = "", attribute], evaluation) =>
      iterate(value)
        .map(getter(attribute, undefined, evaluation))
        .map(textOf)
        .join(textOf(by)),
  ],
  last: [[], (value) => iterate(value).at(-1) ?? new Undefined("No last item, sequence was empty.")],
  length: [[], (value) => lengthOf(value)],
  list: [[], (value) => [...iterate(value)]],
  lower: [[], (value) => textOf(value).toLowerCase()],
  max: [["case_sensitive", "attribute"], extreme(-1)],
  min: [["case_sensitive", "attribute"], extreme(1)],
  replace: [
    ["old", "new", "count"],
    (value, [from, to, count]) => replace(textOf(value), textOf(from ?? ""), textOf(to ?? ""), asInteger(count, -1)),
  ],
  reverse: [[], (value) => (typeof value === "string" ? slice(value, null, null, -1) : [...iterate(value)].reverse())],
  round: [
    ["precision", "method"],
    (value, [precision, method = "common"]) =>
      isNumber(value)
        ? likeThese(
            rounded(numberOf(value), asInteger(precision, 0), textOf(method)),
            value,
            method === "common" ? value : new Float(0),
          )
        : fail(`type ${typeName(value)} doesn't define __round__ method`),
  ],
  safe: [[], (value) => textOf(value)],
  sort: [
    ["reverse", "case_sensitive", "attribute"],
    (value, [reverse, caseSensitive, attribute], evaluation) => {
      const get = getter(attribute, undefined, evaluation);
      return sorted(iterate(value), (item) => folded(get(item), caseSensitive), reverse);
    },
  ],
  string: [[], (value) => textOf(value)],
  sum: [
    ["attribute", "start"],
    (value, [attribute, start = 0], evaluation) =>
      iterate(value)
        .map(getter(attribute, undefined, evaluation))
        .reduce(
          (sum, one) =>
            isNumber(sum) && isNumber(one)
              ? likeThese(numberOf(sum) + numberOf(one), sum, one)
              : fail(
                  one instanceof Undefined
                    ? one.message
                    : `unsupported operand type(s) for +: '${typeName(sum)}' and '${typeName(one)}'`,
                ),
          start,
        ),
  ],
  title: [
    [],
    (value) =>
      textOf(value)
        .split(/([-\s({[<]+)/)
        .map(capitalize)
        .join(""),
  ],
  tojson: [
    ["ensure_ascii", "indent", "separators", "sort_keys"],
    (value, [ensureAscii = false, step = null, separators = null, sortKeys = false]) =>
      toJson(value, { indent: step, separators, ensureAscii: isTrue(ensureAscii), sortKeys: isTrue(sortKeys) }),
  ],
  trim: [["chars"], (value, [of]) => strip(textOf(value), of)],
  unique: [
    ["case_sensitive", "attribute"],
    (value, [caseSensitive, attribute], evaluation) => {
      const get = getter(attribute, undefined, evaluation);
      const seen: Value[] = [];
      return iterate(value).filter((item) => {
        const key = folded(get(item), caseSensitive);
        if (seen.some((one) => equal(one, key))) return false;
        seen.push(key);
        return true;
      });
    },
  ],
  upper: [[], (value) => textOf(value).toUpperCase()],
  wordcount: [[], (value) => textOf(value).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0],
};
const OTHER_NAMES: Readonly<Record<string, string>> = { count: "length", d: "default", e: "escape" };

/** value | name(...). */
export function applyFilter(
  name: string,
  value: Value,
  args: readonly Value[],
  named: Named,
  evaluation: Evaluation,
): Value {
  // Of what is empty, None too, these take nothing.
  const list = isTrue(value) ? value : [];
  switch (name) {
    case "map": {
      const [filter, ...others] = args;
      if (filter !== undefined) {
        const called = textOf(filter);
        return iterate(list).map((item) => applyFilter(called, item, others, named, evaluation));
      }
      const [attribute, fallback] = bind("map", ["attribute", "default"], [], named);
      return iterate(list).map(getter(attribute, fallback, evaluation));
    }
    case "select":
    case "reject":
    case "selectattr":
    case "rejectattr": {
      const byAttribute = name.endsWith("attr");
      const get = byAttribute ? getter(args[0], undefined, evaluation) : (item: Value): Value => item;
      const [test, ...others] = args.slice(byAttribute ? 1 : 0);
      const wanted = name.startsWith("select");
      const passes = (item: Value): boolean =>
        test === undefined ? isTrue(get(item)) : applyTest(textOf(test), get(item), others);
      return iterate(list).filter((item) => passes(item) === wanted);
    }
  }
  const own = Object.hasOwn(OTHER_NAMES, name) ? OTHER_NAMES[name]! : name;
  if (!Object.hasOwn(FILTERS, own)) return fail(`No filter named '${name}'.`);
  const [names, filter] = FILTERS[own]!;
  return filter(value, bind(name, names, args, named), evaluation);
}

type Test = (value: Value, other: Value) => boolean;

const TESTS: Readonly<Record<string, Test>> = {
  boolean: (value) => typeof value === "boolean",
  callable: (value) => typeof value === "function",
  defined: (value) => !(value instanceof Undefined),
  divisibleby: (value, other) => numeric(value) % numeric(other) === 0,
  eq: equal,
  even: (value) => numeric(value) % 2 === 0,
  false: (value) => value === false,
  float: (value) => value instanceof Float,
  ge: (value, other) => compare(value, other, ">=") >= 0,
  gt: (value, other) => compare(value, other, ">") > 0,
  in: (value, other) => contains(other, value),
  integer: (value) => typeof value === "number",
  iterable: (value) => typeof value === "string" || isList(value) || isMap(value) || value instanceof Undefined,
  le: (value, other) => compare(value, other, "<=") <= 0,
  lower: (value) => stringMethod(textOf(value), "islower")!([], new Map()) === true,
  lt: (value, other) => compare(value, other, "<") < 0,
  mapping: isMap,
  ne: (value, other) => !equal(value, other),
  none: (value) => value === null,
  number: isNumber,
  odd: (value) => Math.abs(numeric(value) % 2) === 1,
  sameas: (value, other) => value === other,
  sequence: (value) => typeof value === "string" || isList(value) || isMap(value) || value instanceof Undefined,
  string: (value) => typeof value === "string",
  true: (value) => value === true,
  undefined: (value) => value instanceof Undefined,
  upper: (value) => stringMethod(textOf(value), "isupper")!([], new Map()) === true,
};
const OTHER_TESTS: Readonly<Record<string, string>> = {
  "==": "eq",
  equalto: "eq",
  "!=": "ne",
  "<": "lt",
  lessthan: "lt",
  "<=": "le",
  ">": "gt",
  greaterthan: "gt",
  ">=": "ge",
};

function numeric(value: Value): number {
  const given = defined(value);
  return isNumber(given) ? numberOf(given) : fail(`unsupported operand type(s) for %: '${typeName(given)}' and 'int'`);
}

/** value is name(other). */
export function applyTest(name: string, value: Value, [other = null]: readonly Value[]): boolean {
  const own = Object.hasOwn(OTHER_TESTS, name) ? OTHER_TESTS[name]! : name;
  return Object.hasOwn(TESTS, own) ? TESTS[own]!(value, other) : fail(`No test named '${name}'.`);
}

/** A namespace's values, as those of a dict. */
export function valuesOf(value: Value): ReadonlyMap<Value, Value> | undefined {
  return value instanceof Namespace ? value.values : isMap(value) ? value : undefined;
}
