/**
 * The threads of one engine. Kernels divide their work among them (assembly/threads.ts); here they are started, told of
 * each call, and ended.
 */
import { spawn } from "#spawn";
import { CONTROL, serve, type Spawned, type ThreadStart } from "./thread.js";

/** What stands as the fault when all is over. */
const OVER = 3;

type Exports = Record<string, (...args: unknown[]) => unknown>;

/** Threads 1 to count - 1, beside the caller's, which is thread 0. */
export class Threads {
  readonly #words: Int32Array;
  readonly #arguments: Float64Array;
  readonly #exports: Exports;
  readonly #control: number;
  #others: Spawned[] = [];
  #count: number;

  /** @param control threadControlBytes() bytes of linear memory that is shared */
  constructor(count: number, exports: Exports, memory: WebAssembly.Memory, control: number) {
    this.#count = count;
    this.#exports = exports;
    this.#control = control;
    this.#words = new Int32Array(memory.buffer, control, CONTROL.words).fill(0);
    this.#arguments = new Float64Array(memory.buffer, control + CONTROL.arguments, 8);
    this.#use(count);
  }

  /** How many compute, with the caller's. */
  get count(): number {
    return this.#count;
  }

  /** Whether one of them has failed or was given up: then the call that it was in is lost. */
  get hasFailed(): boolean {
    const fault = Atomics.load(this.#words, CONTROL.fault);
    return fault !== 0 && fault !== OVER;
  }

  /** Starts the others. Where one of them cannot be, the caller's computes alone, and a warning says why. */
  async start(module: WebAssembly.Module, memory: WebAssembly.Memory): Promise<void> {
    const threads = this.#count;
    const names = WebAssembly.Module.exports(module).map(({ name }) => name);
    const bigTile = this.#exports["usesBigTile"]!() !== 0;
    const lost = (why: string): void => {
      if (Atomics.load(this.#words, CONTROL.fault) === 0)
        console.warn(`wasm-lora: one of ${threads} threads has ended: ${why}. The others go on, to the same bits.`);
    };
    try {
      for (let thread = 1; thread < threads; thread++) {
        const start: ThreadStart = {
          module,
          memory,
          control: this.#control,
          at: CONTROL,
          thread,
          threads,
          bigTile,
          names,
        };
        this.#others.push(spawn(String(serve), start, lost));
      }
      await Promise.all(this.#others.map(({ ready }) => ready));
    } catch (error) {
      // Closed meanwhile, there is nothing to tell.
      if (this.#others.length === 0) return;
      for (const other of this.#others.splice(0)) other.end();
      this.#use((this.#count = 1));
      const { message } = error as Error;
      console.warn(`wasm-lora: one thread computes, to the same bits: no others can be started here: ${message}.`);
    }
  }

  #use(count: number): void {
    this.#exports["useThread"]!(this.#control, count, 0, maySleep());
  }

  /** Runs a kernel, in which the others may take part. `index`: its place in the names that they know. */
  call(kernel: (...args: unknown[]) => unknown, index: number, args: unknown[]): unknown {
    this.#words[CONTROL.kernel] = index;
    for (let i = 0; i < args.length; i++) this.#arguments[i] = args[i] as number;
    this.#exports["enterCall"]!();
    const result = kernel(...args);
    this.#exports["leaveCall"]!();
    return result;
  }

  /** Lets the others go, wherever they are. */
  end(): void {
    Atomics.compareExchange(this.#words, CONTROL.fault, 0, OVER);
    Atomics.add(this.#words, CONTROL.epoch, 2);
    Atomics.notify(this.#words, CONTROL.epoch);
    Atomics.notify(this.#words, CONTROL.loop);
    for (const other of this.#others.splice(0)) other.end();
  }
}

/** Whether this thread may wait for another: that of a page may not. */
function maySleep(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0);
    return true;
  } catch {
    return false;
  }
}
