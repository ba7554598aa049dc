/** Mulberry32 (Tommy Ettinger): fixed streams that are not the library's. */

/** 32-bit words. */
export function words(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Numbers in [0, 1). */
export function stream(seed: number): () => number {
  const next = words(seed);
  return () => next() / 2 ** 32;
}

/** Values in [-1, 1), multiples of 2^-23: float32 has them all. */
export function random(seed: number): () => number {
  const next = words(seed);
  return () => (next() >>> 8) * 2 ** -23 - 1;
}

export function randomArray(seed: number, length: number): Float32Array {
  return new Float32Array(length).map(random(seed));
}
