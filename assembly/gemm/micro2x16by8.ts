/**
 * The big tile of the default build: micro2x16 (micro.ts has the contract), where the pointers to A move once in
 * eight steps too. V8 and SpiderMonkey gain 1 to 3 % by it, JavaScriptCore loses a quarter, so init
 * measures which of the two to use.
 */
import { plus, product } from "./madd";

export function micro2x16by8(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  for (; m >= 2; m -= 2) {
    const d = c + crs;
    let c0 = f32x4.splat(0),
      c1 = c0,
      c2 = c0,
      c3 = c0;
    let d0 = c0,
      d1 = c0,
      d2 = c0,
      d3 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c, 16);
      c2 = v128.load(c, 32);
      c3 = v128.load(c, 48);
      d0 = v128.load(d);
      d1 = v128.load(d, 16);
      d2 = v128.load(d, 32);
      d3 = v128.load(d, 48);
    }
    let a0 = a,
      a1 = a0 + ars,
      r = b;
    let s: v128, t: v128, v: v128, p: v128, q: v128;
    for (let left = k; ; left -= 8) {
      // unroll 8
      s = v128.load32_splat(a0, 4 * STEP);
      t = v128.load32_splat(a1, 4 * STEP);
      v = v128.load(r, 64 * STEP);
      p = product(s, v);
      q = product(t, v);
      c0 = plus(c0, p, s, v);
      d0 = plus(d0, q, t, v);
      v = v128.load(r, 64 * STEP + 16);
      p = product(s, v);
      q = product(t, v);
      c1 = plus(c1, p, s, v);
      d1 = plus(d1, q, t, v);
      v = v128.load(r, 64 * STEP + 32);
      p = product(s, v);
      q = product(t, v);
      c2 = plus(c2, p, s, v);
      d2 = plus(d2, q, t, v);
      v = v128.load(r, 64 * STEP + 48);
      p = product(s, v);
      q = product(t, v);
      c3 = plus(c3, p, s, v);
      d3 = plus(d3, q, t, v);
      if (left <= STEP + 1) break;
      // end of unroll
      a0 += 4 * 8;
      a1 += 4 * 8;
      r += 64 * 8;
    }
    v128.store(c, c0);
    v128.store(c, c1, 16);
    v128.store(c, c2, 32);
    v128.store(c, c3, 48);
    v128.store(d, d0);
    v128.store(d, d1, 16);
    v128.store(d, d2, 32);
    v128.store(d, d3, 48);
    a += 2 * ars;
    c += 2 * crs;
  }
}
