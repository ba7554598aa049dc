/**
 * Threads. All of them run the same kernel on the same call; a kernel's loop over output elements, where it is worth
 * it, is
 *
 *   for (split(units, cost); part(); ) ... units `first` to `last` - 1 ...
 *
 * Whoever is free takes the next part, and nobody leaves the loop before all parts are done, so one such loop may read
 * what the one before has written. Everything that a kernel writes it writes within a part, sums are never split, and
 * so neither the number of threads nor who does what decides a bit. A part calls nothing that splits.
 *
 * Thread 0 is the caller's. It opens a call to the others at the first loop with work enough for two; they come when
 * they come, from the kernel's beginning, and pass over the loops that are done. Without other threads a loop is one
 * part, and memory need not be shared.
 *
 * What threads tell each other lies in the control block, of which src/runtime/threads.ts knows the first fields:
 *   +0 epoch, odd while a call is open; +4 threads asleep until the next one; +8 threads within the call;
 *   +12 fault, not 0 once a thread has failed;
 *   +64 64 bits: upper half: the loop in hand, counted from 1 within a call, lower half: its next unit;
 *   +72 units done of it; +76 threads asleep until something ends; +128 for src/runtime/threads.ts: which call it is;
 *   +256 what threads have of their own.
 */

const EPOCH: usize = 0;
const ASLEEP: usize = 4;
const WITHIN: usize = 8;
const FAULT: usize = 12;
const NEXT: usize = 64;
const LOOP: usize = 68;
const DONE: usize = 72;
const WAITING: usize = 76;

const OWN: usize = 256;
const OWN_BYTES: usize = 64;

export function threadControlBytes(count: i32): i32 {
  return <i32>(OWN + <usize>count * OWN_BYTES);
}

/** 64 bytes of this thread's own, for the tails of rows (math/lanes.ts). */
export let aside: usize = memory.data(64, 16);

/** About as many cycles make a part worth taking (measured). */
const LEAST: f64 = 8000;
/** No part is of more: a third of a second, so that nobody waits long for one, even where a core has much to do. */
const MOST: f64 = 1e9;
/** Looks at a word before a thread sleeps, some 50 us; a thread that may not sleep gives up after some 10 s. */
const LOOKS: u32 = 20000;
const MOST_LOOKS: u32 = 0xffffffff;
/**
 * A sleep, in ns, and how many of them end in vain before the others are given up: half a minute in which this thread
 * was awake, which a machine that sleeps is not. Whoever takes so long for a part has a hundredth of a core, or has
 * ended.
 */
const SLEEP: i64 = 1_000_000;
const MOST_SLEEPS: u32 = 30000;

/** How many threads there are, which one this is, and whether it may sleep: the thread of a page may not. */
let threads: i32 = 1,
  thread: i32 = 0,
  maySleep: bool = false;
let control: usize = 0;
/** Whether others may be within the call. */
let isOpen: bool = false;

/** The units of the part in hand. */
export let first: i32 = 0,
  last: i32 = 0;

/**
 * The loop in hand: its number within the call; its units, at least one, and where they end; how many make a part, at
 * least and at most, and of what it is a multiple; how many of them this thread has taken.
 */
let loop: i32 = 0,
  units: i32 = 0,
  end: i32 = 0,
  least: i32 = 0,
  most: i32 = 0,
  step: i32 = 1,
  taken: i32 = 0;

/** How often the one that waits has looked. */
let looks: u32 = 0;

/** Tells an instance which thread it is. */
export function useThread(at: usize, count: i32, index: i32, sleeps: bool): void {
  control = at;
  threads = count;
  thread = index;
  maySleep = sleeps;
  aside = at + OWN + <usize>index * OWN_BYTES;
}

/** Before a call: loops are counted anew. */
export function enterCall(): void {
  loop = 0;
}

/** After a call, by thread 0: closes it, if it was opened, and waits until the others have left. */
export function leaveCall(): void {
  if (!isOpen) return;
  isOpen = false;
  atomic.add<i32>(control + EPOCH, 1);
  for (looks = 0; ; ) {
    const within = atomic.load<i32>(control + WITHIN);
    if (within == 0) return;
    look(WITHIN, within);
  }
}

/** For working space: as many times what one thread needs. */
// @ts-ignore: decorator
@inline
export function ofAll(bytes: usize): usize {
  return <usize>threads * bytes;
}

/** This thread's own piece of such a space. */
// @ts-ignore: decorator
@inline
export function own(space: usize, bytes: usize): usize {
  return space + <usize>thread * bytes;
}

// @ts-ignore: decorator
@inline
export function threadCount(): i32 {
  return threads;
}

/** Where the part in hand begins in a row of floats, whose parts are multiples of LINE, so that none share a line. */
// @ts-ignore: decorator
@inline
export function here(row: usize): usize {
  return row + ((<usize>first) << 2);
}
export const LINE: i32 = 16;

