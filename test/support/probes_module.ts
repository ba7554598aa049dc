/** A file of its own: in workerd, which compiles no bytes, test/matrix puts an imported module in its place. */
import { readFileSync } from "node:fs";
import { ROOT } from "./root.js";

export function probesModule(): Promise<WebAssembly.Module> {
  return WebAssembly.compile(new Uint8Array(readFileSync(new URL("build/wasm-lora.probes.wasm", ROOT))));
}
