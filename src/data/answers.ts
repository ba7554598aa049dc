/** What rows ask, and what they answer: the same whether a row was a prompt with its completion or a conversation. */
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { checkRow, IGNORED, type TrainingRow } from "./labels.js";

/** An answer of a row, and all that comes before it. */
export interface Answer {
  /** The row's place. */
  where: string;
  /** The tokens before the answer, at least one. */
  prompt: Int32Array;
  /** The answer's tokens, without the one that ends it. */
  reference: Int32Array;
}

/**
 * The answers of tokenised rows: tokens that are scored after some that are not, up to the first that ends a text. A
 * conversation has one for each turn that is scored. Texts, which are scored from their start, have none; an answer
 * that nothing ends, since its row was cut off, is none either.
 *
 * @param rows as `tokenizeExamples` makes them
 * @param eosTokenIds what ends an answer
 * @throws ArgumentError for what are no such rows or ids
 *
 * @example
 * const row = { ids: Int32Array.of(5, 6, 7, 8, 0), labels: Int32Array.of(-100, -100, 7, 8, 0), where: "sums.jsonl:1" };
 * const [answer] = data.answersOf([row], [0]);
 * console.log(answer.prompt, answer.reference); // Int32Array(2) [ 5, 6 ] Int32Array(2) [ 7, 8 ]
 */
export function answersOf(rows: readonly TrainingRow[], eosTokenIds: readonly number[]): Answer[] {
  const where = "answersOf";
  if (!Array.isArray(rows)) throw new ArgumentError(`${where}: rows must be a list; got ${shown(rows)}.`);
  if (!Array.isArray(eosTokenIds) || !eosTokenIds.every((id) => Number.isSafeInteger(id)))
    throw new ArgumentError(`${where}: eosTokenIds must be a list of token ids; got ${shown(eosTokenIds)}.`);
  const ends = new Set<number>(eosTokenIds);
  return (rows as readonly TrainingRow[]).flatMap((row, i) => {
    checkRow(where, `rows[${i}]`, row);
    const { ids, labels } = row;
    return spansOf(labels).flatMap(([from, to]) => {
      const length = ids.subarray(from, to).findIndex((id) => ends.has(id));
      if (from === 0 || length < 0) return [];
      return [{ where: row.where, prompt: ids.slice(0, from), reference: ids.slice(from, from + length) }];
    });
  });
}

/** Runs of labels that are scored: the first, and the one behind the last. */
function spansOf(labels: Int32Array): [from: number, to: number][] {
  const spans: [number, number][] = [];
  for (let from = 0; from < labels.length; ) {
    if (labels[from] === IGNORED) {
      from++;
      continue;
    }
    let to = from;
    while (to < labels.length && labels[to] !== IGNORED) to++;
    spans.push([from, to]);
    from = to;
  }
  return spans;
}
