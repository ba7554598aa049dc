/** What was measured of a run so far, which of it is the best, and whether there is hope of better. */
import type { FinetuningSettings } from "./settings.js";

/** What is held out, measured after a step. */
export interface Evaluation {
  /** Steps taken before it. */
  step: number;
  /** Mean loss of the held-out tokens. */
  loss: number;
}

/** A run's evaluations, in the order of their steps. What else is asked follows from them. */
export class Evaluations {
  readonly #list: Evaluation[] = [];
  #best: Evaluation | null = null;
  #waited = 0;

  /** @param steps that the run has, unless it stops early */
  constructor(
    private readonly settings: Pick<FinetuningSettings, "evalEvery" | "patience" | "minDelta">,
    private readonly steps: number,
  ) {}

  get list(): readonly Evaluation[] {
    return this.#list;
  }

  /** The lowest, of equal ones the first; null: the run does not ask for it, or has none. */
  get best(): Evaluation | null {
    return this.#best;
  }

  /**
   * Whether `patience` evaluations in a row brought no better loss.
   *
   * Source: transformers, EarlyStoppingCallback, whose early_stopping_threshold is minDelta.
   */
  get isHopeless(): boolean {
    return this.settings.patience > 0 && this.#waited >= this.settings.patience;
  }

  /** Whether what is measured after so many steps belongs here, and is not here yet. */
  lacks(step: number): boolean {
    return this.#isKept(step) && this.#list.at(-1)?.step !== step;
  }

  /** Whether the run must be measured after so many steps before it goes on, or ends. */
  isDue(step: number): boolean {
    return this.settings.evalEvery > 0 && step > 0 && this.lacks(step);
  }

  #isKept(step: number): boolean {
    const { evalEvery } = this.settings;
    return step === 0 || step === this.steps || (evalEvery > 0 && step % evalEvery === 0);
  }

  /** @returns whether it is the best now */
  add(evaluation: Evaluation): boolean {
    this.#list.push(evaluation);
    if (this.settings.evalEvery === 0) return false;
    const { loss } = evaluation;
    const before = this.#best?.loss ?? Infinity;
    this.#waited = before - loss > this.settings.minDelta ? 0 : this.#waited + 1;
    if (loss >= before) return false;
    this.#best = evaluation;
    return true;
  }

  /**
   * Takes those of a run that has taken so many steps.
   * @param fail is told of one that no such run has
   */
  addAll(evaluations: readonly Evaluation[], taken: number, fail: (message: string) => never): void {
    for (const { step, loss } of evaluations) {
      if (!this.#isKept(step) || step > taken || step <= (this.#list.at(-1)?.step ?? -1))
        fail(`it has an evaluation after step ${step}, where the run has none`);
      this.add({ step, loss });
    }
  }
}
