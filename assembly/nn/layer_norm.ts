/**
 * LayerNorm. y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(var + eps), per row; var is the
 * biased variance, computed from x - mean (Ba et al. 2016; torch.nn.LayerNorm).
 * Backward: g = dy * weight; dx += rstd * (g - mean(g) - x̂ * mean(g * x̂)); dWeight += dy * x̂; dBias += dy.
 * x, dx, y, dy: [rows, dim] contiguous. weight, bias: [dim]. mean, rstd: [rows], kept for backward.
 * Sums along a row are taken in float64, ascending: cancellation in the variance is the point of failure.
 * dWeight and dBias add rows in ascending order, in float32. dx, dWeight or dBias null: not wanted.
 */
export function layerNormForward(
  y: usize,
  mean: usize,
  rstd: usize,
  x: usize,
  weight: usize,
  bias: usize,
  rows: i32,
  dim: i32,
  eps: f32,
): void {
  const row = (<usize>dim) << 2;
  for (let i: usize = 0; i < <usize>rows; i++) {
    let total: f64 = 0;
    for (let p: usize = 0; p < row; p += 4) total += load<f32>(x + p);
    const mu = total / <f64>dim;
    let squares: f64 = 0;
    for (let p: usize = 0; p < row; p += 4) {
      const d = <f64>load<f32>(x + p) - mu;
      squares += d * d;
    }
    const m = <f32>mu,
      s = <f32>(1.0 / sqrt<f64>(squares / <f64>dim + <f64>eps));
    store<f32>(mean + (i << 2), m);
    store<f32>(rstd + (i << 2), s);
    for (let p: usize = 0; p < row; p += 4) {
      store<f32>(y + p, (load<f32>(x + p) - m) * s * load<f32>(weight + p) + load<f32>(bias + p));
    }
    x += row;
    y += row;
  }
}

export function layerNormBackward(
  dx: usize,
  dWeight: usize,
  dBias: usize,
  dy: usize,
  x: usize,
  weight: usize,
  mean: usize,
  rstd: usize,
  rows: i32,
  dim: i32,
): void {
  const row = (<usize>dim) << 2;
  for (let i: usize = 0; i < <usize>rows; i++) {
    const m = load<f32>(mean + (i << 2)),
      s = load<f32>(rstd + (i << 2));
    let sumG: f64 = 0,
      sumGx: f64 = 0;
    for (let p: usize = 0; p < row; p += 4) {
      const d = load<f32>(dy + p),
        hat = (load<f32>(x + p) - m) * s,
        g = d * load<f32>(weight + p);
      if (dWeight != 0) store<f32>(dWeight + p, load<f32>(dWeight + p) + d * hat);
      if (dBias != 0) store<f32>(dBias + p, load<f32>(dBias + p) + d);
      sumG += g;
      sumGx += <f64>g * <f64>hat;
    }
    if (dx != 0) {
      const meanG = <f32>(sumG / <f64>dim),
        meanGx = <f32>(sumGx / <f64>dim);
      for (let p: usize = 0; p < row; p += 4) {
        const hat = (load<f32>(x + p) - m) * s;
        store<f32>(dx + p, load<f32>(dx + p) + s * (load<f32>(dy + p) * load<f32>(weight + p) - meanG - hat * meanGx));
      }
      dx += row;
    }
    dy += row;
    x += row;
  }
}
