/**
 * The register tile that this engine runs faster. Of two, one addresses A by offsets: V8 and SpiderMonkey gain some per
 * cent by it, JavaScriptCore loses a quarter (ARCHITECTURE.md). The bits are the same.
 */
import type { Engine } from "./engine.js";

/** C [M, 16] = A [M, K] B [K, 16], 0.1 ms: the clock of an isolated page has steps of 5 us, or of 20. */
const M = 768;
const K = 256;
/** Rounds without improvement, and the time for all: engines have optimised both after 2 to 10 ms (measured). */
const SETTLED = 10;
const LIMIT_MS = 20;

/** Makes it the one in use. @internal */
export function chooseTile({ kernels, memory, scratch: a }: Engine): void {
  // One row of A and one of C stand for all: in the nearest cache the tile alone counts.
  const b = a + 4 * K;
  const c = b + 64 * K;
  // Pages that were never written are all one page, which the cache serves in its own way.
  memory.f32(a, (c - a) / 4).fill(0);
  const time = (big: boolean): number => {
    kernels.useBigTile(big);
    const start = performance.now();
    kernels.sgemmNN(M, 16, K, 1, a, 0, b, 16, 0, c, 0, a);
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
  kernels.useBigTile(same === SETTLED && ratio < 1 && ratio > 0.6);
}