/**
 * Begins a loop over so many units, of about so many cycles each. A part is a multiple of `align` units, but for the
 * last one.
 */
export function split(count: i32, cost: f64, align: i32 = 1): void {
  if (isDefined(TRACE)) backwards = trace(-1);
  taken = 0;
  units = max(count, 1);
  end = count;
  if (threads == 1) return;
  loop++;
  // Compared as floats: a unit that costs next to nothing is worth taking by the million only.
  least = sized(LEAST / max(cost, 1e-3), align);
  most = max(least, sized(MOST / max(cost, 1e-3), align));
  step = align;
  if (thread != 0 || isOpen || least > units >> 1) return;
  atomic.store<i64>(control + NEXT, (<i64>loop) << 32);
  atomic.store<i32>(control + DONE, 0);
  isOpen = true;
  atomic.add<i32>(control + EPOCH, 1);
  if (atomic.load<i32>(control + ASLEEP) != 0) atomic.notify(control + EPOCH, -1);
}

/** So many units, up to a multiple of `align` or to all of them. */
function sized(count: f64, align: i32): i32 {
  return count >= <f64>units ? units : ((<i32>ceil(count) + align - 1) / align) * align;
}

/** Takes the next part. False: all of them are done, by whomever. */
export function part(): bool {
  if (!isDefined(TRACE)) return next();
  const more = backwards && isOpen ? previous() : next();
  trace(more ? last - first : 0);
  return more;
}

/**
 * In the build of bench/balance.mjs, where one thread takes all parts, cut as for the threads that it is told of: a
 * loop begins (-1), so many units of it are begun, it is done (0). Where a loop begins, it answers whether its parts
 * are to be taken backwards.
 */
// @ts-ignore: decorator
@external("env", "trace")
declare function trace(units: i32): bool;

let backwards: bool = false;

/** The part before the one in hand, in that build. */
function previous(): bool {
  const until = taken == 0 ? units : first;
  taken = units;
  if (until == 0) {
    done();
    return atTheEnd();
  }
  first = 0;
  for (let size = guided(0); first + size < until; size = guided(first)) first += size;
  last = min(end, until);
  return true;
}

// @ts-ignore: decorator
@inline
function next(): bool {
  if (thread == 0 && !isOpen) {
    first = 0;
    last = end;
    taken = units - taken;
    return taken != 0;
  }
  if (taken != 0) done();
  return take() || atTheEnd();
}

/** Whether there was another part, which is in hand now. */
function take(): bool {
  for (;;) {
    const next = atomic.load<i64>(control + NEXT),
      from = <i32>next;
    if (<i32>(next >> 32) != loop || from == units) return false;
    const count = guided(from);
    if (atomic.cmpxchg<i64>(control + NEXT, next, next + count) != next) continue;
    first = from;
    last = min(end, from + count);
    taken = count;
    return true;
  }
}

/**
 * Units of the part that begins with that one: fewer and fewer, so that all threads end together (guided
 * self-scheduling, Polychronopoulos and Kuck 1987).
 */
// @ts-ignore: decorator
@inline
function guided(from: i32): i32 {
  const left = units - from,
    share = left / (2 * threads);
  return min(left, max(least, min(most, share - (share % step))));
}

/** The part in hand is done; the last one ends the loop. */
function done(): void {
  const before = atomic.add<i32>(control + DONE, taken),
    all = before + taken;
  taken = 0;
  if (all < units) return;
  atomic.store<i32>(control + DONE, 0);
  atomic.store<i64>(control + NEXT, (<i64>(loop + 1)) << 32);
  if (atomic.load<i32>(control + WAITING) != 0) atomic.notify(control + LOOP, -1);
}

/** Waits until all parts are done. */
function atTheEnd(): bool {
  for (looks = 0; atomic.load<i32>(control + LOOP) == loop; ) look(LOOP, loop);
  return false;
}

/**
 * Between two looks at what another thread will change: nothing at first, then a sleep while `word` has that value.
 * Nothing that is needed behind the sleep stands in a local: in a loop, V8's first compiler loses these there (Node 20,
 * measured).
 */
function look(word: usize, value: i32): void {
  if (atomic.load<i32>(control + FAULT) != 0) unreachable();
  if (looks == (maySleep ? LOOKS + MOST_SLEEPS : MOST_LOOKS)) {
    atomic.store<i32>(control + FAULT, 2);
    unreachable();
  }
  looks++;
  if (looks <= LOOKS || !maySleep) return;
  atomic.add<i32>(control, 1, WAITING);
  // Woken, it looks again without having slept in vain.
  if (atomic.wait<i32>(control + word, value, SLEEP) != AtomicWaitResult.TIMED_OUT) looks--;
  atomic.sub<i32>(control, 1, WAITING);
}
