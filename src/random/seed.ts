/**
 * Which run a draw belongs to. `manualSeed` begins a run's random streams: torch's, and the dropout masks. A module
 * stays with the streams that it was built on, so that runs which take turns in one process draw what each draws alone.
 */
import { StateError } from "../runtime/errors.js";
import { attempt, onFailure } from "../tensor/scope.js";
import { checkedSeed, DEFAULT_SEED, fillNormal, fillUniform, Generator } from "./generator.js";

/** Names one mask: element i is kept iff Philox(seed, stream, i) >= p * 2^32. */
export interface DropoutMask {
  /** Probability of dropping an element. */
  p: number;
  /** Philox's key: that of `manualSeed`. */
  seed: number;
  /** Number of the mask since the seed. */
  stream: number;
}

/** The streams of a run. */
export class RandomState {
  readonly generator: Generator;
  /** Number of the next dropout mask. */
  nextMask = 0;
  /** The streams to which the modules of these have moved, if they have. */
  successor: RandomState | null = null;
  /** Whether a module drew from these streams: then no other module moves to them. */
  taken = false;
  /** Whether the code that called manualSeed is still running, without an await in between. */
  recent = true;
  /** Whether anything was drawn from these streams or built on them. */
  used = false;
  /**
   * The seed of streams begun right before these and never used: another run's, most likely, that takes turns with
   * ours.
   */
  rival: number | null = null;

  constructor(
    readonly seed: number,
    readonly isDefault = false,
  ) {
    this.generator = new Generator(seed);
  }

  /** The last of its successors, to which its modules belong now: itself, unless they moved. */
  get latest(): RandomState {
    return this.successor?.latest ?? this;
  }

  /** Notes that these streams are used. @throws StateError if two runs may take them for theirs */
  use(): void {
    if (!this.used && this.rival !== null && !this.recent) {
      throw new StateError(
        `manualSeed: ${this.rival} and ${this.seed} were set one right after the other, and nothing was drawn or ` +
          `built before an await, so it is ` +
          "unclear whose streams these are. Build the model right after manualSeed, without an await in between.",
      );
    }
    this.used = true;
  }

  /** Called before each draw: notes the state, so that a scope which runs out of memory can take the draw back. */
  beforeDraw(): this {
    this.use();
    onFailure(this, () => {
      const { nextMask } = this;
      const restore = this.generator.snapshot();
      return () => {
        this.nextMask = nextMask;
        restore();
      };
    });
    return this;
  }
}

let current = new RandomState(DEFAULT_SEED, true);

/**
 * Begins new random streams: initialisation draws what PyTorch draws after `torch.manual_seed(seed)`; dropout masks
 * (which are ours, not torch's) repeat too. Loading a model draws nothing.
 *
 * Modules that are built from here on belong to these streams and stay with them, also when another run calls
 * manualSeed meanwhile: `getLoraModel` and `addAdapter` draw factors, and layers draw dropout masks, from the model's
 * own. A module that is there already moves to the new streams, with all that share its own, if it draws before another
 * one does, and before the code that called manualSeed awaits something.
 *
 * Draws that belong to no module (`nn.uniform_` and its like, `ops.dropout`, `linalg`) come from the streams begun
 * last, whoever began them: a run that takes turns with others must not await between manualSeed and these, nor between
 * manualSeed and building its model (where two have done so at once, the first draw is refused with a StateError);
 * dropout in a forward of its own is an `nn.Dropout`.
 *
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
  const before = current;
  const begun = (current = new RandomState(checkedSeed("manualSeed", seed)));
  // One seed set twice is no sign of two runs: tests do so.
  if (before.recent && !before.used && !before.isDefault && before.seed !== seed) begun.rival = before.seed;
  queueMicrotask(() => {
    begun.recent = false;
  });
}

/** The streams that each module was built on. */
const streams = new WeakMap<object, RandomState>();

/** Lets a module belong to the streams in force, or to those of another module. */
export function adopt(module: object, other?: object): RandomState {
  const state = (other && streams.get(other)) ?? current;
  state.use();
  streams.set(module, state);
  return state;
}

/**
 * A module's streams: fresh ones of manualSeed, to which all that shared its own moves then, or its own. A module that
 * was built on streams that nobody seeded moves to any fresh ones.
 */
export function streamsOf(module: object): RandomState {
  const { latest } = streams.get(module) ?? adopt(module);
  if (latest !== current && (current.taken || !(current.recent || latest.isDefault))) return latest;
  current.taken = true;
  if (latest !== current) latest.successor = current;
  return current;
}

/** Runs fn, in which draws and new modules belong to these streams. */
export function withStreams<T>(state: RandomState, fn: () => T): T {
  const before = current;
  current = state;
  try {
    return fn();
  } finally {
    current = before;
  }
}

/** Runs fn, which draws for a module; if it runs out of memory, its draws are taken back. */
export function drawFor<T>(module: object, fn: () => T): T {
  return attempt(() => withStreams(streamsOf(module), fn));
}

/** Fills n floats at an address from the streams in force. */
export function drawUniform(address: number, n: number, low: number, high: number): void {
  fillUniform(current.beforeDraw().generator, address, n, low, high);
}
export function drawNormal(address: number, n: number, mean: number, std: number): void {
  fillNormal(current.beforeDraw().generator, address, n, mean, std);
}

/** The masks that a running `recordMasks` has seen, and those that a running `repeatMasks` hands out. */
let recorded: DropoutMask[] | null = null;
let repeated: Iterator<DropoutMask, undefined> | null = null;

/** The next mask of a module's streams, or of those in force. */
export function newMask(p: number, module?: object): DropoutMask {
  let mask: DropoutMask | undefined;
  if (repeated) {
    mask = repeated.next().value;
    if (!mask) throw new StateError("gradientCheckpoint: fn drew more dropout masks when backward ran it again.");
  } else {
    const state = (module ? streamsOf(module) : current).beforeDraw();
    mask = { p, seed: state.seed, stream: state.nextMask++ };
  }
  recorded?.push(mask);
  return { ...mask, p };
}

/** Runs fn and notes in `into` which masks it draws. */
export function recordMasks<T>(into: DropoutMask[], fn: () => T): T {
  const before = recorded;
  recorded = into;
  try {
    return fn();
  } finally {
    recorded = before;
    before?.push(...into);
  }
}

/** Runs fn, which gets these masks in turn instead of new ones. */
export function repeatMasks<T>(masks: readonly DropoutMask[], fn: () => T): T {
  const before = repeated;
  repeated = masks.values();
  try {
    return fn();
  } finally {
    repeated = before;
  }
}
