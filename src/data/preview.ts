/** Tokenised rows for people to look at: what a model will see, what of it is scored, and how much of all there is. */
import { ArgumentError } from "../runtime/errors.js";
import { shown } from "../runtime/shown.js";
import { checkRow, countScored, IGNORED, type TrainingRow } from "./labels.js";
import type { TokenizedData } from "./tokenize.js";
import type { Tokenizer } from "./tokenizer.js";

/** A part of a row's text: tokens in a row that are all scored, or all not. */
export interface PreviewRun {
  /** Their text, special tokens included. */
  text: string;
  /** Whether a loss is computed of them. */
  scored: boolean;
}

/** Counts of tokenised rows. */
export interface DataSummary {
  /** Rows that are there. */
  rows: number;
  /** Their tokens. */
  tokens: number;
  /** Tokens of these that are scored. */
  scored: number;
  /** Rows that have lost their end. */
  truncated: number;
  /** Rows that were left out. */
  skipped: number;
  /** Tokens of the shortest row; 0 without rows. */
  shortest: number;
  /** Tokens of the longest row; 0 without rows. */
  longest: number;
  /** How long rows are: bins of one width that follow each other. */
  histogram: LengthBin[];
}

/** Rows of like lengths. */
export interface LengthBin {
  /** Tokens that they have at least. */
  from: number;
  /** Tokens that they have at most. */
  to: number;
  /** How many rows have so many. */
  rows: number;
}

/** Bins of a histogram at most. */
const MOST_BINS = 12;

/**
 * A row's text in runs of scored tokens and others, as a model is trained on it: joined, they are the text of its ids.
 * Nothing predicts a row's first token, so it is never scored. A character whose bytes are of several tokens is in the
 * run of the last of them.
 *
 * @param row as `tokenizeExamples` makes it
 * @throws ArgumentError for what is no such row
 *
 * @example
 * const tokenizer = data.loadTokenizer("models/base");
 * const ids = Int32Array.from(tokenizer.encode("Call me Ishmael.", { addSpecialTokens: false }));
 * const labels = ids.map((id, i) => (i < 3 ? -100 : id));
 * const runs = data.previewRow({ ids, labels, where: "rows.jsonl:1" }, tokenizer);
 * console.log(runs.map(({ text, scored }) => (scored ? `[${text}]` : text)).join("")); // Call me[ Ishmael.]
 */
export function previewRow(row: TrainingRow, tokenizer: Pick<Tokenizer, "decodeStream">): PreviewRun[] {
  checkRow("previewRow", "row", row);
  const { ids, labels } = row;
  let at = 0;
  function* tokens(): Generator<number> {
    for (; at < ids.length; at++) yield ids[at]!;
    // What the decoder held back is the last token's.
    at = ids.length - 1;
  }
  const runs: PreviewRun[] = [];
  for (const text of tokenizer.decodeStream(tokens())) {
    const scored = at > 0 && labels[at] !== IGNORED;
    const last = runs.at(-1);
    if (last?.scored === scored) last.text += text;
    else runs.push({ text, scored });
  }
  return runs;
}

/**
 * What tokenised data are, in numbers.
 *
 * @throws ArgumentError for what is not `tokenizeExamples`' result
 *
 * @example
 * const row = (n) => ({ ids: new Int32Array(n), labels: new Int32Array(n), where: "rows" });
 * const summary = data.summarize({ rows: [row(3), row(9)], truncated: 0, skipped: [], split: 0 });
 * console.log(summary.rows, summary.tokens, summary.scored, summary.longest); // 2 12 10 9
 */
export function summarize(tokenized: TokenizedData): DataSummary {
  const where = "summarize";
  const { rows, truncated, skipped } = tokenized ?? {};
  if (!Array.isArray(rows) || !Array.isArray(skipped) || typeof truncated !== "number")
    throw new ArgumentError(`${where}: expected what tokenizeExamples gives; got ${shown(tokenized)}.`);
  for (const [i, row] of rows.entries()) checkRow(where, `rows[${i}]`, row);
  const lengths = rows.map(({ ids }) => ids.length);
  const shortest = lengths.reduce((a, b) => Math.min(a, b), lengths[0] ?? 0);
  const longest = lengths.reduce((a, b) => Math.max(a, b), 0);
  return {
    rows: rows.length,
    tokens: lengths.reduce((a, b) => a + b, 0),
    scored: rows.reduce((n, row) => n + countScored(row), 0),
    truncated,
    skipped: skipped.length,
    shortest,
    longest,
    histogram: rows.length === 0 ? [] : histogramOf(lengths, shortest, longest),
  };
}

/** Bins as wide as 1, 2 or 5 with zeros behind it, that begin at multiples of it: no more than can be taken in. */
function histogramOf(lengths: readonly number[], shortest: number, longest: number): LengthBin[] {
  let width = 1;
  const binOf = (length: number): number => Math.floor(length / width);
  for (let i = 0; binOf(longest) - binOf(shortest) >= MOST_BINS; i++) width *= i % 3 === 1 ? 2.5 : 2;
  const first = binOf(shortest);
  const bins = Array.from({ length: binOf(longest) - first + 1 }, (_, i) => ({
    from: (first + i) * width,
    to: (first + i + 1) * width - 1,
    rows: 0,
  }));
  for (const length of lengths) bins[binOf(length) - first]!.rows++;
  return bins;
}
