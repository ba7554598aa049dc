/**
 * SGD, one step over n contiguous values (torch.optim.SGD, dampening 0):
 *   g += weightDecay * p;  buf = first ? g : momentum * buf + g;  g = nesterov ? g + momentum * buf : buf;  p -= lr * g
 */
import { SgdStep } from "../abi";
import { first, last, LINE, part, split } from "../threads";

export function sgdStep(call: SgdStep): void {
  const p = call.p,
    g = call.g,
    buf = call.buf,
    lr = call.lr,
    momentum = call.momentum,
    weightDecay = call.weightDecay,
    nesterov = call.nesterov,
    isFirst = call.first;
  for (split(call.n, 3, LINE); part(); )
    for (let i = (<usize>first) << 2, end = (<usize>last) << 2; i < end; i += 4) {
      const w = load<f32>(p + i);
      let d = load<f32>(g + i);
      if (weightDecay != 0) d += weightDecay * w;
      if (momentum != 0) {
        const b = isFirst ? d : momentum * load<f32>(buf + i) + d;
        store<f32>(buf + i, b);
        d = nesterov ? d + momentum * b : b;
      }
      store<f32>(p + i, w - lr * d);
    }
}
