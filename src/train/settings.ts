/** The settings of a fine-tuning run, and the one judge of their values. */
import type { LoraConfig } from "../io/peft/config.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions, withDefaults, type Options } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";

/**
 * What decides a run's bits, beside the model and the tokens. Names are PEFT's, and those of the rest of the library.
 */
export interface FinetuningSettings {
  /**
   * As for `peft.getLoraModel`. Default r 8, loraAlpha 16, targetModules "all-linear", taskType "CAUSAL_LM"; what is
   * given stands beside these.
   */
  adapter: Options<LoraConfig>;
  /** Optimiser steps in all (max_steps of transformers). Default 400. */
  steps: number;
  /** Windows of the text a step. Default 8. */
  batch: number;
  /** Tokens a window. Default 128. */
  seq: number;
  /** The highest learning rate, after the warm-up. Default 5e-3. */
  lr: number;
  /** Of the adapter's start, the windows and dropout: integer in 0 .. 2^53 - 1. Default 0. */
  seed: number;
  /** Share of the tokens, from the end, that is held out for `evaluate`, 0 .. 1 without 1. Default 0.1. */
  testSize: number;
  /**
   * Windows of what is held out that `evaluate` looks at, at most, spread evenly. Default "auto": 128, of a model above
   * 30 M weights fewer, so that a pass takes 10^12 operations, under a minute of one core, and at least 4. The model
   * and seq decide it, never a clock.
   */
  testWindows: number | "auto";
}

export const FINETUNING_DEFAULTS = {
  adapter: { r: 8, loraAlpha: 16, loraDropout: 0, targetModules: "all-linear" as const, taskType: "CAUSAL_LM" },
  steps: 400,
  batch: 8,
  seq: 128,
  lr: 5e-3,
  seed: 0,
  testSize: 0.1,
  testWindows: "auto",
} satisfies FinetuningSettings;

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
/** A share of what there is, such as a probability, but not all of it. */
export const SHARE: Rule<number> = rule(
  "a number below 1 and of at least 0",
  (v) => Number.isFinite(v) && v >= 0 && v < 1,
);

/** Every setting and its rule; `adapter` has a judge of its own, which knows the model. */
export const FINETUNING_RULES: { readonly [K in keyof FinetuningSettings]: Rule<FinetuningSettings[K]> } = {
  adapter: rule("an object", (v) => typeof v === "object" && v !== null && !Array.isArray(v)),
  steps: integerFrom(1),
  batch: integerFrom(1),
  seq: integerFrom(1),
  lr: NUMBER_FROM_0,
  seed: integerFrom(0),
  testSize: SHARE,
  testWindows: rule('"auto" or an integer of at least 1', (v) => v === "auto" || (Number.isSafeInteger(v) && v >= 1)),
};

/** All settings, those that are left out with their defaults. @throws ArgumentError naming the one that is not valid */
export function completeSettings(where: string, given: Options<FinetuningSettings>): FinetuningSettings {
  checkOptions(where, given, Object.keys(FINETUNING_RULES));
  const settings = withDefaults<FinetuningSettings>(FINETUNING_DEFAULTS, given ?? {});
  for (const [key, { expected, holds }] of Object.entries(FINETUNING_RULES)) {
    const value = settings[key as keyof FinetuningSettings];
    if (!holds(value)) throw new ArgumentError(`${where}: ${key} must be ${expected}; got ${shown(value)}.`);
  }
  return { ...settings, adapter: withDefaults<Options<LoraConfig>>(FINETUNING_DEFAULTS.adapter, settings.adapter) };
}
