/**
 * LayerNorm. y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(var + eps), per row; var is the
 * biased variance, computed from x - mean (Ba et al. 2016; torch.nn.LayerNorm). bias null: there is none.
 * Backward: g = dy * weight; dx += rstd * (g - mean(g) - x̂ * mean(g * x̂)); dWeight += dy * x̂; dBias += dy.
 * Sums along a row are taken in float64, ascending: cancellation in the variance is the point of failure.
 * dWeight and dBias add rows in ascending order, in float32.
 */
import { LayerNormBackward, LayerNormForward } from "../abi";
import { first, last, LINE, part, split } from "../threads";

export function layerNormForward(call: LayerNormForward): void {
  for (split(call.rows, 10 * <f64>call.dim); part(); ) forwardRows(call);
}

export function layerNormBackward(call: LayerNormBackward): void {
  if (call.dWeight != 0 || call.dBias != 0) for (split(call.dim, <f64>call.rows, LINE); part(); ) weightGradients(call);
  if (call.dx != 0) for (split(call.rows, 10 * <f64>call.dim); part(); ) inputGradients(call);
}

/** Rows `first` to `last` - 1. */
function forwardRows(call: LayerNormForward): void {
  const weight = call.weight,
    bias = call.bias,
    dim = call.dim;
  const row = (<usize>dim) << 2;
  let x = call.x + <usize>first * row,
    y = call.y + <usize>first * row;
  for (let i = <usize>first; i < <usize>last; i++) {
    let total: f64 = 0;
    for (let p: usize = 0; p < row; p += 4) total += load<f32>(x + p);
    const mu = total / <f64>dim;
    let squares: f64 = 0;
    for (let p: usize = 0; p < row; p += 4) {
      const d = <f64>load<f32>(x + p) - mu;
      squares += d * d;
    }
    const m = <f32>mu,
      s = <f32>(1.0 / sqrt<f64>(squares / <f64>dim + <f64>call.eps));
    store<f32>(call.mean + (i << 2), m);
    store<f32>(call.rstd + (i << 2), s);
    for (let p: usize = 0; p < row; p += 4) {
      const hat = (load<f32>(x + p) - m) * s; // normalize
      const scaled = hat * load<f32>(weight + p);
      store<f32>(y + p, bias != 0 ? scaled + load<f32>(bias + p) : scaled);
    }
    x += row;
    y += row;
  }
}

/** Columns `first` to `last` - 1 of dWeight and dBias. */
function weightGradients(call: LayerNormBackward): void {
  const dWeight = call.dWeight,
    dBias = call.dBias;
  const row = (<usize>call.dim) << 2,
    begin = (<usize>first) << 2,
    end = (<usize>last) << 2;
  let dy = call.dy,
    x = call.x;
  for (let i: usize = 0; i < <usize>call.rows; i++) {
    const m = load<f32>(call.mean + (i << 2)),
      s = load<f32>(call.rstd + (i << 2));
    let p = begin;
    for (; p + 16 <= end; p += 16) {
      const d = v128.load(dy + p),
        hat = f32x4.mul(f32x4.sub(v128.load(x + p), f32x4.splat(m)), f32x4.splat(s));
      if (dWeight != 0) v128.store(dWeight + p, f32x4.add(v128.load(dWeight + p), f32x4.mul(d, hat)));
      if (dBias != 0) v128.store(dBias + p, f32x4.add(v128.load(dBias + p), d));
    }
    for (; p < end; p += 4) {
      const d = load<f32>(dy + p),
        hat = (load<f32>(x + p) - m) * s;
      if (dWeight != 0) store<f32>(dWeight + p, load<f32>(dWeight + p) + d * hat);
      if (dBias != 0) store<f32>(dBias + p, load<f32>(dBias + p) + d);
    }
    dy += row;
    x += row;
  }
}

/** Rows `first` to `last` - 1 of dx. */
function inputGradients(call: LayerNormBackward): void {
  const weight = call.weight,
    dim = call.dim;
  const row = (<usize>dim) << 2;
  let dx = call.dx + <usize>first * row,
    dy = call.dy + <usize>first * row,
    x = call.x + <usize>first * row;
  for (let i = <usize>first; i < <usize>last; i++) {
    const m = load<f32>(call.mean + (i << 2)),
      s = load<f32>(call.rstd + (i << 2));
    let sumG: f64 = 0,
      sumGx: f64 = 0;
    for (let p: usize = 0; p < row; p += 4) {
      const hat = (load<f32>(x + p) - m) * s,
        g = load<f32>(dy + p) * load<f32>(weight + p);
      sumG += g;
      sumGx += <f64>g * <f64>hat;
    }
    const meanG = <f32>(sumG / <f64>dim),
      meanGx = <f32>(sumGx / <f64>dim);
    for (let p: usize = 0; p < row; p += 4) {
      const hat = (load<f32>(x + p) - m) * s;
      const g = load<f32>(dy + p) * load<f32>(weight + p);
      store<f32>(dx + p, load<f32>(dx + p) + s * (g - meanG - hat * meanGx));
    }
    dx += row;
    dy += row;
    x += row;
  }
}
