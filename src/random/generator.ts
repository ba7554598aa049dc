/**
 * Random streams that equal PyTorch's on the CPU: `manualSeed(s)` and the same calls give the same
 * uniforms bit for bit, and the same normals to 2e-6.
 */
import { ArgumentError, DisposedError } from "../runtime/errors.js";
import { engine, type Engine } from "../runtime/engine.js";

/** at::default_rng_seed_val. */
const DEFAULT_SEED = 67280421310721;

/** Saved states: the seed as u64, then the kernels' block (assembly/random/mt19937.ts), little-endian. */
const SEED_BYTES = 8;
const WORDS = 624;
const POSITION = 2496;
const HAS_NORMAL = 2500;

/**
 * One stream. Its state lives in the engine's memory from the first draw on, until `dispose()`.
 * In a new engine it starts over from its seed, like every tensor there.
 *
 * Source: Matsumoto & Nishimura 1998 (MT19937); torch.Generator, uniform_ and normal_ on the CPU.
 * @throws ArgumentError for a seed that is no integer in 0 .. 2^53 - 1 (default: torch's, 67280421310721)
 *
 * @example
 * const generator = new Generator(42), t = zeros([3]);
 * const saved = generator.state();
 * generator.uniform_(t.address, t.size, 0, 1);
 * const first = t.data.slice();
 * generator.setState(saved); // the same draws follow
 * generator.uniform_(t.address, t.size, 0, 1);
 * console.log(t.data.every((v, i) => v === first[i])); // true
 * generator.dispose();
 */
export class Generator {
  #seed: number;
  /** Addresses of the state: a stream of its own in each engine. */
  readonly #blocks = new Map<Engine, number>();
  #disposed = false;

  constructor(seed = DEFAULT_SEED) {
    this.#seed = checkedSeed("Generator", seed);
  }

  /** The seed this stream was last started from. */
  get seed(): number { return this.#seed; }

  /**
   * Starts the stream of `seed`: an integer from 0 to 2^53 - 1.
   * Its low 32 bits choose the stream, as in torch.
   * @throws ArgumentError
   */
  manualSeed(seed: number): this {
    this.#seed = checkedSeed("manualSeed", seed);
    for (const [home, address] of this.#living()) home.kernels.mtSeed(address, this.#seed >>> 0);
    return this;
  }

  /**
   * Fills n floats at `address` (a tensor's, of at least n elements: it is not checked) from [low, high), with the
   * bits of torch's uniform_.
   * @throws ArgumentError on a count or range out of bounds; DisposedError
   */
  uniform_(address: number, n: number, low: number, high: number): void {
    checkCount("uniform_", n);
    if (!(low <= high) || !Number.isFinite(Math.fround(Math.fround(high) - Math.fround(low)))) {
      throw new ArgumentError(`uniform_: low <= high and a finite float32 range are needed; got low = ${low}, high = ${high}.`);
    }
    const state = this.#block();
    engine().kernels.uniformFill(address, n, low, high, state);
  }

  /**
   * Fills n floats at `address`, as `uniform_`, with N(mean, std²): torch's normal_ to 2e-6.
   * @throws ArgumentError on a count, mean or std out of bounds; DisposedError
   */
  normal_(address: number, n: number, mean: number, std: number): void {
    checkCount("normal_", n);
    if (!Number.isFinite(mean) || !Number.isFinite(std) || std < 0) {
      throw new ArgumentError(`normal_: a finite mean and a finite std >= 0 are needed; got mean = ${mean}, std = ${std}.`);
    }
    const state = this.#block();
    engine().kernels.normalFill(address, n, mean, std, state);
  }

  /** A copy of the whole state (seed, position, kept normal), for checkpoints. @throws DisposedError */
  state(): Uint8Array {
    const block = this.#bytes();
    const saved = new Uint8Array(SEED_BYTES + block.length);
    new DataView(saved.buffer).setBigUint64(0, BigInt(this.#seed), true);
    saved.set(block, SEED_BYTES);
    return saved;
  }

  /** Restores what `state()` returned. @throws ArgumentError for bytes that are no such state; DisposedError */
  setState(saved: Uint8Array): void {
    const block = this.#bytes();
    const expected = SEED_BYTES + block.length;
    if (saved.length !== expected) {
      throw new ArgumentError(`setState: a saved state has ${expected} bytes; got ${saved.length}.`);
    }
    const view = new DataView(saved.buffer, saved.byteOffset, saved.length);
    const position = view.getUint32(SEED_BYTES + POSITION, true);
    const hasNormal = view.getUint32(SEED_BYTES + HAS_NORMAL, true);
    if (position > WORDS || hasNormal > 1) {
      throw new ArgumentError("setState: not a saved state: its position must be at most " +
        `${WORDS} and its flag 0 or 1; got ${position} and ${hasNormal}.`);
    }
    this.#seed = checkedSeed("setState", Number(view.getBigUint64(0, true)));
    block.set(saved.subarray(SEED_BYTES));
  }

  /** Gives the state's memory back; the generator cannot be used afterwards. */
  dispose(): void {
    for (const [home, address] of this.#living()) home.memory.free(address);
    this.#blocks.clear();
    this.#disposed = true;
  }

  #bytes(): Uint8Array {
    const address = this.#block();
    const { kernels, memory } = engine();
    return memory.u8(address, kernels.mtStateBytes());
  }

  /** The address of the state in the current engine. */
  #block(): number {
    if (this.#disposed) throw new DisposedError("Generator: it was used after dispose().");
    const current = engine();
    let address = this.#living().get(current);
    if (address === undefined) {
      address = current.memory.alloc(current.kernels.mtStateBytes());
      current.kernels.mtSeed(address, this.#seed >>> 0);
      this.#blocks.set(current, address);
    }
    return address;
  }

  /** Blocks of engines that live; the others are forgotten. */
  #living(): Map<Engine, number> {
    for (const home of this.#blocks.keys()) if (!home.alive) this.#blocks.delete(home);
    return this.#blocks;
  }
}

/** The stream that layers draw from unless they are given another. */
export const defaultGenerator = new Generator();

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

function checkedSeed(place: string, seed: number): number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new ArgumentError(`${place}: seed must be an integer from 0 to 2^53 - 1; got ${seed}.`);
  }
  return seed;
}

function checkCount(place: string, n: number): void {
  if (!Number.isInteger(n) || n < 0 || n > 0x3fffffff) {
    throw new ArgumentError(`${place}: n must be an integer from 0 to 2^30 - 1; got ${n}.`);
  }
}
