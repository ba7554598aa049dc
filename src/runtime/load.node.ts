/** Finds and compiles the kernels under Node (also Deno and Bun, which have `node:fs`). */
import { readFileSync } from "node:fs";
import { EngineError } from "./errors.js";

export async function loadModule(): Promise<WebAssembly.Module> {
  const url = new URL("../../../build/wasm-lora.wasm", import.meta.url);
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = new Uint8Array(readFileSync(url));
  } catch (cause) {
    throw new EngineError(`init: the kernels are missing at ${url.pathname}. Run \`npm run build:wasm\`.`, { cause });
  }
  return WebAssembly.compile(bytes);
}
