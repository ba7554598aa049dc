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
    `(${source})(workerData, () => parentPort.postMessage("ready")));`;
  // Options of this process (--import, --input-type) are not for them.
  const worker = new Worker(code, { eval: true, workerData: start, execArgv: [], name: "wasm-lora" });
  let end = (): void => {};
  const ready = new Promise<void>((resolve, reject) => {
    let ended: (why: string) => void = (why) => reject(new Error(why));
    const begun = (): void => {
      ended = lost;
      // A program ends although its threads wait for the next call.
      worker.unref();
      resolve();
    };
    worker.once("message", begun);
    // An error is followed by an exit.
    const once = (why: string): void => {
      ended(why);
      ended = () => {};
    };
    worker.on("error", (error) => once(String((error as Error).message)));
    worker.on("exit", (code) => once(`it exited with ${code}`));
    end = () => {
      ended = () => {};
      // Its word that it is there may be on its way.
      worker.off("message", begun);
      resolve();
      void worker.terminate();
    };
  });
  return { ready, end };
}
