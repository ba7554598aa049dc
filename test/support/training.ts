/** What tests of runs share: rows to train on, and states that must be the same. */
import assert from "node:assert/strict";
import type { data, train } from "../../src/index.js";
import { assertBits } from "./golden.js";

/** Rows of 3 to 12 tokens of a vocabulary, the first tokens of each not scored. */
export function trainingRows(count: number, vocabSize: number, first = 0): data.TrainingRow[] {
  return Array.from({ length: count }, (_, i) => {
    const n = first + i;
    const ids = Int32Array.from({ length: 3 + ((n * 7) % 10) }, (_, j) => (n * 13 + j * j * 5 + j) % vocabSize);
    const labels = ids.map((id, j) => (j < 1 + (n % 2) ? -100 : id));
    return { ids, labels, where: `rows.jsonl:${n + 1}` };
  });
}

/** That two runs stand at the same, to the bit. */
export function sameStates(a: train.FinetuningState, b: train.FinetuningState): void {
  assert.deepEqual(a.metrics, b.metrics);
  assert.deepEqual(a.evaluations, b.evaluations);
  assert.equal(a.bestFactors === null, b.bestFactors === null);
  for (const part of ["factors", "bestFactors", "optimizer"] as const) {
    const [one, other] = [a[part] ?? new Map(), b[part] ?? new Map()];
    assert.deepEqual([...one.keys()], [...other.keys()]);
    for (const [key, { data }] of one) assertBits(`${part} ${key}`, data, other.get(key)!.data);
  }
}
