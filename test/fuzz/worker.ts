/**
 * Runs inputs of one target, one after the other, and says over shared memory which it is at. After a fault the worker
 * ends: what the fault left behind would be blamed on the next input.
 */
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { parentPort, workerData } from "node:worker_threads";
import { init, memoryStats, nn, scope, zeros } from "../../src/index.js";
import { engine } from "../../src/runtime/engine.js";
import { inputAt, kept, memoryLimit, must, refusal, sizeOf, timeLimit, type Target } from "./target.js";
import { CLOCK, INPUT, RESIDENT, SIZE, type Fault, type Job, type Progress } from "./job.js";
import { TARGETS } from "./targets/index.js";
import { planted } from "./targets/planted.js";

const job = workerData as Job;
const words = new Int32Array(job.shared);
const target: Target = [...TARGETS, planted].find(({ name }) => name === job.target)!;
const old = kept(target.name);

function report(message: Progress | Fault): void {
  parentPort!.postMessage(message);
}

/** Only the limit is shown to the heap: garbage that nobody collected is no memory that an input needed. */
let collect = (): void => {};
if (target.names) {
  setFlagsFromString("--expose-gc");
  collect = runInNewContext("gc") as () => void;
}

/** Bytes that named inputs may leave in the process before a new worker goes on. */
const KEPT_AT_MOST = 48e6;

function held(): number {
  const { used_heap_size, external_memory } = getHeapStatistics();
  return used_heap_size + external_memory;
}

function usedMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Library code must leave the objects of everybody as they were. */
function assertUnpolluted(): void {
  for (const key in {}) must(false, () => `Object.prototype has got ${JSON.stringify(key)}`);
  must(Object.getOwnPropertyNames(Object.prototype).length === PROTOTYPE_KEYS, () => "Object.prototype has changed");
}
const PROTOTYPE_KEYS = Object.getOwnPropertyNames(Object.prototype).length;

async function main(): Promise<void> {
  // What commands print belongs to nobody here.
  console.log = console.warn = console.info = console.error = () => {};
  process.stdout.write = process.stderr.write = () => true;
  await init({ maximumBytes: 1 << 29 });
  // Made at the first draw, and then there for good.
  scope(() => nn.uniform_(zeros([1])));
  await target.prepare?.();
  const atStart = process.memoryUsage.rss();
  let progress = empty(job.from - 1);
  let told = performance.now();
  for (let index = job.from; index < job.to; index++) {
    if (job.skip.includes(index)) continue;
    words[INPUT] = index;
    Atomics.add(words, CLOCK, 1);
    const input = index < 0 ? old.at(index)!.input : inputAt(target, job.seed, index);
    const bytes = sizeOf(input);
    const allowed = memoryLimit(target, bytes);
    const { liveBytes } = memoryStats();
    engine().memory.resetPeak();
    collect();
    words[SIZE] = bytes;
    words[RESIDENT] = process.memoryUsage.rss() / 1024;
    const before = held();
    const began = performance.now();
    const cpu = usedMs();
    Atomics.add(words, CLOCK, 1);
    try {
      let outcome: string | undefined | void;
      try {
        outcome = await target.run(input);
      } catch (error) {
        outcome = refusal(error);
      }
      // Processor time, where it is less: the machine may have had other things to do.
      const ms = Math.min(performance.now() - began, usedMs() - cpu);
      const after = memoryStats();
      must(after.liveBytes === liveBytes, () => `${after.liveBytes - liveBytes} bytes of linear memory are left`);
      const most = Math.max(after.peakBytes - liveBytes, held() - before);
      must(most <= allowed, () => `${most} bytes were taken for an input of ${bytes}`);
      must(ms <= timeLimit(bytes), () => `${ms.toFixed(0)} ms for an input of ${bytes} bytes`);
      assertUnpolluted();
      if (outcome === undefined) progress.accepted++;
      else progress.refused[outcome] = (progress.refused[outcome] ?? 0) + 1;
      progress.bytes = Math.max(progress.bytes, most);
      if (ms > progress.slowest.ms) progress.slowest = { ms, index, bytes };
      progress.index = index;
    } catch (error) {
      report(progress);
      const { name = "not an Error", message = String(error), stack = "" } = (error ?? {}) as Partial<Error>;
      report({ kind: "fault", index, title: `${name}: ${message}`, stack });
      return;
    }
    if (target.names) {
      collect();
      // What the process keeps would hide what the next one takes.
      if (process.memoryUsage.rss() > atStart + KEPT_AT_MOST) break;
    }
    if (performance.now() - told > 50) {
      report(progress);
      progress = empty(index);
      told = performance.now();
    }
  }
  report(progress);
}

function empty(index: number): Progress {
  return { kind: "progress", index, accepted: 0, refused: {}, slowest: { ms: 0, index, bytes: 0 }, bytes: 0 };
}

await main();
