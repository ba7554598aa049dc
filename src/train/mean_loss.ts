/** The mean loss of held-out batches, the one way in which it is computed. */

/**
 * The mean over batches, each counting as much as its weight: sums in float64, batches ascending.
 * @param lossOf the mean loss of a batch
 * @param onBatch called after each with those that are done, and all
 * @internal
 */
export function meanLoss<Batch extends { readonly weight: number }>(
  batches: number,
  batchAt: (index: number) => Batch,
  lossOf: (batch: Batch) => number,
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
