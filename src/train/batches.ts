/** What a run learns from, as batches: a text's windows, or rows. Every batch follows from its place alone. */
import type { Batch } from "../data/collate.js";
import type { TrainingRow } from "../data/labels.js";
import type { Hash } from "../io/digest.js";

/** What batches must know of the model. */
export interface BatchesOf {
  /** Number of token ids. */
  vocabSize: number;
  /** Longest sequence. */
  maxPositionEmbeddings: number;
  /** Number of weights. */
  weights: number;
}

/** Tokenised rows, with rows of their own to measure on, or without. */
export interface RowData {
  /** Rows to train on. */
  train: readonly TrainingRow[];
  /** Rows to measure on. Default: `testSize` of `train`, drawn by the seed, which are not trained on then. */
  test?: readonly TrainingRow[] | undefined;
}

/** A batch, and what it is made of. */
export interface CountedBatch extends Batch {
  /** Places that hold a token, not padding. */
  tokens: number;
}

/** A batch to measure on. */
export interface WeightedBatch extends Batch {
  /** What its mean loss counts for in the mean over all. */
  weight: number;
}

/** What a run learns from, and measures on. */
export interface Batches {
  /** What is trained on. */
  readonly train: Int32Array | readonly TrainingRow[];
  /** What is held out. */
  readonly test: Int32Array | readonly TrainingRow[];
  /** Steps in all. */
  readonly steps: number;
  /** Steps in which all is seen once; null: a text's windows are drawn. */
  readonly stepsPerEpoch: number | null;
  /** Batches that are held out. */
  readonly evaluations: number;
  /** The shards of a step, counted from 0. The same object is given for the same step again. */
  shards(step: number): readonly CountedBatch[];
  /** One of `evaluations`. */
  evaluation(index: number): WeightedBatch;
  /** Takes all that was given. */
  update(hash: Hash): void;
}
