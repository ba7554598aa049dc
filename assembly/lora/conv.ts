/**
 * LoRA convolution, in up to three dimensions: y = conv(x, W) + bias + s * conv1(conv(x̃, A), B), where
 * x̃ = dropout(x), A reads all input channels over W's window, and conv1 has kernel size 1 and W's groups.
 * (Hu et al. 2021; PEFT lora.ConvNd, which does not pass W's dilation to A.)
 *
 * Forward, per image and 16 positions: the columns of the window are laid out as one panel, which serves
 * the GEMMs of every group of W and of A. y = bias, then the sum over W's (c, kd, kh, kw) ascending, then
 * the sum over B's rank, in one accumulator; h = conv(x̃, A); s multiplies h before it meets B.
 * Backward: zs = Bᵀ (s dy); dB += dy (s h)ᵀ; dA += zs colsᵀ(x̃); dW += dy colsᵀ(x); dbias += dy:
 * each sum over images ascending, in an image over positions ascending, so micro-batches accumulate to
 * the bits of the whole batch. dx += the adjoint of W at dy, then the adjoint of A at zs: each value is
 * a full sum over output channels (or ranks) first, and these are added by ascending position.
 *
 * x, x̃, dx, dxDropped: [n, inChannels, id, ih, iw]. y, dy: [n, outChannels, od, oh, ow].
 * W: [outChannels, inChannels / groups, kd, kh, kw]. A: [r, inChannels, kd, kh, kw].
 * B: [outChannels, r / groups]. h: [n, r, od, oh, ow]. zs: room for [r, od, oh, ow]. bias: [outChannels].
 * shape: gemm/im2col.ts. A null pointer means: no bias; for a gradient, not wanted. r = 0 is the plain
 * convolution; W null leaves the base out, so that a branch adds to what y and dx hold.
 */
import { gemm, sgemmTN } from "../gemm/sgemm";
import { col2im, groupsOf, im2col, inChannels, inSize, outChannels, outSize, taps } from "../gemm/im2col";

/** Columns of a panel: the width of the register tiles. */
const WIDTH: i32 = 16;
const PANEL_STEP: usize = 64;

/** panel: room for [inChannels * kd * kh * kw, 16]. scratch: sgemmScratchBytes(). */
export function loraConvForward(
  shape: usize,
  n: i32,
  r: i32,
  s: f32,
  x: usize,
  xDropped: usize,
  w: usize,
  bias: usize,
  a: usize,
  b: usize,
  h: usize,
  y: usize,
  panel: usize,
  scratch: usize,
): void {
  const positions = outSize(shape),
    row = (<usize>positions) << 2;
  const image = (<usize>(inChannels(shape) * inSize(shape))) << 2,
    window = inChannels(shape) * taps(shape);
  const groups = groupsOf(shape),
    outs = outChannels(shape) / groups,
    depth = window / groups,
    ranks = r / groups;
  for (let i = 0; i < n; i++) {
    if (bias != 0) fillRows(y, bias, outChannels(shape), positions);
    for (let first = 0; first < positions; first += WIDTH) {
      const width = min(WIDTH, positions - first),
        at = (<usize>first) << 2;
      if (w != 0) {
        im2col(panel, PANEL_STEP, x, shape, first, width);
        eachGroup(groups, outs, width, depth, 1, w, panel, PANEL_STEP, y + at, row, bias != 0, scratch);
      }
      if (r > 0) {
        if (w == 0 || xDropped != x) im2col(panel, PANEL_STEP, xDropped, shape, first, width);
        eachGroup(1, r, width, window, 1, a, panel, PANEL_STEP, h + at, row, false, scratch);
        eachGroup(groups, outs, width, ranks, s, b, h + at, row, y + at, row, true, scratch);
      }
    }
    x += image;
    xDropped += image;
    h += <usize>r * row;
    y += <usize>outChannels(shape) * row;
  }
}

/**
 * tile: room for [inChannels * kd * kh * kw, columns]; the number of columns changes no bit.
 * dxDropped: with dropout (xDropped != x) it is overwritten with the adjoint of A, for the caller to mask
 * and add to dx; else null.
 */
