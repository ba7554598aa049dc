/**
 * The products of sgemm.ts by all threads: C is cut into blocks, each of which is a product of its own, of some rows of
 * A and some columns of B. Sums are not cut, so the bits are those of one thread.
 *
 * Blocks are strips of 64 columns, which are what packing lays side by side, by some of the rows, so that there are a
 * few for each thread; a small C is cut so that the threads end together. Neighbours that one thread takes become one
 * again, and their columns are packed once.
 */
import { Sgemm } from "../abi";
import { first, last, own, part, split, threadCount } from "../threads";
import { FEW_ROWS, gemmNN, gemmNT, gemmTN, gemmTwo, SCRATCH_BYTES, SHORT_K } from "./sgemm";

const WIDTH: i32 = 64;
/** Fewer rows than that make packing a good part of the work (64: 4 %). */
const LEAST_ROWS: i32 = 64;
/** Rows of a block are a multiple of that, as high as the tallest register tile of the default build. */
const TILE: i32 = 8;
/** Blocks for each thread, where there are rows for it; where they are fewer than the latter, a size is looked for. */
const BLOCKS_EACH: i32 = 16;
const FEW_EACH: i32 = 6;
/**
 * Cycles, about: of a multiply-add, and in thin products; of packing a value of B for a block, and of a B that comes
 * from far away, as those of so many values do; of reading one of A.
 */
const COST: f64 = 0.15;
const THIN_COST: f64 = 0.35;
const PACKING: f64 = 0.4;
const FAR_PACKING: f64 = 4;
const FAR: f64 = 4e6;
const READING: f64 = 0.3;
/** Strips are a multiple of that: as wide as a panel; of weights in blocks as wide as two (blocks.ts). */
const PANEL: i32 = 16;
const PANELS_OF_BLOCKS: i32 = 32;

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

/**
 * Begins the blocks of a C of m rows and n columns whose elements are sums of k products. Strips are so wide; where
 * that is WIDTH and blocks are few, they may be narrower by a multiple of `step`.
 */
function cut(m: i32, n: i32, k: i32, widest: i32, step: i32): void {
  const threads = threadCount(),
    wanted = BLOCKS_EACH * threads,
    strips = (n + widest - 1) / widest;
  rows = m;
  columns = n;
  let blocks = lay(widest, strips < wanted && strips > 0 ? min(m / LEAST_ROWS, (wanted + strips - 1) / strips) : 1);
  if (threads > 1 && blocks < FEW_EACH * threads) {
    const packing = <f64>n * <f64>k > FAR ? FAR_PACKING : PACKING;
    blocks = layFew(threads, widest, step, packing);
  }
  unit = end = 0;
  split(blocks, (min(m, n) > FEW_ROWS ? COST : THIN_COST) * <f64>tall * <f64>min(n, wide) * <f64>k);
}

/** Blocks so wide, about so many one below the other; how many that makes. */
function lay(width: i32, below: i32): i32 {
  wide = width;
  tall = below > 1 ? (rows + below - 1) / below : rows;
  if (below > 1) tall = ((tall + TILE - 1) / TILE) * TILE;
  stacked = tall > 0 ? (rows + tall - 1) / tall : 1;
  return ((columns + wide - 1) / wide) * stacked;
}

/**
 * The blocks by which the threads are done first: each takes as many as another, or one less. A tenth of a block stands
 * for what a thread may come late.
 */
function layFew(threads: i32, widest: i32, step: i32, packing: f64): i32 {
  let least = f64.MAX_VALUE,
    bestWide = wide,
    bestBelow = stacked;
  for (let width = widest; width > 0; width -= step) {
    for (let below = 1; below <= max(1, rows >> 3); below++) {
      const blocks = lay(width, below),
        late = 0.1 * <f64>tall,
        each = <f64>min(columns, width) * (COST + packing / <f64>tall + READING / <f64>width),
        time = (<f64>longest(blocks / stacked, threads) + late) * each;
      if (time < least) {
        least = time;
        bestWide = width;
        bestBelow = below;
      }
      if (blocks > BLOCKS_EACH * threads) break;
    }
    if (widest != WIDTH) break;
  }
  return lay(bestWide, bestBelow);
}

/** Rows of the thread that has most of them: of whole blocks, and of each strip's last one, where others have none. */
function longest(strips: i32, threads: i32): i32 {
  const low = rows - (stacked - 1) * tall,
    whole = strips * (stacked - 1),
    turns = (whole + threads - 1) / threads,
    beside = (turns * threads - whole) * (low > 0 ? tall / low : 1),
    left = max(0, strips - beside);
  return turns * tall + ((left + threads - 1) / threads) * low;
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
function widestOf(m: i32, n: i32): i32 {
  return m > FEW_ROWS ? WIDTH : max(WIDTH, (n / (8 * threadCount())) & ~(WIDTH - 1));
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

/** gemmNN by all threads. Of a short k rows of C are written as a whole: pieces take up to four times as long. */
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
  for (cut(m, n, k, m > FEW_ROWS && k <= SHORT_K ? max(n, 1) : widestOf(m, n), PANEL); block(); )
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
  for (cut(m, n, k, widestOf(m, n), PANEL); block(); )
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
  for (cut(m, n, k, m > FEW_ROWS ? max(n, 1) : widestOf(m, n), PANEL); block(); )
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
  for (cut(m, n, k + k2, widestOf(m, n), PANELS_OF_BLOCKS); block(); )
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
