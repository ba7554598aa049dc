/**
 * The allocator over linear memory: 64-byte aligned blocks, free lists by size (in 32 steps for each power of two, as
 * in TLSF, Masmano et al. 2004), neighbours merged on free, growth by pages. Its books are kept in JavaScript, so a
 * stray kernel write cannot corrupt them, and an allocation that fails changes nothing.
 *
 * Kernels touch the elements they are given and nothing else. Should one not, the 64 spare bytes behind each block and
 * the last page, which is never handed out, keep it from the neighbour and from a trap. Addresses are unsigned 32-bit
 * numbers.
 */
import { ArgumentError, OutOfMemoryError, StateError } from "./errors.js";

const ALIGN = 64;
const SPARE = 64;
const PAGE = 65536;
/** wasm32 addresses 65,536 pages of 64 KiB. */
const MAXIMUM_PAGES = 65536;

/** What `memoryStats()` reports, in bytes. */
export interface MemoryStats {
  /** Bytes in use now (rounded up to whole blocks). */
  liveBytes: number;
  /** The largest `liveBytes` since the start or the last `resetPeak()`. */
  peakBytes: number;
  /** Size of linear memory; it grows and never shrinks. */
  reservedBytes: number;
  /** Blocks in use now. */
  blocks: number;
}

/** Steps of size for each power of two, and how many holes of a request's own step are looked at. */
const STEPS = 32;
const LOOKED_AT = 32;
/** Number of the list of a size: 27 powers of 64 bytes, STEPS each. Below 128 * STEPS bytes a list is of one size. */
const sizeClass = (size: number): number => {
  const units = size / ALIGN;
  const power = 31 - Math.clz32(units);
  return power * STEPS + ((power < 5 ? units << (5 - power) : units >>> (power - 5)) % STEPS);
};
const alignUp = (size: number, to: number): number => Math.ceil(size / to) * to;

/** What a block for that many bytes takes. @internal */
export function blockBytes(bytes: number): number {
  return alignUp(bytes, ALIGN) + SPARE;
}

// A server's project may have no `lib` that names these; where there is one, these add nothing.
declare global {
  namespace WebAssembly {
    interface Module {}
    interface Memory {}
  }
}

/** The blocks of one engine's linear memory: takes them, frees them, counts them and looks at them as arrays. */
export class LinearMemory {
  /** Its buffer is another one after each growth. */
  readonly wasm: WebAssembly.Memory;
  /** Bytes that it may grow to. */
  readonly limit: number;
  /** Blocks that were handed out so far: they tell how far a long computation is. */
  allocations = 0;
  /** Called for each of them; it may take none itself. */
  onAlloc: (() => void) | null = null;
  /** Live blocks: address -> size. */
  readonly #live = new Map<number, number>();
  /** Free blocks by address, and by end address, so that neighbours are found in one step. */
  readonly #freeSize = new Map<number, number>();
  readonly #freeEnd = new Map<number, number>();
  /** Free blocks by `sizeClass`, and which of a power's lists hold any, as bits. */
  readonly #classes: Set<number>[] = Array.from({ length: 27 * STEPS }, () => new Set<number>());
  readonly #held = new Uint32Array(27);
  /** First address that was never handed out. */
  #top: number;
  #liveBytes = 0;
  #peakBytes = 0;

  /**
   * @param base first free address: everything below belongs to the module's own data.
   * @param maximumBytes limit of linear memory; default 4 GiB.
   */
  constructor(wasm: WebAssembly.Memory, base: number, maximumBytes = MAXIMUM_PAGES * PAGE) {
    this.wasm = wasm;
    this.limit = Math.min(maximumBytes, MAXIMUM_PAGES * PAGE);
    this.#top = alignUp(Math.max(base, 1024), ALIGN);
  }

