/**
 * Which modules a LoraConfig adapts, and with which rank and alpha: PEFT's rules on dotted module paths.
 * Source: huggingface/peft 0.20, src/peft/tuners/tuners_utils.py (check_target_module_exists,
 * _maybe_include_all_linear_layers), src/peft/utils/other.py (get_pattern_key). PEFT 0.21 differs in one point: with
 * layersPattern, it also takes a layer's name at the very start of a path.
 *
 * Configs come from strangers and may be as long as they like, and so may the names of tensors. So names are looked up,
 * not tried one after another, and patterns have a budget of steps (see regexp/).
 */
import type { LoraConfig } from "./config.js";
import { Names, SavedModules } from "./names.js";
import { endsOf, lastNames } from "./paths.js";
import { PatternValues } from "./pattern_values.js";
import { type Budget, type Fail, newBudget } from "./regexp/budget.js";
import { codesOf, Pattern } from "./regexp/pattern.js";

const ALL_LINEAR = "all-linear";

/** Whether targetModules are the word, in any letter case, that stands for every linear layer. */
export function isAllLinear(targetModules: LoraConfig["targetModules"]): boolean {
  return typeof targetModules === "string" && targetModules.toLowerCase() === ALL_LINEAR;
}

/** What a config says about names: which modules it chooses, and what scales an adapter's products in them. */
type Rules = Pick<
  LoraConfig,
  | "targetModules"
  | "targetParameters"
  | "excludeModules"
  | "layersToTransform"
  | "layersPattern"
  | "modulesToSave"
  | "r"
  | "loraAlpha"
  | "rankPattern"
  | "alphaPattern"
  | "useRslora"
>;

/** Layer patterns are tried one after another. */
const MAX_LAYER_PATTERNS = 1000;

/** A config made ready for many paths: its patterns are read once and have one budget of steps together. */
export class Matching {
  readonly #config: Rules;
  readonly #budget: Budget;
  readonly #targets: Names | Pattern | null;
  readonly #parameters: Names;
  readonly #excluded: Names | Pattern | null;
  readonly #saved: SavedModules;
  readonly #layers: ReadonlySet<number> | null;
  readonly #layerPatterns: readonly Pattern[];
  readonly #ranks: PatternValues;
  readonly #alphas: PatternValues;

  /** @param fail throws the caller's error for a pattern that cannot be matched, or not within the budget */
  constructor(config: Rules, fail: Fail) {
    const {
      targetParameters,
      excludeModules,
      layersToTransform,
      layersPattern,
      modulesToSave,
      rankPattern,
      alphaPattern,
    } = config;
    const read = (names: readonly string[] | string): Names | Pattern =>
      typeof names === "string" ? new Pattern(names, "whole") : new Names(names);
    const targetModules = config.targetModules ?? [];
    this.#config = config;
    this.#budget = newBudget(fail);
    this.#targets = isAllLinear(targetModules) ? null : read(targetModules);
    this.#parameters = new Names(targetParameters ?? []);
    this.#excluded = excludeModules ? read(excludeModules) : null;
    this.#saved = new SavedModules(modulesToSave ?? []);
    const layers = typeof layersToTransform === "number" ? [layersToTransform] : layersToTransform;
    this.#layers = layers?.length ? new Set(layers) : null;
    // An empty pattern is as good as none.
    const patterns = layersPattern?.length
      ? typeof layersPattern === "string"
        ? [layersPattern]
        : layersPattern
      : ["[^.]*"];
    if (patterns.length > MAX_LAYER_PATTERNS)
      fail(`it has ${patterns.length} patterns for the names of layers; at most ${MAX_LAYER_PATTERNS} are taken`);
    this.#layerPatterns = patterns.map((pattern) => new Pattern(pattern, "layer"));
    this.#ranks = new PatternValues(rankPattern, fail);
    this.#alphas = new PatternValues(alphaPattern, fail);
  }

