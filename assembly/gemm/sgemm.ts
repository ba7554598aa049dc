/**
 * sgemm. C = alpha * op(A) * op(B) + beta * C, row-major, any m, n, k >= 0.
 *
 * Netlib's order of operations (it folds alpha into B), so the result is exactly
 *   c = beta == 0 ? 0 : beta == 1 ? C : f32(beta * C);
 *   for p in 0..k: c = f32(c + f32(op(A)[i, p] * f32(alpha * op(B)[p, j])))
 * (in the fused build one rounding fewer, c = f32(c + op(A)[i, p] * f32(alpha * op(B)[p, j])); madd.ts),
 * whatever the blocking, the number of rows or the neighbours of a row. beta == 0 does not read C.
 * No element of A or B is skipped, zero or not: 0 * Inf is NaN.
 *
 *   NN: A [m, k] lda, B [k, n] ldb      NT: A [m, k] lda, B [n, k] ldb      TN: A [k, m] lda, B [k, n] ldb
 *   C [m, n] ldc.
 *
 * Strides have two units, here and in all that this file calls. Leading dimensions are BLAS's: lda, ldb, ldc count
 * elements. sgemm*, and gemm* for other kernels, take these and turn them into strides in bytes, which inner loops add
 * to addresses: ars leads from row to row of A and acs from column to column, bs from row to row of B as it is stored.
 *
 * Panels of 16 columns of B are packed per k-block, four side by side, and used by all rows. A is read where it lies,
 * except in TN. Where a packed panel would be used too little, or B's rows are one already, B is read where it lies too
 * (update.ts, gemv.ts).
 * scratch: SCRATCH_BYTES, 16-byte aligned.
 *
 * This is the work of one thread; threaded.ts cuts C into blocks for many.
 */
import { gemvT, micro1x16, micro1x4, micro1x8, micro2x16, micro2x16by8, micro4x8, micro6x8, micro8x4 } from "./tiles";
import { BLOCKS, F16, F32, FINITE16, scaledUp, stored, widenInPlace } from "./half";
import { gemvBlocks } from "./gemv_blocks";
import { gemmByUpdates } from "./update";
import { packColumns, packRows, panelWidth, scalePanel, transpose } from "./pack";

/**
 * k-block: panels, 64 KB, come from the second-level cache in time; C is loaded and stored the more seldom (512: -3 %
 * at 1024^3).
 */
const KC: i32 = 1024;
const PANEL_BYTES: usize = <usize>KC * 16 * 4;
/** Panels packed in one walk over the rows of B: 64 columns, whole cache lines one after another. */
const PANELS: i32 = 4;
const STRIP_BYTES: usize = <usize>PANELS * PANEL_BYTES;
const TILE_BYTES: usize = 2 * 16 * 4;
/** As long a row of A has room when it is scaled up for a product with FINITE16. */
const MOST_SCALED: i32 = <i32>(STRIP_BYTES >> 2);
/** What TN transposes of op(A) at a time: 128 x 512 floats, 256 KB, stay in the second-level cache. */
const MC: i32 = 128;
const KT: i32 = 512;
/** From row to row of that block: a power of two would put all rows into the same few sets of the cache (+2 to 7 %). */
const BLOCK_ROW: usize = (<usize>KT + 16) * 4;
const BLOCK_BYTES: usize = <usize>MC * BLOCK_ROW;
/**
 * Rows of A that meet all panels of a strip before the next: 96 x 1024 floats, 384 KB, stay in the second-level cache
 * (+3 %).
 */
const MB: i32 = 96;
/**
 * Up to this many rows, or this many steps of k, a packed panel is used too little: rank-4 updates are faster
 * (measured).
 */
export const FEW_ROWS: i32 = 12;
export const SHORT_K: i32 = 4;

/** Which tile computes panels of 16 columns: engines differ in what they keep in registers, the bits do not. */
let bigTile: bool = false;
export function useBigTile(on: bool): void {
  bigTile = on;
}
export function usesBigTile(): bool {
  return bigTile;
}

