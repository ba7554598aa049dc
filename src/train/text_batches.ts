/** A text's windows as a run's batches. */
import { evenWindows, randomWindows, trainTestSplit, type TextWindows } from "../data/windows.js";
import type { Hash } from "../io/digest.js";
import { ArgumentError } from "../runtime/errors.js";
import type { Batches, BatchesOf, CountedBatch, WeightedBatch } from "./batches.js";
import type { TextSettings } from "./settings.js";

/**
 * Held-out windows where the settings do not say: so many that a pass takes 10^12 operations, two for each weight and
 * token, under a minute of one core, but at least 4, and at most what three digits of perplexity need.
 */
const TEST_OPERATIONS = 1e12;
const [FEWEST_WINDOWS, MOST_WINDOWS] = [4, 128];

/** Random windows of the beginning of a text, and even ones of its end. @internal */
export class TextBatches implements Batches {
  readonly train: Int32Array;
  readonly test: Int32Array;
  readonly steps: number;
  readonly stepsPerEpoch = null;
  readonly #windows: readonly TextWindows[];
  #last: { step: number; shards: readonly CountedBatch[] } | undefined;

  /** @throws ArgumentError for what is no such text, or one too short */
  constructor(
    where: string,
    tokens: Int32Array | readonly number[],
    private readonly settings: TextSettings,
    model: BatchesOf,
  ) {
    const { seq, steps, testSize, testWindows } = settings;
    this.steps = steps;
    if (seq > model.maxPositionEmbeddings) {
      throw new ArgumentError(
        `${where}: seq = ${seq} is longer than the model's ${model.maxPositionEmbeddings} positions; lower seq.`,
      );
    }
    ({ train: this.train, test: this.test } = trainTestSplit(tokens, testSize));
    this.#check(where, model.vocabSize);
    const most = testWindows === "auto" ? windowsFor(model.weights, seq) : testWindows;
    this.#windows = testSize === 0 ? [] : evenWindows(this.test, seq, most);
  }

  get evaluations(): number {
    return this.#windows.length;
  }

  shards(step: number): readonly CountedBatch[] {
    if (this.#last?.step !== step) {
      const { batch, accumulation, seq, seed } = this.settings;
      const all = randomWindows(this.train, step, { batch: batch * accumulation, seq, seed });
      const part = (values: Int32Array, i: number): Int32Array =>
        values.subarray(i * batch * seq, (i + 1) * batch * seq);
      const shards = Array.from({ length: accumulation }, (_, i) =>
        this.#batch({ ids: part(all.ids, i), targets: part(all.targets, i) }, batch),
      );
      this.#last = { step, shards };
    }
    return this.#last.shards;
  }

  evaluation(index: number): WeightedBatch {
    return { ...this.#batch(this.#windows[index]!, 1), weight: 1 };
  }

  update(hash: Hash): void {
    hash.update(this.train);
    hash.update(this.test);
  }

  #batch({ ids, targets }: TextWindows, batch: number): CountedBatch {
    const shape: [number, number] = [batch, this.settings.seq];
    return { ids, targets, attentionMask: null, shape, scored: ids.length, tokens: ids.length };
  }

  #check(where: string, vocabSize: number): void {
    const { train, test } = this;
    const { seq, testSize } = this.settings;
    for (const [part, from] of [
      [train, 0],
      [test, train.length],
    ] as const) {
      const bad = part.findIndex((id) => id < 0 || id >= vocabSize);
      if (bad >= 0)
        throw new ArgumentError(
          `${where}: tokens holds ${part[bad]} at position ${from + bad}; expected an id in 0 .. ${vocabSize - 1}, ` +
            `the model's vocabulary.`,
        );
    }
    if (train.length > seq && (test.length > seq || testSize === 0)) return;
    throw new ArgumentError(
      `${where}: tokens has ${train.length + test.length} tokens, of which ${test.length} are held out; both parts ` +
        `must be longer than seq = ${seq}. Lower seq, give a longer text, or hold out less (testSize, ${testSize} ` +
        `here; 0: nothing).`,
    );
  }
}

function windowsFor(weights: number, seq: number): number {
  return Math.min(MOST_WINDOWS, Math.max(FEWEST_WINDOWS, Math.floor(TEST_OPERATIONS / (2 * weights * seq))));
}
