/** One seed for everything random: torch's stream, and the dropout masks. */
import { defaultGenerator } from "./generator.js";

/** Names one mask: element i is kept iff Philox(seed, stream, i) >= p * 2^32. */
export interface DropoutMask {
  /** Probability of dropping an element. */
  p: number;
  /** Philox's key: that of `manualSeed`. */
  seed: number;
  /** Number of the mask since the seed. */
  stream: number;
}

let dropoutSeed = defaultGenerator.seed;
let nextStream = 0;

/**
 * Starts all random streams anew: initialisation draws what PyTorch draws after
 * `torch.manual_seed(seed)`; dropout masks (which are ours, not torch's) repeat too.
 * @param seed integer in 0 .. 2^53 - 1
 * @throws ArgumentError
 *
 * @example
 * manualSeed(0);
 * const first = new nn.Linear(4, 2).weight.data.slice();
 * manualSeed(0);
 * console.log(new nn.Linear(4, 2).weight.data.every((v, i) => v === first[i])); // true
 */
export function manualSeed(seed: number): void {
  defaultGenerator.manualSeed(seed);
  dropoutSeed = seed;
  nextStream = 0;
}

/** The next mask of the current seed. */
export function newMask(p: number): DropoutMask { return { p, seed: dropoutSeed, stream: nextStream++ }; }

/** Number of masks drawn since the seed: with it a resumed run draws the same masks. @internal */
export function dropoutStream(): number { return nextStream; }
/** @internal */
export function setDropoutStream(stream: number): void { nextStream = stream; }
/** Which mask comes next. @internal */
export function dropoutState(): readonly [seed: number, stream: number] { return [dropoutSeed, nextStream]; }

/** Runs fn, which draws the masks that followed `state`; then the present ones go on. @internal */
export function withDropoutState<T>(state: readonly [seed: number, stream: number], fn: () => T): T {
  const before = dropoutState();
  [dropoutSeed, nextStream] = state;
  try {
    return fn();
  } finally {
    [dropoutSeed, nextStream] = before;
  }
}
