/**
 * SGD, one step over n contiguous values (torch.optim.SGD, dampening 0):
 *   g += weightDecay * p;  buf = first ? g : momentum * buf + g;  g = nesterov ? g + momentum * buf : buf;  p -= lr * g
 * p, g: [n]; buf: [n], unused (may be null) when momentum = 0. g is not changed.
 */
export function sgdStep(
  p: usize,
  g: usize,
  buf: usize,
  n: i32,
  lr: f32,
  momentum: f32,
  weightDecay: f32,
  nesterov: bool,
  first: bool,
): void {
  for (let i: usize = 0; i < (<usize>n) << 2; i += 4) {
    const w = load<f32>(p + i);
    let d = load<f32>(g + i);
    if (weightDecay != 0) d += weightDecay * w;
    if (momentum != 0) {
      const b = first ? d : momentum * load<f32>(buf + i) + d;
      store<f32>(buf + i, b);
      d = nesterov ? d + momentum * b : b;
    }
    store<f32>(p + i, w - lr * d);
  }
}
