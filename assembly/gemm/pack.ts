/**
 * Panels of B for the register tiles: panel[p][j] = alpha * B[p, j], p < k, j < 16, row-major, one panel behind the
 * other. The last one is as narrow as a tile can be (4, 8 or 16 columns); its columns beyond `width` are padding whose
 * products are thrown away. B is read where it lies (row-major [k, n] or, for op(B) = Bᵀ, row-major [n, k]) and never
 * beyond its last element, so a weight needs no second copy for its backward pass. Halves (half.ts) are widened here as
 * if they were BF16; a panel of F16 needs widenInPlace after that, and one of FINITE16 if it is of rows. Blocks
 * (blocks.ts) are: of rows straight into the panels, of columns by way of some rows of floats.
 *
 * `first` is the number of the value that the stored rows of B are read from.
 */
import { units } from "./blocks";
import { BF16, BLOCKS, F32, FINITE16, firstFour, lastFour, lower, one, stored, upper } from "./half";
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
export function packRows(panel: usize, b: usize, brs: usize, first: i32, k: i32, width: i32, format: i32): void {
  if (format >= BLOCKS) packRowsOfBlocks(panel, b, brs, first, k, width, format);
  else if (format == F32) packRowsAs(panel, b + stored(first, F32), brs, k, width, F32);
  else packRowsAs(panel, b + stored(first, BF16), brs, k, width, BF16);
}

/** A row's width is a multiple of 32, so all panels are whole. */
function packRowsOfBlocks(panel: usize, b: usize, brs: usize, first: i32, k: i32, width: i32, format: i32): void {
  const next = (<usize>k) << 6;
  for (; k > 0; k--) {
    units(panel, next << 1, next, b, first, width, format);
    panel += 64;
    b += brs;
  }
}

// @ts-ignore: decorator
@inline
function packRowsAs(panel: usize, b: usize, brs: usize, k: i32, width: i32, format: i32): void {
  const next = (<usize>k) << 6,
    whole = width >> 4,
    last = width & 15;
  const lastWidth = panelWidth(last),
    step = stored(lastWidth, F32);
  const far = <usize>k * brs >= FAR;
  let narrow = panel + <usize>whole * next;
  for (; k > 0; k--) {
    if (far && (k & (AHEAD - 1)) == 0) touch(b, brs, stored(width, format));
    let to = panel,
      from = b;
    for (let q = 0; q < whole; q++) {
      if (format == F32) {
        v128.store(to, v128.load(from));
        v128.store(to, v128.load(from, 16), 16);
        v128.store(to, v128.load(from, 32), 32);
        v128.store(to, v128.load(from, 48), 48);
      } else {
        const x = v128.load(from),
          y = v128.load(from, 16);
        v128.store(to, firstFour(x, format));
        v128.store(to, lastFour(x, format), 16);
        v128.store(to, firstFour(y, format), 32);
        v128.store(to, lastFour(y, format), 48);
      }
      to += next;
      from += stored(16, format);
    }
    for (let j = 0; j < lastWidth; j++)
      store<f32>(narrow + stored(j, F32), j < last ? one(from + stored(j, format), format) : <f32>0);
    panel += 64;
    narrow += step;
    b += brs;
  }
}

/**
 * Reads one byte of each line of AHEAD rows. Stores wait in line behind a missing load, so copying alone asks for few
 * lines at a time, and rows pages apart are more than a prefetcher follows (128 rows of A: +1 %, 32: +3 %, 16: +5 %).
 */
function touch(b: usize, brs: usize, width: usize): void {
  const end = b + AHEAD * brs;
  for (; b < end; b += brs) {
    for (let j: usize = 0; j < width; j += 64) load<u8>(b + j);
  }
}

/**
 * B stored as its transpose, row-major [n, k]: column j at b + j * bcs, its k values contiguous. One panel after
 * another. aside: room for 16 rows of RUN floats, where B is in blocks.
 */
export function packColumns(
  panel: usize,
  b: usize,
  bcs: usize,
  first: i32,
  k: i32,
  width: i32,
  format: i32,
  aside: usize,
): void {
  if (format < BLOCKS) b += stored(first, format);
  for (; width > 0; width -= 16) {
    const columns = min(width, 16);
    if (format == F32) packFloats(panel, b, bcs, k, columns);
    else if (format >= BLOCKS) packBlocks(panel, b, bcs, first, k, columns, format, aside);
    else if (format == FINITE16) packFinite(panel, b, bcs, k, columns);
    else packPanel(panel, b, bcs, k, columns, BF16);
    panel += (<usize>k) << 6;
    b += bcs << 4;
  }
}

