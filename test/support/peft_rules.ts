/** PEFT's rules on names, one path at a time: what the library asks of many with one budget. */
import type { LoraConfig } from "../../src/io/peft/config.js";
import { Matching } from "../../src/io/peft/match.js";
import { newBudget } from "../../src/io/peft/regexp/budget.js";
import { checkPattern, codesOf, Pattern } from "../../src/io/peft/regexp/pattern.js";
import { ArgumentError } from "../../src/runtime/errors.js";

const NOTHING = {
  r: 8,
  loraAlpha: 8,
  targetModules: [],
  targetParameters: null,
  excludeModules: null,
  layersToTransform: null,
  layersPattern: null,
  rankPattern: {},
  alphaPattern: {},
  useRslora: false,
  modulesToSave: null,
} as const;

export type Rules = Partial<LoraConfig>;

function matching(config: Rules): Matching {
  return new Matching({ ...NOTHING, ...config }, (message) => {
    throw new ArgumentError(`rules: ${message}.`);
  });
}

/** Whether a config puts LoRA on the module at a path. */
export function targets(config: Rules, path: string, isLinear: boolean, isOutputLayer: boolean): boolean {
  return matching(config).targets(path, isLinear, isOutputLayer);
}

/** What B(A(x)) of the module at a path is multiplied by. */
export function scalingOf(config: Rules, path: string): number {
  return matching(config).scaling(path);
}

/** The value of the first key of a rank_pattern that matches a path. */
export function patternValue(rankPattern: Readonly<Record<string, number>>, path: string, fallback: number): number {
  return matching({ rankPattern, r: fallback }).rank(path);
}

/** Whether a Python regular expression matches all of a text (re.fullmatch). */
export function matcher(pattern: string): (text: string) => boolean {
  const fail = (message: string): never => {
    throw new ArgumentError(`pattern ${JSON.stringify(pattern).slice(0, 80)}: ${message}.`);
  };
  checkPattern(pattern, fail);
  const whole = new Pattern(pattern, "whole");
  return (text) => whole.match(codesOf(text), newBudget(fail)) === 0;
}
