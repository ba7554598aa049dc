/**
 * The worker and its calls. A worker that gives no sign in the middle of a call is ended and replaced: an adapter of a
 * stranger, or a fault, may keep it busy for good. What the old one still says is not heard.
 */
import { proxy, wrap, type Remote } from "comlink";
import type { Studio } from "../worker/studio";

/** How long a worker may be silent, on a slow phone too. */
const PATIENCE_S = 60;

/** Makes a callback for the worker, which is dead once the call is over. */
type Live = <V>(fn: (value: V) => void) => (value: V) => void;

export class Host {
  #worker!: Worker;
  #studio!: Remote<Studio>;
  /** Calls that wait for an answer: how to end each, and how long it may take in silence. */
  readonly #waiting = new Map<(error: Error) => void, number>();
  #silentS = 0;

  /** @param onFault hears of a worker that could not be started */
  constructor(private readonly onFault: (message: string) => void) {
    this.start();
    // Seconds of the page's own time: it may sleep, and its worker with it.
    setInterval(() => this.#look(), 1000);
  }

  /** A new worker in place of the old one, whose calls all fail. */
  start(): void {
    this.#end(new WorkerLost("another took its place"));
    const worker = new Worker(new URL("../worker/worker.ts", import.meta.url), { type: "module" });
    worker.addEventListener("message", () => {
      this.#silentS = 0;
    });
    worker.addEventListener("error", (event) => {
      if (worker === this.#worker) this.onFault(event.message || "the worker could not be started");
    });
    this.#worker = worker;
    this.#studio = wrap<Studio>(worker);
  }

  /**
   * @param patienceS seconds of silence after which the worker is given up
   */
  async call<T>(ask: (studio: Remote<Studio>, live: Live) => Promise<T>, patienceS = PATIENCE_S): Promise<T> {
    let over = false;
    let fail!: (error: Error) => void;
    const live: Live = <V>(fn: (value: V) => void) =>
      proxy((value: V) => {
        if (!over) fn(value);
      });
    if (this.#waiting.size === 0) this.#silentS = 0;
    try {
      return await new Promise<T>((resolve, reject) => {
        fail = reject;
        this.#waiting.set(fail, patienceS);
        ask(this.#studio, live).then(resolve, reject);
      });
    } finally {
      over = true;
      this.#waiting.delete(fail);
    }
  }

  #look(): void {
    this.#silentS++;
    const least = Math.min(...this.#waiting.values());
    if (this.#silentS > least) this.#end(new WorkerLost(`it gave no sign for ${least} s`));
  }

  #end(reason: WorkerLost): void {
    this.#worker?.terminate();
    for (const fail of this.#waiting.keys()) fail(reason);
    this.#waiting.clear();
  }
}

/** The worker had to be replaced: all that it held is gone, but for what was saved. */
export class WorkerLost extends Error {
  constructor(message: string) {
    super(message);
    this.name = "WorkerLost";
  }
}
