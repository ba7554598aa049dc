/** The kernels inside JavaScript. */
import { compile } from "./compile.js";
import { checkOptions } from "./options.js";
import { base64 } from "./wasm_base64.js";

/**
 * The compiled kernels, for `init({ module })`. Not for workerd, which compiles no bytes.
 * @param options shared: for `init({ module, threads })` with more than one; by default false
 * @throws EngineError where the host, or the page's Content-Security-Policy, forbids to compile them
 *
 * @example
 * import { inlineModule } from "wasm-lora/inline";
 * await init({ module: await inlineModule() });
 */
export function inlineModule(options: { shared?: boolean | undefined } = {}): Promise<WebAssembly.Module> {
  checkOptions("inlineModule", options, ["shared"]);
  return compile(
    Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)),
    "wasm-lora/inline",
    { fused: false, shared: options.shared ?? false },
  );
}
