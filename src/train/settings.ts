/** The settings of a fine-tuning run, and the one judge of their values. */
import type { LoraConfig } from "../io/peft/config.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions, withDefaults, type Options } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";

/**
 * What decides a run's bits, beside the model and the data. Names are PEFT's and transformers', and those of the rest
 * of the library. What is said to be for texts or for rows is refused with the other.
 */
export interface FinetuningSettings {
  /**
   * As for `peft.getLoraModel`. Default r 8, loraAlpha 16, targetModules "all-linear", taskType "CAUSAL_LM"; what is
   * given stands beside these.
   */
  adapter: Options<LoraConfig>;
  /** Optimiser steps in all (max_steps of transformers). Default of a text 400; of rows: as many as `epochs` takes. */
  steps?: number | undefined;
  /** Rows only, instead of `steps`: how often each is trained on, above 0. Default 3. */
  epochs?: number | undefined;
  /** Rows, or windows of a text, of a shard of a step. Default 8. */
  batch: number;
  /**
   * Shards of a step, of `batch` rows each, whose gradients are added before the optimiser's step
   * (gradient_accumulation_steps). A step is of batch * accumulation rows. Default 1.
   */
  accumulation: number;
  /**
   * The highest learning rate, after the warm-up. Default "auto": by the model's weights, 5e-3 below 10 M, 1e-3 below
   * 100 M, 5e-4 below 1 G, and 2e-4.
   */
  lr: number | "auto";
  /** How the learning rate falls after the warm-up: half a cosine to 0, a line to 0, or not. Default "cosine". */
  schedule: "cosine" | "linear" | "constant";
  /** Share of the steps, from the first on, in which the learning rate rises, 0 .. 1. Default 0.05. */
  warmupRatio: number;
  /** Decoupled decay of what is trained (AdamW). Default 0. */
  weightDecay: number;
  /** The joint norm that gradients are clipped to; 0: they are not. Default 1. */
  maxGradNorm: number;
  /** What B's learning rate is of A's (LoRA+); null: the same rate for both. Default null. */
  loraplusLrRatio: number | null;
  /** Steps between two evaluations, which are due after the last step, too; 0: none is due. Default 0. */
  evalEvery: number;
  /** The run stops early after so many evaluations in a row without a better loss; 0: never. Default 0. */
  patience: number;
  /** For `patience` a loss is better only if it is lower than the best by more than this. Default 0. */
  minDelta: number;
  /** Of the adapter's start, the order of rows or windows, and dropout: integer in 0 .. 2^53 - 1. Default 0. */
  seed: number;
  /**
   * Share of the data that is held out for `evaluate`, 0 .. 1 without 1: of a text its end, of rows some that the seed
   * draws. Not for rows that come with a part of their own to test on. Default 0.1.
   */
  testSize?: number | undefined;
  /** Texts only: tokens a window. Default 128. */
  seq?: number | undefined;
  /**
   * Texts only: windows of what is held out that `evaluate` looks at, at most, spread evenly. Default "auto": 128, of a
   * model above 30 M weights fewer, so that a pass takes 10^12 operations, under a minute of one core, and at least 4.
   * The model and seq decide it, never a clock.
   */
  testWindows?: number | "auto" | undefined;
  /** Rows only: whether those of a shard lie end to end, without padding. It decides no bit. Default true. */
  packing?: boolean | undefined;
  /** Rows only: whether those of like lengths come together. Default false. */
  groupByLength?: boolean | undefined;
}

/** All settings of a run on a text. */
export type TextSettings = FinetuningSettings & {
  steps: number;
  testSize: number;
  seq: number;
  testWindows: number | "auto";
};
/** All settings of a run on rows; of steps and epochs one. */
export type RowSettings = FinetuningSettings & { packing: boolean; groupByLength: boolean };

/** What both kinds of data have. */
export const FINETUNING_DEFAULTS = {
  adapter: { r: 8, loraAlpha: 16, loraDropout: 0, targetModules: "all-linear" as const, taskType: "CAUSAL_LM" },
  batch: 8,
  accumulation: 1,
  lr: "auto",
  schedule: "cosine",
  warmupRatio: 0.05,
  weightDecay: 0,
  maxGradNorm: 1,
  loraplusLrRatio: null,
  evalEvery: 0,
  patience: 0,
  minDelta: 0,
  seed: 0,
  testSize: 0.1,
} satisfies FinetuningSettings;

/** What a text has beside these. */
export const TEXT_DEFAULTS = { steps: 400, seq: 128, testWindows: "auto" as const };
/** What rows have beside these; epochs where no steps are given. */
export const ROW_DEFAULTS = { packing: true, groupByLength: false };
export const DEFAULT_EPOCHS = 3;

/** The highest learning rates of models with fewer weights than that; of larger ones the last. */
const RATES: readonly (readonly [weights: number, lr: number])[] = [
  [1e7, 5e-3],
  [1e8, 1e-3],
  [1e9, 5e-4],
];
const LEAST_RATE = 2e-4;

/** The learning rate that "auto" stands for, of a model with so many weights. */
export function autoLearningRate(weights: number): number {
  return RATES.find(([below]) => weights < below)?.[1] ?? LEAST_RATE;
}

/** What a value must be, in words and as a test. */
export interface Rule<T> {
  readonly expected: string;
  readonly holds: (value: unknown) => value is T;
}

