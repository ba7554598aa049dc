/**
 * What options of the command line are parsed with: a value out of its range is refused in one line. And the option
 * that all commands have.
 */
import { InvalidArgumentError, Option } from "commander";
import { QUANTISED, type QuantizedType } from "../tensor/blocks.js";
import { integerFrom, NUMBER_ABOVE_0, NUMBER_FROM_0, PROBABILITY, rule, type Rule } from "../train/settings.js";

/** Of an option's text, in decimals only: 0x10 is a slip, and what is not 0 must not become 0. */
export function parseNumber(text: string): number {
  const n = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i.test(text) ? Number(text) : NaN;
  return n === 0 && /[1-9]/.test(text.replace(/e.*/i, "")) ? NaN : n;
}

export function parseNumberOrAuto(text: string): number | "auto" {
  return text === "auto" ? text : parseNumber(text);
}

/** An option's value, by the rule that a checkpoint's is judged by. */
export function parsed<T>({ expected, holds }: Rule<T>, parse: (text: string) => unknown): (text: string) => T {
  return (text) => {
    const value = parse(text);
    if (!holds(value)) throw new InvalidArgumentError(`expected ${expected}; got "${text}".`);
    return value;
  };
}

/** A value that is the option's text itself. */
export function asTyped<T>(judge: Rule<T>): (text: string) => T {
  return parsed(judge, (text) => text);
}

/** A place on the disk, or in memory. */
export const PATH: Rule<string> = rule("a path", (v) => typeof v === "string" && v !== "" && !v.includes("\0"));

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

export function optional<T>({ expected, holds }: Rule<T>): Rule<T | undefined> {
  return rule(`${expected}, or nothing`, (v) => v === undefined || holds(v));
}

export function oneOf<T extends string>(names: readonly T[]): Rule<T> {
  return rule(`one of ${names.join(", ")}`, (v) => names.includes(v));
}

/** A probability. */
export const share = parsed(PROBABILITY, parseNumber);

/** A number of at least 0, or above it. */
export const numberFromZero = parsed(NUMBER_FROM_0, parseNumber);
export const numberAboveZero = parsed(NUMBER_ABOVE_0, parseNumber);

/** A text with something in it. */
export const filled = asTyped(rule<string>("a text that is not empty", (v) => v !== ""));

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

/** What a model's matrices may be stored as. */
export const QUANTIZE: Rule<QuantizedType | undefined> = optional(oneOf(QUANTISED));

/** Of a command that loads a model. */
export function quantize(): Option {
  return new Option(
    "--quantize <type>",
    `store the model's matrices as ${QUANTISED.join(" or ")} while it loads: 1.06 or 0.56 bytes a weight. Blocks of ` +
      "a GGUF file stay as they are",
  ).argParser(asTyped(QUANTIZE));
}

/** Of a command that takes a model or an adapter. */
export function offline(): Option {
  return new Option("--offline", "take models of the hub from the cache alone, as HF_HUB_OFFLINE=1 does");
}
