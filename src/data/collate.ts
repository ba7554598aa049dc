/** Rows of different lengths as one batch: padded, a row each, or packed, end to end in one. */
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkBoolean, checkInteger } from "../tensor/check.js";
import { checkRow, countScored, IGNORED, type TrainingRow } from "./labels.js";

/** Options of `collate`. */
export interface CollateOptions {
  /** Whether the rows lie end to end in one; otherwise each is one, filled up on the right. */
  packing: boolean;
  /** What fills up the shorter rows: the model's config.padTokenId. Models do not look at it. Default 0. */
  padTokenId?: number | undefined;
}

/** A batch as `model.loss(ids, targets, { attentionMask })` takes it, each of `shape`. */
export interface Batch {
  /** The rows' tokens but the last of each. */
  ids: Int32Array;
  /** What follows each of `ids`; -100 where that is not scored. */
  targets: Int32Array;
  /** 0 where there is padding; the texts of a packed row have numbers of their own, from 1 on. null: of one row. */
  attentionMask: Int32Array | null;
  /** [batch, steps] */
  shape: [number, number];
  /** Targets that are scored. */
  scored: number;
}

/**
 * Tokenised rows as one batch. A row of n tokens takes n - 1 places, since nothing follows its last. Packed or not, a
 * model's loss and its gradients are the same bits; packed, there is no padding to compute.
 *
 * Source: transformers, DataCollatorForSeq2Seq and DataCollatorWithFlattening; TRL's packing, whose texts do not see
 * each other.
 * @param rows at least one, each of two tokens or more
 * @throws ArgumentError for what are no such rows or options
 *
 * @example
 * const row = (...ids) => ({ ids: Int32Array.from(ids), labels: Int32Array.from(ids), where: "rows" });
 * const rows = [row(5, 6, 7), row(8, 9)];
 * const packed = data.collate(rows, { packing: true });
 * console.log(packed.ids, packed.attentionMask); // Int32Array(3) [ 5, 6, 8 ] Int32Array(3) [ 1, 1, 2 ]
 * console.log(data.collate(rows, { packing: false }).targets); // Int32Array(4) [ 6, 7, 9, -100 ]
 */
export function collate(rows: readonly TrainingRow[], options: CollateOptions): Batch {
  const where = "collate";
  checkOptions(where, options, ["packing", "padTokenId"]);
  const { packing, padTokenId = 0 } = options ?? ({} as CollateOptions);
  checkBoolean(where, "packing", packing);
  checkInteger(where, "padTokenId", padTokenId, 0, 2147483647);
  if (!Array.isArray(rows) || rows.length === 0)
    throw new ArgumentError(`${where}: rows must be a list of at least one tokenised row; got ${shown(rows)}.`);
  const lengths = rows.map((row: TrainingRow, i) => placesOf(where, row, i));
  const longest = lengths.reduce((a, b) => Math.max(a, b), 0);
  const shape: [number, number] = packing ? [1, lengths.reduce((a, b) => a + b, 0)] : [rows.length, longest];
  const size = shape[0] * shape[1];
  const ids = new Int32Array(size).fill(padTokenId);
  const targets = new Int32Array(size).fill(IGNORED);
  const texts = new Int32Array(size);
  let at = 0;
  for (const [i, { ids: tokens, labels }] of rows.entries()) {
    const places = lengths[i]!;
    ids.set(tokens.subarray(0, places), at);
    targets.set(labels.subarray(1), at);
    texts.fill(packing ? i + 1 : 1, at, at + places);
    at += packing ? places : longest;
  }
  return {
    ids,
    targets,
    attentionMask: rows.length === 1 ? null : texts,
    shape,
    scored: rows.reduce((n, row: TrainingRow) => n + countScored(row), 0),
  };
}

/** Places that a row takes in a batch. @throws ArgumentError for what is no tokenised row */
function placesOf(where: string, row: TrainingRow, i: number): number {
  checkRow(where, `rows[${i}]`, row);
  const { ids, where: place } = row;
  if (ids.length < 2)
    throw new ArgumentError(
      `${where}: rows[${i}] (${place}) has ${ids.length} tokens; expected at least 2, one to predict from and one to ` +
        `predict.`,
    );
  return ids.length - 1;
}
