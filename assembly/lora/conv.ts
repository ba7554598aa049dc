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
import { gemm } from "../gemm/sgemm";
import { ownScratch, threadedNT, threadedTN } from "../gemm/threaded";
import { col2im, im2col, inSize, outSize, taps } from "../gemm/im2col";
import { first, last, own, part, split, threadCount } from "../threads";

/** Columns of a panel: the width of the register tiles. */
const WIDTH: i32 = 16;
const PANEL_STEP: usize = (<usize>WIDTH) << 2;

/** Cycles of a multiply-add, and of a value that is laid out, about. */
const PRODUCT: f64 = 0.2;
const LAID_OUT: f64 = 1;

/** Forward's panel for a window of so many values, over all input channels; for all threads. */
export function convPanelBytes(window: f64): f64 {
  return <f64>threadCount() * window * <f64>PANEL_STEP;
}

/** By panels of positions. */
export function loraConvForward(call: LoraConvForward): void {
  const panels = (outSize(call) + WIDTH - 1) / WIDTH,
    window = <f64>(call.inChannels * taps(call)),
    depth = <f64>(call.outChannels / call.groups + call.r);
  for (split(call.n * panels, <f64>WIDTH * window * (LAID_OUT + PRODUCT * depth)); part(); )
    for (let unit = first; unit < last; unit++) forwardPanel(call, unit / panels, (unit % panels) * WIDTH);
}

/** Image i, positions from `begin` on. */
function forwardPanel(call: LoraConvForward, i: i32, begin: i32): void {
  const positions = outSize(call),
    width = min(WIDTH, positions - begin),
    row = (<usize>positions) << 2,
    at = (<usize>begin) << 2;
  const image = (<usize>(call.inChannels * inSize(call))) << 2,
    window = call.inChannels * taps(call);
  const groups = call.groups,
    outs = call.outChannels / groups,
    depth = window / groups,
    r = call.r,
    ranks = r / groups;
  const w = call.weight,
    bias = call.bias,
    panel = own(call.panel, <usize>window * PANEL_STEP),
    scratch = ownScratch(call.scratch);
  const x = call.x + <usize>i * image,
    xDropped = call.xDropped + <usize>i * image,
    h = call.h + <usize>(i * r) * row + at,
    y = call.y + <usize>(i * call.outChannels) * row + at;
  if (bias != 0) fillRows(y, row, bias, call.outChannels, width);
  if (w != 0) {
    im2col(panel, PANEL_STEP, x, call, call.inChannels, begin, width);
    eachGroup(groups, outs, width, depth, 1, w, panel, PANEL_STEP, y, row, bias != 0, scratch);
  }
  if (r == 0) return;
  if (w == 0 || xDropped != x) im2col(panel, PANEL_STEP, xDropped, call, call.inChannels, begin, width);
  eachGroup(1, r, width, window, 1, call.a, panel, PANEL_STEP, h, row, false, scratch);
  eachGroup(groups, outs, width, ranks, call.s, call.b, h, row, y, row, true, scratch);
}

export function loraConvBackward(call: LoraConvBackward): void {
  const positions = outSize(call),
    row = (<usize>positions) << 2;
  const image = (<usize>(call.inChannels * inSize(call))) << 2;
  const groups = call.groups,
    outs = call.outChannels / groups,
    r = call.r,
    ranks = r / groups;
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
  if (dxDropped != 0)
    for (split(call.n, 0.1 * <f64>image); part(); )
      memory.fill(dxDropped + <usize>first * image, 0, <usize>(last - first) * image);
  for (let i = 0; i < call.n; i++) {
    if (call.dBias != 0)
      for (split(call.outChannels, 4 * <f64>positions); part(); )
        for (let o = <usize>first; o < <usize>last; o++) addSum(call.dBias + (o << 2), dy + o * row, positions);
    if (call.dWeight != 0) weightGradient(call.dWeight, call, groups, outs, dy, x);
    if (dx != 0 && w != 0) inputGradient(dx, call, groups, outs, dy, w);
    if (r > 0) {
      for (let g = 0; g < groups; g++) {
        const dyRows = dy + <usize>(g * outs) * row,
          ranksAt = <usize>(g * ranks) * row,
          at = (<usize>(g * outs * ranks)) << 2;
        if (db != 0)
          threadedNT(
            outs,
            ranks,
            positions,
            call.s,
            dyRows,
            positions,
            h + ranksAt,
            positions,
            1,
            db + at,
            ranks,
            scratch,
          );
        if (da != 0 || dx != 0)
          threadedTN(
            ranks,
            positions,
            outs,
            call.s,
            b + at,
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
  const channel = (<usize>inSize(call)) << 2,
    channelRows = (<usize>(taps(call) * columns)) << 2;
  for (let begin = 0; begin < positions; begin += columns) {
    const width = min(columns, positions - begin);
    for (split(call.inChannels, LAID_OUT * <f64>taps(call) * <f64>width); part(); ) {
      const c = <usize>first;
      im2col(tile + c * channelRows, (<usize>columns) << 2, x + c * channel, call, last - first, begin, width);
    }
    for (let g = 0; g < groups; g++) {
      const dyRows = dy + ((<usize>(g * outs * positions + begin)) << 2),
        cols = tile + ((<usize>(g * depth * columns)) << 2),
        out = dw + ((<usize>(g * outs * depth)) << 2);
      threadedNT(outs, depth, width, 1, dyRows, positions, cols, columns, 1, out, depth, call.scratch);
    }
  }
}

/** dx += col2im(wᵀ dy), one image; shapes as in weightGradient. */
function inputGradient(dx: usize, call: LoraConvBackward, groups: i32, outs: i32, dy: usize, w: usize): void {
  const positions = outSize(call),
    depth = (call.inChannels * taps(call)) / groups,
    columns = call.columns,
    tile = call.tile;
  const channel = (<usize>inSize(call)) << 2,
    channelRows = (<usize>(taps(call) * columns)) << 2;
  for (let begin = 0; begin < positions; begin += columns) {
    const width = min(columns, positions - begin);
    for (let g = 0; g < groups; g++) {
      const at = w + ((<usize>(g * outs * depth)) << 2),
        dyRows = dy + ((<usize>(g * outs * positions + begin)) << 2),
        cols = tile + ((<usize>(g * depth * columns)) << 2);
      threadedTN(depth, width, outs, 1, at, depth, dyRows, positions, 0, cols, columns, call.scratch);
    }
    for (split(call.inChannels, LAID_OUT * <f64>taps(call) * <f64>width); part(); ) {
      const c = <usize>first;
      col2im(dx + c * channel, tile + c * channelRows, (<usize>columns) << 2, call, last - first, begin, width);
    }
  }
}

/** Row o of y becomes bias[o] everywhere. */
function fillRows(y: usize, row: usize, bias: usize, rows: i32, length: i32): void {
  for (let o = 0; o < rows; o++, y += row, bias += 4) {
    const value = load<f32>(bias);
    for (let p: usize = 0; p < (<usize>length) << 2; p += 4) store<f32>(y + p, value);
  }
}

/** sum += values, ascending. */
function addSum(sum: usize, values: usize, n: i32): void {
  let total = load<f32>(sum);
  for (; n > 0; n--, values += 4) total += load<f32>(values);
  store<f32>(sum, total);
}
