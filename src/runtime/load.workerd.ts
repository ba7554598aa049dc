/** The kernels in Cloudflare's workerd, which compiles WebAssembly only as an imported module. */
import module from "../../../build/wasm-lora.wasm";
import type { Build } from "./compile.js";
import { EngineError } from "./errors.js";

export async function loadModule({ fused }: Build): Promise<WebAssembly.Module> {
  // An import of the fused build here would put it into every Worker, used or not.
  if (fused)
    throw new EngineError(
      'init: workerd takes the fused kernels as a module only: import them from "wasm-lora/wasm-lora.fused.wasm" and ' +
        "pass init({ module }).",
    );
  return module;
}
