/** Rows of token ids with what of them is scored. */
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";

/** A row to train on. */
export interface TrainingRow {
  /** Its tokens. */
  ids: Int32Array;
  /** Each of `ids` that is scored, and -100 for the others, as Hugging Face's labels. */
  labels: Int32Array;
  /** Its place, for errors: "chats.jsonl:12". */
  where: string;
}

/** Tokens of a text: the first, and the one behind the last. */
export type Span = readonly [start: number, end: number];

/** Why a row cannot be trained on, as a clause. */
export class Unusable extends Error {}

/** The label of what is not scored (torch's ignore_index). */
export const IGNORED = -100;

/** @throws ArgumentError for what is no tokenised row */
export function checkRow(where: string, name: string, row: unknown): asserts row is TrainingRow {
  const { ids, labels } = (row ?? {}) as Partial<TrainingRow>;
  if (!(ids instanceof Int32Array && labels instanceof Int32Array && ids.length === labels.length))
    throw new ArgumentError(
      `${where}: ${name} must be { ids, labels, where } with an Int32Array of ids and one of as many labels; got ` +
        `${shown(row)}.`,
    );
}

/** How many tokens of a row are scored. The first is nobody's target. */
export function countScored({ labels }: TrainingRow): number {
  let n = 0;
  for (let i = 1; i < labels.length; i++) if (labels[i] !== IGNORED) n++;
  return n;
}

/** @throws Unusable for a row that teaches nothing */
export function checkScored(row: TrainingRow): TrainingRow {
  if (countScored(row) === 0) throw new Unusable("no token of it is scored");
  return row;
}

/** A row whose tokens in `spans` are scored, but for those in `without`. @throws Unusable if these are none */
export function scoredRow(
  where: string,
  ids: readonly number[],
  spans: readonly Span[],
  without: readonly Span[] = [],
): TrainingRow {
  const labels = new Int32Array(ids.length).fill(IGNORED);
  for (const [start, end] of spans) for (let i = start; i < end; i++) labels[i] = ids[i]!;
  for (const [start, end] of without) labels.fill(IGNORED, start, end);
  return checkScored({ ids: Int32Array.from(ids), labels, where });
}

/** A row's beginning, if it is longer than that. @throws Unusable if nothing of that is scored */
export function cutRow(row: TrainingRow, maxLength: number): TrainingRow {
  if (row.ids.length <= maxLength) return row;
  const cut = { ids: row.ids.slice(0, maxLength), labels: row.labels.slice(0, maxLength), where: row.where };
  if (countScored(cut) === 0)
    throw new Unusable(`its first ${maxLength} of ${row.ids.length} tokens (maxLength) hold none that is scored`);
  return cut;
}
