/**
 * Measures the points of docs/cost-model.md and writes them into it, between its markers. The formulas here are those
 * of the document: floating-point operations, and float32 elements that a step's products read and write.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { buildWalls } from "./build.mjs";
import { init } from "../dist/src/index.js";
import { READS } from "./shapes.mjs";
import { median } from "./median.mjs";
import { FULL, race } from "./race.mjs";
import { values } from "./reference.mjs";

const DOCUMENT = new URL("../docs/cost-model.md", import.meta.url);
const BEGIN = "<!-- measured -->\n";
const END = "<!-- end of measured -->";
const EFFORT = { ...FULL, burstMs: 20, warmUpMs: 100 };
const SCALING = 2;

buildWalls();
const { openWall } = await import("./wall.mjs");
const { environment } = await import("#platform");
const { kernels, memory, scratch } = await init();

/** Runs `use` with blocks that hold values, one for each length. */
async function withBlocks(lengths, use) {
  const blocks = lengths.map((length, i) => {
    const address = memory.alloc(4 * length);
    memory.f32(address, length).set(values(length, i + 1));
    return address;
  });
  try {
    return await use(...blocks);
  } finally {
    blocks.forEach((address) => memory.free(address));
  }
}

const measure = async (run) => median((await race([{ name: "step", run }], EFFORT)).step);

const LINEAR = {
  title: "LoRA linear: N, d, k, r",
  points: [
    ...[1, 4, 8, 32, 128, 512, 2048].map((n) => [n, 768, 768, 8]),
    ...[64, 128, 256, 512, 1024, 2048].map((width) => [128, width, width, 8]),
    ...[1, 4, 16, 64, 256].map((r) => [128, 768, 768, r]),
  ],
  flops: ([n, d, k, r]) => 4 * n * d * k + 6 * n * r * (d + k),
  elements: ([n, d, k, r]) => 2 * d * k + n * (5 * d + 4 * k) + 4 * r * (d + k) + 6 * n * r,
  measure: ([n, d, k, r]) =>
    withBlocks(
      [n * d, d * k, r * d, k * r, n * r, n * k, n * r, n * k, n * d, r * d, k * r],
      (x, w, a, b, hs, y, zs, dy, dx, da, db) =>
        measure(() => {
          kernels.loraLinearForward({
            n,
            d,
            k,
            r,
            s: SCALING,
            x,
            xDropped: x,
            weight: w,
            fanInFanOut: false,
            format: 0,
            bias: 0,
            a,
            b,
            hs,
            y,
            scratch,
          });
          kernels.loraLinearBackward({
            n,
            d,
            k,
            r,
            s: SCALING,
            x,
            xDropped: x,
            weight: w,
            fanInFanOut: false,
            format: 0,
            a,
            b,
            hs,
            zs,
            dy,
            dx,
            dxDropped: 0,
            dWeight: 0,
            dBias: 0,
            da,
            db,
            scratch,
          });
        }),
    ),
};

/** Query and value of a fused projection: 2 of 3 blocks. */
const BLOCKS = 3;
const ENABLED = [1, 0, 1];
const G = 2;
const MERGED = {
  title: `MergedLinear, ${G} of ${BLOCKS} blocks: N, d, k, r`,
  points: [...[1, 8, 32, 128, 512].map((n) => [n, 768, 2304, 8]), [128, 256, 768, 8], [128, 768, 2304, 64]],
  flops: ([n, d, k, r]) => 4 * n * d * k + 6 * n * G * r * (d + k / BLOCKS),
  elements: ([n, d, k, r]) =>
    2 * d * k + n * (7 * d + 2 * k + (4 * G * k) / BLOCKS) + 4 * G * r * (d + k / BLOCKS) + 6 * n * G * r,
  measure: ([n, d, k, r]) =>
    withBlocks(
      [
        n * d,
        d * k,
        G * r * d,
        ((G * k) / BLOCKS) * r,
        n * G * r,
        n * k,
        n * G * r,
        n * k,
        n * d,
        G * r * d,
        ((G * k) / BLOCKS) * r,
        BLOCKS,
      ],
      (x, w, a, b, hs, y, zs, dy, dx, da, db, enabled) => {
        memory.i32(enabled, BLOCKS).set(ENABLED);
        return measure(() => {
          kernels.mergedLinearForward({
            n,
            d,
            k,
            r,
            blocks: BLOCKS,
            s: SCALING,
            enabled,
            x,
            xDropped: x,
            weight: w,
            fanInFanOut: false,
            format: 0,
            bias: 0,
            a,
            b,
            hs,
            y,
            scratch,
          });
          kernels.mergedLinearBackward({
            n,
            d,
            k,
            r,
            blocks: BLOCKS,
            s: SCALING,
            enabled,
            x,
            xDropped: x,
            weight: w,
            fanInFanOut: false,
            format: 0,
            a,
            b,
            hs,
            zs,
            dy,
            dx,
            dxDropped: 0,
            dWeight: 0,
            dBias: 0,
            da,
            db,
            scratch,
          });
        });
      },
    ),
};

