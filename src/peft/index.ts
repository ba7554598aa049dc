/**
 * PEFT's way to LoRA: wrap the layers of a finished model, keep adapters by name, choose, mix, merge and save them.
 * @module
 */
export { getLoraModel, LoraModel } from "./model.js";
export { LoraLayer, type Adapter, type BaseLayer } from "./layer.js";
export { LoraLinear } from "./linear.js";
export { LoraEmbedding } from "./embedding.js";
export { LoraConv } from "./conv.js";
export type { LoraConfig, LoraInit } from "../io/peft/config.js";
export { readPeftAdapter, writePeftAdapter, type PeftAdapter } from "../io/peft/folder.js";
export type { LayerKind, NamedPeftTensor } from "../io/peft/keys.js";
export { loralibToPeft, type ConvertedAdapter, type LoralibLayer } from "../io/loralib/to_peft.js";
export type { CombinationType } from "./weighted.js";