/** Working space for one thread. */
export const SCRATCH_BYTES: usize = STRIP_BYTES + TILE_BYTES + BLOCK_BYTES;

export function gemmNN(
  m: i32,
  n: i32,
  k: i32,
  alpha: f32,
  a: usize,
  lda: i32,
  b: usize,
  ldb: i32,
  beta: f32,
  c: usize,
  ldc: i32,
  scratch: usize,
): void {
  applyBeta(m, n, beta, c, ldc);
  gemm(m, n, k, alpha, a, bytes(lda), 4, b, bytes(ldb), false, c, bytes(ldc), beta != 0, scratch);
}

export function gemmNT(
  m: i32,
  n: i32,
  k: i32,
  alpha: f32,
  a: usize,
  lda: i32,
  b: usize,
  ldb: i32,
  beta: f32,
  c: usize,
  ldc: i32,
  scratch: usize,
): void {
  applyBeta(m, n, beta, c, ldc);
  gemm(m, n, k, alpha, a, bytes(lda), 4, b, bytes(ldb), true, c, bytes(ldc), beta != 0, scratch);
}

export function gemmTN(
  m: i32,
  n: i32,
  k: i32,
  alpha: f32,
  a: usize,
  lda: i32,
  b: usize,
  ldb: i32,
  beta: f32,
  c: usize,
  ldc: i32,
  scratch: usize,
): void {
  applyBeta(m, n, beta, c, ldc);
  if (m <= FEW_ROWS || n <= 8 || k <= SHORT_K) {
    gemm(m, n, k, alpha, a, 4, bytes(lda), b, bytes(ldb), false, c, bytes(ldc), beta != 0, scratch);
    return;
  }
  // Columns of A a cache line apart are slow to walk: blocks of it are transposed first (16 -> 28 GFLOP/s at 1024^3,
  // 27 -> 39 for 2048 x 16 x 512; up to 8 columns the one way is as fast as the other).
  const block = scratch + STRIP_BYTES + TILE_BYTES;
  for (let p = 0; p < k; p += KT) {
    const kb = min(KT, k - p);
    for (let i = 0; i < m; i += MC) {
      const mb = min(MC, m - i);
      transpose(block, BLOCK_ROW, a + bytes(p) * <usize>lda + bytes(i), bytes(lda), kb, mb);
      gemm(
        mb,
        n,
        kb,
        alpha,
        block,
        BLOCK_ROW,
        4,
        b + bytes(p) * <usize>ldb,
        bytes(ldb),
        false,
        c + bytes(i) * <usize>ldc,
        bytes(ldc),
        beta != 0 || p > 0,
        scratch,
      );
    }
  }
}

// @ts-ignore: decorator
@inline
function bytes(elements: i32): usize {
  return (<usize>elements) << 2;
}

/** C *= beta, where that is neither a no-op (1) nor an overwrite (0). */
function applyBeta(m: i32, n: i32, beta: f32, c: usize, ldc: i32): void {
  if (beta == 0 || beta == 1) return;
  for (let i = 0; i < m; i++) {
    for (let j: usize = 0; j < bytes(n); j += 4) store<f32>(c + j, beta * load<f32>(c + j));
    c += bytes(ldc);
  }
}

/**
 * C (+)= A * alpha * op(B). A element (i, p) at a + i * ars + p * acs. bs: row stride of B as stored;
 * transposed: stored as [n, k]; format: what it is stored in (half.ts); column: number of the value that its stored
 * rows are read from, a multiple of 32 in a format of blocks. Strides in bytes.
 */
