/** The kernels in Cloudflare's workerd, which compiles WebAssembly only as an imported module. */
import module from "../../../build/wasm-lora.wasm";

export function loadModule(): Promise<WebAssembly.Module> { return Promise.resolve(module); }
