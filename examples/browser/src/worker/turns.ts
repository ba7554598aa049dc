/** Turns with others: with other tabs, which may not train at the same time, and with the page's messages. */
import { Refusal } from "../refusal";

const LOCK_PATIENCE_MS = 3000;

/** Runs fn while no other tab trains or saves. A page that was just left, or reloaded, lets go a moment later. */
export async function alone<T>(fn: () => Promise<T>): Promise<T> {
  // Locks are for secure contexts only. Elsewhere a tab still does not save over what another has saved.
  if (!navigator.locks) return fn();
  let begun = false;
  try {
    return (await navigator.locks.request("wasm-lora-run", { signal: AbortSignal.timeout(LOCK_PATIENCE_MS) }, () => {
      begun = true;
      return fn();
    })) as T;
  } catch (error) {
    if (begun || !["TimeoutError", "AbortError"].includes((error as Error).name)) throw error;
    throw new Refusal("page", "Another tab of this page is training. Go on there, or pause it there and try again.");
  }
}

/** Lets messages in. Unlike a timer, it is not slowed down when the tab is hidden. */
export function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** Tells the page that the worker is alive. */
export function alive(): void {
  postMessage("alive");
}

/** Says so whenever it has something to say. */
export function watched<T>(say: (value: T) => void): (value: T) => void {
  return (value) => {
    alive();
    say(value);
  };
}

/** Says it at most ten times a second, and the last of it: a page does not need to hear of every packet. */
export function seldom(
  say: (done: string, share: number | null) => void,
): (done: string, share: number | null) => void {
  let last = 0;
  return (done, share) => {
    const now = performance.now();
    if (share !== 1 && now - last < 100) return;
    last = now;
    say(done, share);
  };
}
