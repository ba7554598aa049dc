/** Fetches and compiles the kernels in a browser or a web worker; bundlers see the URL and keep the file. */
import { EngineError } from "./errors.js";

export async function loadModule(relaxed: boolean): Promise<WebAssembly.Module> {
  const url = relaxed ? new URL("../../../build/wasm-lora.relaxed.wasm", import.meta.url) : new URL("../../../build/wasm-lora.wasm", import.meta.url);
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    return await WebAssembly.compile(await response.arrayBuffer());
  } catch (cause) {
    throw new EngineError(`init: the kernels could not be loaded from ${url.href}: ${(cause as Error).message}. ` +
      "Serve that file, or pass init({ module }).", { cause });
  }
}
