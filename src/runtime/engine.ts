/**
 * The engine: one wasm instance, its linear memory and the typed kernel exports. Everything above
 * reaches kernels through `engine()`; only `load.*.ts` knows where the bytes come from.
 */
import { loadModule } from "#load";
import { type Block, BLOCK_BYTES, type Kernels, WRITERS } from "./abi.js";
import { ArgumentError, EngineError, StateError } from "./errors.js";
import { type Arithmetic, arithmeticOf, assertFuses } from "./fused.js";
import { LinearMemory, type MemoryStats } from "./memory.js";
import { checkOptions } from "./options.js";
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
  /** Limit of linear memory in bytes, at most and by default 4 GiB. Beyond it: OutOfMemoryError. */
  maximumBytes?: number | undefined;
}

const PAGE = 65536;

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
  /** Why the engine cannot be used any more, if so. */
  #dead: string | undefined;

  /** Use `init`. @internal */
  constructor(exports: KernelExports, memory: LinearMemory, isRehearsal = false) {
    this.isRehearsal = isRehearsal;
    this.kernels = this.#guard(exports);
    this.memory = memory;
    this.arithmetic = "fuses" in exports ? "fused" : "separate";
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
    this.#dead ??= "the engine was closed";
  }

  /** @internal */
  assertAlive(): void {
    if (this.#dead !== undefined) throw new EngineError(`${this.#dead}. Call init() for a new engine.`);
  }

  /** A trap may leave memory half-written: from then on each call is refused. */
  #guard(exports: KernelExports): Kernels {
    const guarded: Record<string, unknown> = {};
    for (const [name, kernel] of Object.entries(exports)) {
      if (typeof kernel !== "function") continue;
      const run = (...args: unknown[]): unknown => {
        this.assertAlive();
        try {
          return kernel(...args);
        } catch (cause) {
          this.#dead = `kernel ${name} trapped (${String((cause as Error).message)}) and memory is in doubt`;
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
  checkOptions("init", options, ["module", "fused", "maximumBytes"]);
  const { module, fused = false, maximumBytes = 65536 * PAGE } = options;
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

/** An engine, without making it the current one, as bench/ has two beside each other. @internal */
export function instantiate(module: WebAssembly.Module, options: InitOptions = {}): Engine {
  const maximum = checkInit({ ...options, module, fused: undefined });
  let memory: WebAssembly.Memory;
  try {
    memory = new WebAssembly.Memory({ initial: 2, maximum });
  } catch (cause) {
    throw new EngineError(
      "init: WebAssembly memory could not be reserved; the host limits address space " +
        "(ulimit -v, a small container). Lower maximumBytes or raise that limit.",
      { cause },
    );
  }
  const isOurs =
    WebAssembly.Module.exports(module).some(({ name }) => name === "heapBase") &&
    WebAssembly.Module.imports(module).every(({ name }) => name === "memory");
  if (!isOurs)
    throw new ArgumentError(
      "init: module has no export heapBase, or more imports; it must be compiled from this version's wasm-lora.wasm.",
    );
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  const kernels = exports as KernelExports;
  assertFuses(kernels);
  const made = new Engine(kernels, new LinearMemory(memory, kernels.heapBase() >>> 0, maximum * PAGE));
  chooseTile(made);
  made.memory.resetPeak();
  return made;
}

let current: Engine | undefined;

/** The living engine, if it is what `options` ask for. @throws StateError */
function living(options: InitOptions, maximum: number): Engine | undefined {
  if (!current?.alive) return undefined;
  const { module, fused, maximumBytes } = options;
  const {
    arithmetic,
    memory: { limit },
  } = current;
  const refuse = (what: string): never => {
    throw new StateError(
      `init: there is an engine already, ${what}. Leave the option out to use it, or close it first (engine.close()).`,
    );
  };
  if (maximumBytes !== undefined && maximum * PAGE !== limit)
    refuse(`with maximumBytes = ${limit}; got ${maximumBytes}`);
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
  const there = living(options, maximum);
  if (there) return there;
  const module = options.module ?? (await loadModule(fused));
  // While this call waited for its module, another one may have made the engine.
  const meanwhile = living(options, maximum);
  if (meanwhile) return meanwhile;
  return (current = instantiate(module, options));
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
