/**
 * C (+)= A * B by updates of rank 4, for few rows or a short k: B is read where it lies, along its rows, and nothing is
 * packed. The order is the tiles': one accumulator an element, p ascending; between two updates it waits in C.
 *
 * A element (i, p) is at a + i * ars + p * acs; B row p is n values, from number `column` on, of the row at b + p * bs,
 * float32 or of a format (half.ts, blocks.ts) whose rows are widened four at a time; C row i is at c + i * crs. Strides
 * in bytes. scratch: room for four such rows. Updates of rank 8 need more addresses than V8 has registers (35 -> 30
 * GFLOP/s, measured).
 */
import { widenFrom } from "./blocks";
import { BF16, F32, FINITE16, SCALED16, one, stored } from "./half";
import { madd, madd1 } from "./madd";
import { even, odd } from "./shuffle";
import { rank4x1, rank4x1Half, rank4x2 } from "./tiles";

/** Columns at a time: four rows of B and one of C, 20 KB, stay in the first-level cache for all rows of A. */
const STRIP: i32 = 1024;
/** From row to row of those that are widened: a power of two would put all of them into the same sets of the cache. */
const WIDE_ROW: usize = (<usize>STRIP + 16) * 4;

export function gemmByUpdates(
  m: i32,
  n: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
  scratch: usize,
  format: i32,
  column: i32,
): void {
  for (; n > 0; n -= STRIP) {
    const width = min(n, STRIP);
    if (m == 1 && (format == BF16 || format == FINITE16))
      loneRow(width, k, a, acs, b + stored(column, format), bs, c, accumulate, format == BF16 ? BF16 : SCALED16);
    else strip(m, width, k, a, ars, acs, b, bs, c, crs, accumulate, scratch, format, column);
    column += STRIP;
    c += stored(STRIP, F32);
  }
}

/** One row of C (+)= one of A times a B of BF16 or SCALED16. */
function loneRow(
  n: i32,
  k: i32,
  a: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  accumulate: bool,
  format: i32,
): void {
  if (!accumulate) memory.fill(c, 0, stored(n, F32));
  const whole = n & ~7;
  evenFirst(c, whole);
  for (; k >= 4; k -= 4) {
    rank4x1Half(whole, a, acs, b, bs, c, format);
    for (let p = 0; p < 4; p++) {
      addRow(whole, n, a, b, c, format);
      a += acs;
      b += bs;
    }
  }
  // Done three times, it leaves everything where it was.
  evenFirst(c, whole);
  evenFirst(c, whole);
  for (; k > 0; k--) {
    addRow(0, n, a, b, c, format);
    a += acs;
    b += bs;
  }
}

/** Of each eight of n columns those with an even number, then those with an odd one. */
function evenFirst(c: usize, n: i32): void {
  for (; n > 0; n -= 8) {
    const x = v128.load(c),
      y = v128.load(c, 16);
    v128.store(c, even(x, y));
    v128.store(c, odd(x, y), 16);
    c += 32;
  }
}

/** Columns from .. n - 1 of one row of C += one value of A times one row of halves. */
function addRow(from: i32, n: i32, a: usize, b: usize, c: usize, format: i32): void {
  const value = load<f32>(a);
  for (let j = from; j < n; j++) {
    const at = c + stored(j, F32);
    store<f32>(at, madd1(load<f32>(at), value, one(b + stored(j, format), format)));
  }
}

function strip(
  m: i32,
  width: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
  scratch: usize,
  format: i32,
  column: i32,
): void {
  let x = a,
    r = format == F32 ? b + stored(column, F32) : b,
    p = k;
  // All rows take an update of B's four rows before the next; a lone one takes all of them at once.
  const updates = m == 1 && format == F32 ? p >> 2 : 1;
  for (; p >= 4; p -= 4 * updates) {
    const rows = format == F32 ? r : widenRows(scratch, r, bs, 4, column, width, format);
    rank4(updates, m, width, x, ars, acs, rows, format == F32 ? bs : WIDE_ROW, c, crs, accumulate || p < k);
    x += (acs << 2) * updates;
    r += (bs << 2) * updates;
  }
  for (; p > 0; p--) {
    const row = format == F32 ? r : widenRows(scratch, r, bs, 1, column, width, format);
    for (let i = 0; i < m; i++) {
      rank1(width, x + <usize>i * ars, row, c + <usize>i * crs, accumulate || p < k);
    }
    x += acs;
    r += bs;
  }
}

/** Some rows of B as float32, WIDE_ROW bytes apart; returns where. */
function widenRows(to: usize, b: usize, bs: usize, rows: i32, column: i32, width: i32, format: i32): usize {
  for (let i = 0; i < rows; i++) {
    widenFrom(to + <usize>i * WIDE_ROW, b, column, width, format);
    b += bs;
  }
  return to;
}

/** All rows: columns that fill vectors, then the others. */
function rank4(
  updates: i32,
  m: i32,
  n: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  const whole = n & ~3;
  if (whole > 0) {
    let i = 0;
    for (; i + 2 <= m; i += 2) rank4x2(whole, a + <usize>i * ars, ars, acs, b, bs, c + <usize>i * crs, crs, accumulate);
    if (i < m) rank4x1(updates, whole, a + <usize>i * ars, acs, b, bs, c + <usize>i * crs, accumulate);
  }
  if (n == whole) return;
  const right = (<usize>whole) << 2;
  for (let i = 0; i < m; i++)
    lastColumns(updates, n - whole, a + <usize>i * ars, acs, b + right, bs, c + <usize>i * crs + right, accumulate);
}

/** One row of C (+)= four values of A times four rows of B, as many times; n < 4 columns. */
function lastColumns(
  updates: i32,
  n: i32,
  a: usize,
  acs: usize,
  b: usize,
  bs: usize,
  c: usize,
  accumulate: bool,
): void {
  for (; n > 0; n--) {
    let sum = accumulate ? load<f32>(c) : <f32>0,
      x = a,
      r = b;
    for (let p = 4 * updates; p > 0; p--) {
      sum = madd1(sum, load<f32>(x), load<f32>(r));
      x += acs;
      r += bs;
    }
    store<f32>(c, sum);
    b += 4;
    c += 4;
  }
}

/** The accumulators' start; a compile-time choice in the inlined callers. */
// @ts-ignore: decorator
@inline
function start(accumulate: bool, c: usize): v128 {
  return accumulate ? v128.load(c) : f32x4.splat(0);
}

/** One row of C (+)= one value of A times one row of B. */
function rank1(n: i32, a: usize, b: usize, c: usize, accumulate: bool): void {
  if (accumulate) row1(n, a, b, c, true);
  else row1(n, a, b, c, false);
}

// @ts-ignore: decorator
@inline
function row1(n: i32, a: usize, b: usize, c: usize, accumulate: bool): void {
  const s = v128.load32_splat(a);
  for (; n >= 16; n -= 16) {
    v128.store(c, madd(start(accumulate, c), s, v128.load(b)));
    v128.store(c, madd(start(accumulate, c + 16), s, v128.load(b, 16)), 16);
    v128.store(c, madd(start(accumulate, c + 32), s, v128.load(b, 32)), 32);
    v128.store(c, madd(start(accumulate, c + 48), s, v128.load(b, 48)), 48);
    c += 64;
    b += 64;
  }
  for (; n > 0; n--) {
    store<f32>(c, madd1(accumulate ? load<f32>(c) : <f32>0, load<f32>(a), load<f32>(b)));
    c += 4;
    b += 4;
  }
}
