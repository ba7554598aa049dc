/**
 * The engine: one wasm instance, its linear memory and the typed kernel exports. Everything above
 * reaches kernels through `engine()`; only `load.*.ts` knows where the bytes come from.
 */
import { loadModule } from "#load";
import { processors, refusal } from "#spawn";
import { type Block, BLOCK_BYTES, type Kernels, WRITERS } from "./abi.js";
import { ArgumentError, EngineError, StateError } from "./errors.js";
import { type Arithmetic, arithmeticOf, assertFuses } from "./fused.js";
import { LinearMemory, type MemoryStats } from "./memory.js";
import { checkOptions } from "./options.js";
import { Threads } from "./threads.js";
import { chooseTile } from "./tile.js";

/** Options of `init`. */
export interface InitOptions {
  /**
   * The compiled kernels, where they cannot be found by themselves: of "wasm-lora/wasm-lora.wasm" as your
   * bundler or server gives it, or of "wasm-lora/inline". That of "wasm-lora/wasm-lora.fused.wasm" computes in fused
   * arithmetic.
   */
  module?: WebAssembly.Module | undefined;
  /**
   * Fused arithmetic: matrix products round once for each multiply-add, not twice, which is faster. Its bits are others
   * than the default's, and one set of them everywhere it runs: Node 22 and later, Deno, workerd, Chromium and Firefox,
   * on processors with FMA. Elsewhere it is refused; `supportsFused` tells beforehand. By default false.
   */
  fused?: boolean | undefined;
  /**
   * How many threads compute, with the caller's; "auto": as many as the machine runs at a time. The bits are those of
   * one thread, which is the default. Node, Deno, Bun and cross-origin isolated pages have them; elsewhere one thread
   * computes, and a warning on the console says why. A `module` must be made for them, as `inlineModule({ shared: true
   * })` is. Linear memory is shared then, and so are the arrays that `tensor.data` gives.
   */
  threads?: number | "auto" | undefined;
  /** Limit of linear memory in bytes, at most and by default 4 GiB. Beyond it: OutOfMemoryError. */
  maximumBytes?: number | undefined;
}

const PAGE = 65536;
/** Each has half a megabyte of working space. */
const MOST_THREADS = 256;

/** Exports that govern threads: not for whoever calls kernels. */
const GOVERNORS = ["enterCall", "leaveCall", "threadControlBytes", "useThread"];

/** What an instance exports: kernels as they are, taking numbers or a block's address. */
export type KernelExports = { heapBase(): number } & Record<string, (...args: unknown[]) => unknown>;

/**
 * One instance of the kernels with its linear memory, made by `init`. A process has one at a time.
 *
 * @example
 * const engine = await init();
 * const t = tensor([1, 2, 3]);
 * engine.close();
 * console.log(engine.alive, t.size); // false 3
 * await init(); // a new engine; t.data throws DisposedError
 */
export class Engine {
  /**
   * The exports of assembly/index.ts. Those with more than eight arguments take them by name; they are written into the
   * call block, whose address the kernel gets.
   * @internal
   */
  readonly kernels: Kernels;
  /** @internal */
  readonly memory: LinearMemory;
  /** How matrix products round a multiply-add: the product and the sum ("separate", by default), or once ("fused"). */
  readonly arithmetic: Arithmetic;
  /** Address of the GEMM kernels' working space (packed panels); each call may overwrite it. @internal */
  readonly scratch: number;
  /** Whether kernels compute nothing and large views hold nothing. @internal */
  readonly isRehearsal: boolean;
  /** Address of the call block, and views of it, which are made anew when memory has grown. */
  readonly #block: number;
  #views: Block;
  /** Those that compute beside the caller's, where there are any. */
  readonly #threads: Threads | undefined;
  #starting: Promise<void> | undefined;
  /** Why the engine cannot be used any more, if so. */
  #dead: string | undefined;