export function gemm(
  m: i32,
  n: i32,
  k: i32,
  alpha: f32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  bs: usize,
  transposed: bool,
  c: usize,
  crs: usize,
  accumulate: bool,
  scratch: usize,
  format: i32 = F32,
  column: i32 = 0,
): void {
  if (format < BLOCKS) {
    b += stored(column, format);
    column = 0;
  }
  if (k == 0) {
    if (!accumulate) zeroRows(m, n, c, crs);
    return;
  }
  // A value of A that is too large for that leaves the one row to the panels.
  if (format == FINITE16 && m == 1 && alpha == 1 && (transposed || n >= 16)) {
    if (k <= MOST_SCALED && scaledUp(scratch, a, acs, k)) {
      a = scratch;
      acs = 4;
    } else format = F16;
  }
  if (m == 1 && transposed && alpha == 1 && acs == 4 && format != F16) {
    if (format >= BLOCKS) gemvBlocks(n, k, a, b, bs, column, c, accumulate, scratch, format);
    else gemvT(n, k, a, b, bs, c, accumulate, format);
    return;
  }
  // One contiguous column is the same product the other way round.
  if (n == 1 && crs == 4 && alpha == 1 && acs == 4 && (transposed || bs == 4) && format == F32) {
    gemvT(m, k, b, a, ars, c, accumulate, F32);
    return;
  }
  if (!transposed && alpha == 1 && n >= 16 && (m <= FEW_ROWS || k <= SHORT_K)) {
    gemmByUpdates(m, n, k, a, ars, acs, b, bs, c, crs, accumulate, scratch, format, column);
    return;
  }
  for (let j = 0; j < n; j += 16 * PANELS) {
    stripOfC(m, n, j, k, alpha, a, ars, acs, b, bs, transposed, c, crs, accumulate, scratch, format, column);
  }
}

/**
 * C (+)= [A | A2] * [op(B) ; op(B2)]: the accumulators go on over a second k-segment while the 16
 * columns of C are still in the first-level cache. Same bits as two accumulating calls. format, column: of B;
 * B2 is float32.
 */
export function gemmTwo(
  m: i32,
  n: i32,
  k: i32,
  a: usize,
  b: usize,
  bs: usize,
  transposed: bool,
  k2: i32,
  a2: usize,
  b2: usize,
  b2s: usize,
  transposed2: bool,
  c: usize,
  crs: usize,
  accumulate: bool,
  scratch: usize,
  format: i32,
  column: i32,
): void {
  if (m == 1 || k == 0 || (!transposed && m <= FEW_ROWS)) {
    gemm(m, n, k, 1, a, bytes(k), 4, b, bs, transposed, c, crs, accumulate, scratch, format, column);
    gemm(m, n, k2, 1, a2, bytes(k2), 4, b2, b2s, transposed2, c, crs, true, scratch);
    return;
  }
  if (format < BLOCKS) {
    b += stored(column, format);
    column = 0;
  }
  for (let j = 0; j < n; j += 16 * PANELS) {
    stripOfC(m, n, j, k, 1, a, bytes(k), 4, b, bs, transposed, c, crs, accumulate, scratch, format, column);
    if (k2 > 0) stripOfC(m, n, j, k2, 1, a2, bytes(k2), 4, b2, b2s, transposed2, c, crs, true, scratch, F32, 0);
  }
}

/** Columns j .. j + 63 of C, over all rows and all of k. */
function stripOfC(
  m: i32,
  n: i32,
  j: i32,
  k: i32,
  alpha: f32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  bs: usize,
  transposed: bool,
  c: usize,
  crs: usize,
  accumulate: bool,
  scratch: usize,
  format: i32,
  column: i32,
): void {
  const width = min(16 * PANELS, n - j);
  const aside = scratch + STRIP_BYTES + TILE_BYTES;
  // Rows as wide as a tile are a packed panel already.
  const inPlace = !transposed && n == panelWidth(n) && bs == bytes(n) && alpha == 1 && format == F32;
  for (let p = 0; p < k; p += KC) {
    const kb = min(KC, k - p);
    if (!inPlace) {
      if (transposed) packColumns(scratch, b + <usize>j * bs, bs, column + p, kb, width, format, aside);
      else packRows(scratch, b + <usize>p * bs, bs, column + j, kb, width, format);
      const count = kb * ((width & ~15) + panelWidth(width & 15));
      if (format == F16 || (format == FINITE16 && !transposed)) widenInPlace(scratch, count);
      if (alpha != 1) scalePanel(scratch, count, alpha);
    }
    const panels = inPlace ? b + <usize>p * bs : scratch;
    for (let i = 0; i < m; i += MB) {
      let panel = panels;
      for (let q = 0; q < width; q += 16) {
        rows(
          min(MB, m - i),
          min(16, width - q),
          kb,
          a + <usize>i * ars + <usize>p * acs,
          ars,
          acs,
          panel,
          c + <usize>i * crs + bytes(j + q),
          crs,
          accumulate || p > 0,
          scratch,
        );
        panel += bytes(16) * <usize>kb;
      }
    }
  }
}