/** Values of each column that become floats before they are packed: 16 KB, which stay in the first-level cache. */
const RUN: i32 = 256;
/** From column to column of these: a power of two would put all of them into the same sets of the cache. */
const RUN_ROW: usize = (<usize>RUN + 16) * 4;

function packBlocks(
  panel: usize,
  b: usize,
  bcs: usize,
  first: i32,
  k: i32,
  width: i32,
  format: i32,
  aside: usize,
): void {
  const step = (<usize>panelWidth(width) * RUN) << 2;
  for (; k > 0; k -= RUN) {
    const run = min(k, RUN);
    for (let j = 0; j < width; j++) units(aside + <usize>j * RUN_ROW, 128, 64, b + <usize>j * bcs, first, run, format);
    packFloats(panel, aside, RUN_ROW, run, width);
    panel += step;
    first += RUN;
  }
}

function packFloats(panel: usize, b: usize, bcs: usize, k: i32, width: i32): void {
  packPanel(panel, b, bcs, k, width, F32);
}

/** Apart from the others, which a third loop beside them slows down (8 x 768 x 768, BF16 and this: +15 %). */
function packFinite(panel: usize, b: usize, bcs: usize, k: i32, width: i32): void {
  packPanel(panel, b, bcs, k, width, FINITE16);
}

/**
 * A cache line of each of four columns at a time, so that lines of the panel are whole before they are left (8 -> 12
 * GB/s of cold B).
 */
const LINE: i32 = 16;

// @ts-ignore: decorator
@inline
function packPanel(panel: usize, b: usize, bcs: usize, k: i32, width: i32, format: i32): void {
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
        format,
      );
    }
    b += stored(LINE, format);
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
    transposeFour(to, trs, from, from + frs, from + (frs << 1), from + frs * 3, columns, F32);
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

/**
 * to[j][i] = ri[j], i < 4, j < columns. Halves are transposed in pairs, as four lanes of two values, and then widened.
 * Inlined: packing calls it every 16 steps of k (a call: -11 % at 8 rows).
 */
// @ts-ignore: decorator
@inline
function transposeFour(
  to: usize,
  trs: usize,
  r0: usize,
  r1: usize,
  r2: usize,
  r3: usize,
  columns: i32,
  format: i32,
): void {
  const atOnce = format == F32 ? 4 : 8;
  for (; columns >= atOnce; columns -= atOnce) {
    const x0 = v128.load(r0),
      x1 = v128.load(r1),
      x2 = v128.load(r2),
      x3 = v128.load(r3);
    const even01 = even(x0, x1),
      odd01 = odd(x0, x1);
    const even23 = even(x2, x3),
      odd23 = odd(x2, x3);
    const t0 = even(even01, even23),
      t1 = even(odd01, odd23),
      t2 = odd(even01, even23),
      t3 = odd(odd01, odd23);
    if (format == F32) {
      v128.store(to, t0);
      v128.store(to + trs, t1);
      v128.store(to + (trs << 1), t2);
      v128.store(to + trs * 3, t3);
    } else {
      putPair(to, trs, t0, format);
      putPair(to + (trs << 1), trs, t1, format);
      putPair(to + (trs << 2), trs, t2, format);
      putPair(to + trs * 6, trs, t3, format);
    }
    to += trs * atOnce;
    r0 += 16;
    r1 += 16;
    r2 += 16;
    r3 += 16;
  }
  for (; columns > 0; columns--) {
    store<f32>(to, one(r0, format));
    store<f32>(to, one(r1, format), 4);
    store<f32>(to, one(r2, format), 8);
    store<f32>(to, one(r3, format), 12);
    r0 += stored(1, format);
    r1 += stored(1, format);
    r2 += stored(1, format);
    r3 += stored(1, format);
    to += trs;
  }
}

/** Stores the two columns of four values that lanes of two are. */
// @ts-ignore: decorator
@inline
function putPair(to: usize, trs: usize, lanes: v128, format: i32): void {
  v128.store(to, lower(lanes, format));
  v128.store(to + trs, upper(lanes, format));
}
