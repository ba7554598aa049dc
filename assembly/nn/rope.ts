/**
 * Rotary position embedding, Hugging Face's rotate_half convention (Su et al. 2021):
 *   y[j] = x[j] cos - x[j + pairs] sin,  y[j + pairs] = x[j + pairs] cos + x[j] sin,  j < pairs <= dim / 2,
 * with the angle position * frequency rounded to float32 as Hugging Face does. What is behind the pairs passes through.
 * Backward turns the other way: dx += R(-angle) dy.
 */
import { Rope, RopeBackward, RopeForward } from "../abi";
import { sinCosLow } from "../math/sincos";
import { first, last, part, split } from "../threads";

/** Fills cos and sin, [positions, pairs], both times `factor`. */
export function ropeTable(cos: usize, sin: usize, frequencies: usize, positions: i32, pairs: i32, factor: f32): void {
  for (let t = 0; t < positions; t++) {
    for (let j = 0; j < pairs; j++) {
      const both = sinCosLow(f32x4.splat(<f32>t * load<f32>(frequencies + ((<usize>j) << 2))));
      store<f32>(cos, f32x4.extract_lane(both, 2) * factor);
      store<f32>(sin, f32x4.extract_lane(both, 0) * factor);
      cos += 4;
      sin += 4;
    }
  }
}

/** Cycles for a value, about. */
const COST: f64 = 0.7;

export function ropeForward(call: RopeForward): void {
  for (split(call.rows, COST * <f64>(call.heads * call.dim)); part(); ) rotate(call, call.y, call.x, false);
}

export function ropeBackward(call: RopeBackward): void {
  for (split(call.rows, COST * <f64>(call.heads * call.dim)); part(); ) rotate(call, call.dx, call.dy, true);
}

/** to = R x, or to += R(-angle) x, in rows `first` to `last` - 1. */
function rotate(call: Rope, to: usize, x: usize, back: bool): void {
  const half = (<usize>call.pairs) << 2,
    row = (<usize>call.dim) << 2,
    begin = <usize>first * <usize>call.heads * row;
  to += begin;
  x += begin;
  for (let i = first; i < last; i++) {
    const angle = <usize>load<i32>(call.positions + ((<usize>i) << 2)) * half;
    const cos = call.cos + angle,
      sin = call.sin + angle;
    for (let h = 0; h < call.heads; h++) {
      let p: usize = 0;
      if (back) {
        for (; p + 16 <= half; p += 16) {
          const c = v128.load(cos + p),
            s = v128.load(sin + p);
          const d1 = v128.load(x + p),
            d2 = v128.load(x + half + p);
          const t1 = f32x4.add(f32x4.mul(d1, c), f32x4.mul(d2, s));
          const t2 = f32x4.sub(f32x4.mul(d2, c), f32x4.mul(d1, s));
          v128.store(to + p, f32x4.add(v128.load(to + p), t1));
          v128.store(to + half + p, f32x4.add(v128.load(to + half + p), t2));
        }
        for (; p < half; p += 4) {
          const c = load<f32>(cos + p),
            s = load<f32>(sin + p);
          const d1 = load<f32>(x + p),
            d2 = load<f32>(x + half + p);
          store<f32>(to + p, load<f32>(to + p) + (d1 * c + d2 * s));
          store<f32>(to + half + p, load<f32>(to + half + p) + (d2 * c - d1 * s));
        }
        for (p = 2 * half; p < row; p += 4) store<f32>(to + p, load<f32>(to + p) + load<f32>(x + p));
      } else {
        for (; p + 16 <= half; p += 16) {
          const c = v128.load(cos + p),
            s = v128.load(sin + p);
          const x1 = v128.load(x + p),
            x2 = v128.load(x + half + p);
          v128.store(to + p, f32x4.sub(f32x4.mul(x1, c), f32x4.mul(x2, s)));
          v128.store(to + half + p, f32x4.add(f32x4.mul(x2, c), f32x4.mul(x1, s)));
        }
        for (; p < half; p += 4) {
          const c = load<f32>(cos + p),
            s = load<f32>(sin + p);
          const x1 = load<f32>(x + p),
            x2 = load<f32>(x + half + p);
          store<f32>(to + p, x1 * c - x2 * s);
          store<f32>(to + half + p, x2 * c + x1 * s);
        }
        memory.copy(to + 2 * half, x + 2 * half, row - 2 * half);
      }
      x += row;
      to += row;
    }
  }
}
