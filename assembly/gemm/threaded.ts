/**
 * The products of sgemm.ts by all threads: C is cut into blocks, each of which is a product of its own, of some rows of
 * A and some columns of B. Sums are not cut, so the bits are those of one thread.
 *
 * Blocks are strips of 64 columns, which are what packing lays side by side, by some of the rows, so that there are a
 * few for each thread. Neighbours that one thread takes become one again, and their columns are packed once.
 */
import { Sgemm } from "../abi";
import { first, last, own, part, split, threadCount } from "../threads";
import { FEW_ROWS, gemmNN, gemmNT, gemmTN, gemmTwo, SCRATCH_BYTES } from "./sgemm";

const WIDTH: i32 = 64;
/** Columns of a register tile, a cache line; and what formats of blocks are read by. */
const TILE: i32 = 16;
const UNIT: i32 = 32;
/** Rows of a block are a multiple of that, as high as all register tiles are. */
const TILES: i32 = 12;
/**
 * Blocks for each thread, where each of them has as many rows: fewer make packing a good part of the work (64: 4 %).
 */
const BLOCKS_EACH: i32 = 16;
const MANY_ROWS: i32 = 64;
/** The same where that would leave threads without work. */
const FEW_BLOCKS_EACH: i32 = 4;
const LEAST_ROWS: i32 = 24;
/** Cycles of a multiply-add, about. */
const COST: f64 = 0.15;

/** The block in hand: rows row .. row + height - 1, columns column .. column + width - 1. */
let row: i32 = 0,
  height: i32 = 0,
  column: i32 = 0,
  width: i32 = 0;
/** Rows and columns of C, and of a whole block; blocks one below the other. */
let rows: i32 = 0,
  columns: i32 = 0,
  tall: i32 = 0,
  wide: i32 = 0,
  stacked: i32 = 0;
/** Blocks of the part in hand that are still to be done: unit .. end - 1, those of a strip one after another. */
let unit: i32 = 0,
  end: i32 = 0;

/** Begins the blocks of a C of m rows and n columns whose elements are sums of k products. */
function cut(m: i32, n: i32, k: i32, widest: i32): void {
  rows = m;
  columns = n;
  wide = widest;
  const strips = (n + wide - 1) / wide;
  stacked = max(1, max(stack(m, strips, BLOCKS_EACH, MANY_ROWS), stack(m, strips, FEW_BLOCKS_EACH, LEAST_ROWS)));
  tall = (m + stacked - 1) / stacked;
  if (stacked > 1) tall = ((tall + TILES - 1) / TILES) * TILES;
  if (tall > 0) stacked = (m + tall - 1) / tall;
  unit = end = 0;
  split(strips * stacked, COST * <f64>tall * <f64>min(n, wide) * <f64>k);
}

/** How many blocks of at least so many rows, one below the other, make as many for each thread. */
function stack(m: i32, strips: i32, each: i32, least: i32): i32 {
  return min(m / least, strips == 0 ? 1 : (each * threadCount() + strips - 1) / strips);
}

/** The next block. Neighbours become one as far as one thread has taken them. */
function block(): bool {
  while (unit == end) {
    if (!part()) return false;
    unit = first;
    end = last;
  }
  const strip = unit / stacked,
    above = unit % stacked,
    below = min(stacked, above + end - unit),
    strips = above == 0 && below == stacked ? (end - unit) / stacked : 1;
  unit += strips * (below - above);
  row = above * tall;
  height = min(rows, below * tall) - row;
  column = strip * wide;
  width = min(columns, (strip + strips) * wide) - column;
  return true;
}

/** How wide a strip is: few rows read B where it lies, and best in long pieces. */
function widestOf(m: i32, n: i32, align: i32 = TILE): i32 {
  return m > FEW_ROWS ? WIDTH : max(align, (n / (8 * threadCount())) & ~(align - 1));
}

