/**
 * Rotary position embedding, Hugging Face's rotate_half convention (Su et al. 2021):
 *   y[j] = x[j] cos - x[j + h] sin,  y[j + h] = x[j + h] cos + x[j] sin,  j < h = dim / 2,
 * with the angle position * theta^(-2j / dim) rounded to float32 as Hugging Face does.
 * Backward turns the other way: dx += R(-angle) dy.
 * Time step t has position first + t.
 */
import { RopeBackward, RopeForward } from "../abi";
import { exp64, log64 } from "../math/double";
import { sinCosLow } from "../math/sincos";

/** Fills cos and sin, [positions, half]. */
export function ropeTable(cos: usize, sin: usize, positions: i32, half: i32, theta: f64): void {
  const logTheta = log64(theta);
  for (let j = 0; j < half; j++) {
    const inverse = <f32>1 / <f32>exp64(logTheta * (<f64>j / <f64>half));
    for (let t = 0; t < positions; t++) {
      const both = sinCosLow(f32x4.splat(<f32>t * inverse));
      const p = (<usize>t * <usize>half + <usize>j) << 2;
      store<f32>(cos + p, f32x4.extract_lane(both, 2));
      store<f32>(sin + p, f32x4.extract_lane(both, 0));
    }
  }
}

export function ropeForward(call: RopeForward): void {
  const cos = call.cos,
    sin = call.sin,
    steps = call.steps,
    heads = call.heads;
  let x = call.x,
    y = call.y;
  const halfRow = (<usize>(call.dim >> 1)) << 2;
  for (let i = 0; i < call.batch; i++) {
    let angle = <usize>call.first * halfRow;
    for (let t = 0; t < steps; t++) {
      for (let h = 0; h < heads; h++) {
        for (let p: usize = 0; p < halfRow; p += 4) {
          const c = load<f32>(cos + angle + p),
            s = load<f32>(sin + angle + p);
          const x1 = load<f32>(x + p),
            x2 = load<f32>(x + halfRow + p);
          store<f32>(y + p, x1 * c - x2 * s);
          store<f32>(y + halfRow + p, x2 * c + x1 * s);
        }
        x += halfRow << 1;
        y += halfRow << 1;
      }
      angle += halfRow;
    }
  }
}

export function ropeBackward(call: RopeBackward): void {
  const cos = call.cos,
    sin = call.sin,
    steps = call.steps,
    heads = call.heads;
  let dx = call.dx,
    dy = call.dy;
  const halfRow = (<usize>(call.dim >> 1)) << 2;
  for (let i = 0; i < call.batch; i++) {
    let angle = <usize>call.first * halfRow;
    for (let t = 0; t < steps; t++) {
      for (let h = 0; h < heads; h++) {
        for (let p: usize = 0; p < halfRow; p += 4) {
          const c = load<f32>(cos + angle + p),
            s = load<f32>(sin + angle + p);
          const d1 = load<f32>(dy + p),
            d2 = load<f32>(dy + halfRow + p);
          store<f32>(dx + p, load<f32>(dx + p) + (d1 * c + d2 * s));
          store<f32>(dx + halfRow + p, load<f32>(dx + halfRow + p) + (d2 * c - d1 * s));
        }
        dx += halfRow << 1;
        dy += halfRow << 1;
      }
      angle += halfRow;
    }
  }
}
