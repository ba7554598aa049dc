/** metrics.jsonl: an object a line for each step and each evaluation, in their order, as they come. */
import { appendText, writeAtomic } from "../io/files.js";
import type { Finetuning } from "../train/finetuning.js";

/** Of a run, in its folder. It says what the run has done since, on from what the run knows when this is made. */
export class MetricsFile {
  readonly #path: string;
  readonly #training: Finetuning;
  #steps = 0;
  #evaluations = 0;

  /**
   * The file is written anew: a killed run has left more lines in it than its checkpoint knows of, or a part of one.
   * @throws FileError
   */
  constructor(out: string, training: Finetuning) {
    this.#path = `${out}/metrics.jsonl`;
    this.#training = training;
    writeAtomic(this.#path, this.#news());
  }

  /** Writes what is new. @throws FileError */
  update(): void {
    appendText(this.#path, this.#news());
  }

  #news(): string {
    const { metrics, evaluations } = this.#training;
    const lines: string[] = [];
    const measured = (step: number): void => {
      for (let next = evaluations[this.#evaluations]; next?.step === step; next = evaluations[++this.#evaluations])
        lines.push(JSON.stringify({ step, evalLoss: next.loss }));
    };
    measured(this.#steps);
    while (this.#steps < metrics.length) {
      lines.push(JSON.stringify(metrics[this.#steps++]));
      measured(this.#steps);
    }
    return lines.map((line) => `${line}\n`).join("");
  }
}
