/** The kernels that are a module of their own: micro.ts, which says why, the big tiles, rank4.ts and gemv.ts. */

// @ts-ignore: decorator
@external("micro", "micro2x16")
export declare function micro2x16(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "micro2x16by8")
export declare function micro2x16by8(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "micro1x16")
export declare function micro1x16(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "micro4x8")
export declare function micro4x8(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "micro1x8")
export declare function micro1x8(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "micro6x8")
export declare function micro6x8(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "micro8x4")
export declare function micro8x4(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "micro1x4")
export declare function micro1x4(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "gemvT")
export declare function gemvT(
  n: i32,
  k: i32,
  a: usize,
  b: usize,
  bcs: usize,
  c: usize,
  accumulate: bool,
  format: i32,
): void;
// @ts-ignore: decorator
@external("micro", "rank4x2")
export declare function rank4x2(
  n: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "rank4x1")
export declare function rank4x1(
  updates: i32,
  n: i32,
  a: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  accumulate: bool,
): void;
// @ts-ignore: decorator
@external("micro", "rank4x1Half")
export declare function rank4x1Half(n: i32, a: usize, acs: usize, b: usize, bs: usize, c: usize, format: i32): void;
