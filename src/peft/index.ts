export { getLoraModel, LoraModel } from "./model.js";
export { LoraLayer, type Adapter } from "./layer.js";
export { LoraLinear } from "./linear.js";
export { LoraEmbedding } from "./embedding.js";
export { LoraConv } from "./conv.js";
export type { LoraConfig } from "../io/peft.js";
export type { CombinationType } from "./weighted.js";
