/**
 * The kernels in the code: where a file beside it would be fetched at every start (JSR), and in the single file for
 * pages.
 */
import type { Build } from "./compile.js";
import { inlineModule } from "./inline_module.js";
import { EngineError } from "./errors.js";

export async function loadModule({ fused, shared }: Build): Promise<WebAssembly.Module> {
  if (fused)
    throw new EngineError(
      "init: this copy of the library holds the default kernels only: pass init({ module }) of " +
        "wasm-lora.fused.wasm, which is in npm's package.",
    );
  return inlineModule({ shared });
}
