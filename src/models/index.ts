/**
 * Language models in Hugging Face's names, from Hugging Face's folders, and sampling from them.
 * @module
 */
export { KeyValueCache, type CacheShape } from "./cache.js";
export type { CausalLM, WrappedLM } from "./causal_lm.js";
export {
  Llama,
  loadLlama,
  type LlamaAttention,
  type LlamaConfig,
  type LlamaLayer,
  type LlamaMLP,
  type LlamaModel,
} from "./llama.js";
export {
  Gpt2,
  loadGpt2,
  type Gpt2Attention,
  type Gpt2Block,
  type Gpt2Config,
  type Gpt2MLP,
  type Gpt2Model,
} from "./gpt2.js";
export { fetchModel, loadBase, type FetchModelOptions, type FetchProgress } from "./fetch.js";
export { loadModel, type AnyLoadedModel, type ModelConfig } from "./families.js";
export type { ConfigOf } from "./config.js";
export type { LoadedModel } from "./load.js";
export { generate, type GenerateOptions } from "./generate.js";
