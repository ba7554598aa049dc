/** Fetches and compiles the kernels in a browser or a web worker; bundlers see the URL and keep the file. */
import { type Build, compile, inPackage, OTHERWISE } from "./compile.js";
import { EngineError } from "./errors.js";

export async function loadModule(build: Build): Promise<WebAssembly.Module> {
  const url = inPackage(() =>
    build.fused
      ? new URL("../../../build/wasm-lora.fused.wasm", import.meta.url)
      : new URL("../../../build/wasm-lora.wasm", import.meta.url),
  );
  let bytes: ArrayBuffer;
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    bytes = await response.arrayBuffer();
  } catch (cause) {
    throw new EngineError(
      `init: the kernels could not be fetched from ${url.href}: ${(cause as Error).message}. ` +
        `Serve that file from the package, ${OTHERWISE}`,
      { cause },
    );
  }
  return compile(new Uint8Array(bytes), url.href, build);
}
