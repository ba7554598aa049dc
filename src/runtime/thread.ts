/** What runs in the threads beside the caller's: their own instance of the kernels, on the same memory. */

/** Where the control block (assembly/threads.ts) has what this side reads and writes: words of 32 bits. */
export const CONTROL = {
  words: 64,
  epoch: 0,
  asleep: 1,
  within: 2,
  fault: 3,
  loop: 17,
  waiting: 19,
  kernel: 32,
  /** In bytes: up to eight arguments of the kernel in 64 bits each, and the message of a thread that has failed. */
  arguments: 136,
  message: 200,
  messageBytes: 56,
} as const;

/** What such a thread is given. */
export interface ThreadStart {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  /** Address of the control block, and what lies where in it. */
  control: number;
  at: typeof CONTROL;
  /** Which thread this is, of how many. */
  thread: number;
  threads: number;
  bigTile: boolean;
  /** Names of the module's exports; a call is told by its place in here. */
  names: string[];
}

/** A thread that was started. */
export interface Spawned {
  /** Settles when it waits for calls or is ended; rejects where it cannot be had. */
  ready: Promise<void>;
  end(): void;
}

/**
 * Waits for calls and takes part in them until a fault stands in the control block, which is also how they end. This
 * becomes the source of a worker as it stands, so that no bundler has to find a file for it: it may use nothing from
 * outside, and has no functions with a name, since bundlers wrap these in helpers of their own.
 */
export function serve(start: ThreadStart, ready: () => void): void {
  const { module, memory, control, at, thread, threads, bigTile, names } = start;
  const exports = new WebAssembly.Instance(module, { env: { memory } }).exports as Record<
    string,
    (...args: unknown[]) => unknown
  >;
  exports["useThread"]!(control, threads, thread, true);
  exports["useBigTile"]!(bigTile);
  const words = new Int32Array(memory.buffer, control, at.words);
  const args = new Float64Array(memory.buffer, control + at.arguments, 8);
  const text = new Uint8Array(memory.buffer, control + at.message, at.messageBytes);
  ready();
  for (let looks = 0, seen = 0; Atomics.load(words, at.fault) === 0; ) {
    const epoch = Atomics.load(words, at.epoch);
    if (epoch === seen || (epoch & 1) === 0) {
      // Kernels of a training step follow each other within microseconds, and waking takes fifty: 50 to 100 us.
      if (++looks < 20_000) continue;
      Atomics.add(words, at.asleep, 1);
      Atomics.wait(words, at.epoch, epoch);
      Atomics.sub(words, at.asleep, 1);
      looks = 0;
      continue;
    }
    looks = 0;
    seen = epoch;
    // The caller closes a call before it looks who is within: either it waits for this thread, or this one stays out.
    Atomics.add(words, at.within, 1);
    if (Atomics.load(words, at.epoch) === epoch) {
      try {
        exports["enterCall"]!();
        const kernel = names[words[at.kernel]!]!;
        exports[kernel]!(args[0], args[1], args[2], args[3], args[4], args[5], args[6], args[7]);
      } catch (error) {
        // The caller is told in memory, since messages come to it when it is back in its event loop.
        const message = String((error as Error).message);
        if (Atomics.load(words, at.fault) === 0) for (let i = 0; i < text.length; i++) text[i] = message.charCodeAt(i);
        Atomics.compareExchange(words, at.fault, 0, 1);
        Atomics.notify(words, at.loop);
      }
    }
    Atomics.sub(words, at.within, 1);
    if (Atomics.load(words, at.waiting) !== 0) Atomics.notify(words, at.within);
  }
}
