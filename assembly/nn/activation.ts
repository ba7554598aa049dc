import { expF32x4 } from "../math/exp";
import { loadLanes, storeLanes } from "../math/lanes";
// @ts-ignore: decorator
@inline
function sigmoid(x: v128): v128 { return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), expF32x4(f32x4.neg(x)))); }
export function siluForward(y: usize, x: usize, n: i32): void {
  for (; n > 0; n -= 4) { const c = min(n, 4); const v = loadLanes(x, c, 0); storeLanes(y, f32x4.mul(v, sigmoid(v)), c); x += 16; y += 16; }
}
export function siluMulForward(y: usize, gate: usize, up: usize, n: i32): void {
  for (; n >= 4; n -= 4) { const v = v128.load(gate); v128.store(y, f32x4.mul(f32x4.mul(v, sigmoid(v)), v128.load(up))); gate += 16; up += 16; y += 16; }
}
export function siluMulBackward(dgate: usize, dup: usize, dy: usize, gate: usize, up: usize, n: i32): void {
  for (; n >= 4; n -= 4) {
    const v = v128.load(gate), s = sigmoid(v), d = v128.load(dy), one = f32x4.splat(1);
    const ds = f32x4.mul(s, f32x4.add(one, f32x4.mul(v, f32x4.sub(one, s))));
    v128.store(dgate, f32x4.add(v128.load(dgate), f32x4.mul(f32x4.mul(d, v128.load(up)), ds)));
    v128.store(dup, f32x4.add(v128.load(dup), f32x4.mul(d, f32x4.mul(v, s))));
    gate += 16; up += 16; dy += 16; dgate += 16; dup += 16;
  }
}
export function siluBackward(dx: usize, dy: usize, x: usize, n: i32): void {}
export function geluErfForward(y: usize, x: usize, n: i32): void {}
export function geluErfBackward(dx: usize, dy: usize, x: usize, n: i32): void {}
export function geluTanhForward(y: usize, x: usize, n: i32): void {}
export function geluTanhBackward(dx: usize, dy: usize, x: usize, n: i32): void {}
export function reluForward(y: usize, x: usize, n: i32): void {}
export function reluBackward(dx: usize, dy: usize, x: usize, n: i32): void {}