// @ts-ignore: decorator
@inline
function bytes(elements: i32): usize {
  return (<usize>elements) << 2;
}

export function sgemmNN(call: Sgemm): void {
  threadedNN(
    call.m,
    call.n,
    call.k,
    call.alpha,
    call.a,
    call.lda,
    call.b,
    call.ldb,
    call.beta,
    call.c,
    call.ldc,
    call.scratch,
  );
}
export function sgemmNT(call: Sgemm): void {
  threadedNT(
    call.m,
    call.n,
    call.k,
    call.alpha,
    call.a,
    call.lda,
    call.b,
    call.ldb,
    call.beta,
    call.c,
    call.ldc,
    call.scratch,
  );
}
export function sgemmTN(call: Sgemm): void {
  threadedTN(
    call.m,
    call.n,
    call.k,
    call.alpha,
    call.a,
    call.lda,
    call.b,
    call.ldb,
    call.beta,
    call.c,
    call.ldc,
    call.scratch,
  );
}

/** gemmNN by all threads. */
export function threadedNN(
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
  for (cut(m, n, k, widestOf(m, n)); block(); )
    gemmNN(
      height,
      width,
      k,
      alpha,
      a + at(row, lda, 0),
      lda,
      b + bytes(column),
      ldb,
      beta,
      c + at(row, ldc, column),
      ldc,
      ownScratch(scratch),
    );
}

/** gemmNT by all threads. */
export function threadedNT(
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
  for (cut(m, n, k, widestOf(m, n)); block(); )
    gemmNT(
      height,
      width,
      k,
      alpha,
      a + at(row, lda, 0),
      lda,
      b + at(column, ldb, 0),
      ldb,
      beta,
      c + at(row, ldc, column),
      ldc,
      ownScratch(scratch),
    );
}

/** gemmTN by all threads. Blocks of many rows are as wide as C, since each of them transposes its part of A. */
export function threadedTN(
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
  for (cut(m, n, k, m > FEW_ROWS ? max(n, 1) : widestOf(m, n)); block(); )
    gemmTN(
      height,
      width,
      k,
      alpha,
      a + bytes(row),
      lda,
      b + bytes(column),
      ldb,
      beta,
      c + at(row, ldc, column),
      ldc,
      ownScratch(scratch),
    );
}

/** gemm by all threads, of an A whose rows are contiguous. */
export function threaded(
  m: i32,
  n: i32,
  k: i32,
  a: usize,
  b: usize,
  bs: usize,
  transposed: bool,
  c: usize,
  accumulate: bool,
  scratch: usize,
  format: i32,
): void {
  threadedTwo(m, n, k, a, b, bs, transposed, 0, 0, 0, 0, false, c, accumulate, scratch, format);
}

/** gemmTwo by all threads. */
export function threadedTwo(
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
  accumulate: bool,
  scratch: usize,
  format: i32,
): void {
  for (cut(m, n, k + k2, widestOf(m, n, UNIT)); block(); )
    gemmTwo(
      height,
      width,
      k,
      a + at(row, k, 0),
      transposed ? b + <usize>column * bs : b,
      bs,
      transposed,
      k2,
      a2 + at(row, k2, 0),
      b2 + (transposed2 ? <usize>column * b2s : bytes(column)),
      b2s,
      transposed2,
      c + at(row, n, column),
      bytes(n),
      accumulate,
      ownScratch(scratch),
      format,
      transposed ? 0 : column,
    );
}

// @ts-ignore: decorator
@inline
function at(r: i32, ld: i32, j: i32): usize {
  return (<usize>r * <usize>ld + <usize>j) << 2;
}

/** This thread's working space for a product. */
export function ownScratch(scratch: usize): usize {
  return own(scratch, SCRATCH_BYTES);
}

/** Working space for all threads. */
export function sgemmScratchBytes(): i32 {
  return <i32>(<usize>threadCount() * SCRATCH_BYTES);
}
