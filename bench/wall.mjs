/** The walls of wall.ts as contestants of a race. */
import { wallBytes } from "#platform";

const TURNS = 20_000;
const TINY = 1e-12;
/** Floating-point operations of a turn. */
const CHAINS = { chains12: 96, chains13: 104 };
/** The module has 65 MiB; its data, none, would lie below. */
const BASE = 1024;

export const hasFma = () => WebAssembly.validate(wallBytes.fma);

export function openWall(kind = "plain") {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(wallBytes[kind]));
  return {
    /** [{ name, run, flops }], of which the fastest is the wall. */
    chains: Object.entries(CHAINS).map(([name, flops]) => ({
      name,
      run: () => {
        exports[name](TURNS, TINY);
      },
      flops: flops * TURNS,
    })),
    /** A read of `bytes`, at most 64 MiB, again and again: from the cache that holds them. */
    read(bytes) {
      // Pages that were never written are all one page of zeros to the operating system, which the first cache holds.
      new Uint8Array(exports.memory.buffer, BASE, bytes).fill(1);
      return () => {
        exports.read(BASE, bytes & -128);
      };
    },
  };
}
