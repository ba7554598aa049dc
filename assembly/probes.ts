/**
 * What only tests call, in a module of its own that the package does not hold: parts of kernels, compiled bare from the
 * same source. The vector functions of math/, over n floats, are compared with float64, log64 too, and the Mersenne
 * Twister's words with published ones. y, x: [n] contiguous floats; y may be x.
 */
import { log64 } from "./math/double";
import { erfF32x4 } from "./math/erf";
import { expF32x4 } from "./math/exp";
import { loadLanes, storeLanes } from "./math/lanes";
import { logF32x4 } from "./math/log";
import { sinCosHigh, sinCosLow } from "./math/sincos";
import { tanhF32x4 } from "./math/tanh";
import { mtNext, mtSeed, mtStateBytes } from "./random/mt19937";

export { log64, mtSeed, mtStateBytes };

/** First address that the module's own data does not use. */
export function heapBase(): usize {
  return __heap_base;
}

export function exp(y: usize, x: usize, n: i32): void {
  map(y, x, n, (v) => expF32x4(v));
}
export function log(y: usize, x: usize, n: i32): void {
  map(y, x, n, (v) => logF32x4(v));
}
export function tanh(y: usize, x: usize, n: i32): void {
  map(y, x, n, (v) => tanhF32x4(v));
}
export function erf(y: usize, x: usize, n: i32): void {
  map(y, x, n, (v) => erfF32x4(v));
}
export function sin(y: usize, x: usize, n: i32): void {
  map(y, x, n, (v) => v128.shuffle<f32>(sinCosLow(v), sinCosHigh(v), 0, 1, 4, 5));
}
export function cos(y: usize, x: usize, n: i32): void {
  map(y, x, n, (v) => v128.shuffle<f32>(sinCosLow(v), sinCosHigh(v), 2, 3, 6, 7));
}

/** n words of the stream, as u32. */
export function mtFill(out: usize, state: usize, n: i32): void {
  for (; n > 0; n--, out += 4) store<u32>(out, mtNext(state));
}

function map(y: usize, x: usize, n: i32, f: (v: v128) => v128): void {
  for (; n >= 4; n -= 4) {
    v128.store(y, f(v128.load(x)));
    x += 16;
    y += 16;
  }
  if (n > 0) storeLanes(y, f(loadLanes(x, n, 0)), n);
}
