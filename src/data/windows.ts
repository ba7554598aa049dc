/**
 * A text's tokens as training batches, as evaluation windows and as what is held out for these; targets are one token
 * later than ids.
 */
import { engine } from "../runtime/engine.js";
import { show } from "../io/json.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkInteger, checkNumber } from "../tensor/check.js";

/** Token ids and what follows each: windows one after the other. */
export interface TextWindows {
  /** int32 ids. */
  ids: Int32Array;
  /** The id after each of `ids` in the text. */
  targets: Int32Array;
}

/** A text's token ids. A plain list is copied at each call: give an Int32Array where there are many. */
export type Tokens = Int32Array | readonly number[];

/** Options of `randomWindows`. */
export interface RandomWindowsOptions {
  /** Windows a batch. */
  batch: number;
  /** Tokens a window. */
  seq: number;
  /** Integer in 0 .. 2^53 - 1. */
  seed: number;
}

/**
 * The batch of a step: `batch` windows of `seq` tokens, one after the other in ids and targets, both for
 * shape [batch, seq]. Row r starts at the first word of Philox4x32(key = seed; counter = step, r, 0, 0) modulo the
 * number of starts, so any step's batch can be drawn without those before it, and a resumed run goes on as it would
 * have.
 *
 * Source: the generator is Salmon et al. 2011.
 * @param tokens a text's ids; a plain list is copied at each call, so give an Int32Array where there are many
 * @throws ArgumentError if tokens has not more than seq tokens, or on a number out of range
 *
 * @example
 * const text = Int32Array.from({ length: 1000 }, (_, i) => i);
 * const { ids, targets } = data.randomWindows(text, 0, { batch: 8, seq: 64, seed: 0 });
 * console.log(ids.length, targets[0] === ids[0] + 1); // 512 true
 */
export function randomWindows(
  tokens: Int32Array | readonly number[],
  step: number,
  options: RandomWindowsOptions,
): TextWindows {
  const where = "randomWindows";
  if (options === undefined) throw new ArgumentError(`${where}: options are needed: { batch, seq, seed }.`);
  checkOptions(where, options, ["batch", "seq", "seed"]);
  const { batch, seq, seed } = options;
  checkInteger(where, "step", step, 0, 4294967295);
  checkInteger(where, "batch", batch, 1);
  checkInteger(where, "seed", seed, 0);
  const all = checkLength(where, tokens, seq);
  const { kernels, memory } = engine();
  // Refused here, before the arrays of ids and targets are made, which as tensors would not fit either.
  if (8 * batch * seq > memory.limit)
    throw new ArgumentError(
      `${where}: batch = ${batch} of seq = ${seq} tokens take ${8 * batch * seq} bytes; there are ${memory.limit} ` +
        `at most. Lower batch.`,
    );
  const ids = new Int32Array(batch * seq);
  const targets = new Int32Array(batch * seq);
  const out = memory.alloc(16);
  for (let row = 0; row < batch; row++) {
    kernels.philox4x32(out, step, row, 0, 0, seed % 4294967296, Math.floor(seed / 4294967296));
    const start = (memory.i32(out, 1)[0]! >>> 0) % (all.length - seq);
    ids.set(all.subarray(start, start + seq), row * seq);
    targets.set(all.subarray(start + 1, start + seq + 1), row * seq);
  }
  memory.free(out);
  return { ids, targets };
}

/**
 * At most `most` windows of `seq` tokens that do not overlap, spread evenly: what a held-out loss is the mean over.
 * @throws ArgumentError as `randomWindows`
 *
 * @example
 * const windows = data.evenWindows(Int32Array.from({ length: 101 }, (_, i) => i), 10, 5);
 * console.log(windows.map(({ ids }) => ids[0]).join(" ")); // 0 20 40 60 80
 */
export function evenWindows(tokens: Int32Array | readonly number[], seq: number, most: number): TextWindows[] {
  checkInteger("evenWindows", "most", most, 1);
  const ids = checkLength("evenWindows", tokens, seq);
  const all = Math.floor((ids.length - 1) / seq);
  const used = Math.min(all, most);
  return Array.from({ length: used }, (_, i) => {
    const start = Math.floor((i * all) / used) * seq;
    return { ids: ids.slice(start, start + seq), targets: ids.slice(start + 1, start + seq + 1) };
  });
}

/**
 * A text's tokens cut in two: what is trained on, and the end of the text, held out to measure on. Both are views of
 * an Int32Array, where tokens is one.
 *
 * Source: Hugging Face datasets, Dataset.train_test_split with shuffle=False.
 * @param testSize the share that is held out, 0 .. 1 without 1. Default 0.1
 * @throws ArgumentError for what is no list of token ids, or a share out of range
 *
 * @example
 * const { train, test } = data.trainTestSplit(Int32Array.from({ length: 101 }, (_, i) => i));
 * console.log(train.length, test.length, test[0]); // 90 11 90
 */
export function trainTestSplit(
  tokens: Int32Array | readonly number[],
  testSize = 0.1,
): {
  /** The beginning of the text. */
  train: Int32Array;
  /** The end of it. */
  test: Int32Array;
} {
  const where = "trainTestSplit";
  checkNumber(where, "testSize", testSize, 0, 1);
  if (testSize === 1) throw new ArgumentError(`${where}: testSize must be below 1; got 1.`);
  const ids = checkTokens(where, tokens);
  const cut = Math.floor(ids.length * (1 - testSize));
  return { train: ids.subarray(0, cut), test: ids.subarray(cut) };
}

/** The tokens, of which a window takes seq and one more. */
function checkLength(where: string, tokens: Int32Array | readonly number[], seq: number): Int32Array {
  checkInteger(where, "seq", seq, 1);
  const ids = checkTokens(where, tokens);
  if (ids.length <= seq)
    throw new ArgumentError(`${where}: tokens has ${ids.length} tokens; expected more than seq = ${seq}.`);
  return ids;
}

/** The tokens as they are, or those of a plain list as int32. */
function checkTokens(where: string, tokens: Int32Array | readonly number[]): Int32Array {
  if (!(tokens instanceof Int32Array || Array.isArray(tokens))) {
    const got =
      typeof tokens === "string" ? "a text; encode it first: data.loadTokenizer(folder).encode(text)" : shown(tokens);
    throw new ArgumentError(`${where}: tokens must be an Int32Array or a list of token ids; got ${got}.`);
  }
  if (tokens instanceof Int32Array) return tokens;
  const bad = tokens.findIndex((id) => !Number.isInteger(id) || id < 0 || id > 2147483647);
  if (bad >= 0)
    throw new ArgumentError(`${where}: tokens holds ${show(tokens[bad])} at position ${bad}; expected a token id.`);
  return Int32Array.from(tokens);
}
