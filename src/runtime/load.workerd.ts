/** The kernels in Cloudflare's workerd, which compiles WebAssembly only as an imported module. */
import module from "../../../build/wasm-lora.wasm";
import { EngineError } from "./errors.js";

export async function loadModule(relaxed: boolean): Promise<WebAssembly.Module> {
  // An import of the relaxed build here would put it into every Worker, used or not.
  if (relaxed)
    throw new EngineError(
      'workerd takes it as a module only: import it from "wasm-lora/wasm-lora.relaxed.wasm" and pass it to init({ ' +
        "module }).",
    );
  return module;
}
