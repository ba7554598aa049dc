/** Rows by their length: bars of a histogram, drawn as SVG, and said in a sentence. */
import type { data } from "wasm-lora";
import { number } from "../format";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, GAP] = [320, 56, 2];

export function drawHistogram(box: HTMLElement, bins: readonly data.LengthBin[]): void {
  const most = Math.max(1, ...bins.map(({ rows }) => rows));
  const wide = WIDTH / Math.max(1, bins.length);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  for (const [i, { from, to, rows }] of bins.entries()) {
    const bar = document.createElementNS(SVG, "rect");
    // One row beside thousands is seen, too.
    const high = rows === 0 ? 0 : Math.max(2, (HEIGHT * rows) / most);
    for (const [name, value] of Object.entries({
      x: i * wide + GAP / 2,
      y: HEIGHT - high,
      width: Math.max(1, wide - GAP),
      height: high,
    }))
      bar.setAttribute(name, `${value}`);
    const title = document.createElementNS(SVG, "title");
    title.textContent = `${span(from, to)} tokens: ${number(rows)}`;
    bar.append(title);
    svg.append(bar);
  }
  box.replaceChildren(svg);
  const none: data.LengthBin = { from: 0, to: 0, rows: 0 };
  const peak = bins.reduce((best, bin) => (bin.rows > best.rows ? bin : best), bins[0] ?? none);
  box.setAttribute(
    "aria-label",
    `Rows by their length: from ${number(bins[0]?.from ?? 0)} to ${number(bins.at(-1)?.to ?? 0)} tokens, most ` +
      `of them (${number(peak.rows)}) of ${span(peak.from, peak.to)}.`,
  );
}

function span(from: number, to: number): string {
  return from === to ? number(from) : `${number(from)} to ${number(to)}`;
}
