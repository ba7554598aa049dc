/**
 * im2col and its adjoint col2im, some columns at a time: the whole column matrix is never made.
 *
 *   cols[c, kd, kh, kw][p] = x[c][od sd + kd dd - pd][oh sh + kh dh - ph][ow sw + kw dw - pw], 0 outside x,
 *
 * for the output position p = (od, oh, ow). im2col writes columns first .. first + count - 1 into tile;
 * col2im adds each value of tile to the element of x that it stands for. It visits the taps (kd, kh, kw)
 * in descending order: an element of x meets ascending positions then, so its sum has one order, p
 * ascending, however the columns are cut into tiles.
 *
 * x: one image, [channels, id, ih, iw]. tile: [channels * taps, count], rows `step` bytes apart.
 *
 * Source: Chellapilla et al. 2006; torch.nn.functional.unfold and fold.
 */

import { ConvShape } from "../abi";

/** Elements of one channel of x. */
export function inSize(shape: ConvShape): i32 {
  return shape.id * shape.ih * shape.iw;
}
/** Positions: elements of one channel of y. */
export function outSize(shape: ConvShape): i32 {
  return shape.od * shape.oh * shape.ow;
}
/** Elements of the kernel for one channel. */
export function taps(shape: ConvShape): i32 {
  return shape.kd * shape.kh * shape.kw;
}

/** Of `channels` channels, of which x and tile hold the first at their beginnings. */
export function im2col(
  tile: usize,
  step: usize,
  x: usize,
  shape: ConvShape,
  channels: i32,
  first: i32,
  count: i32,
): void {
  visit(tile, step, x, shape, channels, first, count, false);
}

export function col2im(
  dx: usize,
  tile: usize,
  step: usize,
  shape: ConvShape,
  channels: i32,
  first: i32,
  count: i32,
): void {
  visit(tile, step, dx, shape, channels, first, count, true);
}

/**
 * Walks the tile tap by tap, in runs of positions whose inputs lie in one row of x; a run is the same in every channel.
 */
// @ts-ignore: decorator
@inline
function visit(
  tile: usize,
  step: usize,
  x: usize,
  shape: ConvShape,
  channels: i32,
  first: i32,
  count: i32,
  add: bool,
): void {
  const id = shape.id,
    ih = shape.ih,
    iw = shape.iw;
  const outH = shape.oh,
    outW = shape.ow;
  const kd = shape.kd,
    kh = shape.kh,
    kw = shape.kw;
  const sd = shape.sd,
    sh = shape.sh,
    sw = shape.sw;
  const pd = shape.pd,
    ph = shape.ph,
    pw = shape.pw;
  const dd = shape.dd,
    dh = shape.dh,
    dw = shape.dw;
  const channelStep = <usize>taps(shape) * step,
    channelSize = (<usize>inSize(shape)) << 2;
  const firstRow = first / outW,
    firstD = firstRow / outH,
    firstH = firstRow % outH,
    firstW = first % outW;
  let row = tile + channelStep;
  for (let td = kd - 1; td >= 0; td--)
    for (let th = kh - 1; th >= 0; th--)
      for (let tw = kw - 1; tw >= 0; tw--) {
        row -= step;
        // Columns ow of y whose input lies inside x: begin <= ow < end.
        const begin = ceilOf(pw - tw * dw, sw),
          end = ceilOf(iw + pw - tw * dw, sw);
        let od = firstD,
          oh = firstH,
          ow = firstW,
          run = row;
        for (let left = count; left > 0; ) {
          const length = min(left, outW - ow);
          const zd = od * sd + td * dd - pd,
            zh = oh * sh + th * dh - ph;
          let low = 0,
            high = 0;
          if (<u32>zd < <u32>id && <u32>zh < <u32>ih) {
            low = min(max(begin - ow, 0), length);
            high = min(max(end - ow, low), length);
          }
          let out = run,
            from = x + ((<usize>((zd * ih + zh) * iw + (ow + low) * sw + tw * dw - pw)) << 2);
          for (let c = 0; c < channels; c++) {
            if (add) addRun(from, sw, out + ((<usize>low) << 2), high - low);
            else copyRun(out, from, sw, low, high, length);
            out += channelStep;
            from += channelSize;
          }
          run += (<usize>length) << 2;
          left -= length;
          ow = 0;
          if (++oh == outH) {
            oh = 0;
            od++;
          }
        }
      }
}

/** ceil(a / b), or 0 if a is negative. */
// @ts-ignore: decorator
@inline
function ceilOf(a: i32, b: i32): i32 {
  return (max(a, 0) + b - 1) / b;
}

/** out[0 .. length): elements low .. high - 1 come from every stride-th value of x, the others are padding. */
// @ts-ignore: decorator
@inline
function copyRun(out: usize, from: usize, stride: i32, low: i32, high: i32, length: i32): void {
  let j = 0;
  for (; j < low; j++) store<f32>(out + ((<usize>j) << 2), 0);
  if (stride == 1) {
    for (; j + 4 <= high; j += 4) {
      v128.store(out + ((<usize>j) << 2), v128.load(from));
      from += 16;
    }
  }
  for (; j < high; j++) {
    store<f32>(out + ((<usize>j) << 2), load<f32>(from));
    from += (<usize>stride) << 2;
  }
  for (; j < length; j++) store<f32>(out + ((<usize>j) << 2), 0);
}

/** Every stride-th value from x on += values[0 .. length). */
// @ts-ignore: decorator
@inline
function addRun(x: usize, stride: i32, values: usize, length: i32): void {
  let j = 0;
  if (stride == 1) {
    for (; j + 4 <= length; j += 4) {
      v128.store(x, f32x4.add(v128.load(x), v128.load(values)));
      x += 16;
      values += 16;
    }
  }
  for (; j < length; j++) {
    store<f32>(x, load<f32>(x) + load<f32>(values));
    x += (<usize>stride) << 2;
    values += 4;
  }
}
