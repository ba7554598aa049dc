/** Rows as a run's batches: each once an epoch, in an order that the seed draws. */
import { collate } from "../data/collate.js";
import { countScored, IGNORED, type TrainingRow } from "../data/labels.js";
import { orderOfEpoch, permutation, stepsPerEpoch } from "../data/order.js";
import type { Hash } from "../io/digest.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions, type Options } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkInteger, checkNumber } from "../tensor/check.js";
import type { Batches, BatchesOf, CountedBatch, RowData, WeightedBatch } from "./batches.js";
import { completeSettings, FINETUNING_DEFAULTS, type FinetuningSettings, type RowSettings } from "./settings.js";

/** Which of Philox's streams draws the rows that are held out; 0 draws the order of epochs. */
const HELD_OUT = 1;
/** Steps are numbered by 32 bits. */
const MOST_STEPS = 4294967296;

/**
 * Whether a run is given rows, not a text.
 * @throws ArgumentError for rows that are not named as such
 * @internal
 */
export function isRowData(where: string, data: unknown): data is RowData {
  if (typeof data !== "object" || data === null) return false;
  const advise = (got: string, advice: string): never => {
    throw new ArgumentError(`${where}: data must be a text's ids, or { train: rows }; got ${got}. Write ${advice}.`);
  };
  if ("rows" in data) advise("what tokenizeExamples gives", "{ train: tokenized.rows }");
  if (Array.isArray(data) && typeof data[0] === "object") advise("a list of rows", "{ train: rows }");
  return "train" in data;
}

/**
 * The settings of a run on these rows.
 * @throws ArgumentError as `completeSettings`, and for a share to hold out where there are rows to test on already
 * @internal
 */
export function rowSettings(where: string, data: RowData, given: Options<FinetuningSettings>): RowSettings {
  const settings = completeSettings(where, "rows", given);
  if (data.test === undefined) return settings;
  if (given.testSize !== undefined)
    throw new ArgumentError(
      `${where}: testSize = ${given.testSize} holds rows out of train, and there are rows to test on already; give ` +
        `one.`,
    );
  const { testSize: _, ...rest } = settings;
  return rest;
}

/**
 * How many of so many rows a run holds out: their share, rounded up, but one at least is left to train on. What
 * follows from the number of rows, such as steps between evaluations, can be told before there is a run.
 *
 * @param testSize the share, as the run's setting
 * @throws ArgumentError
 *
 * @example
 * console.log(train.heldOutRows(216), train.heldOutRows(1)); // 22 0
 */
export function heldOutRows(rows: number, testSize: number = FINETUNING_DEFAULTS.testSize): number {
  const where = "heldOutRows";
  checkInteger(where, "rows", rows, 1);
  checkNumber(where, "testSize", testSize, 0, 1);
  return Math.min(rows - 1, rows - Math.floor(rows * (1 - testSize)));
}

/** Rows in the order of their epochs; the last step of one takes what is left. @internal */
export class RowBatches implements Batches {
  readonly train: readonly TrainingRow[];
  readonly test: readonly TrainingRow[];
  readonly steps: number;
  readonly stepsPerEpoch: number;
  readonly #lengths: readonly number[];
  #epoch: { number: number; order: readonly number[] } | undefined;
  #last: { step: number; shards: readonly CountedBatch[] } | undefined;

  /**
   * @throws ArgumentError for what are no such rows, none to train on, or one that the model cannot take
   */
  constructor(
    where: string,
    data: RowData,
    readonly settings: RowSettings,
    model: Omit<BatchesOf, "weights">,
  ) {
    checkOptions(`${where}: rows`, data, ["train", "test"]);
    const { batch, accumulation, seed, testSize, epochs, steps } = settings;
    const all = checkRows(where, "train", data.train, model);
    if (all.length === 0)
      throw new ArgumentError(`${where}: there are no rows to train on; expected at least one in train.`);
    if (data.test === undefined) {
      const count = heldOutRows(all.length, testSize);
      const isTest = new Set(permutation(all.length, { seed, stream: HELD_OUT }).slice(0, count));
      this.train = all.filter((_, i) => !isTest.has(i));
      this.test = all.filter((_, i) => isTest.has(i));
    } else {
      this.train = all;
      this.test = checkRows(where, "test", data.test, model);
    }
    this.#lengths = this.train.map(({ ids }) => ids.length);
    this.stepsPerEpoch = stepsPerEpoch(this.train.length, batch * accumulation);
    this.steps = steps ?? Math.ceil(epochs! * this.stepsPerEpoch);
    if (this.steps > MOST_STEPS)
      throw new ArgumentError(
        `${where}: ${steps === undefined ? `epochs = ${epochs}` : `steps = ${steps}`} makes ${this.steps} steps; at ` +
          `most ${MOST_STEPS} can be numbered.`,
      );
  }

