/**
 * The choices of one input: a stream of numbers that (target, seed, index) decide, so that any input can be made
 * again from what a failure prints.
 * Source: mulberry32 (Tommy Ettinger), seeded by FNV-1a of the three.
 */
import { words } from "../support/random.js";

export class Random {
  readonly #next: () => number;

  constructor(target: string, seed: number, index: number) {
    let hash = 0x811c9dc5;
    for (const char of `${target} ${seed} ${index}`) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193);
    this.#next = words(hash);
    // FNV leaves neighbours alike in the high bits; one step apart is not enough for the first draw.
    this.#next();
  }

  /** From 0 to below n. */
  below(n: number): number {
    return this.#next() % n;
  }

  /** From low to high, both included. */
  integer(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True once in n. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }

  /** From 0 to below 1. */
  uniform(): number {
    return this.#next() / 0x100000000;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** 0 with the chance 1/2, 1 with 1/4, ... at most `most`. */
  few(most: number): number {
    let n = 0;
    while (n < most && this.once(2)) n++;
    return n;
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#next());
  }
}
