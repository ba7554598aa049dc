/**
 * Plain layers with torch's names, defaults and inits, and what all modules share.
 * @module
 */
export { Embedding, LayerNorm, Linear, RMSNorm, type Layer, type LinearOptions } from "./layers.js";
export { Conv1d, Conv2d, Conv3d, ConvNd, type ConvLayerOptions, type Sizes } from "./conv.js";
export { Dropout, GELU, ReLU, Sequential, Sigmoid, Tanh, type GELUOptions } from "./sequential.js";
export { Module, Parameter, type StateDict } from "./module.js";
export type { StateEntry } from "../runtime/state_entry.js";
export { kaimingUniform_, normal_, uniform_, zeros_ } from "./init.js";
