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
import { pad, storePadded } from "../math/lanes";
import { logF32x4 } from "../math/log";
import { tanhF32x4 } from "../math/tanh";
import { aside, first, here, last, LINE, part, split } from "../threads";

const SQRT_HALF: f32 = 0.70710678118654752;
const INV_SQRT_2PI: f32 = 0.39894228040143268;
const SQRT_2_OVER_PI: f32 = 0.79788456080286536;
const CUBIC: f32 = 0.044715;

// The functions, four lanes at a time, each a class without values: naming it chooses the function at compile time, and
// `forward` and `backward` below are compiled once for each. `of` is y of x, `gradient` what dx gets for dy.

@unmanaged
class Silu {
  @inline
  of(x: v128): v128 {
    return f32x4.div(x, siluDivisor(x));
  }
  @inline
  gradient(dy: v128, x: v128): v128 {
    const one = f32x4.splat(1);
    const s = f32x4.div(one, siluDivisor(x));
    return f32x4.mul(dy, f32x4.mul(s, madd(one, x, f32x4.sub(one, s))));
  }
}

/** 1 + exp(-x): silu is a quotient by it, so that a large negative x gives -0 and not 0 * Inf. */
// @ts-ignore: decorator
@inline
function siluDivisor(x: v128): v128 {
  return f32x4.add(f32x4.splat(1), expF32x4(f32x4.neg(x)));
}

@unmanaged
class GeluErf {
  @inline
  of(x: v128): v128 {
    return f32x4.mul(x, normalCdf(x));
  }
  @inline
  gradient(dy: v128, x: v128): v128 {
    const density = f32x4.mul(expF32x4(f32x4.mul(f32x4.mul(x, x), f32x4.splat(-0.5))), f32x4.splat(INV_SQRT_2PI));
    return f32x4.mul(dy, madd(normalCdf(x), x, density));
  }
}

/** The normal distribution function. */
// @ts-ignore: decorator
@inline
function normalCdf(x: v128): v128 {
  const half = f32x4.splat(0.5);
  return madd(half, half, erfF32x4(f32x4.mul(x, f32x4.splat(SQRT_HALF))));
}

@unmanaged
class GeluTanh {
  @inline
  of(x: v128): v128 {
    const half = f32x4.splat(0.5);
    return f32x4.mul(x, madd(half, half, geluInner(x)));
  }
  @inline
  gradient(dy: v128, x: v128): v128 {
    const one = f32x4.splat(1),
      half = f32x4.splat(0.5);
    const t = geluInner(x);
    const du = f32x4.mul(f32x4.splat(SQRT_2_OVER_PI), madd(one, f32x4.splat(3 * CUBIC), f32x4.mul(x, x)));
    const dt = f32x4.mul(f32x4.sub(one, f32x4.mul(t, t)), du);
    return f32x4.mul(dy, madd(madd(half, half, t), f32x4.mul(half, x), dt));
  }
}

/** t = tanh(u). */
// @ts-ignore: decorator
@inline
function geluInner(x: v128): v128 {
  const cubic = f32x4.mul(f32x4.mul(f32x4.mul(x, x), x), f32x4.splat(CUBIC));
  return tanhF32x4(f32x4.mul(f32x4.splat(SQRT_2_OVER_PI), f32x4.add(x, cubic)));
}

@unmanaged
class Relu {
  @inline
  of(x: v128): v128 {
    return f32x4.max(x, f32x4.splat(0));
  }
  /** dy where x > 0 or x is NaN, else 0. */
  @inline
  gradient(dy: v128, x: v128): v128 {
    return v128.andnot(dy, f32x4.le(x, f32x4.splat(0)));
  }
}

/** Its gradient takes y for x. */
@unmanaged
class Sigmoid {
  @inline
  of(x: v128): v128 {
    return f32x4.div(f32x4.splat(1), siluDivisor(x));
  }
  @inline
  gradient(dy: v128, y: v128): v128 {
    return f32x4.mul(dy, f32x4.mul(f32x4.sub(f32x4.splat(1), y), y));
  }
}

/** Its gradient takes y for x. */
@unmanaged
class Tanh {
  @inline
  of(x: v128): v128 {
    return tanhF32x4(x);
  }
  @inline
  gradient(dy: v128, y: v128): v128 {
    const one = f32x4.splat(1);
    return f32x4.mul(dy, f32x4.mul(f32x4.sub(one, y), f32x4.add(y, one)));
  }
}

@unmanaged
class Exp {
  @inline
  of(x: v128): v128 {
    return expF32x4(x);
  }
}

@unmanaged
class Log {
  @inline
  of(x: v128): v128 {
    return logF32x4(x);
  }
}

/** What up gets of siluMul, which is linear in it: dy silu(gate). */
@unmanaged
class SiluOfGate {
  @inline
  gradient(dy: v128, gate: v128): v128 {
    return f32x4.mul(dy, changetype<Silu>(0).of(gate));
  }
}

// @ts-ignore: decorator
@inline
function madd(c: v128, a: v128, b: v128): v128 {
  return f32x4.add(c, f32x4.mul(a, b));
}

/** Cycles for a value, about: of those that take an exponential, and of those that do not. */
const LONG: f64 = 4;
const SHORT: f64 = 0.5;

