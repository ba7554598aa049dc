/** Python's methods of str. */
import { asInteger, asText, bind, type Named } from "./arguments.js";
import { characters, fail, isList, iterate, Tuple, tuple, typeName, type Func, type Value } from "./values.js";

/** What Python takes for white space: not what JavaScript does. */
const SPACES = "\t-\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const LEADING = new RegExp(`^[${SPACES}]+`);
const TRAILING = new RegExp(`[${SPACES}]+$`);
const WORD = new RegExp(`[^${SPACES}]+`, "g");
/** Ends of lines for splitlines. */
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;

/** str.strip and its sides. */
export function strip(text: string, of: Value | undefined, sides: "left" | "right" | "both" = "both"): string {
  if (of === undefined || of === null) {
    const begun = sides === "right" ? text : text.replace(LEADING, "");
    // A search for white space at the end takes the square of a text's white space; this does not.
    if (sides === "left") return begun;
    let end = begun.length;
    while (end > 0 && TRAILING.test(begun[end - 1]!)) end--;
    return begun.slice(0, end);
  }
  const set = new Set(typeof of === "string" ? of : fail("strip arg must be None or str"));
  const parts = characters(text);
  let start = 0;
  let end = parts.length;
  if (sides !== "right") while (start < end && set.has(parts[start]!)) start++;
  if (sides !== "left") while (end > start && set.has(parts[end - 1]!)) end--;
  return typeof parts === "string" ? parts.slice(start, end) : parts.slice(start, end).join("");
}