export function rule<T>(expected: string, holds: (value: any) => boolean): Rule<T> {
  return { expected, holds: holds as Rule<T>["holds"] };
}

/** An integer of at least `low` that a double holds exactly. */
export function integerFrom(low: number): Rule<number> {
  return rule(`an integer of at least ${low}`, (v) => Number.isSafeInteger(v) && v >= low);
}
/** A finite number of at least 0. */
export const NUMBER_FROM_0: Rule<number> = rule("a number of at least 0", (v) => Number.isFinite(v) && v >= 0);
/** A finite number above 0. */
export const NUMBER_ABOVE_0: Rule<number> = rule("a number above 0", (v) => Number.isFinite(v) && v > 0);
/** A probability, or a share of what there is, which may be all of it. */
export const PROBABILITY: Rule<number> = rule("a number in 0 .. 1", (v) => NUMBER_FROM_0.holds(v) && v <= 1);
/** A share of what there is, such as a probability, but not all of it. */
export const SHARE: Rule<number> = rule(
  "a number below 1 and of at least 0",
  (v) => Number.isFinite(v) && v >= 0 && v < 1,
);
export const BOOLEAN: Rule<boolean> = rule("true or false", (v) => typeof v === "boolean");

/** Every setting and its rule; `adapter` has a judge of its own, which knows the model. */
export const FINETUNING_RULES: {
  readonly [K in keyof FinetuningSettings]-?: Rule<NonNullable<FinetuningSettings[K]>>;
} = {
  adapter: rule("an object", (v) => typeof v === "object" && v !== null && !Array.isArray(v)),
  steps: integerFrom(1),
  epochs: NUMBER_ABOVE_0,
  batch: integerFrom(1),
  accumulation: integerFrom(1),
  lr: rule('"auto" or a number of at least 0', (v) => v === "auto" || NUMBER_FROM_0.holds(v)),
  schedule: rule('"cosine", "linear" or "constant"', (v) => ["cosine", "linear", "constant"].includes(v)),
  warmupRatio: PROBABILITY,
  weightDecay: NUMBER_FROM_0,
  maxGradNorm: NUMBER_FROM_0,
  loraplusLrRatio: rule("null or a number of at least 0", (v) => v === null || NUMBER_FROM_0.holds(v)),
  evalEvery: integerFrom(0),
  patience: integerFrom(0),
  minDelta: NUMBER_FROM_0,
  seed: integerFrom(0),
  testSize: SHARE,
  seq: integerFrom(1),
  testWindows: rule('"auto" or an integer of at least 1', (v) => v === "auto" || (Number.isSafeInteger(v) && v >= 1)),
  packing: BOOLEAN,
  groupByLength: BOOLEAN,
};

/** What is for one kind of data only. */
const ONLY = {
  text: ["seq", "testWindows"],
  rows: ["epochs", "packing", "groupByLength"],
} as const satisfies Record<string, readonly (keyof FinetuningSettings)[]>;

/**
 * All settings of that kind of data, those that are left out with their defaults.
 * @throws ArgumentError naming the one that is not valid, or belongs to the other kind
 */
export function completeSettings(where: string, kind: "text", given: Options<FinetuningSettings>): TextSettings;
export function completeSettings(where: string, kind: "rows", given: Options<FinetuningSettings>): RowSettings;
export function completeSettings(
  where: string,
  kind: "text" | "rows",
  given: Options<FinetuningSettings>,
): FinetuningSettings {
  checkOptions(where, given, Object.keys(FINETUNING_RULES));
  const defaults = { ...FINETUNING_DEFAULTS, ...(kind === "text" ? TEXT_DEFAULTS : ROW_DEFAULTS) };
  const settings = withDefaults<FinetuningSettings>(defaults, given ?? {});
  const stray = ONLY[kind === "text" ? "rows" : "text"].find((key) => settings[key] !== undefined);
  if (stray !== undefined)
    throw new ArgumentError(
      kind === "text"
        ? `${where}: ${stray} is for rows; the data is one text, which has steps. Leave ${stray} out.`
        : `${where}: ${stray} is for a text; the data is rows, each as long as it is. Leave ${stray} out.`,
    );
  if (kind === "rows" && settings.steps === undefined) settings.epochs ??= DEFAULT_EPOCHS;
  for (const [key, { expected, holds }] of Object.entries(FINETUNING_RULES)) {
    const value = settings[key as keyof FinetuningSettings];
    if (key in settings && !holds(value))
      throw new ArgumentError(`${where}: ${key} must be ${expected}; got ${shown(value)}.`);
  }
  if (settings.steps !== undefined && settings.epochs !== undefined)
    throw new ArgumentError(
      `${where}: steps = ${settings.steps} and epochs = ${settings.epochs} both say how long the run is; give one.`,
    );
  if (settings.patience > 0 && settings.evalEvery === 0)
    throw new ArgumentError(
      `${where}: patience = ${settings.patience} counts evaluations, and evalEvery is 0: there are none. Give ` +
        `evalEvery, too.`,
    );
  return { ...settings, adapter: withDefaults<Options<LoraConfig>>(FINETUNING_DEFAULTS.adapter, settings.adapter) };
}

/**
 * Steps in which the learning rate rises: the next whole number, but a product that is whole but for its rounding stays
 * that number (0.05 * 140 is 7.000000000000001).
 */
export function warmupSteps(steps: number, warmupRatio: number): number {
  return Math.ceil(steps * warmupRatio * (1 - 1e-15));
}
