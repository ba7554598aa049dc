/**
 * Elementwise activations, forward and backward, over n contiguous floats.
 * Reference: torch.nn.functional on CPU, the same formulas.
 *
 *   silu       y = x s,  s = 1 / (1 + exp(-x))           y' = s (1 + x (1 - s))
 *   geluErf    y = x c,  c = (1 + erf(x / sqrt 2)) / 2   y' = c + x exp(-x^2 / 2) / sqrt(2 pi)
 *              torch gelu(approximate='none')
 *   geluTanh   y = x (1 + t) / 2,  t = tanh(u),  u = sqrt(2/pi) (x + 0.044715 x^3)
 *              y' = (1 + t) / 2 + x (1 - t^2) u' / 2,  u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)
 *              torch gelu(approximate='tanh'); Hendrycks & Gimpel 2016
 *   relu       y = max(x, 0)                             y' = x <= 0 ? 0 : 1
 *   siluMul    y = silu(gate) up, the gate of Llama's SwiGLU MLP (Shazeer 2020)
 *   sigmoid    y = 1 / (1 + exp(-x))                     y' = (1 - y) y
 *   tanh                                                 y' = (1 - y) (y + 1)
 *   exp, log                                             mulBackward by y, divBackward by x (elementwise.ts)
 *
 * Forward: y may be x (or gate, or up). Backward accumulates: dx += dy y'(x); it takes the input of
 * forward (sigmoid and tanh: its output), and dx must not overlap dy or x. In siluMulBackward dgate or dup may be 0:
 * then that gradient is skipped.
 */
import { erfF32x4 } from "../math/erf";
import { expF32x4 } from "../math/exp";
import { loadLanes, padded, storeLanes, storePadded } from "../math/lanes";
import { logF32x4 } from "../math/log";
import { tanhF32x4 } from "../math/tanh";

const SQRT_HALF: f32 = 0.70710678118654752;
const INV_SQRT_2PI: f32 = 0.39894228040143268;
const SQRT_2_OVER_PI: f32 = 0.79788456080286536;
const CUBIC: f32 = 0.044715;

// @ts-ignore: decorator
@inline
function madd(c: v128, a: v128, b: v128): v128 {
  return f32x4.add(c, f32x4.mul(a, b));
}

/** 1 + exp(-x): silu is a quotient by it, so that a large negative x gives -0 and not 0 * Inf. */
// @ts-ignore: decorator
@inline
function siluDivisor(x: v128): v128 {
  return f32x4.add(f32x4.splat(1), expF32x4(f32x4.neg(x)));
}

// @ts-ignore: decorator
@inline
function silu(x: v128): v128 {
  return f32x4.div(x, siluDivisor(x));
}

// @ts-ignore: decorator
@inline
function siluSlope(x: v128): v128 {
  const one = f32x4.splat(1);
  const s = f32x4.div(one, siluDivisor(x));
  return f32x4.mul(s, madd(one, x, f32x4.sub(one, s)));
}

// @ts-ignore: decorator
@inline
function sigmoid(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), siluDivisor(x));
}

/** The normal distribution function. */
// @ts-ignore: decorator
@inline
function normalCdf(x: v128): v128 {
  const half = f32x4.splat(0.5);
  return madd(half, half, erfF32x4(f32x4.mul(x, f32x4.splat(SQRT_HALF))));
}

// @ts-ignore: decorator
@inline
function geluErf(x: v128): v128 {
  return f32x4.mul(x, normalCdf(x));
}

// @ts-ignore: decorator
@inline
function geluErfSlope(x: v128): v128 {
  const density = f32x4.mul(expF32x4(f32x4.mul(f32x4.mul(x, x), f32x4.splat(-0.5))), f32x4.splat(INV_SQRT_2PI));
  return madd(normalCdf(x), x, density);
}

/** t = tanh(u). */
// @ts-ignore: decorator
@inline
function geluInner(x: v128): v128 {
  const cubic = f32x4.mul(f32x4.mul(f32x4.mul(x, x), x), f32x4.splat(CUBIC));
  return tanhF32x4(f32x4.mul(f32x4.splat(SQRT_2_OVER_PI), f32x4.add(x, cubic)));
}

// @ts-ignore: decorator
@inline
function geluTanh(x: v128): v128 {
  const half = f32x4.splat(0.5);
  return f32x4.mul(x, madd(half, half, geluInner(x)));
}

// @ts-ignore: decorator
@inline
function geluTanhSlope(x: v128): v128 {
  const one = f32x4.splat(1),
    half = f32x4.splat(0.5);
  const t = geluInner(x);
  const du = f32x4.mul(f32x4.splat(SQRT_2_OVER_PI), madd(one, f32x4.splat(3 * CUBIC), f32x4.mul(x, x)));
  const dt = f32x4.mul(f32x4.sub(one, f32x4.mul(t, t)), du);
  return madd(madd(half, half, t), f32x4.mul(half, x), dt);
}

/** dy where x > 0 or x is NaN, else 0. */
// @ts-ignore: decorator
@inline
function reluGradient(dy: v128, x: v128): v128 {
  return v128.andnot(dy, f32x4.le(x, f32x4.splat(0)));
}

export function siluForward(y: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, silu(v128.load(x)));
      x += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    siluForward(padded(0, y, n), padded(1, x, n), 4);
    storePadded(y, n);
  }
}

