/** The steps of a run and what is measured of it, with a bar, signals and files beside them. */
import { engine } from "../runtime/engine.js";
import { ArgumentError, DivergedError } from "../runtime/errors.js";
import type { Finetuning } from "../train/finetuning.js";
import { perplexity } from "./format.js";
import type { FolderLock } from "./lock.js";
import type { MetricsFile } from "./metrics.js";
import { passProgress, trainingProgress, watched } from "./progress.js";
import type { Run } from "./run.js";
import { areOfText } from "./settings.js";
import { SIGNALS } from "./signals.js";

/** Whether nothing is left to do but to measure what was not asked for in between. */
export function isOver(training: Finetuning): boolean {
  return training.isComplete && !training.isEvaluationDue;
}

/**
 * Takes the steps that are left, and the evaluations that come between them. Returns false if the user stopped it;
 * either way the state is saved.
 */
export async function trainSteps(run: Run, metrics: MetricsFile, save: () => void, lock: FolderLock): Promise<boolean> {
  const { training, settings, work } = run;
  let stopped = false;
  const stop = (): void => {
    stopped = true;
  };
  for (const signal of SIGNALS) process.once(signal, stop);
  engine().memory.resetPeak();
  const progress = trainingProgress(training.steps, training.metrics.length);
  try {
    let mark = performance.now();
    while (!isOver(training) && !stopped) {
      if (training.isEvaluationDue) {
        progress.aside(() => judge(run, lock));
      } else {
        const before = training.metrics.length;
        const loss = watched(
          work.step,
          (share) => {
            progress.at(before + share);
            lock.keep();
          },
          () => training.step(),
        );
        const rate = (training.metrics.at(-1)!.tokens / (performance.now() - mark)) * 1000;
        progress.at(before + 1, { loss: loss.toFixed(3), rate: Math.round(rate) });
      }
      mark = performance.now();
      metrics.update();
      const isAtCheckpoint = training.metrics.length % settings.checkpointEvery === 0;
      if (isAtCheckpoint && !training.isEvaluationDue && !isOver(training)) save();
      lock.keep();
      // Lets signals and the terminal in.
      await new Promise((resolve) => setImmediate(resolve));
    }
    save();
  } finally {
    progress.stop();
    for (const signal of SIGNALS) process.off(signal, stop);
  }
  return !stopped;
}

/** An evaluation between steps. */
function judge(run: Run, lock: FolderLock): void {
  const { training } = run;
  const steps = training.metrics.length;
  const loss = evaluate(run, `Evaluation after step ${steps}`, lock);
  const { best } = training;
  const place = best?.step === steps ? "the best so far" : `best: ${best!.loss.toFixed(3)} after step ${best!.step}`;
  console.log(
    `Held out after step ${steps}: loss ${loss.toFixed(3)}, perplexity ${perplexity(loss)} (${place})` +
      `${training.stoppedEarly ? "; no better in a while, so the run stops" : ""}`,
  );
}

/** What is held out, before training or after it. */
export function measure(run: Run, when: "before" | "after", lock: FolderLock): void {
  const { evaluationBatches } = run.training;
  if (evaluationBatches === 0) return;
  const label = `Held-out loss ${when}`;
  const [one, many] = areOfText(run.settings) ? ["window", "windows"] : ["batch", "batches"];
  console.log(`${label}: ${evaluationBatches} ${evaluationBatches === 1 ? one : many} ...`);
  try {
    evaluate(run, label, lock);
  } catch (error) {
    if (when === "before" && error instanceof DivergedError)
      throw new ArgumentError(
        `finetune: ${error.reason}, not a finite number: the model's weights are damaged, or not this model's.`,
      );
    throw error;
  }
}

function evaluate({ training, work }: Run, label: string, lock: FolderLock): number {
  const all = training.evaluationBatches;
  const progress = passProgress(label, all);
  try {
    return watched(
      all * work.evaluation,
      (share) => {
        progress.at(share * all);
        lock.keep();
      },
      () => training.evaluate(),
    );
  } finally {
    progress.stop();
  }
}
