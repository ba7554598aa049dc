/**
 * Whether somebody else works on this core. On a shared machine another tenant may have the core's second hardware
 * thread, which no operating system shows: for 0.2 s and longer multiply-adds in registers, which need nothing but the
 * core, then take a fifth longer, and code that keeps all of it busy takes up to twice as long (measured). Code that
 * waits for itself hardly feels it, so rounds do not make up for it.
 */
const SLOWER = 1.07;
const TRIES = 3;

/**
 * @param run work that needs nothing but the core
 * @param clock in milliseconds
 * @param groupMs how long calls have to be for the clock
 * @returns a function: is the work slower now than it has been at its best?
 */
export function watch(run, clock, groupMs) {
  let repeats = 1;
  let quickest = Infinity;
  const time = () => {
    const start = clock();
    for (let i = 0; i < repeats; i++) run();
    return clock() - start;
  };
  // Optimised first.
  for (let i = 0; i < 20; i++) run();
  while (time() < groupMs) repeats *= 2;
  return () => {
    const now = Math.min(...Array.from({ length: TRIES }, time));
    quickest = Math.min(quickest, now);
    return now > SLOWER * quickest;
  };
}
