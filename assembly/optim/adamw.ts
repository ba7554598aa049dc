/**
 * Adam and AdamW, one step over n contiguous values (Kingma & Ba 2015, Loshchilov & Hutter 2019;
 * torch.optim.Adam / AdamW, amsgrad off):
 *   AdamW: p *= decay (decay = 1 - lr * weightDecay).  Adam: g += l2 * p.
 *   m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
 *   p -= stepSize * m / (sqrt(v) / rootCorrection2 + eps)
 * stepSize = lr / (1 - beta1^t) and rootCorrection2 = sqrt(1 - beta2^t) come from the wrapper.
 * p, g, m, v: [n] contiguous. All elementwise, so lanes and tail have the same bits. g is not changed.
 */
export function adamStep(
  p: usize,
  g: usize,
  m: usize,
  v: usize,
  n: i32,
  decay: f32,
  l2: f32,
  beta1: f32,
  rest1: f32,
  beta2: f32,
  rest2: f32,
  stepSize: f32,
  rootCorrection2: f32,
  eps: f32,
): void {
  for (let i: usize = 0; i < (<usize>n) << 2; i += 4) {
    const w = load<f32>(p + i) * decay;
    const d = load<f32>(g + i) + l2 * w;
    const m1 = beta1 * load<f32>(m + i) + rest1 * d;
    const v1 = beta2 * load<f32>(v + i) + rest2 * (d * d);
    store<f32>(m + i, m1);
    store<f32>(v + i, v1);
    store<f32>(p + i, w - (stepSize * m1) / (sqrt<f32>(v1) / rootCorrection2 + eps));
  }
}
