/** Reading the parts of tokenizer.json strictly: each fault names its field. */
import { asObject, show } from "../io/json.js";

/** Nesting and parts of a Sequence beyond these are refused, so that hostile text cannot exhaust the stack. */
const MOST_DEEP = 20;
const MOST_PARTS = 200;

/** Throws a FormatError that names the file and the field. */
export type Fail = (field: string, message: string, cause?: unknown) => never;

/** Readers of an object's keys; an absent key has the fallback, or is a fault without one. */
export function fields(json: unknown, field: string, fail: Fail) {
  const object = asObject(json) ?? fail(field, `is ${show(json)}; expected an object`);
  if (field.split("[").length > MOST_DEEP) fail(field, `is nested more than ${MOST_DEEP} deep`);
  const read = <T>(key: string, valid: (value: unknown) => boolean, expected: string, fallback?: T): T => {
    const value = object[key] === undefined ? fallback : object[key];
    return valid(value) ? (value as T) : fail(`${field}.${key}`, `is ${show(value)}; expected ${expected}`);
  };
  const string = (key: string, fallback?: string): string =>
    read(key, (value) => typeof value === "string", "a text", fallback);
  return {
    object,
    type: object["type"],
    string,
    filled: (key: string, fallback?: string): string =>
      read(key, (value) => typeof value === "string" && value !== "", "a text that is not empty", fallback),
    character: (key: string, fallback?: string): string =>
      read(key, (value) => typeof value === "string" && [...value].length === 1, "one character", fallback),
    flag: (key: string, fallback?: boolean): boolean =>
      read(key, (value) => typeof value === "boolean", "true or false", fallback),
    count: (key: string, fallback?: number): number =>
      read(key, (value) => Number.isSafeInteger(value) && (value as number) >= 0, "an integer of at least 0", fallback),
    only: (key: string, values: readonly string[], fallback?: string): string =>
      read(
        key,
        (value) => values.includes(value as string),
        values.map((value) => `"${value}"`).join(" or "),
        fallback,
      ),
    list: (key: string): unknown[] => read(key, Array.isArray, "a list"),
    parts: (key: string): unknown[] =>
      read(key, (value) => Array.isArray(value) && value.length <= MOST_PARTS, `a list of at most ${MOST_PARTS}`),
    unsupported: (types: string): never => fail(`${field}.type`, `is ${show(object["type"])}; supported are ${types}`),
  };
}
