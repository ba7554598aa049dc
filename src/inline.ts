/**
 * The kernels inside JavaScript, for pages that are a single file and bundlers that drop .wasm files.
 * @module wasm-lora/inline
 */
export { inlineModule } from "./runtime/inline_module.js";
