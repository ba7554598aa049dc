/**
 * Elements by strides: what broadcasting, transposing, concatenating and narrowing have in common.
 *
 *   stridedCopy   y[i ys + j ys1 + k ys2]  = x[i xs + j xs1 + k xs2]          i < n, j < n1, k < n2
 *   stridedAxpy   y[i ys + j ys1 + k ys2] += alpha * x[i xs + j xs1 + k xs2]
 *
 * The second is the adjoint of the first with y and x changed over: a stride of 0 in x repeats an element
 * (torch.expand), a stride of 0 in y adds up what was repeated. Every element of y has one float32 accumulator;
 * i, then j, then k ascend. Strides count elements. y and x must not overlap.
 */
import { StridedAxpy, StridedCopy } from "../abi";
import { transpose } from "../gemm/pack";
import { addScalar, saxpy } from "./elementwise";

export function stridedCopy(call: StridedCopy): void {
  const ys1 = call.ys1,
    xs1 = call.xs1,
    n2 = call.n2,
    ys2 = call.ys2,
    xs2 = call.xs2;
  let y = call.y,
    x = call.x;
  for (let i = call.n; i > 0; i--, y += bytes(call.ys), x += bytes(call.xs)) {
    if (ys2 == 1 && xs1 == 1 && xs2 > 1) {
      transpose(y, bytes(ys1), x, bytes(xs2), n2, call.n1);
      continue;
    }
    let to = y,
      from = x;
    for (let j = call.n1; j > 0; j--, to += bytes(ys1), from += bytes(xs1)) {
      if (ys2 == 1 && xs2 == 1) memory.copy(to, from, bytes(n2));
      else if (ys2 == 1 && xs2 == 0) fill(to, load<f32>(from), n2);
      else for (let k = 0; k < n2; k++) store<f32>(to + bytes(k * ys2), load<f32>(from + bytes(k * xs2)));
    }
  }
}

export function stridedAxpy(call: StridedAxpy): void {
  const alpha = call.alpha,
    ys1 = call.ys1,
    xs1 = call.xs1,
    n2 = call.n2,
    ys2 = call.ys2,
    xs2 = call.xs2;
  let y = call.y,
    x = call.x;
  for (let i = call.n; i > 0; i--, y += bytes(call.ys), x += bytes(call.xs)) {
    let to = y,
      from = x;
    for (let j = call.n1; j > 0; j--, to += bytes(ys1), from += bytes(xs1)) {
      if (ys2 == 1 && xs2 == 1) saxpy(to, from, n2, alpha);
      else if (ys2 == 1 && xs2 == 0) addScalar(to, n2, alpha * load<f32>(from));
      else
        for (let k = 0; k < n2; k++) {
          const at = to + bytes(k * ys2);
          store<f32>(at, load<f32>(at) + alpha * load<f32>(from + bytes(k * xs2)));
        }
    }
  }
}

function fill(y: usize, value: f32, n: i32): void {
  for (; n >= 4; n -= 4, y += 16) v128.store(y, f32x4.splat(value));
  for (; n > 0; n--, y += 4) store<f32>(y, value);
}

// @ts-ignore: decorator
@inline
function bytes(elements: i32): usize {
  return (<usize>elements) << 2;
}
