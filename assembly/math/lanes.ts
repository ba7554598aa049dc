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
