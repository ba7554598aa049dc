export { KeyValueCache, type CacheShape } from "./cache.js";
export type { CausalLM } from "./causal_lm.js";
export { Llama } from "./llama.js";
export { Gpt2, type Gpt2Lora } from "./gpt2.js";
export { loadGpt2, loadLlama, loadModel } from "./load.js";
export { generate, type GenerateOptions } from "./generate.js";
export type { Gpt2Config, LlamaConfig } from "../io/huggingface.js";
