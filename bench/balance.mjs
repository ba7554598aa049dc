/**
 * How evenly the kernels of a training step would keep several threads busy: balance.mjs [--threads 8] [--rounds 4]
 * [--only <base | smollm2-135m>]. Nothing runs on several threads here, so this machine needs no more than one.
 *
 * A build of the kernels that tells of each part (scripts/build-wasm.mjs --traced) takes steps of LoRA on one thread,
 * with its loops cut as for so many. Each part's time is the least of all rounds, every other of which takes the parts
 * of a loop backwards: what comes first finds a cache without the data, and that is one part here, not one of each
 * thread. Then, loop after loop, whoever of the threads is free takes the next part, and the loop ends with its last
 * one. Printed for each kernel are the time on one thread, how much of it lies in loops that are cut, how busy these
 * keep the threads until they end, and the time that is left. Caches, memory and starting the threads are left out. The
 * exit code is 1 if the loops of a whole step keep the threads less than 95 % busy.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { clock } from "#platform";
import { models, train } from "../dist/src/index.js";
import { Engine, withEngine } from "../dist/src/runtime/engine.js";
import { LinearMemory } from "../dist/src/runtime/memory.js";
import { chooseTile } from "../dist/src/runtime/tile.js";
import { root } from "./build.mjs";
import { SMOLLM2_135M, writeModelFolder } from "./model_folder.mjs";

const PAGE = 65536;
const LEAST_BALANCE = 0.95;

/** Batch and tokens; the base has a folder. */
const STEPS = {
  base: { batch: 8, seq: 128 },
  "smollm2-135m": { batch: 4, seq: 128, config: SMOLLM2_135M },
};

const { values } = parseArgs({
  options: {
    threads: { type: "string", default: "8" },
    rounds: { type: "string", default: "4" },
    only: { type: "string", multiple: true, default: Object.keys(STEPS) },
  },
});
const threads = Number(values.threads);

/**
 * Calls of kernels, in their order: { name, before, outside, loops: [[milliseconds of a part]] }, with what passed
 * since the call before. `trace` fills the last.
 */
let calls = [];
let left = 0;
let [mark, cpuMark] = [0, 0];
/** Parts of the loop in hand, and whether one of them is. */
let parts = [];
let inPart = false;
/** Whether the round in hand takes them backwards. */
let backwards = false;

/**
 * Milliseconds since `start` took the time: on the wall, whose clock is fine, or of the processor where it is so long
 * that others may have run meanwhile.
 */
function elapsed() {
  const wall = performance.now() - mark;
  return wall < 0.5 ? wall : Math.min(wall, clock() - cpuMark);
}
function start() {
  cpuMark = clock();
  mark = performance.now();
}

/**
 * What the traced build calls: -1 where a loop begins, its units where a part does, 0 where the loop is done. Answers
 * whether the parts are taken backwards.
 */
function trace(units) {
  const ms = elapsed();
  const call = calls.at(-1);
  if (inPart) parts.push(ms);
  else call.outside += ms;
  inPart = units > 0;
  if (units < 0) parts = [];
  if (units === 0) call.loops.push(backwards ? parts.reverse() : parts);
  start();
  return backwards;
}

/** An engine of the traced build on one thread, whose loops are cut as for so many. */
function openTraced() {
  const memory = new WebAssembly.Memory({ initial: 2, maximum: PAGE });
  const module = new WebAssembly.Module(readFileSync(join(root, "build/wasm-lora.traced.wasm")));
  const { exports } = new WebAssembly.Instance(module, { env: { memory, trace } });
  calls = [{ outside: 0, loops: [] }];
  const engine = new Engine(exports, new LinearMemory(memory, exports.heapBase() >>> 0, PAGE * PAGE));
  chooseTile(engine);
  exports.useThread(engine.memory.alloc(exports.threadControlBytes()), threads, 0, false);
  const { kernels } = engine;
  for (const [name, kernel] of Object.entries(kernels))
    kernels[name] = (...args) => {
      exports.enterCall();
      calls.push({ name, before: performance.now() - left, outside: 0, loops: [] });
      start();
      const result = kernel(...args);
      calls.at(-1).outside += elapsed();
      exports.leaveCall();
      left = performance.now();
      return result;
    };
  return engine;
}

