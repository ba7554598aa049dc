/** One file of kernels serves one thread and many. */
import { EngineError } from "./errors.js";

/** "env", "memory", a memory, with a maximum. */
const IMPORT = [...[..."\u0003env\u0006memory"].map((c) => c.charCodeAt(0)), 2, 1];

/**
 * The kernels' file as it imports memory that threads share: that differs in one flag, of the limits of its one import.
 * @throws EngineError if it has no such import
 */
export function sharing(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  // Not slice(): of a Node Buffer that is a view.
  const shared = new Uint8Array(bytes);
  for (let i = 0; i < shared.length; i++) {
    if (!IMPORT.every((byte, j) => shared[i + j] === byte)) continue;
    shared[i + IMPORT.length - 1] = 3;
    return shared;
  }
  throw new EngineError("init: these kernels were made for one thread only: they import no memory with a maximum.");
}
