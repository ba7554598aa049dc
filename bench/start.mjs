/**
 * What it costs to start, in a fresh process: start.mjs <engine>. Prints JSON: milliseconds of CPU time to import and
 * initialise, and of a first LoRA step, and by how much the process's memory had grown at most after one of the steps.
 * (Not the kernel's own peak: on Linux a process starts with its parent's.)
 */
import { clock } from "#platform";
import { values } from "./reference.mjs";
import { ENGINES, JAX, OURS, TFJS } from "./engines.mjs";

const [n, d, k, r] = [128, 768, 768, 8];
const problem = {
  n,
  d,
  k,
  r,
  s: 2,
  x: values(n * d, 1),
  w: values(k * d, 2),
  a: values(r * d, 3),
  b: values(k * r, 4),
  dy: values(n * k, 5),
};
const STEP = { [OURS]: "loraStep", [TFJS]: "loraStepAtBest", [JAX]: "loraStep" };

const name = process.argv[2];
const before = process.memoryUsage.rss();
const start = clock();
const engine = await (await ENGINES[name]()).open();
const opened = clock();
const step = await engine[STEP[name]](problem);
await step.run();
const first = clock();
let peak = process.memoryUsage.rss();
for (let i = 0; i < 10; i++) {
  await step.run();
  peak = Math.max(peak, process.memoryUsage.rss());
}
const result = { initMs: opened - start, firstStepMs: first - opened, grownMiB: (peak - before) / 2 ** 20 };
if (name === OURS) {
  const { io, memoryStats, models } = await import("../dist/src/index.js");
  const { baseFiles } = await import("#platform");
  for (const [file, bytes] of Object.entries(baseFiles))
    io.memoryFiles.set(`memory:bench/${file}`, new Uint8Array(bytes));
  result.linearMemoryMiB = memoryStats().peakBytes / 2 ** 20;
  const loading = clock();
  models.loadModel("memory:bench");
  result.loadBaseMs = clock() - loading;
}
console.log(JSON.stringify(result));
