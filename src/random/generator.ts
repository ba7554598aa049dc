/**
 * Random streams that equal PyTorch's on the CPU: `manualSeed(s)` and the same calls give the same
 * uniforms bit for bit, and the same normals to 2e-6.
 */
import { ArgumentError, DisposedError } from "../runtime/errors.js";
import { engine } from "../runtime/engine.js";
import { checkTensor, shown } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";

/** The seed of a generator that nobody seeded; torch's at::default_rng_seed_val. */
export const DEFAULT_SEED = 67280421310721;

/** Saved states: the seed as u64, then the kernels' block (assembly/random/mt19937.ts), little-endian. */
const SEED_BYTES = 8;
const WORDS = 624;
const POSITION = 2496;
const HAS_NORMAL = 2500;

/** `uniform_` and `normal_` of n floats at an address, for callers that own the memory there and know that n fit. */
export let fillUniform: (generator: Generator, address: number, n: number, low: number, high: number) => void;
export let fillNormal: (generator: Generator, address: number, n: number, mean: number, std: number) => void;

/**
 * One stream of random numbers. Its state lies outside linear memory between draws, so it outlives an engine.
 *
 * Source: Matsumoto & Nishimura 1998 (MT19937); torch.Generator, uniform_ and normal_ on the CPU.
 * @throws ArgumentError for a seed that is no integer in 0 .. 2^53 - 1 (default: torch's, 67280421310721)
 *
 * @example
 * const generator = new Generator(42), t = zeros([3]);
 * const saved = generator.state();
 * generator.uniform_(t, 0, 1);
 * const first = t.data.slice();
 * generator.setState(saved); // the same draws follow
 * generator.uniform_(t, 0, 1);
 * console.log(t.data.every((v, i) => v === first[i])); // true
 */
export class Generator {
  /** @internal */ static readonly className: string = "Generator";
  #seed: number;
  /** The kernels' block; null: that of the seed, which the first draw makes. */
  #block: Uint8Array | null = null;
  #disposed = false;

  constructor(seed = DEFAULT_SEED) {
    this.#seed = checkedSeed("Generator", seed);
  }

  /** The seed this stream was last started from. */
  get seed(): number {
    return this.#seed;
  }

  /**
   * Starts the stream of `seed`: an integer from 0 to 2^53 - 1.
   * Its low 32 bits choose the stream, as in torch.
   * @throws ArgumentError
   */
  manualSeed(seed: number): this {
    this.#seed = checkedSeed("manualSeed", seed);
    this.#block = null;
    return this;
  }

  /**
   * Fills a float32 tensor from [low, high), by default [0, 1), with the bits of torch's uniform_. Returns t.
   * @throws DTypeError for anything else; ArgumentError on a range out of bounds; DisposedError
   */
  uniform_(t: Tensor, low = 0, high = 1): Tensor {
    checkTensor("uniform_", "t", t);
    this.#uniform(t.address, t.size, low, high);
    return t;
  }

  /**
   * Fills a float32 tensor, as `uniform_`, with N(mean, std²), by default N(0, 1): torch's normal_ to 2e-6. Returns t.
   * @throws DTypeError for anything else; ArgumentError on a mean or std out of bounds; DisposedError
   */
  normal_(t: Tensor, mean = 0, std = 1): Tensor {
    checkTensor("normal_", "t", t);
    this.#normal(t.address, t.size, mean, std);
    return t;
  }

