/** Threads of pages, and of their workers. */
import type { Spawned, ThreadStart } from "./thread.js";

/** Why there can be no threads here, if so. */
export function refusal(): string | undefined {
  if (globalThis.crossOriginIsolated) return undefined;
  return (
    "this page is not cross-origin isolated, so it has no shared memory: serve it with the headers " +
    "Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp"
  );
}

/** How many threads run at a time. */
export function processors(): number {
  return navigator.hardwareConcurrency;
}

/** @param lost called when it ends by itself after it was ready */
export function spawn(source: string, start: ThreadStart, lost: (why: string) => void): Spawned {
  const code = `onmessage = ({ data }) => (${source})(data, (message) => postMessage(message));`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const worker = new Worker(url, { name: "wasm-lora" });
  let isReady = false;
  const ready = new Promise<void>((resolve, reject) => {
    worker.onmessage = () => {
      isReady = true;
      resolve();
    };
    worker.onerror = ({ message }) => {
      const why = message || "the page's Content-Security-Policy may forbid it: add blob: to its worker-src";
      if (isReady) lost(why);
      else reject(new Error(why));
    };
    worker.postMessage(start);
  }).finally(() => URL.revokeObjectURL(url));
  return { ready, end: () => worker.terminate() };
}
