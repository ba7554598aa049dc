/** bench/results/<...>.svg: products beside peers and the wall, LoRA steps of layers and models beside peers. */
import { scaleBand, scaleLinear } from "d3-scale";
import { FULL_STEP, FUSED, JAX, ONNX, onThreads, OURS, TFJS, TFJS_BEST, TORCH } from "./engines.mjs";

const COLOURS = {
  [OURS]: "#2563eb",
  [FULL_STEP]: "#93c5fd",
  [TFJS]: "#f59e0b",
  [TFJS_BEST]: "#f59e0b",
  [ONNX]: "#10b981",
  [JAX]: "#a855f7",
};
/** Of those on several threads, however many. */
const OF_SEVERAL = { [OURS]: "#1e40af", [FUSED]: "#0891b2", [TORCH]: "#ef4444" };
const WIDTH = 860;
const ROW = 11;
const LEFT = 140;
const RIGHT = 60;

const escape = (text) => text.replace(/[<>&]/g, (c) => `&#${c.charCodeAt(0)};`);
const label = (x, y, text, more = "") => `<text x="${x}" y="${y}" ${more}>${escape(text)}</text>`;

/**
 * One panel of grouped horizontal bars.
 * @param groups [{ title, bars: [[name, value, text, colour]] }]
 * @returns its SVG and where it ends
 */
function panel(top, { heading, groups, wall = null }) {
  const colours = new Map(
    groups.flatMap(({ bars }) => bars.map(([name, , , colour = COLOURS[name]]) => [name, colour])),
  );
  const most = Math.max(wall ?? 0, ...groups.flatMap(({ bars }) => bars.map(([, value]) => value)));
  const names = [...colours.keys()];
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
      `fill="${colours.get(name)}"/>${label(LEFT + 15 + i * 170, top + 34, name)}`;
  });
  for (const { title, bars } of groups) {
    const lines = [title].flat();
    lines.forEach((line, i) => {
      const middle = y(title) + y.bandwidth() / 2 + 4 + 13 * (i - (lines.length - 1) / 2);
      svg += label(LEFT - 6, middle, line, 'text-anchor="end"');
    });
    for (const [name, value, text] of bars) {
      const at = y(title) + inner(name);
      svg +=
        `<rect x="${LEFT}" y="${at.toFixed(1)}" width="${(x(value) - LEFT).toFixed(1)}" ` +
        `height="${inner.bandwidth().toFixed(1)}" fill="${colours.get(name)}"/>`;
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

/** What each section is drawn as. */
const PANELS = {
  sgemm: ({ rows }, { machine }) => ({
    heading: "Product C = A B: M, N, K (GFLOP/s, more is better)",
    wall: machine.gflops.plain.fastest,
    groups: rows
      .filter(({ kind }) => kind !== "thin")
      .map(({ shape, gflops }) => ({
        title: shape.join(", "),
        bars: [OURS, TFJS, ONNX, JAX]
          .filter((name) => gflops[name])
          .map((name) => [name, gflops[name], gflops[name].toFixed(1)]),
      })),
  }),

  lora: ({ rows }) => ({
    heading: "LoRA linear training step: N, d, k, r (speed, wasm-lora = 1)",
    groups: rows.map(({ shape, milliseconds, ratios }) => ({
      title: shape.join(", "),
      bars: [OURS, FULL_STEP, TFJS_BEST, JAX]
        .filter((name) => milliseconds[name])
        .map((name) => [name, name === OURS ? 1 : 1 / ratios[name], `${milliseconds[name].toFixed(2)} ms`]),
    })),
  }),

  llama: ({ rows }) => ({
    heading: "LoRA step of a Llama: batch x tokens (tokens/s, bars: wasm-lora = 1)",
    groups: rows.map(({ model, batch, steps, tokensPerSecond: speed }) => ({
      title: [model.replace(/ \(.*/, ""), `${batch} x ${steps}`],
      bars: [OURS, JAX]
        .filter((name) => speed[name])
        .map((name) => [name, speed[name] / speed[OURS], speed[name].toFixed(0)]),
    })),
  }),

  step: ({ rows }) => ({
    heading: "LoRA step of a whole model: batch x tokens (speed, wasm-lora on one thread = 1)",
    groups: rows.map(({ model, shape, threads, milliseconds }) => ({
      title: [model, shape.join(" x ")],
      bars: [[OURS], ...(threads > 1 ? severalOf(threads) : [])]
        .filter(([name]) => milliseconds[name])
        .map(([name, colour]) => {
          const ms = milliseconds[name];
          return [
            name,
            milliseconds[OURS] / ms,
            ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`,
            colour,
          ];
        }),
    })),
  }),
};

const severalOf = (threads) => Object.entries(OF_SEVERAL).map(([name, colour]) => [onThreads(name, threads), colour]);

export function chart({ environment, commit, sections }) {
  let svg = "";
  let top = 0;
  for (const [section, drawn] of Object.entries(PANELS)) {
    const { rows } = sections[section] ?? { rows: [] };
    if (rows.length === 0) continue;
    const of = panel(top, drawn({ rows }, sections));
    svg += of.svg;
    top = of.bottom;
  }
  const note =
    `${environment.engine}, ${environment.cpu}; float32, medians of interleaved rounds, one thread unless it tells ` +
    `how many; commit ${commit}`;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top + 20}" font-family="system-ui, sans-serif" ` +
    `font-size="11" fill="#334155"><rect width="100%" height="100%" fill="#ffffff"/>${svg}` +
    `${label(10, top + 8, note, 'font-size="10"')}</svg>\n`
  );
}
