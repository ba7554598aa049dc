/**
 * The machine's walls, compiled by build.mjs into a module of its own: multiply-adds that never leave the registers,
 * and a read of memory that does nothing else. Where FMA is defined a multiply-add is one relaxed_madd, which adds to
 * its own register as x64 has it: c + tiny * tiny (SpiderMonkey copies an operand that is used twice: 57 -> 38
 * GFLOP/s).
 *
 * No optimiser can lift a product out of the loop or drop an accumulator: each depends on the turn before, and all are
 * returned. `tiny` is a parameter since V8 makes a constant anew at each use, which halves the rate (measured). Take
 * 1e-12: c + tiny * c rounds to c, so values stay as they are, and normal. Twelve chains and thirteen, the fastest
 * being the wall: fewer wait for the latency, and an engine that cannot keep 13 and a product in registers keeps 12.
 */

// @ts-ignore: decorator
@inline
function madd(c: v128, a: v128, b: v128): v128 {
  return isDefined(FMA) ? f32x4.relaxed_madd(a, a, c) : f32x4.add(c, f32x4.mul(a, b));
}

/** 96 floating-point operations a turn. */
export function chains12(turns: i32, tiny: f32): f32 {
  const t = f32x4.splat(tiny);
  let c0 = f32x4.splat(1);
  let c1 = f32x4.splat(2);
  let c2 = f32x4.splat(3);
  let c3 = f32x4.splat(4);
  let c4 = f32x4.splat(5);
  let c5 = f32x4.splat(6);
  let c6 = f32x4.splat(7);
  let c7 = f32x4.splat(8);
  let c8 = f32x4.splat(9);
  let c9 = f32x4.splat(10);
  let ca = f32x4.splat(11);
  let cb = f32x4.splat(12);
  for (; turns > 0; turns--) {
    c0 = madd(c0, t, c0);
    c1 = madd(c1, t, c1);
    c2 = madd(c2, t, c2);
    c3 = madd(c3, t, c3);
    c4 = madd(c4, t, c4);
    c5 = madd(c5, t, c5);
    c6 = madd(c6, t, c6);
    c7 = madd(c7, t, c7);
    c8 = madd(c8, t, c8);
    c9 = madd(c9, t, c9);
    ca = madd(ca, t, ca);
    cb = madd(cb, t, cb);
  }
  return total(c0, c1, c2, c3) + total(c4, c5, c6, c7) + total(c8, c9, ca, cb);
}

/** 104 floating-point operations a turn. */
export function chains13(turns: i32, tiny: f32): f32 {
  const t = f32x4.splat(tiny);
  let c0 = f32x4.splat(1);
  let c1 = f32x4.splat(2);
  let c2 = f32x4.splat(3);
  let c3 = f32x4.splat(4);
  let c4 = f32x4.splat(5);
  let c5 = f32x4.splat(6);
  let c6 = f32x4.splat(7);
  let c7 = f32x4.splat(8);
  let c8 = f32x4.splat(9);
  let c9 = f32x4.splat(10);
  let ca = f32x4.splat(11);
  let cb = f32x4.splat(12);
  let cc = f32x4.splat(13);
  for (; turns > 0; turns--) {
    c0 = madd(c0, t, c0);
    c1 = madd(c1, t, c1);
    c2 = madd(c2, t, c2);
    c3 = madd(c3, t, c3);
    c4 = madd(c4, t, c4);
    c5 = madd(c5, t, c5);
    c6 = madd(c6, t, c6);
    c7 = madd(c7, t, c7);
    c8 = madd(c8, t, c8);
    c9 = madd(c9, t, c9);
    ca = madd(ca, t, ca);
    cb = madd(cb, t, cb);
    cc = madd(cc, t, cc);
  }
  return total(c0, c1, c2, c3) + total(c4, c5, c6, c7) + total(c8, c9, ca, cb) + f32x4.extract_lane(cc, 0);
}

// @ts-ignore: decorator
@inline
function total(a: v128, b: v128, c: v128, d: v128): f32 {
  return f32x4.extract_lane(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)), 0);
}

/** Reads the bytes at .. at + size - 1; size is a multiple of 128. */
export function read(at: usize, size: usize): i64 {
  let s0 = i64x2.splat(0);
  let s1 = s0;
  let s2 = s0;
  let s3 = s0;
  for (const end = at + size; at < end; at += 128) {
    s0 = i64x2.add(s0, i64x2.add(v128.load(at), v128.load(at, 64)));
    s1 = i64x2.add(s1, i64x2.add(v128.load(at, 16), v128.load(at, 80)));
    s2 = i64x2.add(s2, i64x2.add(v128.load(at, 32), v128.load(at, 96)));
    s3 = i64x2.add(s3, i64x2.add(v128.load(at, 48), v128.load(at, 112)));
  }
  return i64x2.extract_lane(i64x2.add(i64x2.add(s0, s1), i64x2.add(s2, s3)), 0);
}
