/** Finds and compiles the kernels under Node (also Deno and Bun, which have `node:fs`). */
import { readFileSync } from "node:fs";
import { EngineError } from "./errors.js";

export async function loadModule(relaxed: boolean): Promise<WebAssembly.Module> {
  const url = new URL(`../../../build/wasm-lora${relaxed ? ".relaxed" : ""}.wasm`, import.meta.url);
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = new Uint8Array(readFileSync(url));
  } catch (cause) {
    throw new EngineError(`init: the kernels are missing at ${url.pathname}. In a clone, run \`npm run build:wasm\`; in a bundle, pass init({ module }), for instance that of wasm-lora/inline.`, { cause });
  }
  return WebAssembly.compile(bytes);
}
