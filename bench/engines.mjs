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

/** Each has open(), which gives matmul(m, n, k, a, b) and steps of a layer: { run, result, free }. */
export const ENGINES = {
  [OURS]: () => import("./engines/wasm_lora.mjs"),
  [FUSED]: async () => ({ open: (await import("./engines/wasm_lora.mjs")).openFused }),
  [TFJS]: () => import("./engines/tfjs.mjs"),
  [ONNX]: () => import("./engines/onnx.mjs"),
  [JAX]: () => import("./engines/jax.mjs"),
};
