/**
 * How fast is a plain f32 matrix product, C [M, N] = A [M, K] B [K, N], on one thread?
 * Races wasm-lora's sgemm against the matmul of the JavaScript engines that run on a CPU, in one
 * process on the same data, after checking every result against a float64 product.
 * GFLOP/s = 2 M N K / CPU time. See README.md for what each peer's figure includes.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { PEERS } from "./matmul-peers.mjs";
import { formatTable, machine, race } from "./race.mjs";

const SHAPES = "128x768x768,512x512x512,1024x1024x1024,128x3072x768,128x8x768,128x768x8,8x768x768,1x768x768";
const USAGE = `Usage: node bench/gemm.mjs [--rounds N] [--shapes MxNxK,...]

  --rounds N     bursts per engine and shape (default 15); the table shows their median and best
  --shapes LIST  default ${SHAPES}
  --help         this text

Prints a table and writes bench/results/gemm.json. Build the library first: npm run build.`;

function readOptions() {
  const { values } = parseArgs({ options: {
    rounds: { type: "string", default: "15" },
    shapes: { type: "string", default: SHAPES },
    help: { type: "boolean", default: false },
  } });
  if (values.help) return undefined;
  const rounds = Number(values.rounds);
  if (!Number.isSafeInteger(rounds) || rounds < 1) throw new RangeError(`--rounds must be a positive integer; got ${values.rounds}.`);
  const shapes = values.shapes.split(",").map((text) => {
    const dims = text.split("x").map(Number);
    if (dims.length !== 3 || !dims.every((dim) => Number.isSafeInteger(dim) && dim > 0)) {
      throw new RangeError(`--shapes must be MxNxK with positive integers; got ${text}.`);
    }
    return dims;
  });
  return { rounds, shapes };
}

/** Values in [-1, 1) from a linear congruential generator: the same data in every run. */
function values(length, seed) {
  let state = seed >>> 0;
  return new Float32Array(length).map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 8388608 - 1;
  });
}

/** Largest error of about a thousand elements against float64, in units of the bound gamma_k * sum |a b|. */
function worstError(actual, m, n, k, a, b) {
  if (actual.length !== m * n) return Infinity;
  const gamma = k * 2 ** -24 / (1 - k * 2 ** -24);
  const step = Math.max(1, Math.floor(m * n / 1009));
  let worst = 0;
  for (let at = 0; at < m * n; at += step) {
    const i = Math.floor(at / n), j = at % n;
    let sum = 0, size = 0;
    for (let p = 0; p < k; p++) {
      const term = a[i * k + p] * b[p * n + j];
      sum += term;
      size += Math.abs(term);
    }
    const error = Math.abs(actual[at] - sum) / (gamma * size);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

async function openEngines() {
  const engines = [];
  for (const { name, open } of PEERS) {
    try {
      engines.push({ name, ...(await open()) });
    } catch (error) {
      engines.push({ name, reason: String(error.message ?? error).split("\n")[0] });
    }
  }
  return engines;
}

/** GFLOP/s of every engine at one shape, or the reason why there is none. */
async function raceShape(engines, [m, n, k], rounds, onRound) {
  const a = values(m * k, 1), b = values(k * n, 2);
  const outcome = {}, contestants = [], open = [];
  for (const { name, matmul, reason } of engines) {
    outcome[name] = { reason };
    if (matmul === undefined) continue;
    const product = await matmul(m, n, k, a, b);
    open.push(product);
    const error = worstError(await product.result(), m, n, k, a, b);
    if (error <= 1) contestants.push({ name, run: product.run });
    outcome[name] = error <= 1 ? { errorOfBound: error } : { reason: `wrong result at ${m} x ${n} x ${k}: ${error} times the error bound` };
  }
  const times = await race(contestants, rounds, onRound);
  for (const product of open) await product.free();
  const gflops = (ms) => 2 * m * n * k / ms / 1e6;
  for (const [name, { median, best, wallMedian, runsPerBurst }] of Object.entries(times)) {
    Object.assign(outcome[name], {
      medianGflops: gflops(median), bestGflops: gflops(best), wallMedianGflops: gflops(wallMedian), runsPerBurst,
    });
  }
  return outcome;
}

async function main({ rounds, shapes }) {
  const engines = await openEngines();
  const about = machine();
  const results = [];
  const start = performance.now();
  for (const [index, shape] of shapes.entries()) {
    const engineResults = await raceShape(engines, shape, rounds, (round) => {
      const done = index + round / rounds;
      const left = (performance.now() - start) / done * (shapes.length - done) / 1000;
      const line = `${shape.join("x")}: round ${round}/${rounds}, shape ${index + 1}/${shapes.length}, about ${Math.ceil(left)} s left`;
      if (process.stderr.isTTY) process.stderr.write(`\r${line.padEnd(79)}${round === rounds ? "\n" : ""}`);
      else if (round === rounds) process.stderr.write(`${line}\n`);
    });
    results.push({ m: shape[0], n: shape[1], k: shape[2], engines: engineResults });
  }

  console.log(`${about.cpu}, ${about.platform}, Node ${about.node} (V8 ${about.v8}); one thread, f32`);
  console.log(`GFLOP/s of CPU time, median (best) of ${rounds} interleaved rounds\n`);
  const cell = ({ medianGflops, bestGflops, reason }) =>
    (reason === undefined ? `${medianGflops.toFixed(1)} (${bestGflops.toFixed(1)})` : "n/a");
  console.log(formatTable([
    ["M x N x K", ...engines.map(({ name, version }) => (version === undefined ? name : `${name} ${version}`))],
    ...results.map(({ m, n, k, engines: row }) => [`${m} x ${n} x ${k}`, ...engines.map(({ name }) => cell(row[name]))]),
  ]));
  const reasons = new Set(results.flatMap(({ engines: row }) => Object.entries(row).flatMap(([name, { reason }]) =>
    (reason === undefined ? [] : [`${name}: n/a: ${reason}`]))));
  if (reasons.size > 0) console.log(`\n${[...reasons].join("\n")}`);

  const directory = new URL("results/", import.meta.url);
  mkdirSync(directory, { recursive: true });
  const versions = Object.fromEntries(engines.map(({ name, version }) => [name, version ?? null]));
  writeFileSync(new URL("gemm.json", directory), `${JSON.stringify({ machine: about, rounds, versions, results }, null, 2)}\n`);
}

let options;
try {
  options = readOptions();
} catch (error) {
  console.error(`gemm: ${error.message}\n\n${USAGE}`);
  process.exit(2);
}
if (options === undefined) console.log(USAGE);
else await main(options);
