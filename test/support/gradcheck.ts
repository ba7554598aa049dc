/**
 * Checks an op's backward against central differences of its own forward.
 *
 * L = sum_i y_i w_i, added in float64, with fixed random w. The five-point difference
 * dL/dx = (L(x-2h) - 8 L(x-h) + 8 L(x+h) - L(x+2h)) / 12h  (Abramowitz & Stegun 25.3.6)
 * is compared with the gradient that backward(sum(y * w)) gives, for every element of every input
 * that requires a gradient; inputs that do not must stay without one.
 *
 * Tolerance: inputs lie on the grid 2^-10 and h = 2^-6, so x +- 2h are exact. What is left is
 *  - rounding of y: NOISE * 2^-24 * sum |w_i y_i| / h over those y_i that moved (the others cancel to
 *    the bit), NOISE = 8 because sums inside an op round more than once;
 *  - truncation, h^4 / 30 times the fifth derivative, some 1e-8, and the rounding of the analytic
 *    gradient: together below RELATIVE of the input's largest gradient.
 */
import assert from "node:assert/strict";
import { ops, scope, tensor, type Tensor } from "../../src/index.js";
import { noGrad } from "../../src/autograd/tape.js";
import { stream } from "./random.js";

const H = 2 ** -6;
const NOISE = 8;
const RELATIVE = 2e-4;

/** A tensor of multiples of 2^-10 in [-1, 1); |value| >= away. */
export function gridTensor(shape: readonly number[], seed: number, requiresGrad = true, away = 0): Tensor {
  const next = stream(seed);
  const value = (): number => {
    const v = Math.floor(next() * 2048) / 1024 - 1;
    return Math.abs(v) >= away ? v : value();
  };
  const t = tensor(Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, value), shape);
  t.requiresGrad = requiresGrad;
  return t;
}

/** Adds up to 0.1 to every value: as after training, nothing is zero any more. */
export function perturb(...tensors: (Tensor | null)[]): void {
  const next = stream(11);
  for (const t of tensors)
    t?.data.forEach((v, i, all) => {
      all[i] = v + next() / 5 - 0.1;
    });
}

export interface GradcheckOptions {
  /** Elements whose gradient is zero by contract although y depends on them (an embedding's padding row). */
  zero?: (input: string, element: number) => boolean;
}

export interface GradcheckResult {
  /** Largest |analytic - numeric|, and where it is. */
  error: number;
  at: string;
}

/**
 * @param inputs tensors by name, as `op` closes over them
 * @param op must give the same y for the same inputs: one that draws a mask seeds itself first
 * @throws AssertionError that names the worst element if any is beyond its tolerance
 */
export function gradcheck(
  label: string,
  inputs: Record<string, Tensor>,
  op: () => Tensor,
  options: GradcheckOptions = {},
): GradcheckResult {
  return scope(() => {
    const forward = (): Float32Array => noGrad(() => scope(() => op().data.slice()));
    const y = op();
    const next = stream(y.size);
    const weights = Float32Array.from({ length: y.size }, () => next() * 2 - 1);
    ops.sum(ops.mul(y, tensor(weights, y.shape))).backward();

    let worst = { error: 0, at: "", tolerance: 0, ratio: -1 };
    for (const [name, t] of Object.entries(inputs)) {
      if (!t.requiresGrad) {
        assert.equal(t.grad, null, `${label}: ${name} requires no gradient and got one`);
        continue;
      }
      assert(t.grad, `${label}: ${name} got no gradient`);
      const analytic = t.grad.data.slice();
      t.grad.dispose();
      t.grad = null;
      const numeric = new Float64Array(t.size);
      const noise = new Float64Array(t.size);
      for (let i = 0; i < t.size; i++) {
        if (options.zero?.(name, i)) continue;
        const x = t.data[i]!;
        const [y0, y1, y2, y3] = [-2, -1, 1, 2].map((step) => {
          assert.equal(Math.fround(x + step * H), x + step * H, `${label}: ${name}[${i}] = ${x} is not on the grid`);
          t.data[i] = x + step * H;
          return forward();
        }) as [Float32Array, Float32Array, Float32Array, Float32Array];
        t.data[i] = x;
        for (let j = 0; j < weights.length; j++) {
          if (y0[j] === y1[j] && y1[j] === y2[j] && y2[j] === y3[j]) continue;
          numeric[i]! += (weights[j]! * (y0[j]! - 8 * y1[j]! + 8 * y2[j]! - y3[j]!)) / (12 * H);
          noise[i]! += (NOISE * 2 ** -24 * Math.abs(weights[j]! * y1[j]!)) / H;
        }
      }
      const largest = numeric.reduce((m, g) => Math.max(m, Math.abs(g)), 0);
      for (let i = 0; i < t.size; i++) {
        const error = Math.abs(analytic[i]! - numeric[i]!);
        const tolerance = noise[i]! + RELATIVE * largest + 1e-7;
        const ratio = Number.isNaN(error) ? Infinity : error / tolerance;
        if (ratio > worst.ratio) {
          worst = {
            error,
            tolerance,
            ratio,
            at: `${name}[${i}]: backward gives ${analytic[i]}, differences give ${numeric[i]}`,
          };
        }
      }
    }
    assert(worst.ratio <= 1, `${label}: ${worst.at}; off by ${worst.error}, tolerance ${worst.tolerance}`);
    return { error: worst.error, at: worst.at };
  });
}
