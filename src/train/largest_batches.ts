/** Of all batches of a run on rows, those that may take the most memory: rehearsing these tells what all take. */
import type { Batch } from "../data/collate.js";
import { countScored, IGNORED, type TrainingRow } from "../data/labels.js";
import type { RowBatches } from "./row_batches.js";

/** Rows of steps that are looked at one by one: about a second's work. */
const MOST_ROWS = 500_000;

/** What a batch's memory depends on: with more of any, and no less of another, it takes no less. */
type Extent = readonly number[];

/** Batches none of which is less than another in all. */
class Largest<T> {
  readonly #kept: { extent: Extent; isKept: boolean; item: T }[] = [];

  /** @param isKept whether it must stay, however large others are */
  add(extent: Extent, isKept: boolean, item: T): void {
    if (!isKept && this.#kept.some((other) => isWithin(extent, other.extent))) return;
    const rest = this.#kept.filter((other) => other.isKept || !isWithin(other.extent, extent));
    this.#kept.splice(0, Infinity, ...rest, { extent, isKept, item });
  }

  get items(): T[] {
    return this.#kept.map(({ item }) => item);
  }
}

function isWithin(a: Extent, b: Extent): boolean {
  return a.every((value, i) => value <= b[i]!);
}

/**
 * The shards of the first step, those of later ones that may be the largest, and the largest batches that are held out,
 * in the order in which a run that measures first takes them: tables of angles grow with the longest row so far.
 * @internal
 */
export function largestBatches(batches: RowBatches): {
  first: Batch[];
  later: { batch: Batch; isFirst: boolean }[];
  heldOut: Batch[];
} {
  const scoredOf = new Map([...batches.train, ...batches.test].map((row) => [row, countScored(row)]));
  let longestYet = 0;
  const extentOf = (rows: readonly TrainingRow[]): { extent: Extent; isLongest: boolean } => {
    let [places, longest, scored] = [0, 0, 0];
    for (const row of rows) {
      places += row.ids.length - 1;
      longest = Math.max(longest, row.ids.length - 1);
      scored += scoredOf.get(row)!;
    }
    const shape = batches.settings.packing ? [1, places] : [rows.length, longest];
    const isWhole = scored === shape[0]! * shape[1]!;
    const isLongest = longest > longestYet;
    longestYet = Math.max(longest, longestYet);
    return { extent: [...shape, scored, isWhole ? 0 : 1, rows.length > 1 ? 1 : 0, longestYet], isLongest };
  };

  const heldOut = new Largest<readonly TrainingRow[]>();
  for (let i = 0; i < batches.evaluations; i++) {
    const rows = batches.rowsOfEvaluation(i);
    const { extent, isLongest } = extentOf(rows);
    heldOut.add(extent, isLongest, rows);
  }
  const later = new Largest<{ rows: readonly TrainingRow[]; isFirst: boolean }>();
  let left = MOST_ROWS;
  for (let step = 0; step < batches.steps && left > 0; step++)
    for (const [i, rows] of batches.rowsOfShards(step).entries()) {
      left -= rows.length;
      const { extent, isLongest } = extentOf(rows);
      if (step > 0) later.add([...extent, i === 0 ? 0 : 1], isLongest, { rows, isFirst: i === 0 });
    }
  const laterBatches = later.items.map(({ rows, isFirst }) => ({ batch: batches.collate(rows), isFirst }));
  return {
    first: batches.rowsOfShards(0).map((rows) => batches.collate(rows)),
    later: left > 0 ? laterBatches : [...laterBatches, ...boundsOf(batches)],
    heldOut: heldOut.items.map((rows) => batches.collate(rows)),
  };
}

/** Of a run of more steps: a shard of the longest rows, all of whose places are scored, or all but one. */
function boundsOf(batches: RowBatches): { batch: Batch; isFirst: boolean }[] {
  const { batch } = batches.settings;
  const longest = [...batches.train].sort((a, b) => b.ids.length - a.ids.length).slice(0, batch);
  const whole = batches.collate(longest);
  return [0, IGNORED].map((first) => ({
    batch: { ...whole, targets: whole.targets.map((_, i) => (i === 0 ? first : 0)) },
    isFirst: false,
  }));
}
