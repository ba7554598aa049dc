export { KeyValueCache, Llama, LLAMA_LINEAR_MODULES, type LlamaConfig, type LlamaLora } from "./llama.js";
