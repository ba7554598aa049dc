/**
 * Dropout whose mask is a function of (seed, stream, index), so that no mask is stored and any split
 * of the range gives the same one. Inverted: y = keep ? x * scale : 0, scale = 1 / (1 - p).
 *
 * Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Random123):
 * element i belongs to lane i % 4 of block i / 4; the counter is (block, 0, stream, 0), the key
 * (seedLo, seedHi). Kept when bits >= threshold = floor(p * 2^32), p < 1.
 */
import { Dropout, DropoutBackward, DropoutForward } from "../abi";
import { first, here, last, LINE, part, split } from "../threads";

/**
 * The words c0..c3 of a counter, encrypted. A round is (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0) with
 * hi, lo of M0 * c0 and M1 * c2. One block fills one vector, kept as (c0, c2, c1, c3) so that one
 * multiplication takes both products; neighbouring blocks overlap in the processor's pipeline.
 */
// @ts-ignore: decorator
@inline
function philox(c: v128, k: v128): v128 {
  const m = i32x4(0xd2511f53, 0xcd9e8d57, 0, 0),
    bump = i32x4(0x9e3779b9, 0xbb67ae85, 0, 0),
    zero = i32x4.splat(0);
  let s = v128.shuffle<i32>(c, c, 0, 2, 1, 3);
  for (let round = 0; round < 10; round++) {
    const products = i64x2.extmul_low_i32x4_u(s, m);
    s = v128.xor(
      v128.xor(v128.shuffle<i32>(s, zero, 2, 3, 4, 5), k),
      v128.shuffle<i32>(products, products, 3, 1, 2, 0),
    );
    k = i32x4.add(k, bump);
  }
  return v128.shuffle<i32>(s, s, 0, 2, 1, 3);
}

/** The block of counter (c0, c1, c2, c3) under key (k0, k1): four u32 at out. */
export function philox4x32(out: usize, c0: u32, c1: u32, c2: u32, c3: u32, k0: u32, k1: u32): void {
  const c = i32x4.replace_lane(i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(c0), 1, c1), 2, c2), 3, c3);
  v128.store(out, philox(c, key(k0, k1)));
}

// @ts-ignore: decorator
@inline
function key(k0: u32, k1: u32): v128 {
  return i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(0), 0, k0), 1, k1);
}

export function dropoutForward(call: DropoutForward): void {
  for (split(call.n, COST, LINE); part(); ) dropout(here(call.y), here(call.x), call, false);
}

/** dx += keep ? dy * scale : 0, with the mask of the forward call. */
export function dropoutBackward(call: DropoutBackward): void {
  for (split(call.n, COST, LINE); part(); ) dropout(here(call.dx), here(call.dy), call, true);
}

/** Cycles for a value, about. */
const COST: f64 = 12;

/**
 * The values of the part in hand. The generator stands here twice, in the loop and beside it: V8 takes its constants
 * out of the loop only if they are used outside of it, too (once alone takes 1.25 times as long, measured).
 */
function dropout(out: usize, x: usize, call: Dropout, accumulate: bool): void {
  const k = key(call.seedLo, call.seedHi),
    limit = i32x4.splat(call.threshold),
    scale = call.scale,
    factor = f32x4.splat(scale),
    one = i32x4(1, 0, 0, 0);
  const begin = call.first + <u32>first;
  let counter = i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(0), 0, begin >> 2), 2, call.stream),
    n = last - first,
    lane = <i32>(begin & 3);
  while (n > 0) {
    if (lane == 0) {
      for (; n >= 4; n -= 4, out += 16, x += 16) {
        const kept = v128.and(f32x4.mul(v128.load(x), factor), i32x4.ge_u(philox(counter, k), limit));
        v128.store(out, accumulate ? f32x4.add(v128.load(out), kept) : kept);
        counter = i32x4.add(counter, one);
      }
      if (n == 0) return;
    }
    const count = min(n, 4 - lane);
    someLanes(out, x, lane, count, i32x4.ge_u(philox(counter, k), limit), scale, accumulate);
    counter = i32x4.add(counter, one);
    out += (<usize>count) << 2;
    x += (<usize>count) << 2;
    n -= count;
    lane = 0;
  }
}

/** `count` elements of a block, from `lane` on. */
function someLanes(out: usize, x: usize, lane: i32, count: i32, keep: v128, scale: f32, accumulate: bool): void {
  const lanes = i32x4.bitmask(keep) >> lane;
  for (let i = 0; i < count; i++) {
    const at = (<usize>i) << 2;
    const kept: f32 = (lanes >> i) & 1 ? load<f32>(x + at) * scale : 0;
    store<f32>(out + at, accumulate ? load<f32>(out + at) + kept : kept);
  }
}