export function splitLines(text: string): string[] {
  const lines = text.split(new RegExp(LINE_END, "g"));
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

/** str.replace. */
export function replace(text: string, from: string, to: string, count: number): string {
  if (count < 0) return from === "" ? [...text].map((one) => to + one).join("") + to : text.replaceAll(from, () => to);
  const pieces = from === "" ? ["", ...text] : text.split(from);
  const most = from === "" ? pieces.length : pieces.length - 1;
  const done = Math.min(count, most);
  if (from === "")
    return [...text].map((one, i) => (i < done ? to : "") + one).join("") + (done > pieces.length - 1 ? to : "");
  return pieces.slice(0, done + 1).join(to) + (done < most ? from + pieces.slice(done + 1).join(from) : "");
}

/** str.title: a letter after what is no letter is large. */
export function capitalize(text: string): string {
  const [first = "", ...rest] = text;
  return first.toUpperCase() + rest.join("").toLowerCase();
}

function split(text: string, separator: Value | undefined, most: number, fromRight: boolean): string[] {
  if (separator === undefined || separator === null) {
    const words = [...text.matchAll(WORD)];
    if (most < 0 || words.length <= most) return words.map(([word]) => word);
    if (fromRight) {
      const kept = words.slice(words.length - most).map(([word]) => word);
      return [strip(text.slice(0, words[words.length - most]?.index ?? text.length), null, "right"), ...kept];
    }
    return [...words.slice(0, most).map(([word]) => word), strip(text.slice(words[most]!.index), null, "left")];
  }
  const by = asText("sep", separator);
  if (by === "") fail("empty separator");
  const parts = text.split(by);
  if (most < 0 || parts.length - 1 <= most) return parts;
  if (fromRight) {
    const cut = parts.length - most;
    return [parts.slice(0, cut).join(by), ...parts.slice(cut)];
  }
  return [...parts.slice(0, most), parts.slice(most).join(by)];
}

function begins(
  text: string,
  what: Value | undefined,
  args: readonly Value[],
  test: (part: string, one: string) => boolean,
  name: string,
): boolean {
  const part = between(text, args);
  const options = what instanceof Tuple ? [...what] : [what];
  return options.some((one) =>
    typeof one === "string"
      ? test(part, one)
      : fail(`${name} first arg must be str or a tuple of str, not ${one === undefined ? "nothing" : typeName(one)}`),
  );
}

/** The part of a text that start and end of a method name. */
function between(text: string, [start, end]: readonly (Value | undefined)[]): string {
  if (start === undefined && end === undefined) return text;
  const parts = [...text];
  return parts.slice(asInteger(start, 0), asInteger(end, parts.length)).join("");
}

function find(text: string, what: Value | undefined, fromRight: boolean): number {
  const wanted = asText("sub", what);
  const at = fromRight ? text.lastIndexOf(wanted) : text.indexOf(wanted);
  return at < 0 ? at : characters(text.slice(0, at)).length;
}

function pad(text: string, width: Value | undefined, fill: Value | undefined, left: (room: number) => number): string {
  const by = fill === undefined ? " " : asText("the fill character", fill);
  const room = Math.max(0, asInteger(width, 0) - characters(text).length);
  return by.repeat(left(room)) + text + by.repeat(room - left(room));
}

/** Whether there is a character, and all of them are such. */
function all(text: string, pattern: RegExp): boolean {
  return text !== "" && pattern.test(text);
}

type Method = (text: string, args: readonly (Value | undefined)[]) => Value;

/** Methods by their names, with the names of their arguments. */
const METHODS: Readonly<Record<string, readonly [names: readonly string[], method: Method]>> = {
  strip: [["chars"], (text, [of]) => strip(text, of)],
  lstrip: [["chars"], (text, [of]) => strip(text, of, "left")],
  rstrip: [["chars"], (text, [of]) => strip(text, of, "right")],
  split: [["sep", "maxsplit"], (text, [by, most]) => split(text, by, asInteger(most, -1), false)],
  rsplit: [["sep", "maxsplit"], (text, [by, most]) => split(text, by, asInteger(most, -1), true)],
  splitlines: [[], (text) => splitLines(text)],
  replace: [
    ["old", "new", "count"],
    (text, [from, to, count]) =>
      replace(text, asText("replace() argument 1", from), asText("replace() argument 2", to), asInteger(count, -1)),
  ],
  startswith: [
    ["prefix", "start", "end"],
    (text, [what, start, end]) =>
      begins(text, what, [start, end] as Value[], (part, one) => part.startsWith(one), "startswith"),
  ],
  endswith: [
    ["suffix", "start", "end"],
    (text, [what, start, end]) =>
      begins(text, what, [start, end] as Value[], (part, one) => part.endsWith(one), "endswith"),
  ],
  removeprefix: [
    ["prefix"],
    (text, [what]) => (text.startsWith(asText("prefix", what)) ? text.slice((what as string).length) : text),
  ],
  removesuffix: [
    ["suffix"],
    (text, [what]) =>
      what !== "" && text.endsWith(asText("suffix", what)) ? text.slice(0, -(what as string).length) : text,
  ],
  upper: [[], (text) => text.toUpperCase()],
  lower: [[], (text) => text.toLowerCase()],
  casefold: [[], (text) => text.toLowerCase()],
  capitalize: [[], (text) => capitalize(text)],
  title: [
    [],
    (text) =>
      text.replace(/\p{L}+/gu, (word) => {
        const [first, ...rest] = word;
        return first!.toUpperCase() + rest.join("").toLowerCase();
      }),
  ],
  find: [["sub"], (text, [what]) => find(text, what, false)],
  rfind: [["sub"], (text, [what]) => find(text, what, true)],
  index: [
    ["sub"],
    (text, [what]) => {
      const at = find(text, what, false);
      return at < 0 ? fail("substring not found") : at;
    },
  ],
  count: [
    ["sub"],
    (text, [what]) => (what === "" ? characters(text).length + 1 : text.split(asText("sub", what)).length - 1),
  ],
  join: [
    ["iterable"],
    (text, [parts]) =>
      iterate(parts ?? null)
        .map((one, i) =>
          typeof one === "string" ? one : fail(`sequence item ${i}: expected str instance, ${typeName(one)} found`),
        )
        .join(text),
  ],
  partition: [
    ["sep"],
    (text, [by]) => {
      const at = text.indexOf(asText("sep", by));
      return at < 0
        ? tuple(text, "", "")
        : tuple(text.slice(0, at), by as string, text.slice(at + (by as string).length));
    },
  ],
  rpartition: [
    ["sep"],
    (text, [by]) => {
      const at = text.lastIndexOf(asText("sep", by));
      return at < 0
        ? tuple("", "", text)
        : tuple(text.slice(0, at), by as string, text.slice(at + (by as string).length));
    },
  ],
  zfill: [
    ["width"],
    (text, [width]) => {
      const sign = /^[+-]/.test(text) ? text[0]! : "";
      return sign + pad(text.slice(sign.length), asInteger(width, 0) - sign.length, "0", (room) => room);
    },
  ],
  ljust: [["width", "fillchar"], (text, [width, fill]) => pad(text, width, fill, () => 0)],
  rjust: [["width", "fillchar"], (text, [width, fill]) => pad(text, width, fill, (room) => room)],
  center: [
    ["width", "fillchar"],
    // Python puts the odd one to the left where the width is odd.
    (text, [width, fill]) => pad(text, width, fill, (room) => (room + (room & asInteger(width, 0) & 1)) >> 1),
  ],
  isdigit: [[], (text) => all(text, /^[\p{Nd}\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]+$/u)],
  isdecimal: [[], (text) => all(text, /^\p{Nd}+$/u)],
  isnumeric: [[], (text) => all(text, /^\p{N}+$/u)],
  isalpha: [[], (text) => all(text, /^\p{L}+$/u)],
  isalnum: [[], (text) => all(text, /^[\p{L}\p{N}]+$/u)],
  isspace: [[], (text) => text !== "" && strip(text, null) === ""],
  isupper: [[], (text) => text !== text.toLowerCase() && text === text.toUpperCase()],
  islower: [[], (text) => text !== text.toUpperCase() && text === text.toLowerCase()],
};

/** The method of that name, bound to a text; undefined: there is none. */
export function stringMethod(text: string, name: string): Func | undefined {
  const found = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined;
  if (!found) return undefined;
  const [names, method] = found;
  return (args: readonly Value[], named: Named) => method(text, bind(name, names, args, named));
}

/** s[i], by code points. */
export function characterAt(text: string, at: number): string | undefined {
  const parts = characters(text);
  return parts[at < 0 ? at + parts.length : at];
}

/** Python's slices of lists and texts. */
export function slice<T extends string | readonly Value[]>(
  of: T,
  start: number | null,
  stop: number | null,
  step: number,
): T {
  if (step === 0) fail("slice step cannot be zero");
  const parts = typeof of === "string" ? characters(of) : of;
  const { length } = parts;
  const clamp = (at: number, low: number, high: number): number =>
    Math.min(Math.max(at < 0 ? at + length : at, low), high);
  const from =
    start === null ? (step > 0 ? 0 : length - 1) : clamp(start, step > 0 ? 0 : -1, step > 0 ? length : length - 1);
  const to = stop === null ? (step > 0 ? length : -1) : clamp(stop, step > 0 ? 0 : -1, step > 0 ? length : length - 1);
  const taken: Value[] = [];
  for (let at = from; step > 0 ? at < to : at > to; at += step) taken.push(parts[at]!);
  if (typeof of === "string") return taken.join("") as T;
  return (isList(of) && of instanceof Tuple ? tuple(...taken) : taken) as readonly Value[] as T;
}
