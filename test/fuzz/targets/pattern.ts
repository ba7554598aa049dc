/**
 * Python's patterns on module names. Small ones are checked against what their parts mean; large and hostile ones, on
 * long names, for time alone.
 */
import { matcher, patternValue, targets } from "../../support/peft_rules.js";
import { damageText } from "../json_tree.js";
import { fullMatch, print, type Pattern } from "../pattern_reference.js";
import type { Random } from "../random.js";
import { must, type Target } from "../target.js";

const LETTERS = [..."abx01_.-"];
const HOSTILE = [
  "(a+)+x",
  "(.+)+x",
  "(.*)*x",
  "(a|a)*x",
  "(a|aa)+x",
  "(a*)*b",
  "([a-z_0-9]+\\.?)+x",
  "(\\w+\\.?)+x",
  ".*.*.*x",
  ".*.*.*.*.*x",
  "(.*a){12}x",
  "(a?){30}a{30}",
  "(x+x+)+y",
  "a{1000}",
  "(a{0,99}){0,99}x",
  "a{0,99999}x",
  "((a{9}){9}){9}",
  "(((((a*)*)*)*)*)*x",
  "[^.]*[^.]*[^.]*x",
  "(?:a|b|ab)*c",
  "\\b(\\w+\\b\\W*)+!",
  "(?=(a+)+x)a",
  "(?!(a+)+x)a*",
  "^(([a-z])+.)+[A-Z]([a-z])+$",
  "(.*)(.*)(.*)(.*)(.*)(.*)x",
  "(a|b|c|d|e|f|g|h)*z",
  "(aaa|aa|a)+b",
  "(a*?)*?x",
  "(\\.|[^.])*x",
  "(?:(?:a+)+)+x",
];

interface Input {
  pattern: string;
  texts: string[];
  ast?: Pattern;
}

function any(random: Random, depth: number): Pattern {
  switch (random.below(depth > 0 ? 9 : 4)) {
    case 0:
    case 1:
      return { kind: "literal", char: random.pick(LETTERS) };
    case 2:
      return {
        kind: "class",
        dot: random.once(3),
        negated: random.once(3),
        chars: Array.from({ length: random.integer(1, 3) }, () => random.pick(LETTERS)),
        escape: random.once(3) ? random.pick([..."dDwWsS"]) : null,
      };
    case 3:
      return random.once(3)
        ? { kind: "edge", which: random.pick(["^", "$", "\\b", "\\B"]) }
        : { kind: "literal", char: random.pick(LETTERS) };
    case 4:
      return { kind: "choice", of: Array.from({ length: random.integer(1, 3) }, () => any(random, depth - 1)) };
    case 5:
    case 6: {
      const low = random.pick([0, 0, 0, 1, 1, 2, 3]);
      const high = random.pick([Infinity, Infinity, low, low + 1, low + 3]);
      return { kind: "repeat", low, high, lazy: random.once(4), of: any(random, depth - 1) };
    }
    case 7:
      return { kind: "group", capture: random.once(2), of: any(random, depth - 1) };
    default:
      return { kind: "sequence", of: Array.from({ length: random.below(4) }, () => any(random, depth - 1)) };
  }
}

function generate(random: Random): Input {
  if (random.once(12)) {
    const pattern = random.once(3) ? print(any(random, 6), random) : random.pick(HOSTILE);
    const unit = random.pick(["a", "a.", "ab", "model.layers.0.", "x", "aaaaaaaa_"]);
    return {
      pattern: random.once(4) ? damageText(pattern, random) : pattern,
      texts: [unit.repeat(random.pick([10, 40, 400, 5000])), `${unit.repeat(300)}!`],
    };
  }
  const ast = any(random, 4);
  const pattern = print(ast, random);
  const texts = Array.from({ length: 6 }, () =>
    Array.from({ length: random.integer(1, 8) }, () => random.pick(LETTERS)).join(""),
  );
  return random.once(8) ? { pattern: damageText(pattern, random), texts } : { pattern, texts, ast };
}

function run({ pattern, texts, ast }: Input): string | undefined {
  let refused: unknown;
  let match: (text: string) => boolean = () => false;
  try {
    match = matcher(pattern);
  } catch (error) {
    refused = error;
  }
  for (const text of texts) {
    if (refused === undefined) {
      const got = match(text);
      if (ast)
        must(
          got === fullMatch(ast, text),
          () => `${JSON.stringify(pattern)} ${got ? "matches" : "does not match"} ${JSON.stringify(text)}`,
        );
      if (pattern.toLowerCase() !== "all-linear")
        must(targets({ targetModules: pattern }, text, true, false) === got, () => "targets differs from matcher");
    }
    try {
      const end = patternValue({ [pattern]: 7 }, text, 8) === 7;
      if (ast && refused === undefined && match(text))
        must(end, () => "a pattern that matches the whole path does not give its value");
    } catch (error) {
      if (refused === undefined || (error as Error).name !== "ArgumentError") throw error;
    }
  }
  if (refused !== undefined) throw refused;
  return undefined;
}

export const pattern: Target<Input> = { name: "pattern", inputs: 10_000, generate, run };
