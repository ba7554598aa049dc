/**
 * Language models in Hugging Face's names, from Hugging Face's folders, and sampling from them.
 * @module
 */
export { KeyValueCache, type CacheShape } from "./cache.js";
export type { CausalLM } from "./causal_lm.js";
export { Llama, type LlamaAttention, type LlamaLayer, type LlamaMLP, type LlamaModel } from "./llama.js";
export { Gpt2, type Gpt2Attention, type Gpt2Block, type Gpt2MLP, type Gpt2Model } from "./gpt2.js";
export { fetchModel, loadBase, type FetchModelOptions, type FetchProgress } from "./fetch.js";
export { loadGpt2, loadLlama, loadModel, type LoadedModel } from "./load.js";
export { generate, type GenerateOptions } from "./generate.js";
export type { Gpt2Config, LlamaConfig } from "../io/huggingface.js";
