/** A text's tokens as training batches and as evaluation windows; targets are one token later than ids. */
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkInteger } from "../tensor/check.js";

/** Token ids and what follows each: windows one after the other. */
export interface TextWindows {
  /** int32 ids. */
  ids: Int32Array;
  /** The id after each of `ids` in the text. */
  targets: Int32Array;
}

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
 * number of starts, so any step's batch can be drawn without those before it, and a resumed run goes on as it would have.
 *
 * Source: the generator is Salmon et al. 2011.
 * @throws ArgumentError if tokens has not more than seq tokens, or on a number out of range
 *
 * @example
 * const { ids, targets } = models.randomWindows(Int32Array.from({ length: 1000 }, (_, i) => i), 0, { batch: 8, seq: 64, seed: 0 });
 * console.log(ids.length, targets[0] === ids[0] + 1); // 512 true
 */
export function randomWindows(tokens: Int32Array, step: number, options: RandomWindowsOptions): TextWindows {
  const { batch, seq, seed } = options;
  checkInteger("randomWindows", "step", step, 0, 4294967295);
  checkInteger("randomWindows", "batch", batch, 1);
  checkInteger("randomWindows", "seed", seed, 0);
  checkLength("randomWindows", tokens, seq);
  const { kernels, memory } = engine();
  const ids = new Int32Array(batch * seq), targets = new Int32Array(batch * seq);
  const out = memory.alloc(16);
  for (let row = 0; row < batch; row++) {
    kernels.philox4x32(out, step, row, 0, 0, seed % 4294967296, Math.floor(seed / 4294967296));
    const start = (memory.i32(out, 1)[0]! >>> 0) % (tokens.length - seq);
    ids.set(tokens.subarray(start, start + seq), row * seq);
    targets.set(tokens.subarray(start + 1, start + seq + 1), row * seq);
  }
  memory.free(out);
  return { ids, targets };
}

/**
 * At most `most` windows of `seq` tokens that do not overlap, spread evenly: what a held-out loss is the mean over.
 * @throws ArgumentError as `randomWindows`
 *
 * @example
 * const windows = models.evenWindows(Int32Array.from({ length: 101 }, (_, i) => i), 10, 5);
 * console.log(windows.map(({ ids }) => ids[0]).join(" ")); // 0 20 40 60 80
 */
export function evenWindows(tokens: Int32Array, seq: number, most: number): TextWindows[] {
  checkInteger("evenWindows", "most", most, 1);
  checkLength("evenWindows", tokens, seq);
  const all = Math.floor((tokens.length - 1) / seq), used = Math.min(all, most);
  return Array.from({ length: used }, (_, i) => {
    const start = Math.floor(i * all / used) * seq;
    return { ids: tokens.slice(start, start + seq), targets: tokens.slice(start + 1, start + seq + 1) };
  });
}

function checkLength(where: string, tokens: Int32Array, seq: number): void {
  checkInteger(where, "seq", seq, 1);
  if (tokens.length <= seq) throw new ArgumentError(`${where}: tokens has ${tokens.length} tokens; expected more than seq = ${seq}.`);
}
