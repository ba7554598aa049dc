/**
 * loralib's layers and helpers: layers that hold their own factors and merge on `eval()`.
 * @module
 */
export { Linear, type LoraLinearOptions } from "./linear.js";
export { MergedLinear, type MergedLinearOptions } from "./merged_linear.js";
export { Embedding, type LoraEmbeddingOptions } from "./embedding.js";
export { Conv1d, Conv2d, Conv3d, ConvLoRA, type LoraConvOptions } from "./conv.js";
export type { LoraLayer, LoraOptions, LoraSettings } from "./layer.js";
export { loraStateDict, markOnlyLoraAsTrainable } from "./utils.js";
export type { BiasMode } from "../io/peft/config.js";
