/**
 * The threads of one engine. Kernels divide their work among them (assembly/threads.ts); here they are started, told of
 * each call, and ended.
 */
import { spawn } from "#spawn";
import { CONTROL, serve, type Spawned, type ThreadStart } from "./thread.js";

/** What stands as the fault: a thread has failed, and left a message; one did not come back; all is over. */
const FAILED = 1;
const GONE = 2;
const OVER = 3;
/** A thread that is not there after so long will not come. */
const LONGEST_START_MS = 30_000;

type Exports = Record<string, (...args: unknown[]) => unknown>;

/** Threads 1 to count - 1, beside the caller's, which is thread 0. */
export class Threads {
  readonly #words: Int32Array;
  readonly #arguments: Float64Array;
  readonly #message: Uint8Array;
  readonly #exports: Exports;
  readonly #control: number;
  readonly #count: number;
  #others: Spawned[] = [];
  /** How many of all compute: until the others are there they are taken for such. */
  #living: number;

  /** @param control threadControlBytes(count) bytes of linear memory that is shared */
  constructor(count: number, exports: Exports, memory: WebAssembly.Memory, control: number) {
    this.#count = this.#living = count;
    this.#exports = exports;
    this.#control = control;
    const { buffer } = memory;
    this.#words = new Int32Array(buffer, control, CONTROL.words).fill(0);
    this.#arguments = new Float64Array(buffer, control + CONTROL.arguments, 8);
    this.#message = new Uint8Array(buffer, control + CONTROL.message, CONTROL.messageBytes);
    this.#use(count);
  }

  /** How many compute, with the caller's. */
  get count(): number {
    return this.#living;
  }

  /** Why the call that ended with a trap is lost, if that lies with another thread. */
  get fault(): string | undefined {
    const fault = Atomics.load(this.#words, CONTROL.fault);
    if (fault === GONE) return "another thread was ended, or did not come back for half a minute";
    if (fault !== FAILED) return undefined;
    return `another thread: ${String.fromCharCode(...this.#message).replace(/\0.*/s, "")}`;
  }

  /** Starts the others. Where one of them cannot be, the caller's computes alone, and a warning says why. */
  async start(module: WebAssembly.Module, memory: WebAssembly.Memory): Promise<void> {
    const threads = this.#count;
    const all = {
      module,
      memory,
      control: this.#control,
      at: CONTROL,
      threads,
      bigTile: this.#exports["usesBigTile"]!() !== 0,
      names: WebAssembly.Module.exports(module).map(({ name }) => name),
    };
    const lost = (why: string): void => {
      this.#living--;
      console.warn(`wasm-lora: one of ${threads} threads has ended: ${why}. The others go on, to the same bits.`);
    };
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      for (let thread = 1; thread < threads; thread++)
        this.#others.push(spawn(String(serve), { ...all, thread } satisfies ThreadStart, lost));
      const late = new Promise<never>((_, reject) => {
        const seconds = LONGEST_START_MS / 1000;
        timer = setTimeout(() => reject(new Error(`they were not there after ${seconds} s`)), LONGEST_START_MS);
      });
      await Promise.race([late, Promise.all(this.#others.map(({ ready }) => ready))]);
    } catch (error) {
      this.#endOthers();
      this.#use((this.#living = 1));
      const why = (error as Error).message.replace(/\.$/, "");
      console.warn(`wasm-lora: one thread computes, to the same bits: no others can be started here: ${why}.`);
    } finally {
      clearTimeout(timer);
    }
  }

  #use(count: number): void {
    this.#exports["useThread"]!(this.#control, count, 0, maySleep());
  }

  /**
   * Runs a kernel, in which the others may take part. `index`: its place in the names that they know.
   * @throws where it traps, here or there
   */
  call(kernel: (...args: unknown[]) => unknown, index: number, args: unknown[]): unknown {
    this.#words[CONTROL.kernel] = index;
    for (let i = 0; i < args.length; i++) this.#arguments[i] = args[i] as number;
    this.#exports["enterCall"]!();
    const result = kernel(...args);
    this.#exports["leaveCall"]!();
    // Of one that failed without a part in hand nobody has heard yet.
    if (Atomics.load(this.#words, CONTROL.fault) !== 0) throw new Error(this.fault);
    return result;
  }

  /** Lets the others go, wherever they are. */
  end(): void {
    Atomics.compareExchange(this.#words, CONTROL.fault, 0, OVER);
    Atomics.add(this.#words, CONTROL.epoch, 2);
    Atomics.notify(this.#words, CONTROL.epoch);
    Atomics.notify(this.#words, CONTROL.loop);
    this.#endOthers();
  }

  #endOthers(): void {
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
