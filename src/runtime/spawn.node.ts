/** Threads of Node, Deno and Bun. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Spawned, ThreadStart } from "./thread.js";

/** Why there can be no threads here, if so. */
export function refusal(): string | undefined {
  return undefined;
}

/** How many threads run at a time. */
export function processors(): number {
  return availableParallelism();
}

/** @param lost called when it ends by itself after it was ready */
export function spawn(source: string, start: ThreadStart, lost: (why: string) => void): Spawned {
  const code =
    'import("node:worker_threads").then(({ parentPort, workerData }) => ' +
    `(${source})(workerData, (message) => parentPort.postMessage(message)));`;
  // Options of this process (--import, --input-type) are not for them.
  const worker = new Worker(code, { eval: true, workerData: start, execArgv: [] });
  let isReady = false;
  const ready = new Promise<void>((resolve, reject) => {
    const end = (why: string): void => (isReady ? lost(why) : reject(new Error(why)));
    worker.once("message", () => {
      isReady = true;
      // A program ends although its threads wait for the next call.
      worker.unref();
      resolve();
    });
    worker.once("error", (error) => end(String((error as Error).message)));
    worker.once("exit", (code) => end(`it exited with ${code}`));
  });
  return {
    ready,
    end: () => {
      worker.removeAllListeners();
      void worker.terminate();
    },
  };
}
