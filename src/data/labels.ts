/** Rows of token ids with what of them is scored. */
import type { Span } from "./masks.js";
import { Unusable } from "./masks.js";

/** A row to train on. */
export interface TrainingRow {
  /** Its tokens. */
  ids: Int32Array;
  /** Each of `ids` that is scored, and -100 for the others, as Hugging Face's labels. */
  labels: Int32Array;
  /** Its place, for errors: "chats.jsonl:12". */
  where: string;
}

/** The label of what is not scored. */
const IGNORED = -100;

/** The first token is nobody's target. */
function isNothingScored(labels: Int32Array): boolean {
  return labels.subarray(1).every((label) => label === IGNORED);
}

/** @throws Unusable for a row that teaches nothing */
export function checkScored(row: TrainingRow): TrainingRow {
  if (isNothingScored(row.labels)) throw new Unusable("no token of it is scored");
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
  const labels = row.labels.slice(0, maxLength);
  if (isNothingScored(labels))
    throw new Unusable(`its first ${maxLength} of ${row.ids.length} tokens (maxLength) hold none that is scored`);
  return { ids: row.ids.slice(0, maxLength), labels, where: row.where };
}
