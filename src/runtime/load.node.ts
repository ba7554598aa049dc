/** Finds and compiles the kernels under Node (also Deno and Bun, which have `node:fs`). */
import { readFileSync } from "node:fs";
import { type Build, compile, inPackage, OTHERWISE } from "./compile.js";
import { EngineError } from "./errors.js";

/** What Node, Deno and Bun call a file that is there and may not be read: by its mode, or for want of a permission. */
const REFUSED = ["EACCES", "EPERM", "ERR_ACCESS_DENIED", "NotCapable", "PermissionDenied"];

export async function loadModule(build: Build): Promise<WebAssembly.Module> {
  // Both URLs are written out, since webpack finds by this very expression which files it must take along.
  const url = inPackage(() =>
    build.fused
      ? new URL("../../../build/wasm-lora.fused.wasm", import.meta.url)
      : new URL("../../../build/wasm-lora.wasm", import.meta.url),
  );
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = new Uint8Array(readFileSync(url));
  } catch (cause) {
    const { code = "", name, message } = cause as NodeJS.ErrnoException;
    const problem =
      REFUSED.includes(code) || REFUSED.includes(name)
        ? `may not be read: allow it (deno run --allow-read, node --allow-fs-read, the file's mode)`
        : code === "ENOENT" || code === "ENOTDIR"
          ? "are missing: in a clone, run `npm run build`; in a bundle, copy that file along"
          : `cannot be read (${message})`;
    throw new EngineError(`init: the kernels at ${url.pathname} ${problem}, ${OTHERWISE}`, { cause });
  }
  return compile(bytes, url.pathname, build);
}
