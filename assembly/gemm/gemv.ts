/**
 * One row times a transposed matrix, without packing: c[j] (+)= sum over p of a[p] * B[j, p].
 * a: [k] contiguous, B: row-major [n, k] with row stride bcs bytes, c: [n] contiguous.
 * Same canonical order as the tiles (one accumulator an element, p ascending): sixteen rows of B are
 * read four values at a time and transposed in registers, never summed along k by lanes.
 */
import { madd } from "./madd";

/** c += a[0..3] applied to four rows of B starting at r. */
// @ts-ignore: decorator
@inline
function fourColumns(c: v128, s0: v128, s1: v128, s2: v128, s3: v128, r: usize, bcs: usize): v128 {
  const x0 = v128.load(r), x1 = v128.load(r + bcs), x2 = v128.load(r + 2 * bcs), x3 = v128.load(r + 3 * bcs);
  const lo01 = v128.shuffle<f32>(x0, x1, 0, 4, 1, 5), hi01 = v128.shuffle<f32>(x0, x1, 2, 6, 3, 7);
  const lo23 = v128.shuffle<f32>(x2, x3, 0, 4, 1, 5), hi23 = v128.shuffle<f32>(x2, x3, 2, 6, 3, 7);
  c = madd(c, s0, v128.shuffle<f32>(lo01, lo23, 0, 1, 4, 5));
  c = madd(c, s1, v128.shuffle<f32>(lo01, lo23, 2, 3, 6, 7));
  c = madd(c, s2, v128.shuffle<f32>(hi01, hi23, 0, 1, 4, 5));
  return madd(c, s3, v128.shuffle<f32>(hi01, hi23, 2, 3, 6, 7));
}

// @ts-ignore: decorator
@inline
function gather(r: usize, bcs: usize): v128 {
  return f32x4.replace_lane(f32x4.replace_lane(f32x4.replace_lane(v128.load32_splat(r),
    1, load<f32>(r + bcs)), 2, load<f32>(r + 2 * bcs)), 3, load<f32>(r + 3 * bcs));
}

export function gemvT(n: i32, k: i32, a: usize, b: usize, bcs: usize, c: usize, accumulate: bool): void {
  const group = bcs << 2;
  for (; n >= 16; n -= 16) {
    let c0 = f32x4.splat(0), c1 = c0, c2 = c0, c3 = c0;
    if (accumulate) {
      c0 = v128.load(c); c1 = v128.load(c, 16); c2 = v128.load(c, 32); c3 = v128.load(c, 48);
    }
    let x = a, r = b, p = k;
    for (; p >= 4; p -= 4) {
      const s0 = v128.load32_splat(x), s1 = v128.load32_splat(x, 4), s2 = v128.load32_splat(x, 8), s3 = v128.load32_splat(x, 12);
      c0 = fourColumns(c0, s0, s1, s2, s3, r, bcs);
      c1 = fourColumns(c1, s0, s1, s2, s3, r + group, bcs);
      c2 = fourColumns(c2, s0, s1, s2, s3, r + 2 * group, bcs);
      c3 = fourColumns(c3, s0, s1, s2, s3, r + 3 * group, bcs);
      x += 16;
      r += 16;
    }
    for (; p > 0; p--) {
      const s = v128.load32_splat(x);
      c0 = madd(c0, s, gather(r, bcs));
      c1 = madd(c1, s, gather(r + group, bcs));
      c2 = madd(c2, s, gather(r + 2 * group, bcs));
      c3 = madd(c3, s, gather(r + 3 * group, bcs));
      x += 4;
      r += 4;
    }
    v128.store(c, c0); v128.store(c, c1, 16); v128.store(c, c2, 32); v128.store(c, c3, 48);
    b += group << 2;
    c += 64;
  }
  for (; n > 0; n--) {
    let sum = accumulate ? load<f32>(c) : <f32>0;
    for (let p: usize = 0; p < <usize>k << 2; p += 4) sum += load<f32>(a + p) * load<f32>(b + p);
    store<f32>(c, sum);
    b += bcs;
    c += 4;
  }
}
