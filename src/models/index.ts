export { KeyValueCache, Llama, LLAMA_LINEAR_MODULES, type LlamaLora } from "./llama.js";
export { loadLlama, loadLlamaWithAdapter, savePeftAdapter } from "./load.js";
export { generate, type GenerateOptions } from "./generate.js";
export type { LlamaConfig } from "../io/huggingface.js";
