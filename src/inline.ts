/** The kernels inside JavaScript, for pages that are a single file and bundlers that drop .wasm files. */
import { base64 } from "./runtime/wasm_base64.js";

/**
 * The compiled kernels, for `init({ module })`. Not for workerd, which compiles no bytes.
 *
 * @example
 * import { inlineModule } from "wasm-lora/inline";
 * await init({ module: await inlineModule() });
 */
export function inlineModule(): Promise<WebAssembly.Module> {
  return WebAssembly.compile(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
}
