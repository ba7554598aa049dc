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

/** Bytes of x and y in turn: of their first eight, and of their last. */
// @ts-ignore: decorator
@inline
export function lowPairs(x: v128, y: v128): v128 {
  return i8x16.shuffle(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
// @ts-ignore: decorator
@inline
export function highPairs(x: v128, y: v128): v128 {
  return i8x16.shuffle(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/** Two bytes of x and of y in turn: of their first eight, and of their last. */
// @ts-ignore: decorator
@inline
export function lowFours(x: v128, y: v128): v128 {
  return v128.shuffle<i16>(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
}
// @ts-ignore: decorator
@inline
export function highFours(x: v128, y: v128): v128 {
  return v128.shuffle<i16>(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
}
