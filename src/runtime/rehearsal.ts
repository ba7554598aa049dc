/**
 * An engine that computes nothing and counts what it is asked for: code that runs on it tells its memory beforehand.
 */
import type { Kernels } from "./abi.js";
import { Engine, engine, type KernelExports, withEngine } from "./engine.js";
import { ArgumentError, OutOfMemoryError } from "./errors.js";
import { blockBytes, LinearMemory, type MemoryStats } from "./memory.js";

/** Tensors of more values than this have a length and no values. */
const SMALL = 65536;
/** Tensors that may live at a time; a model of a thousand layers with adapters has half as many. */
const MOST = 100_000;

/** A view of nothing that takes what is written, and says that it has `length` values. */
function ghost<View extends Float32Array | Int32Array | Uint8Array>(make: () => View, length: number): View {
  const from = (at: number): number => (at < 0 ? Math.max(0, at + length) : Math.min(at, length));
  const cut = (start = 0, end = length): View => ghost(make, Math.max(0, from(end) - from(start)));
  return Object.defineProperties(make(), {
    length: { value: length },
    set: { value: () => {} },
    slice: { value: cut },
    subarray: { value: cut },
  });
}

/**
 * Books without memory, and without its limit. Scalars read 1 (as the gradient of a loss), other values anything, and
 * indices what was written, by default 0: which tokens are scored and which text they are of decides about memory.
 * Those of large tensors are not there, and take no time.
 */
class Ledger extends LinearMemory {
  readonly #sizes = new Map<number, number>();
  #handedOut = 0;
  #liveBytes = 0;
  #peakBytes = 0;
  readonly #indices = new Map<number, Int32Array>();
  /** The one block of memory that every view of floats shares. */
  readonly #floats = new Float32Array(SMALL);

  constructor(private readonly most: number) {
    super(new WebAssembly.Memory({ initial: 0 }), 0);
  }

  override alloc(bytes: number): number {
    // The first is 1, since kernels take the address 0 for "not wanted".
    const size = blockBytes(bytes);
    const address = ++this.#handedOut;
    if (this.#liveBytes + size > this.most) throw new OutOfMemoryError(bytes, this.#liveBytes, this.most);
    if (this.#sizes.size === MOST)
      throw new ArgumentError(`planTraining: the model has more than ${MOST} tensors at a time; it cannot be planned.`);
    this.#sizes.set(address, size);
    this.allocations++;
    this.#liveBytes += size;
    this.#peakBytes = Math.max(this.#peakBytes, this.#liveBytes);
    return address;
  }

  override free(address: number): void {
    this.#liveBytes -= this.#sizes.get(address)!;
    this.#sizes.delete(address);
    this.#indices.delete(address);
  }

  override stats(): MemoryStats {
    return {
      liveBytes: this.#liveBytes,
      peakBytes: this.#peakBytes,
      reservedBytes: this.#liveBytes,
      blocks: this.#sizes.size,
    };
  }

  override resetPeak(): void {
    this.#peakBytes = this.#liveBytes;
  }

  override f32(_address: number, length: number): Float32Array {
    if (length === 1) return Float32Array.of(1);
    return length <= SMALL ? this.#floats.subarray(0, length) : ghost(() => new Float32Array(0), length);
  }
  override f64(_address: number, length: number): Float64Array {
    return new Float64Array(length);
  }
  override i32(address: number, length: number): Int32Array {
    if (length > SMALL) return ghost(() => new Int32Array(0), 0);
    let values = this.#indices.get(address);
    if (values?.length !== length) this.#indices.set(address, (values = new Int32Array(length)));
    return values;
  }
  override u8(_address: number, length: number): Uint8Array {
    return length <= SMALL ? new Uint8Array(length) : ghost(() => new Uint8Array(0), length);
  }
}

/** Kernels that do nothing: those that report a size still do, all others give 0. */
function idle(kernels: Kernels): KernelExports {
  const isSize = (name: string): boolean => name === "heapBase" || name.endsWith("Bytes");
  return Object.fromEntries(
    Object.entries(kernels).map(([name, kernel]) => [name, isSize(name) ? kernel : () => 0]),
  ) as KernelExports;
}

/**
 * Runs fn, whose tensors and kernel calls cost nothing; `stats` tells the memory that it would have so far.
 * @param most bytes; above 2^53, the default, they are no longer counted exactly
 */
export function rehearse<T>(fn: (stats: () => MemoryStats) => T, most = Number.MAX_SAFE_INTEGER): T {
  const stand = new Engine(idle(engine().kernels), new Ledger(most), 1, true);
  try {
    return withEngine(stand, () => fn(() => stand.memory.stats()));
  } finally {
    stand.close();
  }
}
