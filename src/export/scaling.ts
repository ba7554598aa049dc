/**
 * One scaling for all: targets know one alpha, or one factor. Modules that have another one get theirs folded into B,
 * times a power of two exactly, else with one rounding to float32.
 */
import type { Update } from "./source.js";

/** The value that most have; of several, the first. */
export function mostFrequent(values: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  let best = values[0] ?? 1;
  for (const [value, count] of counts) if (count > counts.get(best)!) best = value;
  return best;
}

/** The update at another scaling. */
export function atScaling(update: Update, scaling: number): Update {
  if (update.scaling === scaling) return update;
  const factor = update.scaling / scaling;
  return { ...update, scaling, b: update.b.map((value) => value * factor) };
}

/** The update at another rank, which is none smaller: what is added is zeros. */
export function atRank(update: Update, rank: number): Update {
  if (update.rank === rank) return update;
  const a = new Float32Array(rank * update.inputs);
  a.set(update.a);
  const b = new Float32Array(update.outputs * rank);
  for (let i = 0; i < update.outputs; i++) b.set(update.b.subarray(i * update.rank, (i + 1) * update.rank), i * rank);
  return { ...update, rank, a, b };
}
