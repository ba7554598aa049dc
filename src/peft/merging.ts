/** Adapters' products in the weights of their layers, for a while or for good. */
import { changed } from "../nn/extent.js";
import { Parameter } from "../nn/module.js";
import { StateError } from "../runtime/errors.js";
import type { Adapters, Layer } from "./adapters.js";
import { LoraEmbedding } from "./embedding.js";
import { LoraLayer } from "./layer.js";
import { tiedPlaces } from "./places.js";

/** @throws ArgumentError, StateError, OutOfMemoryError; then all weights are as they were */
export function mergeAdapters(adapters: Adapters, adapterNames: readonly string[], safeMerge: boolean): void {
  const tied = tiedLayer(adapters, adapterNames);
  if (tied) {
    throw new StateError(
      `mergeAdapter: ${tied.path} is the ${
        tied.layer instanceof LoraEmbedding ? "output head" : "embedding table"
      } too, which its adapter does not act on; run it unmerged, or call mergeAndUnload(), which parts the two.`,
    );
  }
  const undo: (() => void)[] = [];
  changed();
  try {
    for (const { path, layer } of adapters.layers())
      undo.push(layer.merge(`mergeAdapter: ${path}`, adapterNames, safeMerge));
  } catch (error) {
    for (const step of undo) step();
    throw error;
  }
}

export function unmergeAdapters(adapters: Adapters): void {
  changed();
  for (const { layer } of adapters.layers()) layer.unmerge();
}

/**
 * Gives a tied head a weight of its own, where one of these adapters would be merged into it; returns what takes that
 * back.
 */
export function partHead(adapters: Adapters, adapterNames: readonly string[]): () => void {
  if (!tiedLayer(adapters, adapterNames)) return () => {};
  const { module } = tiedPlaces(adapters.model)!.head;
  const head = (module instanceof LoraLayer ? module.baseLayer : module) as { weight: Parameter };
  const { weight } = head;
  const own = (head.weight = new Parameter(weight.shape, false).set(weight.toFloat32()));
  return () => {
    head.weight = weight;
    own.dispose();
  };
}

/** A layer whose weight is another's, too, and to which one of these adapters would be merged. */
function tiedLayer(adapters: Adapters, adapterNames: readonly string[]): Layer | undefined {
  const tied = tiedPlaces(adapters.model);
  const paths = tied ? [tied.table.path, tied.head.path] : [];
  return adapters
    .layers()
    .find(({ path, layer }) => paths.includes(path) && adapterNames.some((name) => layer.adapters.has(name)));
}
