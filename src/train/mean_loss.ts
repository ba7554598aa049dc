/** The mean loss of held-out batches, the one way in which it is computed. */
import type { WeightedBatch } from "./batches.js";

/**
 * The mean over batches, each counting as much as its weight: sums in float64, batches ascending.
 * @param lossOf the mean loss of a batch
 * @param onBatch called after each with those that are done, and all
 * @internal
 */
export function meanLoss(
  batches: number,
  batchAt: (index: number) => WeightedBatch,
  lossOf: (batch: WeightedBatch) => number,
  onBatch?: (done: number, total: number) => void,
): number {
  let sum = 0;
  let weights = 0;
  for (let i = 0; i < batches; i++) {
    const batch = batchAt(i);
    sum += batch.weight * lossOf(batch);
    weights += batch.weight;
    onBatch?.(i + 1, batches);
  }
  return sum / weights;
}