  /**
   * Whether the config puts LoRA on the module at `path`.
   *
   * Excluded modules and those of modulesToSave (with all below them) are never adapted. A string must match the
   * whole path, or is "all-linear": every linear layer but the output layer. A name in a list is the path or its
   * end after a dot. Where it is the end only, layersToTransform must hold the module's layer: the number between
   * dots after a name that layersPattern matches, or without layersPattern the first number between dots. That
   * name must stand after a dot itself ("model.layers.0.x", not "layers.0.x").
   *
   * @param isLinear the module is a linear layer
   * @param isOutputLayer it is the model's output layer (get_output_embeddings in transformers)
   */
  targets(path: string, isLinear: boolean, isOutputLayer: boolean): boolean {
    const budget = this.#budget;
    const targets = this.#targets;
    const excluded = this.#excluded;
    if (excluded instanceof Pattern ? excluded.match(codesOf(path), budget) === 0 : excluded?.ends(path)) return false;
    if (this.#saved.hold(path, budget)) return false;
    if (targets === null) return isLinear && !isOutputLayer;
    if (targets instanceof Pattern) return targets.match(codesOf(path), budget) === 0;
    return targets.has(path) || (targets.ends(path) && (this.#layers === null || this.#layers.has(this.#layer(path))));
  }

  /** Whether targetParameters name this parameter: its path, or the end of it after a dot. */
  targetsParameter(path: string): boolean {
    return this.#parameters.ends(path);
  }

  /**
   * The first entry that says nothing about a model of these modules, with the names that would.
   * @param paths of modules that can be adapted
   * @param adapted those of them that are
   */
  idle(
    paths: readonly string[],
    adapted: readonly string[],
  ): { field: keyof LoraConfig; entry: unknown; why: string; near: readonly string[] } | undefined {
    const { excludeModules, rankPattern, alphaPattern } = this.#config;
    const targetModules = this.#config.targetModules ?? [];
    const ends = new Set(paths.flatMap(endsOf));
    if (excludeModules) {
      const entry =
        typeof excludeModules !== "string"
          ? excludeModules.find((name) => !ends.has(name))
          : paths.some((path) => (this.#excluded as Pattern).match(codesOf(path), this.#budget) === 0)
            ? undefined
            : excludeModules;
      if (entry !== undefined)
        return {
          field: "excludeModules",
          entry,
          why:
            "matches no module that can be adapted (what is in a module is matched by a pattern, as " +
            '".*\\.mlp\\..*")',
          near: lastNames(paths),
        };
    }
    const named =
      this.#targets instanceof Names
        ? paths.filter((path) => (this.#targets as Names).ends(path) && !targetModules.includes(path))
        : [];
    if (this.#layers) {
      for (const pattern of this.#layerPatterns) {
        if (named.some((path) => pattern.match(codesOf(path), this.#budget) >= 0)) continue;
        return {
          field: "layersPattern",
          entry: pattern.text,
          why: "stands before no layer's index",
          near: [...new Set(named.flatMap((path) => path.match(/[^.]+(?=\.\d+\.)/g) ?? []))],
        };
      }
      const there = new Set(named.map((path) => this.#layer(path)));
      for (const entry of this.#layers) {
        if (!there.has(entry))
          return {
            field: "layersToTransform",
            entry,
            why: `is no layer; there are ${
              [...there]
                .filter((i) => i >= 0)
                .slice(0, 100)
                .join(", ") || "none"
            }`,
            near: [],
          };
      }
    }
    const patternPaths = adapted.map((path) => this.#patternPath(path));
    for (const [field, keys, pattern] of [
      ["rankPattern", this.#ranks, rankPattern],
      ["alphaPattern", this.#alphas, alphaPattern],
    ] as const) {
      const entry = keys.unused(patternPaths, this.#budget);
      if (entry === undefined) continue;
      const alone = new PatternValues({ [entry]: pattern[entry]! }, this.#budget.fail);
      const isLate = alone.unused(patternPaths, this.#budget) === undefined;
      return {
        field,
        entry,
        why: isLate ? "never counts: keys before it match first" : "matches no adapted module",
        near: isLate ? [] : lastNames(adapted),
      };
    }
    return undefined;
  }

  /** The number of the module's layer, -1 if it is in none. */
  #layer(path: string): number {
    const codes = codesOf(path);
    for (const pattern of this.#layerPatterns) {
      let at = pattern.match(codes, this.#budget);
      let layer = 0;
      if (at < 0) continue;
      for (; codes[at]! >= 48 && codes[at]! <= 57; at++) layer = layer * 10 + codes[at]! - 48;
      return layer;
    }
    return -1;
  }

  /** What patterns are matched with: the path of the module, or of its weight if that is what is targeted. */
  #patternPath(path: string): string {
    const weight = `${path}.weight`;
    return this.targetsParameter(weight) ? weight : path;
  }

  /**
   * The module's rank: of the first key of rankPattern that is, as a regular expression, its whole path or the end
   * after a dot; else r. Source: PEFT, get_pattern_key.
   */
  rank(path: string): number {
    return this.#ranks.value(this.#patternPath(path), this.#budget) ?? this.#config.r;
  }

  /**
   * What B(A(x)) of the module is multiplied by: alpha / r, or alpha / sqrt(r) with useRslora.
   * Source: PEFT, LoraLayer.update_layer; Kalajdzievski 2023 (rsLoRA).
   */
  scaling(path: string): number {
    const r = this.rank(path);
    return (
      (this.#alphas.value(this.#patternPath(path), this.#budget) ?? this.#config.loraAlpha) /
      (this.#config.useRslora ? Math.sqrt(r) : r)
    );
  }
}