/** y = F(x). */
// @ts-ignore: decorator
@inline
function forward<F>(y: usize, x: usize, n: i32, cost: f64 = LONG): void {
  for (split(n, cost, LINE); part(); ) values<F>(here(y), here(x), last - first);
}

/** dx += F's gradient for dy. */
// @ts-ignore: decorator
@inline
function backward<F>(dx: usize, dy: usize, x: usize, n: i32, cost: f64 = LONG): void {
  for (split(n, cost, LINE); part(); ) gradients<F>(here(dx), here(dy), here(x), last - first);
}

/** y = F(x) by one thread; the tail as `pad` says. */
function values<F>(y: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      // @ts-ignore: F is one of the classes above
      v128.store(y, changetype<F>(0).of(v128.load(x)));
      x += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    pad(y, x, x, x, n);
    values<F>(aside, aside + 16, 4);
    storePadded(y, n);
  }
}

/** dx += F's gradient for dy, by one thread. */
function gradients<F>(dx: usize, dy: usize, x: usize, n: i32): void {
  if (n >= 4)
    do {
      // @ts-ignore: F is one of the classes above
      v128.store(dx, f32x4.add(v128.load(dx), changetype<F>(0).gradient(v128.load(dy), v128.load(x))));
      x += 16;
      dy += 16;
      dx += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    pad(dx, dy, x, x, n);
    gradients<F>(aside, aside + 16, aside + 32, 4);
    storePadded(dx, n);
  }
}

export function siluForward(y: usize, x: usize, n: i32): void {
  forward<Silu>(y, x, n);
}

export function siluBackward(dx: usize, dy: usize, x: usize, n: i32): void {
  backward<Silu>(dx, dy, x, n);
}

export function geluErfForward(y: usize, x: usize, n: i32): void {
  forward<GeluErf>(y, x, n);
}

export function geluErfBackward(dx: usize, dy: usize, x: usize, n: i32): void {
  backward<GeluErf>(dx, dy, x, n);
}

export function geluTanhForward(y: usize, x: usize, n: i32): void {
  forward<GeluTanh>(y, x, n);
}

export function geluTanhBackward(dx: usize, dy: usize, x: usize, n: i32): void {
  backward<GeluTanh>(dx, dy, x, n);
}

export function reluForward(y: usize, x: usize, n: i32): void {
  forward<Relu>(y, x, n, SHORT);
}

export function reluBackward(dx: usize, dy: usize, x: usize, n: i32): void {
  backward<Relu>(dx, dy, x, n, SHORT);
}

export function sigmoidForward(y: usize, x: usize, n: i32): void {
  forward<Sigmoid>(y, x, n);
}

export function sigmoidBackward(dx: usize, dy: usize, y: usize, n: i32): void {
  backward<Sigmoid>(dx, dy, y, n, SHORT);
}

export function tanhForward(y: usize, x: usize, n: i32): void {
  forward<Tanh>(y, x, n);
}

export function tanhBackward(dx: usize, dy: usize, y: usize, n: i32): void {
  backward<Tanh>(dx, dy, y, n, SHORT);
}

/** tanhForward by one thread, for what is within a part. */
export function tanhValues(y: usize, x: usize, n: i32): void {
  values<Tanh>(y, x, n);
}

export function expForward(y: usize, x: usize, n: i32): void {
  forward<Exp>(y, x, n);
}

export function logForward(y: usize, x: usize, n: i32): void {
  forward<Log>(y, x, n);
}

export function siluMulForward(y: usize, gate: usize, up: usize, n: i32): void {
  for (split(n, LONG, LINE); part(); ) siluMulValues(here(y), here(gate), here(up), last - first);
}

function siluMulValues(y: usize, gate: usize, up: usize, n: i32): void {
  if (n >= 4)
    do {
      v128.store(y, f32x4.mul(changetype<Silu>(0).of(v128.load(gate)), v128.load(up)));
      gate += 16;
      up += 16;
      y += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    pad(y, gate, up, up, n);
    siluMulValues(aside, aside + 16, aside + 32, 4);
    storePadded(y, n);
  }
}

export function siluMulBackward(dgate: usize, dup: usize, dy: usize, gate: usize, up: usize, n: i32): void {
  for (split(n, 2 * LONG, LINE); part(); ) {
    if (dup != 0) gradients<SiluOfGate>(here(dup), here(dy), here(gate), last - first);
    if (dgate != 0) gateGradients(here(dgate), here(dy), here(gate), here(up), last - first);
  }
}

/** dgate is silu's backward with dy up for dy. */
function gateGradients(dgate: usize, dy: usize, gate: usize, up: usize, n: i32): void {
  if (n >= 4)
    do {
      const d = changetype<Silu>(0).gradient(f32x4.mul(v128.load(dy), v128.load(up)), v128.load(gate));
      v128.store(dgate, f32x4.add(v128.load(dgate), d));
      dy += 16;
      gate += 16;
      up += 16;
      dgate += 16;
      n -= 4;
    } while (n >= 4);
  if (n > 0) {
    pad(dgate, dy, gate, up, n);
    gateGradients(aside, aside + 16, aside + 32, aside + 48, 4);
    storePadded(dgate, n);
  }
}
