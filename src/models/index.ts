export { KeyValueCache, type CacheShape } from "./cache.js";
export type { CausalLM } from "./causal_lm.js";
export { Llama, LLAMA_LINEAR_MODULES, type LlamaLora } from "./llama.js";
export { loadLlama, loadLlamaWithAdapter, savePeftAdapter } from "./load.js";
export { generate, type GenerateOptions } from "./generate.js";
export type { LlamaConfig } from "../io/huggingface.js";