  get evaluations(): number {
    return Math.ceil(this.test.length / this.settings.batch);
  }

  shards(step: number): readonly CountedBatch[] {
    if (this.#last?.step !== step)
      this.#last = { step, shards: this.rowsOfShards(step).map((rows) => this.collate(rows)) };
    return this.#last.shards;
  }

  evaluation(index: number): WeightedBatch {
    const batch = this.collate(this.rowsOfEvaluation(index));
    return { ...batch, weight: batch.scored };
  }

  /** The rows of one of `evaluations`. */
  rowsOfEvaluation(index: number): readonly TrainingRow[] {
    const { batch } = this.settings;
    return this.test.slice(index * batch, (index + 1) * batch);
  }

  update(hash: Hash): void {
    for (const rows of [this.train, this.test]) {
      hash.update(Int32Array.of(rows.length));
      for (const { ids, labels } of rows) {
        hash.update(Int32Array.of(ids.length));
        hash.update(ids);
        hash.update(labels);
      }
    }
  }

  /** The rows of each shard of a step. */
  rowsOfShards(step: number): TrainingRow[][] {
    const { batch, accumulation, seed, groupByLength } = this.settings;
    const number = Math.floor(step / this.stepsPerEpoch);
    if (this.#epoch?.number !== number) {
      const options = { batch: batch * accumulation, seed, groupByLength };
      this.#epoch = { number, order: orderOfEpoch(this.#lengths, number, options) };
    }
    const first = (step % this.stepsPerEpoch) * batch * accumulation;
    const order = this.#epoch.order.slice(first, first + batch * accumulation);
    return Array.from({ length: Math.ceil(order.length / batch) }, (_, i) =>
      order.slice(i * batch, (i + 1) * batch).map((row) => this.train[row]!),
    );
  }

  /** These rows as one batch. */
  collate(rows: readonly TrainingRow[]): CountedBatch {
    const tokens = rows.reduce((n, { ids }) => n + ids.length - 1, 0);
    return { ...collate(rows, { packing: this.settings.packing }), tokens };
  }
}

/** @throws ArgumentError naming the row that is not one, or cannot be trained on @internal */
export function checkRows(
  where: string,
  part: string,
  rows: unknown,
  { vocabSize, maxPositionEmbeddings }: Omit<BatchesOf, "weights">,
): readonly TrainingRow[] {
  if (!Array.isArray(rows))
    throw new ArgumentError(`${where}: ${part} must be a list of tokenised rows; got ${shown(rows)}.`);
  for (const [i, row] of (rows as unknown[]).entries()) {
    const { ids, labels, where: place } = (row ?? {}) as Partial<TrainingRow>;
    const named = typeof place === "string" && place !== "" ? place : `${part}[${i}]`;
    const refuse = (what: string): never => {
      throw new ArgumentError(`${where}: ${named} ${what}.`);
    };
    if (!(ids instanceof Int32Array && labels instanceof Int32Array))
      return refuse(
        `must be { ids, labels, where }, of two Int32Arrays and a place, as data.tokenizeExamples gives it; got ` +
          `${shown(row)}`,
      );
    if (labels.length !== ids.length) refuse(`has ${ids.length} ids and ${labels.length} labels; expected as many`);
    if (ids.length < 2) refuse(`has ${ids.length} tokens; expected at least two, of which one predicts the other`);
    if (ids.length - 1 > maxPositionEmbeddings)
      refuse(
        `has ${ids.length} tokens; the model has ${maxPositionEmbeddings} positions. Tokenise with a lower maxLength`,
      );
    const strange = ids.findIndex((id) => id < 0 || id >= vocabSize);
    if (strange >= 0)
      refuse(`holds ${ids[strange]} at position ${strange}; expected an id in 0 .. ${vocabSize - 1}, the model's`);
    const wrong = labels.findIndex((label) => label !== IGNORED && (label < 0 || label >= vocabSize));
    if (wrong >= 0)
      refuse(`has the label ${labels[wrong]} at position ${wrong}; expected an id, or ${IGNORED} for one not scored`);
    if (countScored(row as TrainingRow) === 0) refuse("would train on nothing: no token after its first is scored");
  }
  return rows as TrainingRow[];
}
