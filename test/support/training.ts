/** What tests of runs share: a model, what it is trained on, runs to their end, and states that must be the same. */
import assert from "node:assert/strict";
import { manualSeed, models, type data, type nn, type train } from "../../src/index.js";
import { assertBits } from "./golden.js";
import { LLAMA } from "./language_models.js";

/** The same weights each time. */
export function llama(): models.Llama {
  manualSeed(1);
  return new models.Llama(LLAMA);
}

/** A text of as many tokens of its vocabulary. */
export function trainingTokens(count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (i * i * 7 + (i % 5)) % LLAMA.vocabSize);
}

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

/** That a run has learned what a model has that the same loop was written out for, to the bit. */
export function learned(run: train.Finetuning, adapted: nn.Module): void {
  const { factors } = run.state();
  const trained = [...adapted.namedParameters()].filter(([, p]) => p.requiresGrad);
  assert.equal(factors.size, trained.length);
  for (const [key, p] of trained) assertBits(key, factors.get(key)!.data, p.data);
}

/** Takes a run's steps and measures it, each where it is due. */
export function finish(run: train.Finetuning): train.Finetuning {
  for (;;) {
    if (run.isEvaluationDue) run.evaluate();
    if (run.isComplete) return run;
    run.step();
  }
}
