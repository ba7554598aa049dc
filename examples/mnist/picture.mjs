// One SVG: digits with what was read in them before and after, and the loss of both trainings.
import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";
import { PNG } from "pngjs";
import { SIDE } from "./digits.mjs";

const GOOD = "#15803d";
const BAD = "#dc2626";

function png(pixels) {
  const image = new PNG({ width: SIDE, height: SIDE, colorType: 0 });
  for (let i = 0; i < pixels.length; i++)
    image.data.set([255 - 255 * pixels[i], 255 - 255 * pixels[i], 255 - 255 * pixels[i], 255], 4 * i);
  return PNG.sync.write(image, { colorType: 0 }).toString("base64");
}

/** Mean over the 25 steps before each: single batches are noisy. */
const smooth = (losses) =>
  losses.map((_, i) => {
    const part = losses.slice(Math.max(0, i - 24), i + 1);
    return part.reduce((a, b) => a + b, 0) / part.length;
  });

/**
 * @param samples { pixels, label, before, after } of 20 digits
 * @param curves { name, colour, losses } of each training
 */
export function picture(title, samples, curves) {
  const width = 760;
  const height = 620;
  const columns = 10;
  const cell = 72;
  const left = 24;
  const digits = samples.map(({ pixels, label, before, after }, i) => {
    const x = left + (i % columns) * cell;
    const y = 56 + Math.floor(i / columns) * 108;
    const read = (name, value, dy) =>
      `<text x="${x + 28}" y="${y + dy}" text-anchor="middle" fill="${value === label ? GOOD : BAD}">${name} ` +
      `${value}</text>`;
    return (
      `<image x="${x}" y="${y}" width="56" height="56" style="image-rendering:pixelated" ` +
      `href="data:image/png;base64,${png(pixels)}"/>` +
      `<rect x="${x}" y="${y}" width="56" height="56" fill="none" ` +
      `stroke="#d1d5db"/>${read("before", before, 72)}${read("after", after, 88)}`
    );
  });
  const top = 310;
  const bottom = height - 46;
  const start = 58;
  const end = width - 24;
  const means = curves.map(({ losses }) => smooth(losses));
  const x = scaleLinear([1, Math.max(...means.map((m) => m.length))], [start, end]);
  const y = scaleLinear([0, Math.max(...means.flat())], [bottom, top]).nice();
  const path = line(
    (_, i) => x(i + 1),
    (v) => y(v),
  );
  const grid = y
    .ticks(5)
    .map(
      (v) =>
        `<line x1="${start}" x2="${end}" y1="${y(v)}" y2="${y(v)}" stroke="#e5e7eb"/>` +
        `<text x="${start - 8}" y="${y(v) + 4}" text-anchor="end">${y.tickFormat(5)(v)}</text>`,
    );
  const steps = x.ticks(8).map((v) => `<text x="${x(v)}" y="${bottom + 20}" text-anchor="middle">${v}</text>`);
  const lines = curves.map(
    ({ name, colour }, i) =>
      `<path d="${path(means[i])}" fill="none" stroke="${colour}" stroke-width="2"/>` +
      `<text x="${end}" y="${top + 18 * i}" text-anchor="end" fill="${colour}">${name}</text>`,
  );
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" ` +
    `height="${height}" font-family="system-ui, sans-serif" font-size="12" fill="#374151">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="${left}" y="32" font-size="15" font-weight="600">${title}</text>
${[...digits, ...grid, ...steps, ...lines].join("\n")}
<text x="${(start + end) / 2}" y="${height - 8}" text-anchor="middle">step</text>
<text transform="translate(16 ${(top + bottom) / 2}) rotate(-90)" text-anchor="middle">loss (mean of 25 steps)</text>
</svg>
`
  );
}
