/**
 * Tails: the last 0 to 3 floats of a row, without touching memory beyond them.
 * A kernel passes its tail through the same SIMD function as its full vectors, so an element has the
 * same bits wherever it stands in a buffer.
 */
import { aside } from "../threads";

/** Lanes [0, count) from p, the others `fill`; 0 <= count <= 3. */
// @ts-ignore: decorator
@inline
export function loadLanes(p: usize, count: i32, fill: f32): v128 {
  let v = f32x4.splat(fill);
  if (count > 0) v = v128.load_lane<f32>(p, v, 0);
  if (count > 1) v = v128.load_lane<f32>(p, v, 1, 4);
  if (count > 2) v = v128.load_lane<f32>(p, v, 2, 8);
  return v;
}

/** Stores lanes [0, count) at p; 0 <= count <= 3. */
// @ts-ignore: decorator
@inline
export function storeLanes(p: usize, v: v128, count: i32): void {
  if (count > 0) v128.store_lane<f32>(p, v, 0);
  if (count > 1) v128.store_lane<f32>(p, v, 1, 4);
  if (count > 2) v128.store_lane<f32>(p, v, 2, 8);
}

/**
 * Makes the tails of four operands full vectors at `aside`, `aside` + 16, ...: the first `count` floats (1 to 3) of
 * each, then zeros. A kernel of fewer operands names its last one again. A kernel with a long body passes its tail
 * through its own loop so, calling itself: a second copy of the body for the tail doubles the code, a choice inside the
 * loop costs 4 to 20 % (measured).
 *
 * Such a loop is a do-while. V8 takes constants out of a loop only from blocks that are sure to run; those of a
 * for loop's body are made anew for every vector (measured: exp takes 1.9 times as long).
 */
export function pad(a: usize, b: usize, c: usize, d: usize, count: i32): void {
  padOne(aside, a, count);
  padOne(aside + 16, b, count);
  padOne(aside + 32, c, count);
  padOne(aside + 48, d, count);
}

/** By a loop, so that `pad` is too long to be copied into every kernel. */
// @ts-ignore: decorator
@inline
function padOne(to: usize, p: usize, count: i32): void {
  v128.store(to, f32x4.splat(0));
  do {
    store<u32>(to, load<u32>(p));
    to += 4;
    p += 4;
  } while (--count > 0);
}

/** The first `count` floats there, to p. */
export function storePadded(p: usize, count: i32): void {
  memory.copy(p, aside, (<usize>count) << 2);
}
