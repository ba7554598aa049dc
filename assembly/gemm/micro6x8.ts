/**
 * The big tile of the fused build (micro.ts has the contract), for one half of a panel: b is [k][16], of which this
 * takes the first 8 columns. A fused multiply-add takes as long as a product, and needs no register for it: twelve
 * accumulators keep two in flight at any time (98 % of the wall, 2x16 with its eight 93 %, in V8 from Node 24 on).
 */
import { madd } from "./madd";

export function micro6x8(
  m: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  const end = b + <usize>k * 64;
  for (; m >= 6; m -= 6) {
    const d = c + crs,
      e = d + crs,
      f = e + crs,
      g = f + crs,
      h = g + crs;
    let c0 = f32x4.splat(0),
      c1 = c0;
    let d0 = c0,
      d1 = c0;
    let e0 = c0,
      e1 = c0;
    let f0 = c0,
      f1 = c0;
    let g0 = c0,
      g1 = c0;
    let h0 = c0,
      h1 = c0;
    if (accumulate) {
      c0 = v128.load(c);
      c1 = v128.load(c, 16);
      d0 = v128.load(d);
      d1 = v128.load(d, 16);
      e0 = v128.load(e);
      e1 = v128.load(e, 16);
      f0 = v128.load(f);
      f1 = v128.load(f, 16);
      g0 = v128.load(g);
      g1 = v128.load(g, 16);
      h0 = v128.load(h);
      h1 = v128.load(h, 16);
    }
    let a0 = a,
      a1 = a0 + ars,
      a2 = a1 + ars,
      a3 = a2 + ars,
      a4 = a3 + ars,
      a5 = a4 + ars,
      r = b;
    do {
      const b0 = v128.load(r),
        b1 = v128.load(r, 16);
      let s: v128;
      s = v128.load32_splat(a0);
      c0 = madd(c0, s, b0);
      c1 = madd(c1, s, b1);
      s = v128.load32_splat(a1);
      d0 = madd(d0, s, b0);
      d1 = madd(d1, s, b1);
      s = v128.load32_splat(a2);
      e0 = madd(e0, s, b0);
      e1 = madd(e1, s, b1);
      s = v128.load32_splat(a3);
      f0 = madd(f0, s, b0);
      f1 = madd(f1, s, b1);
      s = v128.load32_splat(a4);
      g0 = madd(g0, s, b0);
      g1 = madd(g1, s, b1);
      s = v128.load32_splat(a5);
      h0 = madd(h0, s, b0);
      h1 = madd(h1, s, b1);
      a0 += acs;
      a1 += acs;
      a2 += acs;
      a3 += acs;
      a4 += acs;
      a5 += acs;
      r += 64;
    } while (r != end);
    v128.store(c, c0);
    v128.store(c, c1, 16);
    v128.store(d, d0);
    v128.store(d, d1, 16);
    v128.store(e, e0);
    v128.store(e, e1, 16);
    v128.store(f, f0);
    v128.store(f, f1, 16);
    v128.store(g, g0);
    v128.store(g, g1, 16);
    v128.store(h, h0);
    v128.store(h, h1, 16);
    a += 6 * ars;
    c += 6 * crs;
  }
}
