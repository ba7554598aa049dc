/**
 * LoRA convolution, in up to three dimensions: y = conv(x, W) + bias + s * conv1(conv(x̃, A), B), where
 * x̃ = dropout(x), A reads all input channels over W's window, and conv1 has kernel size 1 and W's groups.
 * (Hu et al. 2021; PEFT lora.ConvNd, which does not pass W's dilation to A.)
 *
 * Forward, per image and 16 positions: the columns of the window are laid out as one panel, which serves
 * the GEMMs of every group of W and of A. y = bias, then the sum over W's (c, kd, kh, kw) ascending, then
 * the sum over B's rank, in one accumulator; h = conv(x̃, A); s multiplies h before it meets B.
 * Backward: zs = Bᵀ (s dy); dB += dy (s h)ᵀ; dA += zs colsᵀ(x̃); dW += dy colsᵀ(x); dBias += dy:
 * each sum over images ascending, in an image over positions ascending, so micro-batches accumulate to
 * the bits of the whole batch. dx += the adjoint of W at dy, then the adjoint of A at zs: each value is
 * a full sum over output channels (or ranks) first, and these are added by ascending position.
 * r = 0 is the plain convolution; without W a branch is added to what y and dx hold. With dropout (x̃ is not x) the
 * second adjoint goes to dxDropped.
 */
import { LoraConvBackward, LoraConvForward } from "../abi";
import { gemm, gemmTN } from "../gemm/sgemm";
import { col2im, im2col, inSize, outSize, taps } from "../gemm/im2col";

/** Columns of a panel: the width of the register tiles. */
const WIDTH: i32 = 16;
const PANEL_STEP: usize = (<usize>WIDTH) << 2;

/** Forward's panel for a window of so many values, over all input channels. */
export function convPanelBytes(window: f64): f64 {
  return window * <f64>PANEL_STEP;
}

export function loraConvForward(call: LoraConvForward): void {
  const positions = outSize(call),
    row = (<usize>positions) << 2;
  const image = (<usize>(call.inChannels * inSize(call))) << 2,
    window = call.inChannels * taps(call);
  const groups = call.groups,
    outs = call.outChannels / groups,
    depth = window / groups,
    r = call.r,
    ranks = r / groups;
  const w = call.weight,
    bias = call.bias,
    panel = call.panel,
    scratch = call.scratch;
  let x = call.x,
    xDropped = call.xDropped,
    h = call.h,
    y = call.y;
  for (let i = 0; i < call.n; i++) {
    if (bias != 0) fillRows(y, bias, call.outChannels, positions);
    for (let first = 0; first < positions; first += WIDTH) {
      const width = min(WIDTH, positions - first),
        at = (<usize>first) << 2;
      if (w != 0) {
        im2col(panel, PANEL_STEP, x, call, first, width);
        eachGroup(groups, outs, width, depth, 1, w, panel, PANEL_STEP, y + at, row, bias != 0, scratch);
      }
      if (r > 0) {
        if (w == 0 || xDropped != x) im2col(panel, PANEL_STEP, xDropped, call, first, width);
        eachGroup(1, r, width, window, 1, call.a, panel, PANEL_STEP, h + at, row, false, scratch);
        eachGroup(groups, outs, width, ranks, call.s, call.b, h + at, row, y + at, row, true, scratch);
      }
    }
    x += image;
    xDropped += image;
    h += <usize>r * row;
    y += <usize>call.outChannels * row;
  }
}

export function loraConvBackward(call: LoraConvBackward): void {
  const positions = outSize(call),
    row = (<usize>positions) << 2;
  const image = (<usize>(call.inChannels * inSize(call))) << 2;
  const groups = call.groups,
    outs = call.outChannels / groups,
    r = call.r,
    ranks = r / groups,
    rRow = (<usize>ranks) << 2;
  const w = call.weight,
    b = call.b,
    da = call.da,
    db = call.db,
    zs = call.zs,
    scratch = call.scratch;
  let x = call.x,
    xDropped = call.xDropped,
    h = call.h,
    dy = call.dy,
    dx = call.dx,
    dxDropped = call.dxDropped;
  if (dxDropped != 0) memory.fill(dxDropped, 0, <usize>call.n * image);
  for (let i = 0; i < call.n; i++) {
    if (call.dBias != 0) addRowSums(call.dBias, dy, call.outChannels, positions);
    if (call.dWeight != 0) weightGradient(call.dWeight, call, groups, outs, dy, x);
    if (dx != 0 && w != 0) inputGradient(dx, call, groups, outs, dy, w);
    if (r > 0) {
      for (let g = 0; g < groups; g++) {
        const dyRows = dy + <usize>(g * outs) * row,
          ranksAt = <usize>(g * ranks) * row,
          part = (<usize>(g * outs * ranks)) << 2;
        if (db != 0)
          gemm(outs, ranks, positions, call.s, dyRows, row, 4, h + ranksAt, row, true, db + part, rRow, true, scratch);
        if (da != 0 || dx != 0)
          gemmTN(
            ranks,
            positions,
            outs,
            call.s,
            b + part,
            ranks,
            dyRows,
            positions,
            0,
            zs + ranksAt,
            positions,
            scratch,
          );
      }
      if (da != 0) weightGradient(da, call, 1, r, zs, xDropped);
      if (dx != 0) inputGradient(dxDropped != 0 ? dxDropped : dx, call, 1, r, zs, call.a);
    }
    x += image;
    xDropped += image;
    h += <usize>r * row;
    dy += <usize>call.outChannels * row;
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
function weightGradient(dw: usize, call: LoraConvBackward, groups: i32, outs: i32, dy: usize, x: usize): void {
  const positions = outSize(call),
    depth = (call.inChannels * taps(call)) / groups,
    columns = call.columns,
    tile = call.tile;
  const row = (<usize>positions) << 2,
    step = (<usize>columns) << 2,
    dwRow = (<usize>depth) << 2;
  for (let first = 0; first < positions; first += columns) {
    const width = min(columns, positions - first);
    im2col(tile, step, x, call, first, width);
    for (let g = 0; g < groups; g++) {
      const dyRows = dy + <usize>(g * outs) * row + ((<usize>first) << 2),
        cols = tile + <usize>(g * depth) * step,
        out = dw + <usize>(g * outs) * dwRow;
      gemm(outs, depth, width, 1, dyRows, row, 4, cols, step, true, out, dwRow, true, call.scratch);
    }
  }
}

/** dx += col2im(wᵀ dy), one image; shapes as in weightGradient. */
function inputGradient(dx: usize, call: LoraConvBackward, groups: i32, outs: i32, dy: usize, w: usize): void {
  const positions = outSize(call),
    depth = (call.inChannels * taps(call)) / groups,
    columns = call.columns,
    tile = call.tile;
  const step = (<usize>columns) << 2;
  for (let first = 0; first < positions; first += columns) {
    const width = min(columns, positions - first);
    for (let g = 0; g < groups; g++) {
      const part = w + ((<usize>(g * outs * depth)) << 2),
        dyRows = dy + ((<usize>(g * outs * positions + first)) << 2),
        cols = tile + <usize>(g * depth) * step;
      gemmTN(depth, width, outs, 1, part, depth, dyRows, positions, 0, cols, columns, call.scratch);
    }
    col2im(dx, tile, step, call, first, width);
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
