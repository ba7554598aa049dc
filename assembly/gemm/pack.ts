/**
 * Panels of B for the register tiles: panel[p][j] = alpha * B[p, j], p < k, j < 16, row-major, one panel behind the
 * other. The last one is as narrow as a tile can be (4, 8 or 16 columns); its columns beyond `width` are padding whose
 * products are thrown away. B is read where it lies (row-major [k, n] or, for op(B) = Bᵀ, row-major [n, k]) and never
 * beyond its last element, so a weight needs no second copy for its backward pass.
 */
import { even, odd } from "./shuffle";

/** Columns that the tiles compute for a panel of which `width` columns are wanted. */
// @ts-ignore: decorator
@inline
export function panelWidth(width: i32): i32 {
  return width > 8 ? 16 : width > 4 ? 8 : (width + 3) & ~3;
}

/** A block of B spread over so much memory comes from far away: no cache near the core kept it since its last use. */
const FAR: usize = 3 << 20;
/** Rows whose lines are asked for at once. */
const AHEAD: i32 = 64;

/**
 * B row-major [k, n]: row p at b + p * brs, columns contiguous. The panels are filled side by side: whole cache lines
 * of B, one after another (one panel at a time, 8 x 768 x 768 takes 12 % longer).
 */
export function packRows(panel: usize, b: usize, brs: usize, k: i32, width: i32): void {
  const next = (<usize>k) << 6,
    whole = width >> 4,
    last = width & 15;
  const step = (<usize>panelWidth(last)) << 2;
  const far = <usize>k * brs >= FAR;
  let narrow = panel + <usize>whole * next;
  for (; k > 0; k--) {
    if (far && (k & (AHEAD - 1)) == 0) touch(b, brs, width);
    let to = panel,
      from = b;
    for (let q = 0; q < whole; q++) {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      v128.store(to, v128.load(from, 32), 32);
      v128.store(to, v128.load(from, 48), 48);
      to += next;
      from += 64;
    }
    for (let j: usize = 0; j < step; j += 4)
      store<f32>(narrow + j, j < (<usize>last) << 2 ? load<f32>(from + j) : <f32>0);
    panel += 64;
    narrow += step;
    b += brs;
  }
}

/**
 * Reads one float of each line of AHEAD rows. Stores wait in line behind a missing load, so copying alone asks for few
 * lines at a time, and rows pages apart are more than a prefetcher follows (128 rows of A: +1 %, 32: +3 %, 16: +5 %).
 */
function touch(b: usize, brs: usize, width: i32): void {
  const end = b + AHEAD * brs;
  for (; b < end; b += brs) {
    for (let j: usize = 0; j < (<usize>width) << 2; j += 64) load<f32>(b + j);
  }
}

/**
 * B stored as its transpose, row-major [n, k]: column j at b + j * bcs, its k values contiguous. One panel after
 * another.
 */
export function packColumns(panel: usize, b: usize, bcs: usize, k: i32, width: i32): void {
  for (; width > 0; width -= 16) {
    packPanel(panel, b, bcs, k, min(width, 16));
    panel += (<usize>k) << 6;
    b += bcs << 4;
  }
}

/**
 * A cache line of each of four columns at a time, so that lines of the panel are whole before they are left (8 -> 12
 * GB/s of cold B).
 */
const LINE: i32 = 16;

function packPanel(panel: usize, b: usize, bcs: usize, k: i32, width: i32): void {
  const nr = panelWidth(width),
    last = width - 1;
  const step = (<usize>nr) << 2;
  for (; k > 0; k -= LINE) {
    for (let j = 0; j < nr; j += 4) {
      // Padding columns repeat the last valid one: no branch, no read outside B.
      transposeFour(
        panel + ((<usize>j) << 2),
        step,
        b + <usize>min(j, last) * bcs,
        b + <usize>min(j + 1, last) * bcs,
        b + <usize>min(j + 2, last) * bcs,
        b + <usize>min(j + 3, last) * bcs,
        min(k, LINE),
      );
    }
    b += LINE << 2;
    panel += step * LINE;
  }
}

/** panel *= alpha. `count` is a multiple of 4. */
export function scalePanel(panel: usize, count: i32, alpha: f32): void {
  const s = f32x4.splat(alpha);
  for (let i = 0; i < count; i += 4) {
    v128.store(panel, f32x4.mul(s, v128.load(panel)));
    panel += 16;
  }
}

/** to[j][i] = from[i][j], i < rows, j < columns; row strides in bytes. */
export function transpose(to: usize, trs: usize, from: usize, frs: usize, rows: i32, columns: i32): void {
  let i = 0;
  for (; i + 4 <= rows; i += 4) {
    transposeFour(to, trs, from, from + frs, from + (frs << 1), from + frs * 3, columns);
    from += frs << 2;
    to += 16;
  }
  for (; i < rows; i++) {
    let r = from,
      out = to;
    for (let j = 0; j < columns; j++) {
      store<f32>(out, load<f32>(r));
      r += 4;
      out += trs;
    }
    from += frs;
    to += 4;
  }
}

/** to[j][i] = ri[j], i < 4, j < columns. Inlined: packing calls it every 16 steps of k (a call: -11 % at 8 rows). */
// @ts-ignore: decorator
@inline
function transposeFour(to: usize, trs: usize, r0: usize, r1: usize, r2: usize, r3: usize, columns: i32): void {
  for (; columns >= 4; columns -= 4) {
    const x0 = v128.load(r0),
      x1 = v128.load(r1),
      x2 = v128.load(r2),
      x3 = v128.load(r3);
    const even01 = even(x0, x1),
      odd01 = odd(x0, x1);
    const even23 = even(x2, x3),
      odd23 = odd(x2, x3);
    v128.store(to, even(even01, even23));
    v128.store(to + trs, even(odd01, odd23));
    v128.store(to + (trs << 1), odd(even01, even23));
    v128.store(to + trs * 3, odd(odd01, odd23));
    r0 += 16;
    r1 += 16;
    r2 += 16;
    r3 += 16;
    to += trs << 2;
  }
  for (; columns > 0; columns--) {
    store<f32>(to, load<f32>(r0));
    store<f32>(to, load<f32>(r1), 4);
    store<f32>(to, load<f32>(r2), 8);
    store<f32>(to, load<f32>(r3), 12);
    r0 += 4;
    r1 += 4;
    r2 += 4;
    r3 += 4;
    to += trs;
  }
}
