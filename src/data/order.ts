/** Which rows a step takes: a seeded permutation each epoch, every row once, whatever came before. */
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkBoolean, checkInteger } from "../tensor/check.js";

/** Options of `rowsOfStep`. */
export interface RowsOfStepOptions {
  /** Rows a step. */
  batch: number;
  /** Integer in 0 .. 2^53 - 1. */
  seed: number;
  /** Whether rows of like lengths come together, so that padding them is cheap. Default false. */
  groupByLength?: boolean | undefined;
}

/** Batches of like lengths are made of so many batches' rows. */
const MEGABATCH = 50;

/**
 * Steps in which every row is taken once.
 * @param rows their number
 * @param batch rows a step
 * @throws ArgumentError on a number out of range
 *
 * @example
 * console.log(data.stepsPerEpoch(10, 4)); // 3
 */
export function stepsPerEpoch(rows: number, batch: number): number {
  const where = "stepsPerEpoch";
  checkInteger(where, "rows", rows, 1);
  checkInteger(where, "batch", batch, 1);
  return Math.ceil(rows / batch);
}

/**
 * The rows of a step, as indices: those of its place in its epoch's order, of which the last step takes what is left.
 * The order is a permutation that seed and epoch name, so any step's rows can be told without those before it, and a
 * resumed run goes on as it would have. With groupByLength the permutation's parts of 50 batches (fewer where that
 * would not be four parts) are sorted, longest first, and the longest row of all comes first.
 *
 * Source: torch.utils.data.RandomSampler; transformers, LengthGroupedSampler. The draws are Philox's, not torch's.
 * @param lengths of all rows, in tokens
 * @param step counted from 0 over all epochs
 * @throws ArgumentError without rows, or on a number out of range
 *
 * @example
 * const lengths = [3, 9, 4, 8, 5];
 * const epoch = [0, 1, 2].map((step) => data.rowsOfStep(lengths, step, { batch: 2, seed: 0 }));
 * console.log(epoch.map((rows) => rows.length), epoch.flat().sort().join("")); // [ 2, 2, 1 ] 01234
 */
export function rowsOfStep(lengths: readonly number[], step: number, options: RowsOfStepOptions): number[] {
  const where = "rowsOfStep";
  checkInteger(where, "step", step, 0, 4294967295);
  const { batch } = checkOrder(where, lengths, options);
  const steps = stepsPerEpoch(lengths.length, batch);
  const first = (step % steps) * batch;
  return orderOfEpoch(lengths, Math.floor(step / steps), options).slice(first, first + batch);
}

/** The rows of all steps of an epoch, one after the other; options are checked already. @internal */
export function orderOfEpoch(lengths: readonly number[], epoch: number, options: RowsOfStepOptions): number[] {
  const { batch, seed, groupByLength = false } = options;
  const order = permutation(lengths.length, { seed, round: epoch });
  return groupByLength ? grouped(lengths, order, batch) : order;
}

/** @returns the options */
function checkOrder(where: string, lengths: readonly number[], options: RowsOfStepOptions): RowsOfStepOptions {
  checkOptions(where, options, ["batch", "seed", "groupByLength"]);
  const { batch, seed, groupByLength = false } = options ?? ({} as RowsOfStepOptions);
  checkInteger(where, "batch", batch, 1);
  checkInteger(where, "seed", seed, 0);
  checkBoolean(where, "groupByLength", groupByLength);
  if (!Array.isArray(lengths) || lengths.length === 0)
    throw new ArgumentError(`${where}: lengths must be a list of at least one row's length; got ${shown(lengths)}.`);
  const bad = lengths.findIndex((length) => !Number.isSafeInteger(length) || length < 0);
  if (bad >= 0)
    throw new ArgumentError(`${where}: lengths[${bad}] must be a number of tokens; got ${shown(lengths[bad])}.`);
  return options;
}

/**
 * 0 .. count - 1 in a random order (Fisher and Yates, from the end): draw i is word i % 4 of Philox4x32(key = seed;
 * counter = floor(i / 4), round, stream, 0), modulo the places that are left.
 * @param of `round` numbers the orders of one purpose, `stream` the purposes; default 0 @internal
 */
export function permutation(count: number, of: { seed: number; round?: number; stream?: number }): number[] {
  const { seed, round = 0, stream = 0 } = of;
  const { kernels, memory } = engine();
  const order = Array.from({ length: count }, (_, i) => i);
  const out = memory.alloc(16);
  const words = memory.i32(out, 4);
  const [low, high] = [seed % 4294967296, Math.floor(seed / 4294967296)];
  for (let i = 0; i < count - 1; i++) {
    if (i % 4 === 0) kernels.philox4x32(out, i / 4, round, stream, 0, low, high);
    const last = count - 1 - i;
    const place = (words[i % 4]! >>> 0) % (last + 1);
    [order[last], order[place]] = [order[place]!, order[last]!];
  }
  memory.free(out);
  return order;
}

/** get_length_grouped_indices of an order. */
function grouped(lengths: readonly number[], order: readonly number[], batch: number): number[] {
  const size = batch * Math.max(1, Math.min(MEGABATCH, Math.floor(order.length / (4 * batch))));
  const all: number[] = [];
  for (let from = 0; from < order.length; from += size)
    for (const row of order.slice(from, from + size).sort((a, b) => lengths[b]! - lengths[a]!)) all.push(row);
  // The longest goes first, so that a step that does not fit into memory is the first one.
  let longest = 0;
  for (let from = size; from < all.length; from += size)
    if (lengths[all[from]!]! > lengths[all[longest]!]!) longest = from;
  [all[0], all[longest]] = [all[longest]!, all[0]!];
  return all;
}
