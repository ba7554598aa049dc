/**
 * The settings of the command finetune, and the one judge of their values: options are checked by it, and what a
 * checkpoint says. Those that the run itself has are judged as train/settings.ts does.
 */
import { exists } from "../io/files.js";
import { parseHubName } from "../io/hub_name.js";
import { show } from "../io/json.js";
import { isAllLinear } from "../io/peft/match.js";
import type { Options } from "../runtime/options.js";
import {
  FINETUNING_DEFAULTS,
  FINETUNING_RULES,
  integerFrom,
  NUMBER_FROM_0,
  rule,
  SHARE,
  TEXT_DEFAULTS,
  type FinetuningSettings,
  type Rule,
} from "../train/settings.js";

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
  lr: number | "auto";
  seed: number;
  testWindows: number | "auto";
  prompt: string;
  checkpointEvery: number;
}

const { adapter, batch, lr, seed } = FINETUNING_DEFAULTS;

export const FINETUNE_DEFAULTS = {
  r: adapter.r,
  alpha: adapter.loraAlpha,
  dropout: adapter.loraDropout,
  targetModules: adapter.targetModules,
  ...TEXT_DEFAULTS,
  batch,
  lr: lr as number | "auto",
  seed,
  prompt: "The whale",
  checkpointEvery: 50,
};

const TEXT: Rule<string> = rule("a text", (v) => typeof v === "string");
/** A place on the disk. */
export const PATH: Rule<string> = rule("a path", (v) => typeof v === "string" && v !== "" && !v.includes("\0"));

/** Every setting and its rule. */
export const SETTINGS: { readonly [K in keyof FinetuneSettings]: Rule<FinetuneSettings[K]> } = {
  model: PATH,
  data: PATH,
  r: integerFrom(1),
  alpha: NUMBER_FROM_0,
  dropout: SHARE,
  targetModules: rule(
    "a name or at least one of a list",
    (v) =>
      (v !== "" && TEXT.holds(v)) ||
      (Array.isArray(v) && v.length > 0 && v.every((name) => name !== "" && TEXT.holds(name))),
  ),
  steps: FINETUNING_RULES.steps,
  batch: FINETUNING_RULES.batch,
  seq: integerFrom(2),
  lr: FINETUNING_RULES.lr,
  seed: FINETUNING_RULES.seed,
  testWindows: FINETUNING_RULES.testWindows,
  prompt: TEXT,
  checkpointEvery: integerFrom(1),
};

/** What the run itself is given. */
export function finetuningSettings(settings: FinetuneSettings): Options<FinetuningSettings> {
  const { model, r, alpha, dropout, targetModules, steps, batch, seq, lr, seed, testWindows } = settings;
  const adapter = { r, loraAlpha: alpha, loraDropout: dropout, targetModules, baseModelNameOrPath: baseName(model) };
  return { adapter, steps, batch, seq, lr, seed, testWindows };
}

/** What PEFT finds the base by: a folder, or a name on the hub, which has no revision there. */
function baseName(model: string): string {
  return (!exists(model) && parseHubName(model)?.repo) || model;
}

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
  if (isAllLinear(whole)) return "all-linear";
  if (/[*+?()|\\^$[\]{}]/.test(whole)) return whole;
  return whole
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}
