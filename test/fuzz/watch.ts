/**
 * A watchdog over workers: goes through a target's inputs, and goes on in a new worker where one hung, ran out of
 * memory or met a fault. Hanging is judged by the process's own processor time, so that a busy machine accuses nobody.
 */
import { Worker } from "node:worker_threads";
import { CLOCK, INPUT, RESIDENT, SIZE, type Fault, type Job, type Progress } from "./job.js";
import { kept, memoryLimit, timeLimit, type Target } from "./target.js";

export interface Outcome {
  target: string;
  inputs: number;
  accepted: number;
  refused: Record<string, number>;
  faults: Fault[];
  slowest: Progress["slowest"];
  /** Most bytes that one input took. */
  bytes: number;
  /** Largest resident set of the process meanwhile, in bytes. */
  resident: number;
}

/** A worker whose heap passes this is ended by its engine. */
const HEAP_MB = 1024;
/** The process is stopped here at the latest. */
const RESIDENT_LIMIT = 3e9;
export async function watch(
  target: Target,
  {
    seed,
    from,
    inputs,
    mostFaults,
    progress,
  }: {
    seed: number;
    from?: number;
    inputs: number;
    mostFaults: number;
    progress(done: number): void;
  },
): Promise<Outcome> {
  const old = from === undefined ? kept(target.name).length : 0;
  const first = from ?? -old;
  const end = (from ?? 0) + inputs;
  const outcome: Outcome = {
    target: target.name,
    inputs: 0,
    accepted: 0,
    refused: {},
    faults: [],
    slowest: { ms: 0, index: 0, bytes: 0 },
    bytes: 0,
    resident: 0,
  };
  const skip: number[] = [];
  const count = (p: Progress): void => {
    outcome.accepted += p.accepted;
    for (const [name, n] of Object.entries(p.refused)) outcome.refused[name] = (outcome.refused[name] ?? 0) + n;
    if (p.slowest.ms > outcome.slowest.ms) outcome.slowest = p.slowest;
    outcome.bytes = Math.max(outcome.bytes, p.bytes);
    next = Math.max(next, p.index + 1);
    progress(next - first);
  };
  let next = first;
  while (next < end && outcome.faults.length < mostFaults) {
    const stuck = await work(
      target,
      { target: target.name, seed, from: next, to: end, skip, shared: new SharedArrayBuffer(16) },
      count,
      outcome,
    );
    if (stuck !== undefined) {
      skip.push(stuck.index);
      outcome.faults.push(stuck);
    }
    if (skip.includes(next)) next++;
  }
  outcome.inputs = next - first;
  return outcome;
}

/** Runs one worker to its end. Returns what stopped it, if anything did. */
async function work(
  target: Target,
  job: Job,
  count: (p: Progress) => void,
  outcome: Outcome,
): Promise<Fault | undefined> {
  const words = new Int32Array(job.shared);
  const worker = new Worker(new URL("./worker.js", import.meta.url), {
    workerData: job,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  });
  const fault = (title: string): Fault => ({ kind: "fault", index: words[INPUT]!, title, stack: "" });
  let stopped: Fault | undefined;
  let clock = 0;
  let cpu = process.cpuUsage();
  let began = performance.now();
  const stop = (title: string): void => {
    stopped ??= fault(title);
    void worker.terminate();
  };
  const timer = setInterval(
    () => {
      const resident = process.memoryUsage.rss();
      const { user, system } = process.cpuUsage(cpu);
      const now = performance.now();
      outcome.resident = Math.max(outcome.resident, resident);
      if (resident > RESIDENT_LIMIT) stop(`takes ${resident} bytes`);
      if (words[CLOCK] !== clock) {
        clock = words[CLOCK]!;
        cpu = process.cpuUsage();
        began = now;
      } else {
        // Phases are counted, so an odd clock stands for making an input, which has no limit of its own.
        const limit = timeLimit(words[SIZE]!);
        const spent = (user + system) / 1000;
        if (now - began > (clock % 2 === 0 && clock > 0 && spent > limit ? limit : 60_000))
          stop(`hangs: more than ${limit.toFixed(0)} ms`);
      }
      if (target.names && clock % 2 === 0 && clock > 0) {
        const grown = resident - words[RESIDENT]! * 1024;
        const allowed = memoryLimit(target, words[SIZE]!);
        outcome.bytes = Math.max(outcome.bytes, grown);
        if (grown > allowed) stop(`${grown} bytes are taken for an input of ${words[SIZE]}`);
      }
    },
    target.names ? 4 : 20,
  );
  worker.on("message", (message: Progress | Fault) => {
    if (message.kind === "progress") count(message);
    else stopped ??= message;
  });
  worker.on("error", (error: NodeJS.ErrnoException) => {
    stopped ??= fault(
      error.code === "ERR_WORKER_OUT_OF_MEMORY"
        ? `takes more than ${HEAP_MB} MB of heap`
        : `ends the worker: ${error.stack ?? String(error)}`,
    );
  });
  // Not events.once, which an error would end.
  const code = await new Promise<number>((resolve) => {
    worker.on("exit", resolve);
  });
  clearInterval(timer);
  return code === 0 ? stopped : (stopped ?? fault(`ends the worker with code ${code}`));
}
