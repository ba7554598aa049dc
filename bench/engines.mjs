/** The contestants' names, and the engines, loaded when asked for: tfjs and jax-js change the global scope. */

export const OURS = "wasm-lora";
export const FUSED = "wasm-lora fused";
export const TORCH = "PyTorch";
export const TFJS = "tfjs-wasm";
export const ONNX = "onnxruntime-web";
export const JAX = "jax-js";
export const FULL_STEP = "wasm-lora, full fine-tuning";
export const TFJS_BEST = "tfjs-wasm at its best";
export const TFJS_WRITTEN = "tfjs-wasm as written";

/** Name of a contestant that runs on so many threads. */
export const onThreads = (name, threads) => (threads === 1 ? name : `${name}, ${threads} threads`);
/** Whether it runs on several: then the clock on the wall is its own. */
export const isOnThreads = (name) => name.endsWith(" threads");
/** Whether it is this library, in any arithmetic, on any number of threads. */
export const isOurs = (name) => name.startsWith(OURS);

const beside = (arithmetic, threads) => async () => {
  const { openBeside } = await import("./engines/wasm_lora.mjs");
  return { open: () => openBeside(arithmetic, threads) };
};

/**
 * Each has open(), which gives matmul(m, n, k, a, b) and steps of a layer: { run, result, free }; close() where it has
 * something to close.
 */
export const ENGINES = {
  [OURS]: () => import("./engines/wasm_lora.mjs"),
  [FUSED]: beside("fused", 1),
  [TFJS]: () => import("./engines/tfjs.mjs"),
  [ONNX]: () => import("./engines/onnx.mjs"),
  [JAX]: () => import("./engines/jax.mjs"),
};

/** This library's on several threads, if there are to be several. */
export const enginesOnThreads = (threads) =>
  threads > 1
    ? { [onThreads(OURS, threads)]: beside("separate", threads), [onThreads(FUSED, threads)]: beside("fused", threads) }
    : {};
