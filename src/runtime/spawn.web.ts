/** Threads of pages, and of their workers. */
import type { Spawned, ThreadStart } from "./thread.js";

/** Why there can be no threads here, if so. */
export function refusal(): string | undefined {
  if (globalThis.crossOriginIsolated) return undefined;
  return (
    "there is no shared memory here, which pages have when they are served with the headers " +
    "Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp"
  );
}

/** How many threads run at a time. */
export function processors(): number {
  return navigator.hardwareConcurrency;
}

/** @param lost called when it ends by itself after it was ready */
export function spawn(source: string, start: ThreadStart, lost: (why: string) => void): Spawned {
  const code =
    `onmessage = ({ data }) => (${source})(data, () => postMessage("ready"));` +
    'onmessageerror = () => { throw new Error("the kernels could not be handed to it"); };';
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  let worker: Worker;
  try {
    worker = new Worker(url, { name: "wasm-lora" });
  } catch (error) {
    URL.revokeObjectURL(url);
    throw error;
  }
  let end = (): void => {};
  const ready = new Promise<void>((resolve, reject) => {
    let ended: (why: string) => void = (why) => reject(new Error(why));
    worker.onmessage = () => {
      ended = lost;
      resolve();
    };
    worker.onerror = ({ message }) =>
      ended(message || "the page's Content-Security-Policy may forbid it: add blob: to its worker-src");
    end = () => {
      ended = () => {};
      // Its word that it is there may be on its way.
      worker.onmessage = null;
      resolve();
      worker.terminate();
    };
    worker.postMessage(start);
  }).finally(() => URL.revokeObjectURL(url));
  return { ready, end };
}
