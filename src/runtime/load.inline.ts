/** The kernels in a package that is cached module by module (JSR), where a file beside them would be fetched at every start. */
import { inlineModule } from "../inline.js";
import { EngineError } from "./errors.js";

export async function loadModule(relaxed: boolean): Promise<WebAssembly.Module> {
  if (relaxed) throw new EngineError("this package holds the default build only; the relaxed one is in npm's.");
  return inlineModule();
}
