/**
 * Adam and AdamW, one step over n contiguous values (Kingma & Ba 2015, Loshchilov & Hutter 2019;
 * torch.optim.Adam / AdamW, amsgrad off):
 *   AdamW: p *= decay (decay = 1 - lr * weightDecay).  Adam: g += l2 * p.
 *   m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
 *   p -= stepSize * m / (sqrt(v) / rootCorrection2 + eps)
 * All elementwise, so lanes and tail have the same bits.
 */
import { AdamStep } from "../abi";
import { first, last, LINE, part, split } from "../threads";

export function adamStep(call: AdamStep): void {
  const p = call.p,
    g = call.g,
    m = call.m,
    v = call.v,
    decay = call.decay,
    l2 = call.l2,
    beta1 = call.beta1,
    rest1 = call.rest1,
    beta2 = call.beta2,
    rest2 = call.rest2,
    stepSize = call.stepSize,
    rootCorrection2 = call.rootCorrection2,
    eps = call.eps;
  for (split(call.n, 12, LINE); part(); )
    for (let i = (<usize>first) << 2, end = (<usize>last) << 2; i < end; i += 4) {
      const w = load<f32>(p + i) * decay;
      const d = load<f32>(g + i) + l2 * w;
      const m1 = beta1 * load<f32>(m + i) + rest1 * d;
      const v1 = beta2 * load<f32>(v + i) + rest2 * (d * d);
      store<f32>(m + i, m1);
      store<f32>(v + i, v1);
      store<f32>(p + i, w - (stepSize * m1) / (sqrt<f32>(v1) / rootCorrection2 + eps));
    }
}
