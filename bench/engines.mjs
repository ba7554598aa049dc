/** The contestants' names, and the engines, loaded when asked for: tfjs and jax-js change the global scope. */

export const OURS = "wasm-lora",
  RELAXED = "wasm-lora relaxed",
  TFJS = "tfjs-wasm",
  ONNX = "onnxruntime-web",
  JAX = "jax-js";
export const FULL_STEP = "wasm-lora, full fine-tuning",
  TFJS_BEST = "tfjs-wasm at its best",
  TFJS_WRITTEN = "tfjs-wasm as written";

/** Each has open(), which gives matmul(m, n, k, a, b) and steps of a layer: { run, result, free }. */
export const ENGINES = {
  [OURS]: () => import("./engines/wasm_lora.mjs"),
  [RELAXED]: async () => ({ open: (await import("./engines/wasm_lora.mjs")).openRelaxed }),
  [TFJS]: () => import("./engines/tfjs.mjs"),
  [ONNX]: () => import("./engines/onnx.mjs"),
  [JAX]: () => import("./engines/jax.mjs"),
};
