/**
 * The settings of a fine-tuning run, and the one judge of their values: options are checked by it, and what a
 * checkpoint says.
 */
import { show } from "../io/json.js";

/** What decides a run's bits; a resumed run takes them from its checkpoint. */
export interface FinetuneSettings {
  model: string;
  data: string;
  r: number;
  alpha: number;
  dropout: number;
  /** Names, a pattern, or "all-linear". */
  targetModules: string[] | string;
  steps: number;
  batch: number;
  seq: number;
  lr: number;
  seed: number;
  prompt: string;
  checkpointEvery: number;
}

export const FINETUNE_DEFAULTS = {
  r: 8,
  alpha: 16,
  dropout: 0,
  targetModules: "all-linear" as const,
  steps: 400,
  batch: 8,
  seq: 128,
  lr: 5e-3,
  seed: 0,
  prompt: "The whale",
  checkpointEvery: 50,
};

/** What a value must be, in words and as a test. */
export interface Rule<T> {
  readonly expected: string;
  readonly holds: (value: unknown) => value is T;
}

function rule<T>(expected: string, holds: (value: any) => boolean): Rule<T> {
  return { expected, holds: holds as Rule<T>["holds"] };
}

/** An integer of at least `low` that a double holds exactly. */
export function integerFrom(low: number): Rule<number> {
  return rule(`an integer of at least ${low}`, (v) => Number.isSafeInteger(v) && v >= low);
}
/** A finite number of at least 0. */
export const NUMBER_FROM_0: Rule<number> = rule("a number of at least 0", (v) => Number.isFinite(v) && v >= 0);
const TEXT: Rule<string> = rule("a text", (v) => typeof v === "string");
/** A place on the disk. */
export const PATH: Rule<string> = rule("a path", (v) => typeof v === "string" && v !== "" && !v.includes("\0"));

/** Every setting and its rule. */
export const SETTINGS: { readonly [K in keyof FinetuneSettings]: Rule<FinetuneSettings[K]> } = {
  model: PATH,
  data: PATH,
  r: integerFrom(1),
  alpha: NUMBER_FROM_0,
  dropout: rule("a number below 1 and of at least 0", (v) => Number.isFinite(v) && v >= 0 && v < 1),
  targetModules: rule(
    "a name or at least one of a list",
    (v) =>
      (v !== "" && TEXT.holds(v)) ||
      (Array.isArray(v) && v.length > 0 && v.every((name) => name !== "" && TEXT.holds(name))),
  ),
  steps: integerFrom(1),
  batch: integerFrom(1),
  seq: integerFrom(2),
  lr: NUMBER_FROM_0,
  seed: integerFrom(0),
  prompt: TEXT,
  checkpointEvery: integerFrom(1),
};

/** @param fail throws the caller's error */
export function checkSettings(value: unknown, fail: (message: string) => never): FinetuneSettings {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    fail(`settings are ${show(value)}; expected an object`);
  const settings = value as Record<string, unknown>;
  for (const [key, { expected, holds }] of Object.entries(SETTINGS)) {
    if (!holds(settings[key])) fail(`setting ${key} is ${show(settings[key])}; expected ${expected}`);
  }
  const stray = Object.keys(settings).find((key) => !(key in SETTINGS));
  if (stray !== undefined) fail(`there is no setting ${show(stray)}`);
  return value as FinetuneSettings;
}

/** Of an option's text, in decimals only: 0x10 is a slip, and what is not 0 must not become 0. */
export function parseNumber(text: string): number {
  const n = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i.test(text) ? Number(text) : NaN;
  return n === 0 && /[1-9]/.test(text.replace(/e.*/i, "")) ? NaN : n;
}

/**
 * Of --target-modules: "all-linear", a pattern as PEFT takes it (a Python regular expression), or names between commas.
 */
export function parseTargetModules(text: string): string[] | string {
  const whole = text.trim();
  // PEFT, too, reads this word in any case.
  if (whole.toLowerCase() === "all-linear") return "all-linear";
  if (/[*+?()|\\^$[\]{}]/.test(whole)) return whole;
  return whole
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}