export function siluBackward(dx: usize, dy: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(dx, madd(v128.load(dx), v128.load(dy), siluSlope(v128.load(x))));
      x += 16;
      dy += 16;
      dx += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    siluBackward(padded(0, dx, n), padded(1, dy, n), padded(2, x, n), 4);
    storePadded(dx, n);
  }
}

export function geluErfForward(y: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, geluErf(v128.load(x)));
      x += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    geluErfForward(padded(0, y, n), padded(1, x, n), 4);
    storePadded(y, n);
  }
}

export function geluErfBackward(dx: usize, dy: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(dx, madd(v128.load(dx), v128.load(dy), geluErfSlope(v128.load(x))));
      x += 16;
      dy += 16;
      dx += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    geluErfBackward(padded(0, dx, n), padded(1, dy, n), padded(2, x, n), 4);
    storePadded(dx, n);
  }
}

export function geluTanhForward(y: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, geluTanh(v128.load(x)));
      x += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    geluTanhForward(padded(0, y, n), padded(1, x, n), 4);
    storePadded(y, n);
  }
}

export function geluTanhBackward(dx: usize, dy: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(dx, madd(v128.load(dx), v128.load(dy), geluTanhSlope(v128.load(x))));
      x += 16;
      dy += 16;
      dx += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    geluTanhBackward(padded(0, dx, n), padded(1, dy, n), padded(2, x, n), 4);
    storePadded(dx, n);
  }
}

export function reluForward(y: usize, x: usize, n: i32): void {
  const zero = f32x4.splat(0);
  for (; n >= 4; n -= 4) {
    v128.store(y, f32x4.max(v128.load(x), zero));
    x += 16;
    y += 16;
  }
  if (n > 0) storeLanes(y, f32x4.max(loadLanes(x, n, 0), zero), n);
}

export function reluBackward(dx: usize, dy: usize, x: usize, n: i32): void {
  for (; n >= 4; n -= 4) {
    v128.store(dx, f32x4.add(v128.load(dx), reluGradient(v128.load(dy), v128.load(x))));
    x += 16;
    dy += 16;
    dx += 16;
  }
  if (n > 0) {
    reluBackward(padded(0, dx, n), padded(1, dy, n), padded(2, x, n), 4);
    storePadded(dx, n);
  }
}

export function siluMulForward(y: usize, gate: usize, up: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, f32x4.mul(silu(v128.load(gate)), v128.load(up)));
      gate += 16;
      up += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    siluMulForward(padded(0, y, n), padded(1, gate, n), padded(2, up, n), 4);
    storePadded(y, n);
  }
}

export function siluMulBackward(dgate: usize, dup: usize, dy: usize, gate: usize, up: usize, n: i32): void {
  if (dup != 0) upBackward(dup, dy, gate, n);
  if (dgate != 0) gateBackward(dgate, dy, gate, up, n);
}

/** dup is plain silu again, scaled by dy. */
function upBackward(dup: usize, dy: usize, gate: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(dup, madd(v128.load(dup), v128.load(dy), silu(v128.load(gate))));
      dy += 16;
      gate += 16;
      dup += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    upBackward(padded(0, dup, n), padded(1, dy, n), padded(2, gate, n), 4);
    storePadded(dup, n);
  }
}

/** dgate is silu's backward with dy up for dy. */
function gateBackward(dgate: usize, dy: usize, gate: usize, up: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(dgate, madd(v128.load(dgate), f32x4.mul(v128.load(dy), v128.load(up)), siluSlope(v128.load(gate))));
      dy += 16;
      gate += 16;
      up += 16;
      dgate += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    gateBackward(padded(0, dgate, n), padded(1, dy, n), padded(2, gate, n), padded(3, up, n), 4);
    storePadded(dgate, n);
  }
}

export function expForward(y: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, expF32x4(v128.load(x)));
      x += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    expForward(padded(0, y, n), padded(1, x, n), 4);
    storePadded(y, n);
  }
}

export function logForward(y: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, logF32x4(v128.load(x)));
      x += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    logForward(padded(0, y, n), padded(1, x, n), 4);
    storePadded(y, n);
  }
}

export function sigmoidForward(y: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, sigmoid(v128.load(x)));
      x += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    sigmoidForward(padded(0, y, n), padded(1, x, n), 4);
    storePadded(y, n);
  }
}

export function tanhForward(y: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, tanhF32x4(v128.load(x)));
      x += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    tanhForward(padded(0, y, n), padded(1, x, n), 4);
    storePadded(y, n);
  }
}

/** sigmoid's with c = 0, tanh's with c = 1: y' = (1 - y) (y + c). */
export function sigmoidBackward(dx: usize, dy: usize, y: usize, n: i32, c: f32): void {
  const one = f32x4.splat(1),
    shift = f32x4.splat(c);
  for (; n >= 4; n -= 4) {
    const v = v128.load(y),
      slope = f32x4.mul(f32x4.sub(one, v), f32x4.add(v, shift));
    v128.store(dx, madd(v128.load(dx), v128.load(dy), slope));
    y += 16;
    dy += 16;
    dx += 16;
  }
  if (n > 0) {
    sigmoidBackward(padded(0, dx, n), padded(1, dy, n), padded(2, y, n), 4, c);
    storePadded(dx, n);
  }
}
