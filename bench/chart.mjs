/** bench/results/<...>.svg: products beside peers and the wall, and LoRA steps beside peers. */
import { scaleBand, scaleLinear } from "d3-scale";
import { FULL_STEP, JAX, ONNX, OURS, TFJS, TFJS_BEST } from "./engines.mjs";

const COLOURS = {
  [OURS]: "#2563eb",
  [FULL_STEP]: "#93c5fd",
  [TFJS]: "#f59e0b",
  [TFJS_BEST]: "#f59e0b",
  [ONNX]: "#10b981",
  [JAX]: "#a855f7",
};
const WIDTH = 860;
const ROW = 11;
const LEFT = 130;
const RIGHT = 60;

const escape = (text) => text.replace(/[<>&]/g, (c) => `&#${c.charCodeAt(0)};`);
const label = (x, y, text, more = "") => `<text x="${x}" y="${y}" ${more}>${escape(text)}</text>`;

/**
 * One panel of grouped horizontal bars.
 * @param groups [{ title, bars: [[name, value, text]] }]
 * @returns its SVG and height
 */
function panel(top, heading, groups, most, wall = null) {
  const names = [...new Set(groups.flatMap(({ bars }) => bars.map(([name]) => name)))];
  const x = scaleLinear([0, most], [LEFT, WIDTH - RIGHT]);
  const height = groups.length * (names.length * ROW + 8);
  const y = scaleBand(
    groups.map(({ title }) => title),
    [top + 44, top + 44 + height],
  ).paddingInner(0.12);
  const inner = scaleBand(names, [0, y.bandwidth()]);
  let svg = label(10, top + 16, heading, 'font-size="14" font-weight="600"');
  names.forEach((name, i) => {
    svg +=
      `<rect x="${LEFT + i * 170}" y="${top + 25}" width="10" height="10" ` +
      `fill="${COLOURS[name]}"/>${label(LEFT + 15 + i * 170, top + 34, name)}`;
  });
  for (const { title, bars } of groups) {
    svg += label(LEFT - 6, y(title) + y.bandwidth() / 2 + 4, title, 'text-anchor="end"');
    for (const [name, value, text] of bars) {
      const at = y(title) + inner(name);
      svg +=
        `<rect x="${LEFT}" y="${at.toFixed(1)}" width="${(x(value) - LEFT).toFixed(1)}" ` +
        `height="${inner.bandwidth().toFixed(1)}" fill="${COLOURS[name]}"/>`;
      svg += label((x(value) + 4).toFixed(1), (at + inner.bandwidth() - 1.5).toFixed(1), text, 'font-size="9"');
    }
  }
  if (wall !== null) {
    const at = x(wall).toFixed(1);
    svg +=
      `<line x1="${at}" x2="${at}" y1="${top + 44}" y2="${top + 44 + height}" stroke="#dc2626" ` +
      `stroke-dasharray="4 3"/>`;
    svg += label(at, top + 40, "wall", 'fill="#dc2626" text-anchor="middle" font-size="10"');
  }
  return { svg, bottom: top + 44 + height + 16 };
}

export function chart({ environment, commit, sections: { machine, sgemm, lora } }) {
  const products = sgemm.rows
    .filter(({ kind }) => kind !== "thin")
    .map(({ shape, gflops }) => ({
      title: shape.join(", "),
      bars: [OURS, TFJS, ONNX, JAX]
        .filter((name) => gflops[name])
        .map((name) => [name, gflops[name], gflops[name].toFixed(1)]),
    }));
  const steps = lora.rows.map(({ shape, milliseconds, ratios }) => ({
    title: shape.join(", "),
    bars: [OURS, FULL_STEP, TFJS_BEST, JAX]
      .filter((name) => milliseconds[name])
      .map((name) => [name, name === OURS ? 1 : 1 / ratios[name], `${milliseconds[name].toFixed(2)} ms`]),
  }));
  const wall = machine.gflops.plain.fastest;
  const first = panel(
    0,
    "Product C = A B: M, N, K (GFLOP/s, more is better)",
    products,
    Math.max(wall, ...products.flatMap(({ bars }) => bars.map(([, value]) => value))),
    wall,
  );
  const second = panel(
    first.bottom,
    "LoRA linear training step: N, d, k, r (speed, wasm-lora = 1)",
    steps,
    Math.max(1, ...steps.flatMap(({ bars }) => bars.map(([, value]) => value))),
  );
  const note =
    `${environment.engine}, ${environment.cpu}; one thread, float32, medians of interleaved rounds in ` +
    `one process; commit ${commit}`;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${second.bottom + 20}" font-family="system-ui, ` +
    `sans-serif" font-size="11" fill="#334155">` +
    `<rect width="100%" height="100%" ` +
    `fill="#ffffff"/>${first.svg}${second.svg}${label(10, second.bottom + 8, note, 'font-size="10"')}</svg>\n`
  );
}
