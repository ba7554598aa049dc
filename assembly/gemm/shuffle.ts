/**
 * A 4x4 block is transposed by taking even and odd elements of two vectors, twice: with rows r0 .. r3,
 *   column 0 = even(even(r0, r1), even(r2, r3))   column 1 = even(odd(r0, r1), odd(r2, r3))
 *   column 2 = odd(even(r0, r1), even(r2, r3))    column 3 = odd(odd(r0, r1), odd(r2, r3))
 * One instruction each in V8 and SpiderMonkey. JavaScriptCore keeps two masks in registers for each kind of shuffle, so
 * two kinds cost it less than the usual four of unpacking.
 */

// @ts-ignore: decorator
@inline
export function even(x: v128, y: v128): v128 {
  return v128.shuffle<f32>(x, y, 0, 2, 4, 6);
}

// @ts-ignore: decorator
@inline
export function odd(x: v128, y: v128): v128 {
  return v128.shuffle<f32>(x, y, 1, 3, 5, 7);
}
