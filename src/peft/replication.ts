/**
 * PEFT's layer_replication: a model whose layers are there more than once, on the same weights. Each has adapters of
 * its own.
 * Source: huggingface/peft 0.21, tuners/tuners_utils.py (replicate_layers).
 */
import type { LoraConfig } from "../io/peft/config.js";
import { show } from "../io/json.js";
import { type Module, Parameter } from "../nn/module.js";
import { skipInit } from "../nn/skip_init.js";
import { ArgumentError } from "../runtime/errors.js";
import { className } from "../runtime/shown.js";
import { places } from "./places.js";

/** What a model's stack of layers tells and takes. */
interface LayerStack extends Module {
  /** First to last. */
  getLayers(): readonly Module[];
  /** A layer of the kind of layer `source`, for place `index`. */
  newLayer(source: number, index: number): Module;
  /** Puts these in the places of the layers that are there; the model's configuration follows. */
  setLayers(layers: readonly Module[]): void;
}

/** A config may be a stranger's. */
const MOST_LAYERS = 1000;

/**
 * Makes the layers of a model those that the ranges name.
 * @returns gives the model its own layers, and returns what takes that back
 * @throws ArgumentError for a model that cannot have that, or a layer that is not there
 */
export function replicateLayers(
  where: string,
  model: Module,
  ranges: NonNullable<LoraConfig["layerReplication"]>,
): () => () => void {
  const stack = [model, ...[...places(model)].map(({ module }) => module)].find(
    (module): module is LayerStack => "newLayer" in module,
  );
  if (!stack)
    throw new ArgumentError(
      `${where}: layerReplication is ${show(ranges)}, but the layers of a ${className(model)} cannot be replicated.`,
    );
  const before = [...stack.getLayers()];
  const beyond = ranges.find(([, to]) => to > before.length);
  if (beyond)
    throw new ArgumentError(
      `${where}: layerReplication has [${beyond.join(", ")}]; the model has layers 0 .. ${before.length - 1}.`,
    );
  const count = ranges.reduce((sum, [from, to]) => sum + to - from, 0);
  if (count > MOST_LAYERS)
    throw new ArgumentError(`${where}: layerReplication makes ${count} layers; at most ${MOST_LAYERS} are taken.`);
  const sources = ranges.flatMap(([from, to]) => Array.from({ length: to - from }, (_, i) => from + i));
  const put = (layers: readonly Module[]): void => {
    stack.setLayers(layers);
    const { config } = model as { config?: { numHiddenLayers?: unknown } };
    // In transformers the model with the head has the same configuration.
    if (model !== (stack as Module) && typeof config?.numHiddenLayers === "number")
      Object.assign(model, { config: { ...config, numHiddenLayers: layers.length } });
  };
  // A layer that stays where it was is itself.
  put(
    sources.map((source, index) =>
      source === index
        ? before[source]!
        : sharing(
            skipInit(() => stack.newLayer(source, index)),
            before[source]!,
          ),
    ),
  );
  return () => {
    const now = [...stack.getLayers()];
    put(before);
    return () => put(now);
  };
}

/** A layer with another one's parameters in the places of its own. */
function sharing(layer: Module, original: Module): Module {
  const originals = new Map(original.namedModules());
  for (const [path, module] of layer.namedModules()) {
    const other = originals.get(path) as unknown as Record<string, unknown>;
    const own = module as unknown as Record<string, unknown>;
    module.training = original.training;
    for (const [property, value] of Object.entries(own)) {
      if (!(value instanceof Parameter)) continue;
      value.dispose();
      own[property] = other[property];
    }
  }
  return layer;
}
