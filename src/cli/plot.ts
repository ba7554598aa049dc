/** The loss curve, as SVG and for the terminal. */
import asciichart from "asciichart";
import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";

/** Mean over a window that ends at each step: single batches are noisy. */
export function smooth(losses: readonly number[], window: number): number[] {
  return losses.map((_, i) => {
    const from = Math.max(0, i + 1 - window);
    return losses.slice(from, i + 1).reduce((a, b) => a + b, 0) / (i + 1 - from);
  });
}

export interface CurveLabels { title: string; heldOutBefore: number; heldOutAfter: number }

/** An SVG document: each step's loss, its running mean, and the held-out loss before and after. */
export function lossCurveSvg(losses: readonly number[], labels: CurveLabels): string {
  const width = 760, height = 400, margin = { top: 46, right: 24, bottom: 46, left: 58 };
  const mean = smooth(losses, Math.max(1, Math.round(losses.length / 25)));
  const all = [...losses, labels.heldOutBefore, labels.heldOutAfter];
  const x = scaleLinear([1, Math.max(2, losses.length)], [margin.left, width - margin.right]);
  const y = scaleLinear([Math.min(...all), Math.max(...all)], [height - margin.bottom, margin.top]).nice();
  const path = line<number>((_, i) => x(i + 1), (v) => y(v));
  const label = y.tickFormat(6);
  const grid = y.ticks(6).map((v) =>
    `<line x1="${margin.left}" x2="${width - margin.right}" y1="${y(v)}" y2="${y(v)}" stroke="#e5e7eb"/>` +
    `<text x="${margin.left - 8}" y="${y(v) + 4}" text-anchor="end">${label(v)}</text>`);
  const steps = x.ticks(8).map((v) => `<text x="${x(v)}" y="${height - margin.bottom + 20}" text-anchor="middle">${v}</text>`);
  const point = (at: number, value: number, name: string, anchor: string): string =>
    `<circle cx="${x(at)}" cy="${y(value)}" r="5" fill="#dc2626"/>` +
    `<text x="${x(at) + (anchor === "start" ? 9 : -9)}" y="${y(value) - 8}" text-anchor="${anchor}" fill="#dc2626">held out ${name}: ${value.toFixed(3)}</text>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12" fill="#374151">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="${margin.left}" y="24" font-size="15" font-weight="600">${escapeXml(labels.title)}</text>
${grid.join("\n")}
${steps.join("\n")}
<text x="${(margin.left + width - margin.right) / 2}" y="${height - 8}" text-anchor="middle">step</text>
<text transform="translate(16 ${(margin.top + height - margin.bottom) / 2}) rotate(-90)" text-anchor="middle">loss (nats per token)</text>
<path d="${path(losses as number[])}" fill="none" stroke="#93c5fd" stroke-width="1"/>
<path d="${path(mean)}" fill="none" stroke="#1d4ed8" stroke-width="2.5"/>
${point(1, labels.heldOutBefore, "before", "start")}
${point(losses.length, labels.heldOutAfter, "after", "end")}
</svg>
`;
}

/** The running mean as lines of text, at most 72 columns wide. */
export function lossCurveText(losses: readonly number[]): string {
  const mean = smooth(losses, Math.max(1, Math.round(losses.length / 25)));
  const columns = Math.min(72, mean.length);
  const picked = Array.from({ length: columns }, (_, i) => mean[Math.round(i * (mean.length - 1) / Math.max(1, columns - 1))]!);
  return asciichart.plot(picked, { height: 12, format: (v: number) => v.toFixed(3).padStart(8) });
}

function escapeXml(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}
