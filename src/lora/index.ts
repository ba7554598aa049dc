export { Linear, type LoraLinearOptions } from "./linear.js";
export { Embedding, type LoraEmbeddingOptions } from "./embedding.js";
export type { LoraOptions } from "./layer.js";
export { loraStateDict, markOnlyLoraAsTrainable, type BiasMode } from "./utils.js";
