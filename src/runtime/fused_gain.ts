/** What fused arithmetic would gain on this machine: one product in either, side by side, in a tenth of a second. */
import { loadModule } from "#load";
import { instantiate, type Engine } from "./engine.js";
import { EngineError } from "./errors.js";

/** C [M, N] = A [M, K] W [N, K]ᵀ, less than a millisecond: what a layer makes of a few texts, in the nearer caches. */
const [M, N, K] = [64, 384, 384];
/** For all of it: both builds are compiled, and each chooses its tile. */
const LIMIT_MS = 100;
/** Rounds without improvement. */
const SETTLED = 20;

/**
 * How many times as fast matrix products are in fused arithmetic, on one thread; 1 where it is not to be had, and where
 * nothing can be told. @internal
 */
export async function fusedGain(): Promise<number> {
  const end = performance.now() + LIMIT_MS;
  const engines: Engine[] = [];
  try {
    for (const fused of [false, true]) engines.push(instantiate(await loadModule({ fused, shared: false })));
    const fastest = [Infinity, Infinity];
    let same = 0;
    for (; same < SETTLED && performance.now() < end; same++)
      for (const [i, engine] of engines.entries()) {
        const time = timeOf(engine);
        if (time < 0.98 * fastest[i]!) same = 0;
        fastest[i] = Math.min(fastest[i]!, time);
      }
    // A machine with other work to do leaves no time to know, and a clock that stands still tells nothing.
    return same === SETTLED && fastest[1]! > 0 ? fastest[0]! / fastest[1]! : 1;
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    return 1;
  } finally {
    for (const engine of engines) engine.close();
  }
}

function timeOf({ kernels, memory, scratch }: Engine): number {
  return memory.withBlocks([4 * M * N, 4 * M * K, 4 * N * K], (c, a, b) => {
    const sizes = { m: M, n: N, k: K, ldc: N, lda: K, ldb: K };
    const start = performance.now();
    kernels.sgemmNT({ c, a, b, ...sizes, alpha: 1, beta: 0, scratch });
    return performance.now() - start;
  });
}
