import { init } from "wasm-lora";
import { train } from "./train.js";

/** How many of two threads compute, and to which digest. */
export async function count(options) {
  const engine = await init({ ...options, threads: 2 });
  return `${engine.threads}: ${await train()}`;
}