function zeroRows(m: i32, n: i32, c: usize, crs: usize): void {
  for (let i = 0; i < m; i++) {
    memory.fill(c, 0, bytes(n));
    c += crs;
  }
}

/** All rows against one panel, of whose columns `width` exist in C. */
function rows(
  m: i32,
  width: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
  scratch: usize,
): void {
  const nr = panelWidth(width);
  if (width == nr) {
    tiles(m, nr, k, a, ars, acs, b, c, crs, accumulate);
    return;
  }
  // A tile that hangs over C's right edge is computed aside.
  const tileRow = bytes(nr),
    aside = scratch + STRIP_BYTES;
  const mr = 32 / nr;
  for (; m > 0; m -= mr) {
    const count = min(m, mr);
    if (accumulate) copyTile(aside, tileRow, c, crs, count, width);
    tiles(count, nr, k, a, ars, acs, b, aside, tileRow, accumulate);
    copyTile(c, crs, aside, tileRow, count, width);
    a += <usize>count * ars;
    c += <usize>count * crs;
  }
}

/** Whole tiles of nr columns, then the rows that are left one by one. */
function tiles(
  m: i32,
  nr: i32,
  k: i32,
  a: usize,
  ars: usize,
  acs: usize,
  b: usize,
  c: usize,
  crs: usize,
  accumulate: bool,
): void {
  let done = 0;
  if (nr == 16) {
    if (acs == 4) done = wideTiles(m, k, a, ars, b, c, crs, accumulate);
  } else if (nr == 8) {
    micro4x8(m, k, a, ars, acs, b, c, crs, accumulate);
    done = m & ~3;
  } else {
    micro8x4(m, k, a, ars, acs, b, c, crs, accumulate);
    done = m & ~7;
  }
  const left = m - done,
    a1 = a + <usize>done * ars,
    c1 = c + <usize>done * crs;
  if (nr == 16) micro1x16(left, k, a1, ars, acs, b, c1, crs, accumulate);
  else if (nr == 8) micro1x8(left, k, a1, ars, acs, b, c1, crs, accumulate);
  else micro1x4(left, k, a1, ars, acs, b, c1, crs, accumulate);
}

/** Two rows of 16 columns at a time; how many rows that makes. */
function wideTiles(m: i32, k: i32, a: usize, ars: usize, b: usize, c: usize, crs: usize, accumulate: bool): i32 {
  let done = 0;
  if (bigTile) {
    if (isDefined(FUSED)) {
      // Twelve accumulators, for a fused multiply-add takes as long as a product and a sum; half a panel at a time.
      // Over a short k there is more of C than of products (k = 8: 44 GFLOP/s, not 52).
      if (k >= 32) {
        micro6x8(m, k, a, ars, 4, b, c, crs, accumulate);
        micro6x8(m, k, a, ars, 4, b + 32, c + 32, crs, accumulate);
        done = m - (m % 6);
      }
    } else {
      micro2x16by8(m, k, a, ars, b, c, crs, accumulate);
      done = m & ~1;
    }
  }
  micro2x16(m - done, k, a + <usize>done * ars, ars, b, c + <usize>done * crs, crs, accumulate);
  return m & ~1;
}

function copyTile(to: usize, trs: usize, from: usize, frs: usize, m: i32, width: i32): void {
  for (let i = 0; i < m; i++) {
    for (let j: usize = 0; j < bytes(width); j += 4) store<f32>(to + j, load<f32>(from + j));
    to += trs;
    from += frs;
  }
}
