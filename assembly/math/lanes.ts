/**
 * Tails: the last 0 to 3 floats of a row, without touching memory beyond them.
 * A kernel passes its tail through the same SIMD function as its full vectors, so an element has the
 * same bits wherever it stands in a buffer.
 */

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

/** Four vectors in the module's own memory, for one thread. */
const PADDED: usize = memory.data(64, 16);

/**
 * A tail made a full vector: the first `count` floats (1 to 3) from p, then zeros. Returns the address of that vector,
 * one of four by `index`. A kernel with a long body passes its tail through its own loop so, calling itself: a second
 * copy of the body for the tail doubles the code, a choice inside the loop costs 4 to 20 % (measured).
 *
 * Such a loop is a do-while. V8 takes constants out of a loop only from blocks that are sure to run; those of a
 * for loop's body are made anew for every vector (measured: exp takes 1.9 times as long).
 */
export function padded(index: i32, p: usize, count: i32): usize {
  const to = PADDED + ((<usize>index) << 4);
  v128.store(to, f32x4.splat(0));
  memory.copy(to, p, (<usize>count) << 2);
  return to;
}

/** The first `count` floats of vector 0, to p. */
export function storePadded(p: usize, count: i32): void {
  memory.copy(p, PADDED, (<usize>count) << 2);
}