  /** A copy of the whole state (seed, position, kept normal), for checkpoints. @throws DisposedError */
  state(): Uint8Array {
    this.#assertUsable();
    const block = this.#block ?? this.#draw(() => {});
    const saved = new Uint8Array(SEED_BYTES + block.length);
    new DataView(saved.buffer).setBigUint64(0, BigInt(this.#seed), true);
    saved.set(block, SEED_BYTES);
    return saved;
  }

  /** Restores what `state()` returned. @throws ArgumentError for bytes that are no such state; DisposedError */
  setState(saved: Uint8Array): void {
    this.#assertUsable();
    const expected = SEED_BYTES + engine().kernels.mtStateBytes();
    if (!(saved instanceof Uint8Array) || saved.length !== expected) {
      throw new ArgumentError(
        `setState: a saved state is a Uint8Array of ${expected} bytes; got ` +
          `${saved instanceof Uint8Array ? saved.length : shown(saved)}.`,
      );
    }
    const view = new DataView(saved.buffer, saved.byteOffset, saved.length);
    const position = view.getUint32(SEED_BYTES + POSITION, true);
    const hasNormal = view.getUint32(SEED_BYTES + HAS_NORMAL, true);
    if (position > WORDS || hasNormal > 1) {
      throw new ArgumentError(
        "setState: not a saved state: its position must be at most " +
          `${WORDS} and its flag 0 or 1; got ${position} and ${hasNormal}.`,
      );
    }
    this.#seed = checkedSeed("setState", Number(view.getBigUint64(0, true)));
    this.#block = new Uint8Array(saved.subarray(SEED_BYTES));
  }

  /** Returns what puts the state back as it is now. @internal */
  snapshot(): () => void {
    const block = this.#block;
    const seed = this.#seed;
    return () => {
      [this.#block, this.#seed] = [block, seed];
    };
  }

  /** Ends the generator: it cannot be used afterwards. */
  dispose(): void {
    this.#block = null;
    this.#disposed = true;
  }

  #uniform(address: number, n: number, low: number, high: number): void {
    this.#assertUsable();
    if (!(low <= high) || !Number.isFinite(Math.fround(Math.fround(high) - Math.fround(low)))) {
      throw new ArgumentError(
        `uniform_: low <= high and a finite float32 range are needed; got low = ${low}, high = ${high}.`,
      );
    }
    this.#draw((state) => engine().kernels.uniformFill(address, state, n, low, high));
  }

  #normal(address: number, n: number, mean: number, std: number): void {
    this.#assertUsable();
    if (!Number.isFinite(mean) || !Number.isFinite(std) || std < 0) {
      throw new ArgumentError(
        `normal_: a finite mean and a finite std >= 0 are needed; got mean = ${mean}, std = ${std}.`,
      );
    }
    this.#draw((state) => engine().kernels.normalFill(address, state, n, mean, std));
  }

  #assertUsable(): void {
    if (this.#disposed) throw new DisposedError("Generator: it was used after dispose().");
  }

  /**
   * Copies the state into the kernels' working space, runs a kernel on it there, and keeps what it became: so a draw
   * allocates nothing.
   */
  #draw(run: (state: number) => void): Uint8Array {
    const { kernels, memory, scratch } = engine();
    const bytes = kernels.mtStateBytes();
    if (this.#block) memory.u8(scratch, bytes).set(this.#block);
    else kernels.mtSeed(scratch, this.#seed >>> 0);
    run(scratch);
    return (this.#block = memory.u8(scratch, bytes).slice());
  }

  static {
    fillUniform = (generator, address, n, low, high) => generator.#uniform(address, n, low, high);
    fillNormal = (generator, address, n, mean, std) => generator.#normal(address, n, mean, std);
  }
}

/**
 * The bound b of torch.nn.init.kaiming_uniform_(w, a), which draws from [-b, b):
 * sqrt(3) * gain / sqrt(fanIn) with gain = sqrt(2 / (1 + a^2)), in float64 as Python computes it.
 */
export function kaimingUniformBound(fanIn: number, a: number): number {
  if (!Number.isSafeInteger(fanIn) || fanIn < 1) {
    throw new ArgumentError(`kaimingUniformBound: fanIn must be a positive integer; got ${fanIn}.`);
  }
  const gain = Math.sqrt(2 / (1 + a * a));
  return Math.sqrt(3) * (gain / Math.sqrt(fanIn));
}

/** Returns `seed` if it is one. @throws ArgumentError */
export function checkedSeed(place: string, seed: number): number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new ArgumentError(`${place}: seed must be an integer from 0 to 2^53 - 1; got ${shown(seed)}.`);
  }
  return seed;
}
