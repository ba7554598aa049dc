/**
 * Races: bursts of the contestants alternate round by round, so a busy neighbour or a change of clock rate meets all of
 * them; each round begins with the next one, or a neighbour that is busy at regular intervals would meet the same few
 * always (seen: two of five a third slower for a whole race). tinybench runs a burst, which counts as its fastest group
 * of calls: a neighbour on the same core or cache can only slow it down. Bursts after which the core proves to be
 * shared are repeated, whosever they are. A contestant's figure is the median over rounds; two are compared by the
 * median of their ratios within a round.
 */
import { Bench } from "tinybench";
import { clock } from "#platform";
import { isOnThreads } from "./engines.mjs";
import { watch } from "./neighbour.mjs";
import { openWall } from "./wall.mjs";

/** A burst's calls are grouped to last a millisecond, and twenty steps of the clock: reading it takes time too. */
const GROUP_MS = Math.max(1, 20 * resolution());

/** A call of a second counts as it is, the first or not. */
const LONG_MS = 1000;

/** The least step of the clock in milliseconds. */
function resolution() {
  let least = Infinity;
  for (let i = 0; i < 20; i++) {
    const start = clock();
    let now;
    do now = clock();
    while (now === start);
    least = Math.min(least, now - start);
  }
  return least;
}

/** How long to measure: the usual, and --quick. */
export const FULL = { rounds: 11, burstMs: 40, warmUpMs: 250, limitMs: 20_000, patienceMs: 4_000 };
export const QUICK = { rounds: 5, burstMs: 8, warmUpMs: 60, limitMs: 1_500, patienceMs: 400 };

/**
 * Bursts of all races: counted, repeated, and counted though the core was shared, since patience had come to an end.
 */
export const bursts = { counted: 0, repeated: 0, shared: 0 };

let neighbour;
/** Whether the core is shared just now. */
function shared() {
  neighbour ??= watch(openWall().chains[0].run, clock, GROUP_MS);
  return neighbour();
}

/**
 * @param contestants [{ name, run }]; run() does the work once and may return a promise. Each should have run before,
 *   for its result to be checked. Those on several threads are timed by the clock on the wall
 * @param effort rounds, milliseconds of a burst and of the warm-up, the limit after which a contestant takes no part in
 *   further rounds (it takes part in one at least), and what bursts that are repeated may take in all
 * @param isShared whether the burst that has just ended was disturbed
 * @returns { name: milliseconds of one run in each of its rounds }
 */
export async function race(contestants, { rounds, burstMs, warmUpMs, limitMs, patienceMs }, isShared = shared) {
  const entries = [];
  let patience = patienceMs;
  for (const { name, run } of contestants) {
    const now = isOnThreads(name) ? () => performance.now() : clock;
    const start = now();
    let fastest = Infinity;
    let last = start;
    let first;
    // Two runs at least, unless one is long already.
    do {
      first = run();
      if (first instanceof Promise) await first;
      const at = now();
      fastest = Math.min(fastest, at - last);
      last = at;
    } while (last - start < warmUpMs);
    const repeats = Math.max(1, Math.ceil(GROUP_MS / Math.max(fastest, 1e-3)));
    const async = first instanceof Promise;
    // Two groups at least, unless one is long: the first finds its operands out of the caches, where others' data are
    // now.
    const iterations = fastest < LONG_MS ? 2 : 1;
    const bench = new Bench({ now, time: burstMs, iterations, warmup: false, throws: true });
    bench.add(
      name,
      async
        ? async () => {
            for (let i = 0; i < repeats; i++) await run();
          }
        : () => {
            for (let i = 0; i < repeats; i++) run();
          },
      { async },
    );
    entries.push({ name, bench, repeats, times: [], spent: 0 });
  }
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[(i + round) % entries.length];
      if (entry.spent > limitMs) continue;
      for (;;) {
        const start = clock();
        // Without that a bench that has run does nothing.
        entry.bench.reset();
        await entry.bench.run();
        const spent = clock() - start;
        const disturbed = isShared();
        if (!disturbed || patience < spent) {
          entry.spent += spent;
          bursts.counted++;
          if (disturbed) bursts.shared++;
          break;
        }
        patience -= spent;
        bursts.repeated++;
      }
      entry.times.push(entry.bench.tasks[0].result.latency.min / entry.repeats);
    }
  }
  return Object.fromEntries(entries.map(({ name, times }) => [name, times]));
}
