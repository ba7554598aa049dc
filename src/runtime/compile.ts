/** What may go wrong between the place of the kernels' file and a compiled module, said so that it can be mended. */
import { EngineError } from "./errors.js";
import { sharing } from "./sharing.js";

/** Which of the builds: in fused arithmetic or not, for memory that threads share or not. */
export interface Build {
  fused: boolean;
  shared: boolean;
}

/** How each of these messages ends: what helps wherever the kernels' file cannot be had. */
export const OTHERWISE = "or pass init({ module }), for instance that of wasm-lora/inline.";

/**
 * A file of this package by its URL. In a bundle for CommonJS, or for a script that is no module, `import.meta.url` is
 * empty.
 * @throws EngineError there
 */
export function inPackage(url: () => URL): URL {
  try {
    return url();
  } catch (cause) {
    throw new EngineError(
      "init: the kernels are missing: import.meta.url is empty in this bundle (CommonJS, or no module), so " +
        "their file cannot be found from it. Pass init({ module }), for instance that of wasm-lora/inline.",
      { cause },
    );
  }
}

/**
 * The module in `bytes`, which came from `from` and are of the fused build or of the default one, as `build` says.
 * @throws EngineError naming what forbids it, or what the bytes are instead
 */
export async function compile(
  bytes: Uint8Array<ArrayBuffer>,
  from: string,
  { fused, shared }: Build,
): Promise<WebAssembly.Module> {
  if (bytes[0] !== 0 || bytes[1] !== 0x61 || bytes[2] !== 0x73 || bytes[3] !== 0x6d) {
    const page = bytes.length > 0 && /^\s*</.test(String.fromCharCode(...bytes.subarray(0, 64)));
    throw new EngineError(
      `init: ${from} is ${page ? "an HTML page" : bytes.length === 0 ? "empty" : "something else"} instead of the ` +
        `kernels: ` +
        `have wasm-lora.wasm of the package answered there, ${OTHERWISE}`,
    );
  }
  try {
    return await WebAssembly.compile(shared ? sharing(bytes) : bytes);
  } catch (cause) {
    const { message } = cause as Error;
    const advice = /unsafe-eval|wasm-eval|CSP|Content.Security.Policy/i.test(message)
      ? "the page's Content-Security-Policy forbids it: add 'wasm-unsafe-eval' to its script-src"
      : /embedder/i.test(message)
        ? 'this host compiles no bytes (workerd): import the module from "wasm-lora/wasm-lora.wasm"'
        : fused
          ? "fused arithmetic needs relaxed SIMD (Node 22, Chromium 114, Firefox 145 and later, Deno and workerd); " +
            "leave fused out, and the default arithmetic computes"
          : "the engine needs WebAssembly SIMD (Node 20, Chromium 91, Firefox 89, Safari 16.4 and later)";
    throw new EngineError(`init: ${from} cannot be compiled: ${advice}. The engine says: ${message}`, { cause });
  }
}
