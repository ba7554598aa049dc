/**
 * Cross-entropy over a linear layer's outputs, some rows at a time: the sum crossEntropy(x Wᵀ + bias, targets)
 * without the [n, classes] logits. Where a gradient is wanted, the rows' logits turn into scale times theirs at
 * once: dx += dlogits W; dW += dlogitsᵀ x; dBias += sum of rows of dlogits (Hsu et al. 2024, Liger Kernel).
 *
 * Everything goes by rows or adds rows in ascending order, so the bits are those of loraLinear* (r = 0) and
 * crossEntropy* on all rows, whatever the chunk.
 */
import { LinearCrossEntropy } from "../abi";
import { addRowGradient } from "../nn/loss";
import { logSumExp } from "../nn/softmax";
import { first, last, part, split } from "../threads";
import { linearBackward, linearForward } from "./linear";

export function linearCrossEntropy(call: LinearCrossEntropy): f64 {
  const n = call.n,
    d = call.d,
    classes = call.classes,
    chunk = call.chunk,
    weight = call.weight,
    targets = call.targets,
    losses = call.losses,
    ignoreIndex = call.ignoreIndex,
    format = call.format,
    logits = call.logits,
    scratch = call.scratch,
    scale = call.scale;
  let x = call.x,
    dx = call.dx;
  const wanted = dx != 0 || call.dWeight != 0 || call.dBias != 0;
  const xRow = (<usize>d) << 2,
    row = (<usize>classes) << 2;
  for (let i = 0; i < n; i += chunk) {
    const rows = min(chunk, n - i);
    linearForward(rows, d, classes, x, weight, false, call.bias, logits, scratch, format);
    for (split(rows, (wanted ? 8 : 4) * <f64>classes); part(); )
      for (let j = first; j < last; j++) {
        const z = logits + <usize>j * row,
          target = load<i32>(targets + ((<usize>(i + j)) << 2));
        let loss: f64 = 0;
        if (target != ignoreIndex) {
          const lse = logSumExp(z, classes);
          loss = <f64>(lse - load<f32>(z + ((<usize>target) << 2)));
          if (wanted) addRowGradient(z, 0, z, lse, target, classes, scale);
        } else if (wanted) {
          memory.fill(z, 0, row);
        }
        store<f64>(losses + ((<usize>(i + j)) << 3), loss);
      }
    if (wanted)
      linearBackward(rows, d, classes, x, weight, false, logits, dx, call.dWeight, call.dBias, scratch, format);
    x += <usize>rows * xRow;
    if (dx != 0) dx += <usize>rows * xRow;
  }
  let total: f64 = 0;
  for (let i = 0; i < n; i++) {
    if (load<i32>(targets + ((<usize>i) << 2)) != ignoreIndex) total += load<f64>(losses + ((<usize>i) << 3));
  }
  return total;
}