  /** Returns the address of a 64-byte aligned block of at least `bytes` bytes; contents are undefined. */
  alloc(bytes: number): number {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new ArgumentError(`alloc: bytes must be a non-negative integer; got ${bytes}.`);
    }
    const size = blockBytes(bytes);
    if (size >= this.limit) throw new OutOfMemoryError(bytes, this.#liveBytes, this.limit);
    const address = this.#takeFree(size) ?? this.#extend(size, bytes);
    this.#live.set(address, size);
    this.#liveBytes += size;
    if (this.#liveBytes > this.#peakBytes) this.#peakBytes = this.#liveBytes;
    this.allocations++;
    this.onAlloc?.();
    return address;
  }

  /** Runs fn with blocks of these sizes, in bytes, and frees them, also when fn or an allocation throws. */
  withBlocks<T, const Sizes extends readonly number[]>(
    sizes: Sizes,
    fn: (...addresses: { readonly [I in keyof Sizes]: number }) => T,
  ): T {
    const blocks: number[] = [];
    try {
      for (const bytes of sizes) blocks.push(this.alloc(bytes));
      return fn(...(blocks as { [I in keyof Sizes]: number }));
    } finally {
      for (const address of blocks) this.free(address);
    }
  }

  /** Gives a block back. @throws StateError if no live block begins there */
  free(address: number): void {
    let size = this.#live.get(address);
    if (size === undefined) throw new StateError(`free: ${address} is not the address of a live block.`);
    this.#live.delete(address);
    this.#liveBytes -= size;
    let start = address;
    const before = this.#freeEnd.get(start);
    if (before !== undefined) {
      size += this.#removeFree(before);
      start = before;
    }
    if (this.#freeSize.has(start + size)) size += this.#removeFree(start + size);
    if (start + size === this.#top) this.#top = start;
    else this.#addFree(start, size);
  }

  stats(): MemoryStats {
    return {
      liveBytes: this.#liveBytes,
      peakBytes: this.#peakBytes,
      reservedBytes: this.wasm.buffer.byteLength,
      blocks: this.#live.size,
    };
  }

  resetPeak(): void {
    this.#peakBytes = this.#liveBytes;
  }

  /** Views are made anew on each call: one that was held across a growth is detached. */
  f32(address: number, length: number): Float32Array {
    return new Float32Array(this.wasm.buffer, address, length);
  }
  f64(address: number, length: number): Float64Array {
    return new Float64Array(this.wasm.buffer, address, length);
  }
  i32(address: number, length: number): Int32Array {
    return new Int32Array(this.wasm.buffer, address, length);
  }
  u8(address: number, length: number): Uint8Array {
    return new Uint8Array(this.wasm.buffer, address, length);
  }

  /** The best of some sufficient blocks of the request's own step, else any of the next step that has one. */
  #takeFree(size: number): number | undefined {
    const own = sizeClass(size);
    let best: number | undefined;
    let bestSize = Infinity;
    let left = LOOKED_AT;
    for (const start of this.#classes[own]!) {
      const have = this.#freeSize.get(start)!;
      if (have >= size && have < bestSize) {
        best = start;
        bestSize = have;
      }
      if (have === size || --left === 0) break;
    }
    for (
      let power = Math.floor(own / STEPS), step = (own % STEPS) + 1;
      best === undefined && power < 27;
      power++, step = 0
    ) {
      const above = step === STEPS ? 0 : this.#held[power]! >>> step;
      if (above === 0) continue;
      for (const start of this.#classes[power * STEPS + step + 31 - Math.clz32(above & -above)]!) {
        best = start;
        break;
      }
    }
    if (best === undefined) return undefined;
    const have = this.#removeFree(best);
    if (have > size) this.#addFree(best + size, have - size);
    return best;
  }

  #extend(size: number, requested: number): number {
    const address = this.#top;
    const needed = address + size + PAGE;
    const have = this.wasm.buffer.byteLength;
    if (needed > have) {
      if (needed > this.limit) throw new OutOfMemoryError(requested, this.#liveBytes, this.limit);
      // An eighth more than asked: each growth detaches every view and may copy.
      const wanted = Math.min(alignUp(Math.max(needed, have + have / 8), PAGE), alignUp(this.limit, PAGE));
      if (!this.#grow(wanted - have) && !this.#grow(alignUp(needed, PAGE) - have)) {
        throw new OutOfMemoryError(requested, this.#liveBytes, this.limit);
      }
    }
    this.#top = address + size;
    return address;
  }

  #grow(bytes: number): boolean {
    try {
      this.wasm.grow(bytes / PAGE);
      return true;
    } catch {
      return false;
    }
  }

  #addFree(start: number, size: number): void {
    this.#freeSize.set(start, size);
    this.#freeEnd.set(start + size, start);
    const c = sizeClass(size);
    this.#classes[c]!.add(start);
    this.#held[Math.floor(c / STEPS)]! |= 1 << (c % STEPS);
  }

  #removeFree(start: number): number {
    const size = this.#freeSize.get(start)!;
    const c = sizeClass(size);
    const list = this.#classes[c]!;
    this.#freeSize.delete(start);
    this.#freeEnd.delete(start + size);
    list.delete(start);
    if (list.size === 0) this.#held[Math.floor(c / STEPS)]! &= ~(1 << (c % STEPS));
    return size;
  }
}
