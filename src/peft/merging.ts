/** Adapters' products in the weights of their layers, for a while or for good. */
import { changed } from "../nn/extent.js";
import { Parameter } from "../nn/module.js";
import { StateError } from "../runtime/errors.js";
import type { Adapters } from "./adapters.js";
import { LoraLayer } from "./layer.js";
import { ModulesToSave } from "./modules_to_save.js";
import { places, tiedPlaces } from "./places.js";
import { TrainableTokens } from "./trainable_tokens.js";

function refuseReplicated(adapters: Adapters): void {
  const replicated = adapters.names.find((name) => adapters.config(name).layerReplication !== null);
  if (replicated !== undefined) {
    throw new StateError(
      `mergeAdapter: the model's layers are there more than once (layerReplication of adapter "${replicated}"), and ` +
        `share their weights, which can hold one product only; run it unmerged.`,
    );
  }
}

/** What has a weight that adapters are merged into, and its path in the model. */
interface Mergeable {
  path: string;
  module: TrainableTokens | LoraLayer;
}

/** All of a model, in the order of merging: rows of tokens come before products. */
function* mergeable({ model }: Adapters): IterableIterator<Mergeable> {
  const all = [...places(model)];
  for (const { path, module } of all) if (module instanceof TrainableTokens) yield { path, module };
  for (const { path, module } of all) if (module instanceof LoraLayer) yield { path, module };
}

/** @throws ArgumentError, StateError, OutOfMemoryError; then all weights are as they were */
export function mergeAdapters(adapters: Adapters, adapterNames: readonly string[], safeMerge: boolean): void {
  refuseReplicated(adapters);
  const tied = tiedLayer(adapters, adapterNames);
  if (tied) {
    throw new StateError(
      `mergeAdapter: ${tied.path} is the ${tied.isTable ? "output head" : "embedding table"} too, which its adapter ` +
        `does not act on; run it unmerged, or call mergeAndUnload(), which parts the two.`,
    );
  }
  const undo: (() => void)[] = [];
  changed();
  try {
    for (const { path, module } of mergeable(adapters))
      undo.push(module.merge(`mergeAdapter: ${path}`, adapterNames, safeMerge));
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw error;
  }
}

/**
 * Merges one weight after the other, with safeMerge: each is as it was when the next one's turn comes, so that no two
 * are held twice.
 * @param each looks at a parameter while the products are in it
 * @throws as `mergeAdapters`, and what `each` throws
 */
export function mergeEach(
  adapters: Adapters,
  adapterNames: readonly string[],
  each: (parameter: Parameter) => void,
): void {
  refuseReplicated(adapters);
  const owners = new Map<Parameter, Mergeable[]>();
  for (const owner of mergeable(adapters)) {
    const { weight } = owner.module;
    owners.set(weight, [...(owners.get(weight) ?? []), owner]);
  }
  changed();
  for (const [weight, list] of owners) {
    const undo: (() => void)[] = [];
    try {
      for (const { path, module } of list) undo.push(module.merge(`mergeAdapter: ${path}`, adapterNames, true));
      each(weight);
      for (const { module } of list)
        if (module instanceof LoraLayer && module.baseLayer.bias) each(module.baseLayer.bias);
    } finally {
      for (const step of undo.reverse()) step();
    }
  }
}

export function unmergeAdapters(adapters: Adapters): void {
  changed();
  for (const { module } of [...mergeable(adapters)].reverse()) module.unmerge();
}

/**
 * Gives a tied head a weight of its own, where one of these adapters would be merged into it; returns what takes that
 * back.
 */
export function partHead(adapters: Adapters, adapterNames: readonly string[]): () => void {
  if (!tiedLayer(adapters, adapterNames)) return () => {};
  const { module } = tiedPlaces(adapters.model)!.head;
  const isWrapped = module instanceof LoraLayer || module instanceof TrainableTokens;
  const own = isWrapped ? module.baseLayer : module instanceof ModulesToSave ? module.originalModule : module;
  const head = own as { weight: Parameter };
  const { weight } = head;
  const parted = (head.weight = new Parameter(weight.shape, false).set(weight.toFloat32()));
  return () => {
    head.weight = weight;
    parted.dispose();
  };
}

/** Whether table and head, which are one weight, are two when these adapters are merged. */
export function partsHead(adapters: Adapters, adapterNames: readonly string[]): boolean {
  const tied = tiedPlaces(adapters.model);
  if (!tied) return false;
  const [table, head] = [tied.table, tied.head].map(({ module }) => (module as { weight?: unknown }).weight);
  return table !== head || tiedLayer(adapters, adapterNames) !== undefined;
}

/** A module whose weight is another's, too, and into which alone one of these adapters would be merged. */
function tiedLayer(
  adapters: Adapters,
  adapterNames: readonly string[],
): { path: string; isTable: boolean } | undefined {
  const tied = tiedPlaces(adapters.model);
  if (!tied) return undefined;
  for (const { path, module } of [tied.table, tied.head]) {
    const isAlone = adapterNames.some((name) => {
      if (module instanceof LoraLayer) return module.adapters.has(name);
      const own = module instanceof TrainableTokens ? module.tokens.get(name) : undefined;
      return own && !own.hasHead && !own.table;
    });
    if (isAlone) return { path, isTable: path === tied.table.path };
  }
  return undefined;
}
