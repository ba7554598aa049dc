/** Parts of kernels bare, as assembly/probes.ts exports them, on a memory of their own. */
import { LinearMemory } from "../../src/runtime/memory.js";
import { probesModule } from "./probes_module.js";

export type Probe = "exp" | "log" | "tanh" | "erf" | "sin" | "cos";

export interface Probes {
  memory: LinearMemory;
  /** y, x: addresses of n floats. */
  kernels: Record<Probe, (y: number, x: number, n: number) => void> & {
    log64: (x: number) => number;
    mtStateBytes: () => number;
    mtSeed: (state: number, seed: number) => void;
    /** out: address of n words. */
    mtFill: (out: number, state: number, n: number) => void;
  };
}

export async function loadProbes(): Promise<Probes> {
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 65536 });
  const { exports } = await WebAssembly.instantiate(await probesModule(), { env: { memory } });
  const { heapBase, ...kernels } = exports as Probes["kernels"] & { heapBase: () => number };
  return { memory: new LinearMemory(memory, heapBase()), kernels };
}
