/**
 * An engine of three threads whose kernels cut every loop into parts as small as they can be: tests of small sizes,
 * whose values come from elsewhere, find what threads would do to them. One thread where there are no others.
 */
import { type Engine, init } from "../../src/index.js";
import { sharing } from "../../src/runtime/sharing.js";
import { refusal } from "#spawn";
import { base64 } from "../../src/runtime/wasm_base64.js";

/** WebKitGTK isolates pages and has no shared memory all the same. */
export const eager = refusal() === undefined && "SharedArrayBuffer" in globalThis;

/** f64.const, and what assembly/threads.ts takes for the least cycles of a part. */
const LEAST = new Uint8Array(9);
new DataView(LEAST.buffer).setFloat64(1, 8000, true);
LEAST[0] = 0x44;

export async function initEager(): Promise<Engine> {
  if (!eager) return init();
  const bytes = sharing(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
  const places = [...bytes.keys()].filter((at) => LEAST.every((byte, i) => bytes[at + i] === byte));
  if (places.length !== 1) throw new Error(`the kernels have the constant ${places.length} times`);
  new DataView(bytes.buffer).setFloat64(places[0]! + 1, 1, true);
  return init({ module: await WebAssembly.compile(bytes), threads: 3 });
}

/** Tells how many calls were opened to other threads so far: the control block is the first of linear memory. */
export function opened({ kernels, memory }: Engine): number {
  const at = Math.ceil(Math.max(kernels.heapBase(), 1024) / 64) * 64;
  return memory.i32(at, 1)[0]! >> 1;
}