/** Columns of the backward tile, as the library's op has them. */
const COLUMNS = 128;
const CONV = {
  title: "PEFT's 2-D convolution, 3 x 3, stride 1, same size: images, channels in, out, side, r",
  points: [
    [1, 16, 16, 28, 8],
    [8, 16, 16, 28, 8],
    [1, 64, 64, 28, 8],
    [8, 64, 64, 28, 8],
    [8, 64, 64, 28, 1],
    [8, 64, 64, 28, 32],
    [4, 128, 128, 14, 8],
    [1, 256, 256, 14, 8],
  ],
  flops: ([n, c, o, side, r]) => 4 * n * side ** 2 * o * c * 9 + 6 * n * side ** 2 * r * (c * 9 + o),
  elements: ([n, c, o, side, r]) =>
    n * (side ** 2 * (6 * c + 8 * c * 9 + 6 * o + 6 * r) + 2 * o * c * 9 + 4 * r * (c * 9 + o)),
  measure: ([n, c, o, side, r]) => {
    const p = side ** 2;
    const window = c * 9;
    return withBlocks(
      [
        n * c * p,
        o * window,
        r * window,
        o * r,
        n * r * p,
        n * o * p,
        r * p,
        n * o * p,
        n * c * p,
        r * window,
        o * r,
        window * COLUMNS,
      ],
      (x, w, a, b, h, y, zs, dy, dx, da, db, tile) => {
        const sizes = { inChannels: c, id: 1, ih: side, iw: side, outChannels: o, od: 1, oh: side, ow: side };
        const steps = { kd: 1, kh: 3, kw: 3, sd: 1, sh: 1, sw: 1, pd: 0, ph: 1, pw: 1, dd: 1, dh: 1, dw: 1 };
        const shape = { ...sizes, ...steps, groups: 1 };
        return measure(() => {
          kernels.loraConvForward({
            ...shape,
            n,
            r,
            s: SCALING,
            x,
            xDropped: x,
            weight: w,
            bias: 0,
            a,
            b,
            h,
            y,
            panel: tile,
            scratch,
          });
          kernels.loraConvBackward({
            ...shape,
            n,
            r,
            s: SCALING,
            x,
            xDropped: x,
            weight: w,
            a,
            b,
            h,
            zs,
            dy,
            dx,
            dxDropped: 0,
            dWeight: 0,
            dBias: 0,
            da,
            db,
            tile,
            columns: COLUMNS,
            scratch,
          });
        });
      },
    );
  },
};

/** GFLOP/s of the wall, and GB/s of reading what lies in `bytes`. */
async function walls() {
  const { chains, read } = openWall();
  const times = await race(chains, EFFORT);
  const gflops = Math.max(...chains.map(({ name, flops }) => flops / Math.min(...times[name]) / 1e6));
  const reads = await race(
    READS.map((bytes) => ({ name: `${bytes}`, run: read(bytes) })),
    EFFORT,
  );
  const rates = READS.map((bytes) => bytes / Math.min(...reads[bytes]) / 1e6);
  return { gflops, rates, rateOf: (bytes) => rates[READS.findIndex((size) => bytes <= size)] ?? rates.at(-1) };
}

const { gflops, rates, rateOf } = await walls();
const { engine, cpu } = await environment();
let text =
  `Measured on ${cpu}, ${engine}: the wall is ${gflops.toFixed(1)} GFLOP/s; reading takes ` +
  `${READS.map((bytes, i) => `${rates[i].toFixed(0)} GB/s of ` + `${bytes / 1024} KiB`).join(
    ", ",
  )}. CPU time, medians of ${EFFORT.rounds} rounds.\n`;
for (const { title, points, flops, elements, measure: measured } of [LINEAR, MERGED, CONV]) {
  text +=
    `\n| ${title} | MFLOP | MB | FLOP / byte | model, ms | measured, ms | GFLOP/s | model / measured ` +
    `|\n|---|---:|---:|---:|---:|---:|---:|---:|\n`;
  for (const point of points) {
    process.stderr.write(`${title.split(":")[0]}: ${point.join(", ")}\n`);
    const work = flops(point);
    const bytes = 4 * elements(point);
    const model = Math.max(work / gflops, bytes / rateOf(bytes)) / 1e6;
    const took = await measured(point);
    text +=
      `| ${point.join(", ")} | ${(work / 1e6).toFixed(1)} | ${(bytes / 1e6).toFixed(2)} | ` +
      `${(work / bytes).toFixed(1)} | ${model.toPrecision(3)} | ` +
      `${took.toPrecision(3)} | ${(work / took / 1e6).toFixed(1)} | ${((100 * model) / took).toFixed(0)} % |\n`;
  }
}
const document = readFileSync(DOCUMENT, "utf8");
const from = document.indexOf(BEGIN) + BEGIN.length;
const to = document.indexOf(END);
if (from < BEGIN.length || to < from) throw new Error(`${DOCUMENT.pathname} has not its two markers`);
writeFileSync(DOCUMENT, document.slice(0, from) + text + document.slice(to));
console.log(text);
