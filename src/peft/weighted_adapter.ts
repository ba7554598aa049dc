/** LoraModel.addWeightedAdapter: one new adapter of several, in every layer that has any of them. */
import type { LoraConfig } from "../io/peft/config.js";
import { escapePattern } from "../io/peft/regexp/pattern.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkNumber } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import type { Adapters } from "./adapters.js";
import type { LoraLayer } from "./layer.js";
import { shortNames } from "./places.js";
import { combineAdapters, type CombinationType, type WeightedFactors } from "./weighted.js";

const WHERE = "addWeightedAdapter";
const MAX_FLOAT32 = 3.4028234663852886e38;

export function addWeighted(
  adapters: Adapters,
  adapterNames: readonly string[],
  weights: readonly number[],
  newName: string,
  type: CombinationType,
  svdRank?: number,
): void {
  if (adapterNames.length === 0 || weights.length !== adapterNames.length) {
    throw new ArgumentError(
      `${WHERE}: ${adapterNames.length} adapters and ${weights.length} weights; expected at least one and as many ` +
        `of both.`,
    );
  }
  weights.forEach((weight, i) => checkNumber(WHERE, `weights[${i}]`, weight, -MAX_FLOAT32, MAX_FLOAT32));
  const configs = adapterNames.map((name) => adapters.config(name));
  const special = configs.findIndex(
    (c) =>
      c.useDora ||
      c.loraBias ||
      c.bias !== "none" ||
      c.modulesToSave?.length ||
      c.targetParameters ||
      c.trainableTokenIndices,
  );
  if (special >= 0)
    throw new ArgumentError(
      `${WHERE}: adapter "${adapterNames[special]}" has DoRA, biases, modulesToSave, targetParameters or ` +
        `trainableTokenIndices, which cannot be combined.`,
    );

  scope(() => {
    const combined = new Map(
      adapters
        .layers()
        .filter(({ layer }) => adapterNames.some((name) => layer.adapters.has(name)))
        .map(({ path, layer }) => [path, combineAdapters(type, weighted(path, layer, adapterNames, weights), svdRank)]),
    );
    const ranks = new Map([...combined].map(([path, { loraA }]) => [path, loraA.shape[0]!]));
    adapters.inject(WHERE, newName, configOf(configs[0]!, ranks, shortNames(adapters.model, [...combined.keys()])), {
      factors({ path }, { loraA, loraB }) {
        const { loraA: a, loraB: b } = combined.get(path)!;
        loraA.set(a.data);
        loraB.set(b.data);
      },
    });
  });
}

function weighted(
  path: string,
  layer: LoraLayer,
  names: readonly string[],
  weights: readonly number[],
): WeightedFactors[] {
  layer.checkDense(`${WHERE}: ${path}`);
  return names.flatMap((name, i) => {
    const adapter = layer.adapters.get(name);
    return adapter
      ? [{ loraA: adapter.loraA, loraB: adapter.loraB, scaling: adapter.scaling, weight: weights[i]! }]
      : [];
  });
}

/**
 * Scaling 1 everywhere: alpha = r, by patterns where a layer's rank is not the largest. (PEFT keeps the first adapter's
 * use_rslora, and so scales by sqrt(r).)
 */
function configOf(first: LoraConfig, ranks: ReadonlyMap<string, number>, targetModules: string[] | string): LoraConfig {
  const r = Math.max(...ranks.values());
  const pattern = Object.fromEntries(
    [...ranks].filter(([, rank]) => rank !== r).map(([path, rank]) => [`^${escapePattern(path)}`, rank]),
  );
  return {
    ...first,
    r,
    loraAlpha: r,
    rankPattern: pattern,
    alphaPattern: pattern,
    useRslora: false,
    initLoraWeights: true,
    targetModules,
    excludeModules: null,
    layersToTransform: null,
    layersPattern: null,
  };
}
