/**
 * A curve over a run's steps as SVG for a page: its colours are the page's, by classes, and it is drawn once for a wide
 * window and once for a narrow one, since letters that shrink with their picture cannot be read on a phone.
 */
import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";
import { evenly } from "./evenly.js";
import { escapeXml, isDrawn, meanAt, range, shortNumber } from "./plot.js";

export interface Point {
  step: number;
  value: number;
}

export interface Chart {
  /** What it shows, for those who cannot see it. */
  title: string;
  /** The steps' values, of step 1 and on. */
  values: readonly number[];
  /** Whether the running mean is drawn over them: single batches are noisy. */
  mean?: boolean | undefined;
  /** Measured between steps, joined by a line. */
  points?: readonly Point[] | undefined;
  /** One of these, which is marked. */
  best?: Point | null | undefined;
  /** A value with a line across. */
  rule?: { value: number; label: string } | undefined;
  /** Steps after which something begins anew, an epoch. */
  marks?: readonly number[] | undefined;
  /** Whether 0 belongs to the picture. */
  fromZero?: boolean | undefined;
  height: number;
}

/** Of one curve; a page holds several, each twice. */
const MOST_POINTS = 500;
/** Beyond these, marks are a grey area. */
const MOST_MARKS = 12;

/** The picture for wide windows and that for narrow ones; the page's style shows one of them. */
export function chartSvg(chart: Chart, widths: { wide: number; narrow: number }): string {
  return `${draw(chart, widths.wide, "wide")}\n${draw(chart, widths.narrow, "narrow")}`;
}

function draw(chart: Chart, width: number, name: string): string {
  const { values, points = [], best, rule, marks = [], height } = chart;
  const margin = { top: 14, right: 14, bottom: 24, left: 54 };
  const steps = evenly(values.length, MOST_POINTS);
  const all = [...values, ...points.map(({ value }) => value), ...(rule ? [rule.value] : [])];
  const [least, greatest] = range(all);
  const x = scaleLinear(
    [points[0]?.step === 0 ? 0 : 1, Math.max(2, values.length)],
    [margin.left, width - margin.right],
  );
  const y = scaleLinear([chart.fromZero ? 0 : least, greatest], [height - margin.bottom, margin.top]).nice(5);
  const path = (list: readonly Point[]): string =>
    line<Point>(
      ({ step }) => round(x(step)),
      ({ value }) => round(y(value)),
    ).defined(({ value }) => isDrawn(value))([...list]) ?? "";
  const label = y.tickFormat(5, chart.fromZero ? "~g" : undefined);
  const parts = [
    ...y
      .ticks(5)
      .map(
        (v) =>
          `<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${round(y(v))}" ` +
          `y2="${round(y(v))}"/>` +
          `<text x="${margin.left - 8}" y="${round(y(v) + 4)}" text-anchor="end">${label(v)}</text>`,
      ),
    ...x
      .ticks(width / 90)
      .filter(Number.isInteger)
      .map((v) => `<text x="${round(x(v))}" y="${height - 6}" text-anchor="middle">${v}</text>`),
    ...(marks.length > MOST_MARKS ? [] : marks).map(
      (step) =>
        `<line class="mark" x1="${round(x(step + 0.5))}" x2="${round(x(step + 0.5))}" y1="${margin.top}" ` +
        `y2="${height - margin.bottom}"/>`,
    ),
  ];
  if (rule && isDrawn(rule.value))
    parts.push(
      `<line class="rule" x1="${margin.left}" x2="${width - margin.right}" y1="${round(y(rule.value))}" ` +
        `y2="${round(y(rule.value))}"><title>${escapeXml(rule.label)}</title></line>`,
    );
  const at = (step: number, value: number): Point => ({ step: step + 1, value });
  parts.push(`<path class="${chart.mean ? "each" : "mean"}" d="${path(steps.map((i) => at(i, values[i]!)))}"/>`);
  if (chart.mean) parts.push(`<path class="mean" d="${path(steps.map((i) => at(i, meanAt(values, i))))}"/>`);
  if (points.length > 1) parts.push(`<path class="held" d="${path(points)}"/>`);
  for (const point of points) if (isDrawn(point.value)) parts.push(dot(point, "held-dot", 3.5));
  if (best && isDrawn(best.value)) parts.push(dot(best, "best-dot", 6));
  return (
    `<svg class="${name}" role="img" aria-label="${escapeXml(chart.title).replace(/"/g, "&quot;")}" ` +
    `viewBox="0 0 ${width} ${height}">\n${parts.join("\n")}\n</svg>`
  );

  function dot({ step, value }: Point, kind: string, radius: number): string {
    return (
      `<circle class="${kind}" cx="${round(x(step))}" cy="${round(y(value))}" r="${radius}">` +
      `<title>held out after step ${step}: ${shortNumber(value)}</title></circle>`
    );
  }
}

/** A tenth of a pixel is enough. */
function round(v: number): number {
  return Math.round(v * 10) / 10;
}