export function loraConvBackward(
  shape: usize,
  n: i32,
  r: i32,
  s: f32,
  x: usize,
  xDropped: usize,
  w: usize,
  a: usize,
  b: usize,
  h: usize,
  zs: usize,
  dy: usize,
  dx: usize,
  dxDropped: usize,
  dw: usize,
  dbias: usize,
  da: usize,
  db: usize,
  tile: usize,
  columns: i32,
  scratch: usize,
): void {
  const positions = outSize(shape),
    row = (<usize>positions) << 2;
  const image = (<usize>(inChannels(shape) * inSize(shape))) << 2;
  const groups = groupsOf(shape),
    outs = outChannels(shape) / groups,
    ranks = r / groups;
  if (dxDropped != 0) memory.fill(dxDropped, 0, <usize>n * image);
  for (let i = 0; i < n; i++) {
    if (dbias != 0) addRowSums(dbias, dy, outChannels(shape), positions);
    if (dw != 0) weightGradient(dw, shape, groups, outs, dy, x, tile, columns, scratch);
    if (dx != 0 && w != 0) inputGradient(dx, shape, groups, outs, dy, w, tile, columns, scratch);
    if (r > 0) {
      for (let g = 0; g < groups; g++) {
        const dyRows = dy + <usize>(g * outs) * row,
          rankRows = <usize>(g * ranks) * row;
        const part = (<usize>(g * outs * ranks)) << 2;
        if (db != 0)
          gemm(
            outs,
            ranks,
            positions,
            s,
            dyRows,
            row,
            4,
            h + rankRows,
            row,
            true,
            db + part,
            (<usize>ranks) << 2,
            true,
            scratch,
          );
        if (da != 0 || dx != 0)
          sgemmTN(ranks, positions, outs, s, b + part, ranks, dyRows, positions, 0, zs + rankRows, positions, scratch);
      }
      if (da != 0) weightGradient(da, shape, 1, r, zs, xDropped, tile, columns, scratch);
      if (dx != 0) inputGradient(dxDropped != 0 ? dxDropped : dx, shape, 1, r, zs, a, tile, columns, scratch);
    }
    x += image;
    xDropped += image;
    h += <usize>r * row;
    dy += <usize>outChannels(shape) * row;
    if (dx != 0) dx += image;
    if (dxDropped != 0) dxDropped += image;
  }
}

/**
 * y[g] (+)= w[g] * s * cols[g] for each group: w [groups * outs, depth], cols [groups * depth, width], y [groups *
 * outs, width].
 */
function eachGroup(
  groups: i32,
  outs: i32,
  width: i32,
  depth: i32,
  s: f32,
  w: usize,
  cols: usize,
  colsRow: usize,
  y: usize,
  yRow: usize,
  accumulate: bool,
  scratch: usize,
): void {
  const wRow = (<usize>depth) << 2;
  for (let g = 0; g < groups; g++) {
    gemm(outs, width, depth, s, w, wRow, 4, cols, colsRow, false, y, yRow, accumulate, scratch);
    w += <usize>outs * wRow;
    cols += <usize>depth * colsRow;
    y += <usize>outs * yRow;
  }
}

/** dw += dy colsᵀ(x), one image. dw: [groups * outs, window / groups]. dy: [groups * outs, positions]. */
function weightGradient(
  dw: usize,
  shape: usize,
  groups: i32,
  outs: i32,
  dy: usize,
  x: usize,
  tile: usize,
  columns: i32,
  scratch: usize,
): void {
  const positions = outSize(shape),
    depth = (inChannels(shape) * taps(shape)) / groups;
  const row = (<usize>positions) << 2,
    step = (<usize>columns) << 2,
    dwRow = (<usize>depth) << 2;
  for (let first = 0; first < positions; first += columns) {
    const width = min(columns, positions - first);
    im2col(tile, step, x, shape, first, width);
    for (let g = 0; g < groups; g++) {
      gemm(
        outs,
        depth,
        width,
        1,
        dy + <usize>(g * outs) * row + ((<usize>first) << 2),
        row,
        4,
        tile + <usize>(g * depth) * step,
        step,
        true,
        dw + <usize>(g * outs) * dwRow,
        dwRow,
        true,
        scratch,
      );
    }
  }
}

/** dx += col2im(wᵀ dy), one image; shapes as in weightGradient. */
function inputGradient(
  dx: usize,
  shape: usize,
  groups: i32,
  outs: i32,
  dy: usize,
  w: usize,
  tile: usize,
  columns: i32,
  scratch: usize,
): void {
  const positions = outSize(shape),
    depth = (inChannels(shape) * taps(shape)) / groups;
  const step = (<usize>columns) << 2;
  for (let first = 0; first < positions; first += columns) {
    const width = min(columns, positions - first);
    for (let g = 0; g < groups; g++) {
      sgemmTN(
        depth,
        width,
        outs,
        1,
        w + ((<usize>(g * outs * depth)) << 2),
        depth,
        dy + ((<usize>(g * outs * positions + first)) << 2),
        positions,
        0,
        tile + <usize>(g * depth) * step,
        columns,
        scratch,
      );
    }
    col2im(dx, tile, step, shape, first, width);
  }
}

/** Row o of y becomes bias[o] everywhere. */
function fillRows(y: usize, bias: usize, rows: i32, length: i32): void {
  for (let o = 0; o < rows; o++) {
    const value = load<f32>(bias + ((<usize>o) << 2));
    for (let p = 0; p < length; p++) {
      store<f32>(y, value);
      y += 4;
    }
  }
}

/** sums[o] += sum over p, ascending, of x[o][p]. */
function addRowSums(sums: usize, x: usize, rows: i32, length: i32): void {
  for (let o = 0; o < rows; o++) {
    let sum = load<f32>(sums);
    for (let p = 0; p < length; p++) {
      sum += load<f32>(x);
      x += 4;
    }
    store<f32>(sums, sum);
    sums += 4;
  }
}