/** Calls of the kernels of one step, each time the least of all rounds. */
function traced(step) {
  const rounds = Array.from({ length: 2 + Number(values.rounds) }, (_, round) => {
    calls = [];
    backwards = round % 2 === 1;
    left = performance.now();
    step();
    return calls;
  }).slice(2);
  const least = (of) => Math.min(...rounds.map(of));
  return rounds[0].map(({ name, loops }, c) => ({
    name,
    before: least((calls) => calls[c].before),
    outside: least((calls) => calls[c].outside),
    loops: loops.map((parts, l) => parts.map((_, p) => least((calls) => calls[c].loops[l][p]))),
  }));
}

const total = (times) => times.reduce((sum, ms) => sum + ms, 0);

/** When the last of the threads is done, of which whoever is free takes the next part. */
function makespan(parts) {
  const busy = new Float64Array(threads);
  for (const ms of parts) busy[busy.indexOf(Math.min(...busy))] += ms;
  return Math.max(...busy);
}

/** What some calls take on one thread, in loops that are cut, and both on all threads. */
function sumOf(calls) {
  const cut = calls.flatMap(({ loops }) => loops.filter((parts) => parts.length > 1));
  const inCut = total(cut.map(total));
  const alone = total(calls.flatMap(({ outside, loops }) => [outside, ...loops.map(total)])) - inCut;
  const spread = total(cut.map(makespan));
  return { one: alone + inCut, inCut, spread, all: alone + spread };
}

const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : "");

function report(title, calls) {
  const names = [...new Set(calls.map(({ name }) => name))];
  const rows = names
    .map((name) => ({ name, ...sumOf(calls.filter((call) => call.name === name)) }))
    .sort((a, b) => b.one - a.one)
    .filter(({ one }, _, [first]) => one > first.one / 1000);
  const whole = sumOf(calls);
  const outside = total(calls.map(({ before }) => before));
  const line = (name, { one, inCut, spread, all }) => {
    const cells = [name, one.toFixed(2), percent(inCut / one), percent(inCut / (threads * spread)), all.toFixed(2)];
    return `| ${cells.join(" | ")} |`;
  };
  console.log(
    [
      `\n${title}\n`,
      `| kernel | ms on one thread | in loops that are cut | busy in these, of ${threads} | ms on ${threads} |`,
      "|---|---:|---:|---:|---:|",
      ...rows.map(({ name, ...sums }) => line(name, sums)),
      line("all kernels", whole),
      line("outside of kernels", { one: outside, inCut: 0, spread: 0, all: outside }),
    ].join("\n"),
  );
  const [one, all] = [whole.one + outside, whole.all + outside];
  console.log(`\n${threads} threads: ${(one / all).toFixed(2)} times as fast, if memory and caches kept up.`);
  return whole.inCut / (threads * whole.spread);
}

execFileSync(process.execPath, ["scripts/build-wasm.mjs", "--traced"], { cwd: root, stdio: "inherit" });
console.log(`${cpus()[0].model.trim()}, Node ${process.versions.node}`);
for (const name of values.only) {
  const { batch, seq, config } = STEPS[name];
  const folder = config ? mkdtempSync(join(tmpdir(), "balance-")) : join(root, "models/base");
  withEngine(openTraced(), () => {
    try {
      if (config) writeModelFolder(folder, config);
      const { model } = models.loadModel(folder);
      const tokens = Int32Array.from({ length: 4000 }, (_, i) => (i * i * 7 + 3 * i) % model.config.vocabSize);
      const adapter = { r: 8, targetModules: "all-linear" };
      const run = new train.Finetuning(model, tokens, { batch, seq, steps: 1000, lr: 1e-4, adapter, testSize: 0 });
      const busy = report(
        `A step of ${name}, ${batch} x ${seq}, LoRA of rank 8 on all linear layers`,
        traced(() => run.step()),
      );
      if (busy < LEAST_BALANCE) process.exitCode = 1;
    } finally {
      if (config) rmSync(folder, { recursive: true });
    }
  });
}
