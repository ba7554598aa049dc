/** The public face: nothing but re-exports. */
export { init, memoryStats, type Engine, type InitOptions } from "./runtime/engine.js";
export type { MemoryStats } from "./runtime/memory.js";
export * from "./runtime/errors.js";
