/**
 * The register tile that this engine runs faster. Of two, one addresses A by offsets: V8 and SpiderMonkey gain some per
 * cent by it, JavaScriptCore loses a quarter (ARCHITECTURE.md). The bits are the same.
 */
import type { Kernels } from "./abi.js";
import type { LinearMemory } from "./memory.js";

/** C [M, 16] = A [M, K] B [K, 16], 0.1 ms: the clock of an isolated page has steps of 5 us, or of 20. */
const M = 768;
const K = 256;
/** Rounds without improvement, and the time for all: engines have optimised both after 2 to 10 ms (measured). */
const SETTLED = 10;
const LIMIT_MS = 20;

/** What it needs of an engine, which is not quite there yet. */
interface Stand {
  kernels: Pick<Kernels, "sgemmNN" | "useBigTile">;
  memory: Pick<LinearMemory, "f32" | "withBlocks">;
  scratch: number;
}

/** Makes it the one in use. @internal */
export function chooseTile({ kernels, memory, scratch }: Stand): void {
  // One row of A and one of C stand for all: in the nearest cache the tile alone counts.
  memory.withBlocks([4 * K, 64 * K, 64], (a, b, c) => {
    // Pages that were never written are all one page, which the cache serves in its own way.
    memory.f32(a, K).fill(0);
    memory.f32(b, 16 * K).fill(0);
    kernels.useBigTile(
      isFaster((big) => {
        kernels.useBigTile(big);
        kernels.sgemmNN({ c, a, b, m: M, n: 16, k: K, ldc: 0, lda: 0, ldb: 16, alpha: 1, beta: 0, scratch });
      }),
    );
  });
}

/** Whether `run(true)` is the faster one, for sure. */
function isFaster(run: (big: boolean) => void): boolean {
  const time = (big: boolean): number => {
    const start = performance.now();
    run(big);
    return performance.now() - start;
  };
  // Until neither improves any more: both are optimised then. A clock that stands still, as in workerd, or has steps of
  // 1 ms, as in some pages without cross-origin isolation, reads 0 and ends it.
  const fastest = [Infinity, Infinity] as [number, number];
  const end = performance.now() + LIMIT_MS;
  let same = 0;
  for (; same < SETTLED && fastest[0] > 0 && performance.now() < end; same++) {
    for (const i of [0, 1] as const) {
      const t = time(i === 1);
      if (t < 0.95 * fastest[i]) same = 0;
      fastest[i] = Math.min(fastest[i], t);
    }
  }
  // A tile that seems far ahead was compared with one that the engine had not optimised yet: then the default stays.
  const ratio = fastest[1] / fastest[0];
  return same === SETTLED && ratio < 1 && ratio > 0.6;
}
