/** The loss curve, as SVG and for the terminal. */
import asciichart from "asciichart";
import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";
import { printable } from "../runtime/printable.js";
import { evenly } from "./evenly.js";

/** Whether a loss has a place in the picture: it is finite, and so is its distance from any other that is drawn. */
export function isDrawn(loss: number): boolean {
  return Math.abs(loss) < 1e300;
}

/** Points that a curve is drawn by at most: more are not seen, and a run of a million steps would take minutes. */
const MOST_POINTS = 2_000;

/**
 * The mean over a window of steps that ends at this one, since single batches are noisy. Losses that are not finite are
 * left out; without any other the mean is NaN.
 */
export function meanAt(losses: readonly number[], step: number): number {
  const window = Math.max(1, Math.round(losses.length / 25));
  const values = losses.slice(Math.max(0, step + 1 - window), step + 1).filter(isDrawn);
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** Least and greatest of the finite values; 0 and 1 if there are none. */
export function range(values: Iterable<number>): [number, number] {
  let least = Infinity;
  let greatest = -Infinity;
  for (const v of values) {
    if (!isDrawn(v)) continue;
    least = Math.min(least, v);
    greatest = Math.max(greatest, v);
  }
  return least <= greatest ? [least, greatest] : [0, 1];
}

interface CurveLabels {
  title: string;
  heldOutBefore: number;
  heldOutAfter: number;
}

/**
 * An SVG document: each step's loss, its running mean, and the held-out loss before and after. What is not finite is
 * left out.
 */
export function lossCurveSvg(losses: readonly number[], labels: CurveLabels): string {
  const width = 760;
  const height = 400;
  const margin = { top: 46, right: 24, bottom: 46, left: 58 };
  const steps = evenly(losses.length, MOST_POINTS);
  const picked = steps.map((i) => [i + 1, losses[i]!] as const);
  const mean = steps.map((i) => [i + 1, meanAt(losses, i)] as const);
  const x = scaleLinear([1, Math.max(2, losses.length)], [margin.left, width - margin.right]);
  const y = scaleLinear(range([...picked.map(([, v]) => v), labels.heldOutBefore, labels.heldOutAfter]), [
    height - margin.bottom,
    margin.top,
  ]).nice();
  const path = line<readonly [number, number]>(
    ([at]) => x(at),
    ([, v]) => y(v),
  ).defined(([, v]) => isDrawn(v));
  const label = y.tickFormat(6);
  const grid = y
    .ticks(6)
    .map(
      (v) =>
        `<line x1="${margin.left}" x2="${width - margin.right}" y1="${y(v)}" y2="${y(v)}" stroke="#e5e7eb"/>` +
        `<text x="${margin.left - 8}" y="${y(v) + 4}" text-anchor="end">${label(v)}</text>`,
    );
  const ticks = x
    .ticks(8)
    .filter(Number.isInteger)
    .map((v) => `<text x="${x(v)}" y="${height - margin.bottom + 20}" text-anchor="middle">${v}</text>`);
  const point = (at: number, value: number, name: string, anchor: string): string =>
    !isDrawn(value)
      ? ""
      : `<circle cx="${x(at)}" cy="${y(value)}" r="5" fill="#dc2626"/>` +
        `<text x="${x(at) + (anchor === "start" ? 9 : -9)}" y="${y(value) - 8}" text-anchor="${anchor}" ` +
        `fill="#dc2626">held out ${name}: ${shortNumber(value)}</text>`;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" ` +
    `height="${height}" font-family="system-ui, sans-serif" font-size="12" fill="#374151">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="${margin.left}" y="24" font-size="15" font-weight="600">${escapeXml(labels.title)}</text>
${grid.join("\n")}
${ticks.join("\n")}
<text x="${(margin.left + width - margin.right) / 2}" y="${height - 8}" text-anchor="middle">step</text>
<text transform="translate(16 ${(margin.top + height - margin.bottom) / 2}) rotate(-90)" text-anchor="middle">loss ` +
    `(nats per token)</text>
<path d="${path(picked) ?? ""}" fill="none" stroke="#93c5fd" stroke-width="1"/>
<path d="${path(mean) ?? ""}" fill="none" stroke="#1d4ed8" stroke-width="2.5"/>
${point(1, labels.heldOutBefore, "before", "start")}
${point(losses.length, labels.heldOutAfter, "after", losses.length > 1 ? "end" : "start")}
</svg>
`
  );
}

/** The running mean as lines of text, at most 72 columns wide. What is not finite is left out. */
export function lossCurveText(losses: readonly number[]): string {
  const means = evenly(losses.length, 72)
    .map((step) => meanAt(losses, step))
    .filter(isDrawn);
  if (means.length === 0) return "No loss is a finite number.";
  const [least, greatest] = range(means);
  const format = (v: number): string => shortNumber(v).padStart(8);
  // Of a flat curve asciichart rounds the one label to an integer; of one that is nearly so it counts rows for ever,
  // unless it begins at 0.
  if (format(least) === format(greatest)) return `${format(least)} ┼${"─".repeat(means.length)}`;
  return asciichart.plot(
    means.map((v) => v - least),
    { height: 12, format: (v) => format(v + least) },
  );
}

/** Three decimals, and of what is large the leading digits. */
export function shortNumber(v: number): string {
  return Math.abs(v) < 1e6 ? v.toFixed(3) : v.toExponential(3);
}

/** XML has no place for control characters, whatever they are written as. */
export function escapeXml(text: string): string {
  return printable(text)
    .replace(/[\ufffe\uffff]/g, "?")
    .replace(/&/g, "&amp;")
    .replace(/</g, "&lt;")
    .replace(/>/g, "&gt;");
}
