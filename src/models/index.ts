export { KeyValueCache, type CacheShape } from "./cache.js";
export type { CausalLM } from "./causal_lm.js";
export { Llama, LLAMA_LINEAR_MODULES, type LlamaLora } from "./llama.js";
export { Gpt2, type Gpt2Lora } from "./gpt2.js";
export { loadGpt2, loadLlama, loadLlamaWithAdapter, loadModel, savePeftAdapter } from "./load.js";
export { generate, type GenerateOptions } from "./generate.js";
export type { Gpt2Config, LlamaConfig } from "../io/huggingface.js";
