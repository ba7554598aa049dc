/**
 * The big tile of the default build: micro2x16 (micro.ts has the contract), k in steps of four, for A with contiguous
 * rows (acs = 4). Pointers move once in four steps: 50 -> 55 GFLOP/s in V8 from Node 24 on. Older V8 and
 * JavaScriptCore run out of registers (Node 20 46 -> 28), so init measures which of the two to use.
 */
import { plus, product } from "./madd";

export function micro2x16by4(m: i32, k: i32, a: usize, ars: usize, b: usize, c: usize, crs: usize, accumulate: bool): void {
  const end = b + <usize>k * 64, whole = b + (<usize>k & ~3) * 64;
  for (; m >= 2; m -= 2) {
    const d = c + crs;
    let c0 = f32x4.splat(0), c1 = c0, c2 = c0, c3 = c0;
    let d0 = c0, d1 = c0, d2 = c0, d3 = c0;
    if (accumulate) {
      c0 = v128.load(c); c1 = v128.load(c, 16); c2 = v128.load(c, 32); c3 = v128.load(c, 48);
      d0 = v128.load(d); d1 = v128.load(d, 16); d2 = v128.load(d, 32); d3 = v128.load(d, 48);
    }
    let a0 = a, a1 = a0 + ars, r = b;
    let s: v128, p: v128, q: v128, b0: v128, b1: v128, b2: v128, b3: v128;
    if (r != whole) do {
      s = v128.load32_splat(a0);
      b0 = v128.load(r); b1 = v128.load(r, 16); p = product(s, b0); q = product(s, b1);
      c0 = plus(c0, p, s, b0); c1 = plus(c1, q, s, b1);
      b2 = v128.load(r, 32); b3 = v128.load(r, 48); p = product(s, b2); q = product(s, b3);
      c2 = plus(c2, p, s, b2); c3 = plus(c3, q, s, b3);
      s = v128.load32_splat(a1);
      p = product(s, b0); q = product(s, b1);
      d0 = plus(d0, p, s, b0); d1 = plus(d1, q, s, b1);
      p = product(s, b2); q = product(s, b3);
      d2 = plus(d2, p, s, b2); d3 = plus(d3, q, s, b3);
      s = v128.load32_splat(a0, 4);
      b0 = v128.load(r, 64); b1 = v128.load(r, 80); p = product(s, b0); q = product(s, b1);
      c0 = plus(c0, p, s, b0); c1 = plus(c1, q, s, b1);
      b2 = v128.load(r, 96); b3 = v128.load(r, 112); p = product(s, b2); q = product(s, b3);
      c2 = plus(c2, p, s, b2); c3 = plus(c3, q, s, b3);
      s = v128.load32_splat(a1, 4);
      p = product(s, b0); q = product(s, b1);
      d0 = plus(d0, p, s, b0); d1 = plus(d1, q, s, b1);
      p = product(s, b2); q = product(s, b3);
      d2 = plus(d2, p, s, b2); d3 = plus(d3, q, s, b3);
      s = v128.load32_splat(a0, 8);
      b0 = v128.load(r, 128); b1 = v128.load(r, 144); p = product(s, b0); q = product(s, b1);
      c0 = plus(c0, p, s, b0); c1 = plus(c1, q, s, b1);
      b2 = v128.load(r, 160); b3 = v128.load(r, 176); p = product(s, b2); q = product(s, b3);
      c2 = plus(c2, p, s, b2); c3 = plus(c3, q, s, b3);
      s = v128.load32_splat(a1, 8);
      p = product(s, b0); q = product(s, b1);
      d0 = plus(d0, p, s, b0); d1 = plus(d1, q, s, b1);
      p = product(s, b2); q = product(s, b3);
      d2 = plus(d2, p, s, b2); d3 = plus(d3, q, s, b3);
      s = v128.load32_splat(a0, 12);
      b0 = v128.load(r, 192); b1 = v128.load(r, 208); p = product(s, b0); q = product(s, b1);
      c0 = plus(c0, p, s, b0); c1 = plus(c1, q, s, b1);
      b2 = v128.load(r, 224); b3 = v128.load(r, 240); p = product(s, b2); q = product(s, b3);
      c2 = plus(c2, p, s, b2); c3 = plus(c3, q, s, b3);
      s = v128.load32_splat(a1, 12);
      p = product(s, b0); q = product(s, b1);
      d0 = plus(d0, p, s, b0); d1 = plus(d1, q, s, b1);
      p = product(s, b2); q = product(s, b3);
      d2 = plus(d2, p, s, b2); d3 = plus(d3, q, s, b3);
      a0 += 16;
      a1 += 16;
      r += 256;
    } while (r != whole);
    for (; r != end; r += 64) {
      s = v128.load32_splat(a0);
      b0 = v128.load(r); b1 = v128.load(r, 16); p = product(s, b0); q = product(s, b1);
      c0 = plus(c0, p, s, b0); c1 = plus(c1, q, s, b1);
      b2 = v128.load(r, 32); b3 = v128.load(r, 48); p = product(s, b2); q = product(s, b3);
      c2 = plus(c2, p, s, b2); c3 = plus(c3, q, s, b3);
      s = v128.load32_splat(a1);
      p = product(s, b0); q = product(s, b1);
      d0 = plus(d0, p, s, b0); d1 = plus(d1, q, s, b1);
      p = product(s, b2); q = product(s, b3);
      d2 = plus(d2, p, s, b2); d3 = plus(d3, q, s, b3);
      a0 += 4;
      a1 += 4;
    }
    v128.store(c, c0); v128.store(c, c1, 16); v128.store(c, c2, 32); v128.store(c, c3, 48);
    v128.store(d, d0); v128.store(d, d1, 16); v128.store(d, d2, 32); v128.store(d, d3, 48);
    a += 2 * ars;
    c += 2 * crs;
  }
}
