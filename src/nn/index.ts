export { Embedding, LayerNorm, Linear, RMSNorm } from "./layers.js";
export { Module, Parameter, type StateDict, type StateEntry } from "./module.js";
export * as init from "./init.js";
