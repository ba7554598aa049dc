/** How commands load a model: whoever waits is told how far it is. */
import { loadModel, type AnyLoadedModel } from "../models/index.js";
import type { QuantizedType } from "../tensor/blocks.js";
import { loadingProgress } from "./progress.js";

/**
 * A language model. Whatever ends the loading, its bar ends, too: one that goes on keeps a process alive.
 * @throws as `loadModel`
 */
export function loadWatched(folder: string, quantize: QuantizedType | undefined): AnyLoadedModel {
  const { onProgress, stop } = loadingProgress();
  try {
    return loadModel(folder, { head: "causal-lm", quantize, onProgress });
  } finally {
    stop();
  }
}