  /** Use `init`. @internal */
  constructor(exports: KernelExports, memory: LinearMemory, threads = 1, isRehearsal = false) {
    this.isRehearsal = isRehearsal;
    this.memory = memory;
    this.arithmetic = "fuses" in exports ? "fused" : "separate";
    if (threads > 1)
      this.#threads = new Threads(
        threads,
        exports,
        memory.wasm,
        memory.alloc(exports["threadControlBytes"]!(threads) as number),
      );
    this.kernels = this.#guard(exports);
    this.scratch = memory.alloc(this.kernels.sgemmScratchBytes());
    this.#block = memory.alloc(BLOCK_BYTES);
    this.#views = this.#viewBlock();
    memory.resetPeak();
  }

  /** False after `close()` and after a trap. */
  get alive(): boolean {
    return this.#dead === undefined;
  }

  /** Ends this engine: every tensor of it is dead, and its memory goes when nothing refers to it. */
  close(): void {
    this.#die("the engine was closed");
  }

  /** How many threads compute, with the caller's. */
  get threads(): number {
    return this.#threads?.count ?? 1;
  }

  /**
   * Starts the threads beside the caller's; until they are there, and where they cannot be, it computes. Once: who asks
   * again waits for the same ones. @internal
   */
  startThreads(module?: WebAssembly.Module): Promise<void> {
    if (module) this.#starting ??= this.#threads?.start(module, this.memory.wasm);
    return this.#starting ?? Promise.resolve();
  }

  #die(why: string): void {
    this.#dead ??= why;
    this.#threads?.end();
  }

  /** @internal */
  assertAlive(): void {
    if (this.#dead !== undefined) throw new EngineError(`${this.#dead}. Call init() for a new engine.`);
  }

  /** A trap may leave memory half-written: from then on each call is refused. */
  #guard(exports: KernelExports): Kernels {
    const guarded: Record<string, unknown> = {};
    const threads = this.#threads;
    for (const [index, [name, kernel]] of Object.entries(exports).entries()) {
      if (typeof kernel !== "function" || GOVERNORS.includes(name)) continue;
      const run = (...args: unknown[]): unknown => {
        this.assertAlive();
        try {
          return threads ? threads.call(kernel, index, args) : kernel(...args);
        } catch (cause) {
          const why = threads?.fault ?? String((cause as Error).message);
          this.#die(`kernel ${name} trapped (${why}) and memory is in doubt`);
          throw new EngineError(`${this.#dead}. Call init() for a new engine.`, { cause });
        }
      };
      const write = (WRITERS as Record<string, ((to: Block, call: unknown) => void) | undefined>)[name];
      guarded[name] = !write
        ? run
        : (call: unknown) => {
            // A view of memory that has grown has no bytes any more.
            if (this.#views.u8.length === 0) this.#views = this.#viewBlock();
            write(this.#views, call);
            return run(this.#block);
          };
    }
    return guarded as unknown as Kernels;
  }

  #viewBlock(): Block {
    const { memory } = this;
    return {
      i32: memory.i32(this.#block, BLOCK_BYTES / 4),
      f32: memory.f32(this.#block, BLOCK_BYTES / 4),
      f64: memory.f64(this.#block, BLOCK_BYTES / 8),
      u8: memory.u8(this.#block, BLOCK_BYTES),
    };
  }
}

/** @returns pages of linear memory at most @throws ArgumentError */
function checkInit(options: InitOptions): number {
  checkOptions("init", options, ["module", "fused", "threads", "maximumBytes"]);
  const { module, fused = false, threads = 1, maximumBytes = 65536 * PAGE } = options;
  if (threads !== "auto" && !(Number.isInteger(threads) && threads >= 1 && threads <= MOST_THREADS))
    throw new ArgumentError(
      `init: threads must be an integer from 1 to ${MOST_THREADS} or "auto"; got ${String(threads)}.`,
    );
  if (typeof fused !== "boolean") throw new ArgumentError(`init: fused must be true or false; got ${typeof fused}.`);
  if (fused && module !== undefined)
    throw new ArgumentError(
      "init: module has its arithmetic already, so fused cannot choose it; leave one of the two out.",
    );
  // Not by instanceof: a module from another realm (an iframe, node:vm) has another constructor and the same tag.
  if (module !== undefined && Object.prototype.toString.call(module) !== "[object WebAssembly.Module]") {
    throw new ArgumentError(
      `init: module must be a WebAssembly.Module, which WebAssembly.compile makes of a file's bytes; got ` +
        `${typeof module}.`,
    );
  }
  if (!Number.isFinite(maximumBytes) || maximumBytes < 10 * PAGE) {
    throw new ArgumentError(`init: maximumBytes must be at least ${10 * PAGE}; got ${String(maximumBytes)}.`);
  }
  return Math.min(65536, Math.floor(maximumBytes / PAGE));
}

/** How many threads `options` ask for where there may be some. */
function threadsOf({ threads = 1 }: InitOptions): number {
  if (threads === 1) return 1;
  const why = refusal();
  if (why !== undefined) {
    console.warn(`wasm-lora: one thread computes, to the same bits: ${why}.`);
    return 1;
  }
  return threads === "auto" ? Math.min(processors(), MOST_THREADS) : threads;
}

/** An engine, without making it the current one, as bench/ has two beside each other. @internal */
export function instantiate(module: WebAssembly.Module, options: InitOptions = {}, threads = 1): Engine {
  const maximum = checkInit({ ...options, module, fused: undefined });
  const isOurs =
    WebAssembly.Module.exports(module).some(({ name }) => name === "heapBase") &&
    WebAssembly.Module.imports(module).every(({ name }) => name === "memory");
  if (!isOurs)
    throw new ArgumentError(
      "init: module has no export heapBase, or more imports; it must be compiled from this version's wasm-lora.wasm.",
    );
  const { kernels, memory } = instanceOf(module, maximum, threads, options.threads);
  assertFuses(kernels);
  const made = new Engine(kernels, new LinearMemory(memory, kernels.heapBase() >>> 0, maximum * PAGE), threads);
  chooseTile(made);
  made.memory.resetPeak();
  return made;
}

function reserve(maximum: number, shared: boolean): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: 2, maximum, shared });
  } catch (cause) {
    throw new EngineError(
      "init: WebAssembly memory could not be reserved; the host limits address space " +
        "(ulimit -v, a small container). Lower maximumBytes or raise that limit.",
      { cause },
    );
  }
}

/** An instance on memory of the kind that it was compiled for. */
function instanceOf(
  module: WebAssembly.Module,
  maximum: number,
  threads: number,
  asked: number | "auto" = 1,
): { kernels: KernelExports; memory: WebAssembly.Memory } {
  // Where threads were asked for and none are to be had, one computes with a module for many, too.
  for (const shared of threads > 1 ? [true] : asked === 1 ? [false] : [false, true]) {
    const memory = reserve(maximum, shared);
    try {
      return { kernels: new WebAssembly.Instance(module, { env: { memory } }).exports as KernelExports, memory };
    } catch (cause) {
      if (!(cause instanceof WebAssembly.LinkError)) throw cause;
    }
  }
  throw new ArgumentError(
    threads > 1
      ? "init: module was compiled for one thread; for more, pass inlineModule({ shared: true }), or leave it out."
      : "init: module was compiled for threads (shared: true); say how many, or compile it without.",
  );
}

let current: Engine | undefined;
/** What `init` was asked for, also where this machine has fewer. */
let askedThreads: number | "auto" = 1;

/** The living engine, if it is what `options` ask for. @throws StateError */
function living(options: InitOptions, maximum: number): Engine | undefined {
  if (!current?.alive) return undefined;
  const { module, fused, threads, maximumBytes } = options;
  const {
    arithmetic,
    threads: has,
    memory: { limit },
  } = current;
  const refuse = (what: string): never => {
    throw new StateError(
      `init: there is an engine already, ${what}. Leave the option out to use it, or close it first (engine.close()).`,
    );
  };
  if (maximumBytes !== undefined && maximum * PAGE !== limit)
    refuse(`with maximumBytes = ${limit}; got ${maximumBytes}`);
  if (threads !== undefined && threads !== askedThreads && threads !== has)
    refuse(`with threads = ${has}; got ${threads}`);
  const wanted = module ? arithmeticOf(module) : fused === undefined ? arithmetic : fused ? "fused" : "separate";
  if (wanted !== arithmetic) refuse(`in ${arithmetic} arithmetic; ${wanted} was asked for`);
  return current;
}

/**
 * Loads the kernels. Call it once before anything else; while the engine lives, later calls return
 * the same one. After `engine.close()` or a trap it makes a new one, and tensors of the old are dead.
 *
 * @param options those that a later call gives must be what the living engine has
 * @throws ArgumentError for an unknown option, a limit below 640 KiB, or both `module` and `fused`; StateError for
 * options that the living engine does not have; EngineError if the kernels' file is missing, if memory cannot be
 * reserved, or for fused arithmetic where this engine or processor has none
 *
 * @example
 * import { init, tensor } from "wasm-lora";
 * await init();
 * console.log(tensor([1, 2, 3]).data); // Float32Array(3) [ 1, 2, 3 ]
 */
export async function init(options: InitOptions = {}): Promise<Engine> {
  const maximum = checkInit(options);
  const { fused = false } = options;
  let made = living(options, maximum);
  if (!made) {
    const threads = threadsOf(options);
    const module = options.module ?? (await loadModule({ fused, shared: threads > 1 }));
    // While this call waited for its module, another one may have made the engine.
    made = living(options, maximum);
    if (!made) {
      made = current = instantiate(module, options, threads);
      askedThreads = options.threads ?? 1;
      void made.startThreads(module);
    }
  }
  await made.startThreads();
  return made;
}

/** The current engine. @throws EngineError before `init()`, or when the engine is dead. */
export function engine(): Engine {
  if (current === undefined) throw new EngineError("the kernels are not loaded. Call `await init()` first.");
  current.assertAlive();
  return current;
}

/** Runs fn with another engine as the current one. @internal */
export function withEngine<T>(other: Engine, fn: () => T): T {
  const before = current;
  current = other;
  try {
    return fn();
  } finally {
    current = before;
  }
}

/**
 * Live, peak and reserved bytes of linear memory.
 * @throws EngineError before `init()`, or when the engine is dead
 *
 * @example
 * const before = memoryStats().liveBytes;
 * const t = zeros([256]);
 * console.log(memoryStats().liveBytes - before); // 1088
 */
export function memoryStats(): MemoryStats {
  return engine().memory.stats();
}
