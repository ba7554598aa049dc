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
import { first, last, LINE, part, split } from "../threads";
import { addToValues, axpyValues } from "./elementwise";

/** Cycles for a value, about. */
const COPY: f64 = 1;
const AXPY: f64 = 1.5;

/** The block in hand: where it begins in y and x, and its sizes; and which dimension was cut for it. */
let y: usize = 0,
  x: usize = 0,
  n: i32 = 0,
  n1: i32 = 0,
  n2: i32 = 0,
  cut: i32 = 0;

/** Begins the blocks: the largest dimension is cut in which elements of y are apart. Where none is, y is one sum. */
function begin(call: StridedCopy, cost: f64): void {
  const count = call.ys == 0 ? 0 : call.n,
    count1 = call.ys1 == 0 ? 0 : call.n1,
    count2 = call.ys2 == 0 ? 0 : call.n2,
    most = max(count, max(count1, count2));
  cut = most == 0 ? 3 : most == count ? 0 : most == count1 ? 1 : 2;
  cost *= <f64>call.n * <f64>call.n1 * <f64>call.n2;
  split(max(most, 1), cost / <f64>max(most, 1), cut == 2 ? LINE : 1);
}

/** The next block. */
function block(call: StridedCopy): bool {
  if (!part()) return false;
  const ys = cut == 0 ? call.ys : cut == 1 ? call.ys1 : call.ys2,
    xs = cut == 0 ? call.xs : cut == 1 ? call.xs1 : call.xs2;
  y = call.y + bytes(first * ys);
  x = call.x + bytes(first * xs);
  n = cut == 0 ? last - first : call.n;
  n1 = cut == 1 ? last - first : call.n1;
  n2 = cut == 2 ? last - first : call.n2;
  return true;
}

export function stridedCopy(call: StridedCopy): void {
  for (begin(call, COPY); block(call); ) copyBlock(call.ys, call.ys1, call.ys2, call.xs, call.xs1, call.xs2);
}

export function stridedAxpy(call: StridedAxpy): void {
  for (begin(call, AXPY); block(call); )
    axpyBlock(call.alpha, call.ys, call.ys1, call.ys2, call.xs, call.xs1, call.xs2);
}

function copyBlock(ys: i32, ys1: i32, ys2: i32, xs: i32, xs1: i32, xs2: i32): void {
  const inner = n2,
    middle = n1;
  let toRow = y,
    fromRow = x;
  for (let i = n; i > 0; i--, toRow += bytes(ys), fromRow += bytes(xs)) {
    if (ys2 == 1 && xs1 == 1 && xs2 > 1) {
      transpose(toRow, bytes(ys1), fromRow, bytes(xs2), inner, middle);
      continue;
    }
    let to = toRow,
      from = fromRow;
    for (let j = middle; j > 0; j--, to += bytes(ys1), from += bytes(xs1)) {
      if (ys2 == 1 && xs2 == 1) memory.copy(to, from, bytes(inner));
      else if (ys2 == 1 && xs2 == 0) fill(to, load<f32>(from), inner);
      else for (let k = 0; k < inner; k++) store<f32>(to + bytes(k * ys2), load<f32>(from + bytes(k * xs2)));
    }
  }
}

function axpyBlock(alpha: f32, ys: i32, ys1: i32, ys2: i32, xs: i32, xs1: i32, xs2: i32): void {
  const inner = n2,
    middle = n1;
  let toRow = y,
    fromRow = x;
  for (let i = n; i > 0; i--, toRow += bytes(ys), fromRow += bytes(xs)) {
    let to = toRow,
      from = fromRow;
    for (let j = middle; j > 0; j--, to += bytes(ys1), from += bytes(xs1)) {
      if (ys2 == 1 && xs2 == 1) axpyValues(to, from, inner, alpha);
      else if (ys2 == 1 && xs2 == 0) addToValues(to, inner, alpha * load<f32>(from));
      else
        for (let k = 0; k < inner; k++) {
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
