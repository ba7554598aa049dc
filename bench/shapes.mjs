/** What is measured. A product's shape is [M, N, K]: C [M, N] = A [M, K] B [K, N]. */

export const PRODUCTS = [
  [128, 768, 768],
  [128, 3072, 768],
  [512, 2048, 2048],
  [512, 512, 512],
  [1024, 1024, 1024],
  [127, 769, 771],
  [8, 768, 768],
  [1, 768, 768],
  ...[1, 4, 8, 16, 64].map((r) => [128, r, 768]),
  ...[1, 4, 8, 16, 64].map((r) => [128, 768, r]),
];
/** N, d, k, r of a LoRA linear layer. */
export const LAYERS = [
  [128, 768, 768, 8],
  [128, 768, 3072, 8],
  [512, 2048, 2048, 16],
  [1, 768, 768, 8],
];
/** Bytes of the read sweep: the first two levels of cache, the third, and beyond. */
export const READS = [1 << 15, 1 << 19, 1 << 22, 1 << 26];

export const productFlops = ([m, n, k]) => 2 * m * n * k;
/** 4 N d k for the base layer's forward and dx, 2 N r (d + k) for forward, dx, and the factors' gradients each. */
export const stepFlops = ([n, d, k, r]) => 4 * n * d * k + 6 * n * r * (d + k);
export const fullFlops = ([n, d, k]) => 6 * n * d * k;

export function kindOf([m, n, k]) {
  if (m === 1) return "one row";
  if (m <= 8) return "8 rows";
  return Math.min(n, k) <= 64 ? "thin" : "large";
}

/** Models of the whole steps: a burst is so many steps and counts as its fastest one. */
export const MODELS = {
  base: { model: "the embedded base", batch: 8, seq: 128, rounds: 9, burst: 5 },
  small: { model: "SmolLM2-135M's shape", batch: 4, seq: 128, rounds: 3, burst: 1 },
  large: { model: "Qwen2.5-0.5B's shape", batch: 1, seq: 32, rounds: 3, burst: 1 },
};
