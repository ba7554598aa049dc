/**
 * Cross-entropy over a linear layer's outputs, some rows at a time: loss = crossEntropy(x Wᵀ + bias, targets)
 * without the [n, classes] logits. Where a gradient is wanted, the rows' logits turn into g times theirs at
 * once: dx += dlogits W; dW += dlogitsᵀ x; dbias += sum of rows of dlogits (Hsu et al. 2024, Liger Kernel).
 *
 * x, dx: [n, d]. W, dW: [classes, d]. bias, dbias: [classes]. targets: [n] i32, in 0 .. classes - 1 or ignoreIndex.
 * logits: room for chunk x classes floats. A null pointer means: no bias; or, for a gradient, not wanted.
 * Everything goes by rows or adds rows in ascending order, so the bits are those of loraLinear* (r = 0) and
 * crossEntropy* on all rows, whatever the chunk.
 * scratch: sgemmScratchBytes().
 */
import { loraLinearBackward, loraLinearForward } from "../lora/linear";
import { addRowGradient, countTargets } from "./loss";
import { logSumExp } from "./softmax";

export function linearCrossEntropy(
  n: i32,
  d: i32,
  classes: i32,
  chunk: i32,
  x: usize,
  w: usize,
  bias: usize,
  targets: usize,
  ignoreIndex: i32,
  g: f32,
  logits: usize,
  dx: usize,
  dw: usize,
  dbias: usize,
  scratch: usize,
): f32 {
  const count = countTargets(targets, n, ignoreIndex),
    scale = g / <f32>count;
  const wanted = dx != 0 || dw != 0 || dbias != 0;
  const xRow = (<usize>d) << 2,
    row = (<usize>classes) << 2;
  let total: f64 = 0;
  for (let i = 0; i < n; i += chunk) {
    const rows = min(chunk, n - i);
    loraLinearForward(rows, d, classes, 0, 0, x, x, w, false, bias, 0, 0, 0, logits, scratch);
    let z = logits;
    for (let j = 0; j < rows; j++) {
      const target = load<i32>(targets);
      if (target != ignoreIndex) {
        const lse = logSumExp(z, classes);
        total += <f64>(lse - load<f32>(z + ((<usize>target) << 2)));
        if (wanted) addRowGradient(z, 0, z, lse, target, classes, scale);
      } else if (wanted) {
        memory.fill(z, 0, row);
      }
      targets += 4;
      z += row;
    }
    if (wanted)
      loraLinearBackward(rows, d, classes, 0, 0, x, x, w, false, 0, 0, 0, 0, logits, dx, 0, dw, dbias, 0, 0, scratch);
    x += <usize>rows * xRow;
    if (dx != 0) dx += <usize>rows * xRow;
  }
  return <f32>(total / <f64>count);
}
