/** What options of the command line are parsed with: a value out of its range is refused in one line. */
import { InvalidArgumentError } from "commander";
import { integerFrom, NUMBER_FROM_0, rule, type Rule } from "../train/settings.js";
import { parseNumber, PATH } from "./settings.js";

/** An option's value, by the rule that a checkpoint's is judged by. */
export function parsed<T>({ expected, holds }: Rule<T>, parse: (text: string) => unknown): (text: string) => T {
  return (text) => {
    const value = parse(text);
    if (!holds(value)) throw new InvalidArgumentError(`expected ${expected}; got "${text}".`);
    return value;
  };
}

/** A place on the disk. */
export function path(text: string): string {
  if (!PATH.holds(text)) throw new InvalidArgumentError(`expected ${PATH.expected}; got "${text}".`);
  // The library's files in memory end with the process, so a command has no use for one.
  if (text.startsWith("memory:"))
    throw new InvalidArgumentError(`expected a place on the disk; what is at "${text}" goes with this process.`);
  return text;
}

/** An integer of at least 0, or of at least 1. */
export const [fromZero, fromOne] = [parsed(integerFrom(0), parseNumber), parsed(integerFrom(1), parseNumber)];

/** A probability. */
export const share = parsed(
  rule<number>("a number in 0 .. 1", (v) => Number.isFinite(v) && v >= 0 && v <= 1),
  parseNumber,
);

/** A number of at least 0, or above it. */
export const numberFromZero = parsed(NUMBER_FROM_0, parseNumber);
export const numberAboveZero = parsed(
  rule<number>("a number above 0", (v) => Number.isFinite(v) && v > 0),
  parseNumber,
);

/** A text with something in it. */
export const filled = parsed(
  rule<string>("a text that is not empty", (v) => v !== ""),
  (text) => text,
);

/** Collects `name=value`, given again for each name; a name that came before is a slip. */
export function pairs<T>(what: string, value: (text: string) => T) {
  return (text: string, before: Readonly<Record<string, T>>): Record<string, T> => {
    const cut = text.indexOf("=");
    if (cut < 1) throw new InvalidArgumentError(`expected ${what}; got "${text}".`);
    const name = text.slice(0, cut);
    if (Object.hasOwn(before, name)) throw new InvalidArgumentError(`${name} is given twice.`);
    return { ...before, [name]: value(text.slice(cut + 1)) };
  };
}
