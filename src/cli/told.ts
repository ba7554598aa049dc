/** What the command finetune says of a run, before it and after it. */
import { engine } from "../runtime/engine.js";
import { fusedGain } from "../runtime/fused_gain.js";
import { count, cut, megabytes, oneLine, perplexity, perplexityChange, quote } from "./format.js";
import type { RowsWatch } from "./data.js";
import { lossCurveText } from "./plot.js";
import { announce, passProgress, textProgress } from "./progress.js";
import type { Run, RunWatch } from "./run.js";
import { areOfText } from "./settings.js";
import type { EncodingWatch } from "./text.js";

/** Says what is encoded, and on a terminal how far that has come: a long text takes seconds. */
function encodingWatch(path: string): EncodingWatch {
  let bar: ReturnType<typeof textProgress> | undefined;
  return {
    began: (characters, read) => {
      const as = read === "utf-8" ? "" : ` (read as ${read.toUpperCase()})`;
      console.log(`Encoding ${oneLine(path)}, ${count(characters)} characters${as} ...`);
    },
    progress: (done, all) => {
      if (done < all) (bar ??= textProgress(all)).at(done);
    },
    ended: () => bar?.stop(),
  };
}

/** The same of rows, file by file. */
function rowsWatch(): RowsWatch {
  let bar: ReturnType<typeof passProgress> | undefined;
  return {
    began: (file, rows) => {
      console.log(`Encoding ${oneLine(file)}, ${count(rows)} rows ...`);
      bar = passProgress("Encoding", rows);
    },
    progress: (done) => bar?.at(done),
    ended: () => bar?.stop(),
  };
}

function counted([name, value]: Run["counts"][number]): string {
  const words = name.toLowerCase();
  return `${value} ${value === "1" ? words.replace(/s\b/, "") : words}`;
}

/** Of a run's data. */
export function runWatch(path: string): RunWatch {
  return {
    encoding: encodingWatch(path),
    reading: (data) => {
      console.log(`Reading ${oneLine(data)} ...`);
    },
    rows: rowsWatch(),
  };
}

/** A run's model, data, length and memory. */
export function describe({ training, settings, counts, plan }: Run): void {
  const { adapted } = training;
  const [trainable, all] = adapted.getNbTrainableParameters();
  console.log(
    `Model ${oneLine(settings.model)}: ${count(all - trainable)} weights frozen, ${count(trainable)} trained ` +
      `(${((100 * trainable) / all).toFixed(2)} %), r = ${settings.r}`,
  );
  console.log(`Data ${oneLine(settings.data)}: ${counts.map(counted).join(", ")}`);
  const { evalEvery, accumulation } = training.settings;
  const steps = (n: number): string => `${count(n)} ${n === 1 ? "step" : "steps"}`;
  console.log(
    `Training: ${steps(training.steps)}${accumulation > 1 ? ` of ${accumulation} shards` : ""}, learning rate ` +
      `${training.learningRate}${evalEvery > 0 ? `, an evaluation every ${steps(evalEvery)}` : ""}`,
  );
  const { threads, arithmetic } = engine();
  console.log(`Kernels: ${threads === 1 ? "1 thread" : `${threads} threads`}, ${arithmetic} arithmetic`);
  console.log(
    `Memory: ${megabytes(plan.peak)} MB at the peak, as planned (weights ${megabytes(plan.weights)}, adapter ` +
      `${megabytes(plan.adapters)}, ` +
      `optimiser ${megabytes(plan.optimiser)}, activations ` +
      `${megabytes(plan.activations)}${adapted.model.gradientCheckpointing ? " between checkpoints" : ""})`,
  );
}

/** What fused arithmetic would gain on this machine, in words; undefined where that is hardly anything. */
export function gainInWords(gain: number): string | undefined {
  if (gain < 1.1) return undefined;
  return (
    "This processor fuses multiply-adds: with --fused matrix products would be about " +
    `${gain.toFixed(1)} times as fast (other last bits).`
  );
}

/** Says so to somebody who waits and could have it: a run that begins in the default arithmetic. */
export async function tellGain(): Promise<void> {
  if (!process.stderr.isTTY || engine().arithmetic === "fused") return;
  const words = gainInWords(await fusedGain());
  if (words !== undefined) announce(words);
}

/** Characters of what was asked that fit a terminal. */
const MOST_SHOWN = 300;

/** What came of it. */
export function conclude(
  { training, settings, samples }: Run,
  before: readonly string[],
  after: readonly string[],
): void {
  const { evaluations, losses } = training;
  const [first, last] = [evaluations[0], training.best ?? evaluations.at(-1)];
  console.log();
  if (first && last)
    console.log(
      `Held-out perplexity after: ${perplexity(last.loss)} (before: ${perplexity(first.loss)}; ` +
        `${perplexityChange(first.loss, last.loss)})${last.step === losses.length ? "" : `, of step ${last.step}`}`,
    );
  for (const [i, { shown, reference }] of samples.entries()) {
    if (!areOfText(settings)) {
      console.log(`Asked: ${quote(cut(shown.at(-1)?.text ?? "", MOST_SHOWN))}`);
      console.log(`Sample before: ${quote(before[i]!)}`);
    }
    console.log(`Sample after: ${quote(after[i]!)}`);
    if (reference !== null) console.log(`In the data: ${quote(reference)}\n`);
  }
  console.log(`\n${lossCurveText(losses)}\n`);
}
