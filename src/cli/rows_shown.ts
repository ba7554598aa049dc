/** Tokenised rows in a terminal: their text with the scored part marked, and their lengths as bars. */
import * as util from "node:util";
import type { DataSummary, PreviewRun } from "../data/preview.js";
import { printable } from "../runtime/printable.js";
import { count } from "./format.js";

/** How scored text stands out from the rest. */
export interface Marks {
  /** What tells it, in words. */
  legend: string;
  scored(text: string): string;
  other(text: string): string;
}

/** Where a terminal has colours, and NO_COLOR does not turn them off, by colour; elsewhere by brackets. */
export function marksFor(stream: Pick<NodeJS.WriteStream, "isTTY" | "hasColors">): Marks {
  // Node has styleText from 20.12 on.
  if (!stream.isTTY || !stream.hasColors() || !("styleText" in util))
    return { legend: "scored text is in ⟦brackets⟧", scored: (text) => `⟦${text}⟧`, other: (text) => text };
  const style = (format: Parameters<typeof util.styleText>[0], text: string): string =>
    // A line at a time: a terminal would paint the rest of its line, too.
    text
      .split("\n")
      .map((line) => (line === "" ? "" : util.styleText(format, line, { validateStream: false })))
      .join("\n");
  const scored = (text: string): string => style(["bold", "green"], text);
  return { legend: `${scored("scored text is green")}`, scored, other: (text) => style("dim", text) };
}

/** Of a longer part of a row, its beginning and its end. */
const LONGEST_RUN = 1_200;
/** Of a row, so many parts at most. */
const MOST_RUNS = 60;

/** A row's text in lines, safe for a terminal; an arrow is where a line of it ends, since that is a token, too. */
export function rowLines(runs: readonly PreviewRun[], marks: Marks): string[] {
  const shown = runs.slice(0, MOST_RUNS).map(({ text, scored }) => {
    const part = printable(shortened(text)).replaceAll("\n", "↵\n");
    return scored ? marks.scored(part) : marks.other(part);
  });
  if (runs.length > MOST_RUNS) shown.push(` ... and ${count(runs.length - MOST_RUNS)} parts more`);
  return shown
    .join("")
    .split("\n")
    .map((line) => `  ${line}`);
}

function shortened(text: string): string {
  if (text.length <= LONGEST_RUN) return text;
  const half = LONGEST_RUN / 2;
  return `${text.slice(0, half)} ... ${count(text.length - 2 * half)} characters ... ${text.slice(-half)}`;
}

/** Columns of the longest bar. */
const WIDEST = 40;

/** How many rows have how many tokens, a line each of the histogram's bins. */
export function histogramLines({ histogram }: Pick<DataSummary, "histogram">): string[] {
  const most = histogram.reduce((a, { rows }) => Math.max(a, rows), 1);
  const labels = histogram.map(({ from, to }) => (from === to ? count(from) : `${count(from)} .. ${count(to)}`));
  const width = labels.reduce((a, label) => Math.max(a, label.length), 0);
  return histogram.map(({ rows }, i) => {
    const eighths = Math.ceil((8 * WIDEST * rows) / most);
    const bar = "█".repeat(Math.floor(eighths / 8)) + (["", ..."▏▎▍▌▋▊▉"][eighths % 8] ?? "");
    return `  ${labels[i]!.padStart(width)}  ${bar}${bar ? " " : ""}${count(rows)}`;
  });
}
