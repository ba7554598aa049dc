/** Plain float64 matrices for references: sequential loops, nothing of the library's. */
import assert from "node:assert/strict";
import { stream } from "./random.js";

export type Real = ArrayLike<number>;

/** A B for A [m, k], B [k, n]. */
export function product(a: Real, b: Real, m: number, k: number, n: number): Float64Array {
  const c = new Float64Array(m * n);
  for (let i = 0; i < m; i++)
    for (let p = 0; p < k; p++) for (let j = 0; j < n; j++) c[i * n + j]! += a[i * k + p]! * b[p * n + j]!;
  return c;
}

export function transpose(a: Real, rows: number, columns: number): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, i) => a[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** n values in [-1, 1). */
export function uniform(seed: number, n: number): Float64Array {
  const next = stream(seed);
  return Float64Array.from({ length: n }, () => 2 * next() - 1);
}

export function largest(a: Real): number {
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i]!));
  return most;
}

/** |a - b| <= bound everywhere. */
export function assertNear(label: string, a: Real, b: Real, bound: number): void {
  assert.equal(a.length, b.length, `${label}: length`);
  for (let i = 0; i < a.length; i++) {
    assert(
      Math.abs(a[i]! - b[i]!) <= bound,
      `${label}[${i}]: got ${a[i]}, expected ${b[i]}: off by ${Math.abs(a[i]! - b[i]!)}, bound ${bound}`,
    );
  }
}

/** The columns of A [m, n] are orthonormal. */
export function assertOrthonormal(label: string, a: Real, m: number, n: number, bound = 1e-13): void {
  const identity = Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));
  assertNear(label, product(transpose(a, m, n), a, n, m, n), identity, bound);
}

/** [rows, columns] with orthonormal columns, by Gram and Schmidt (twice) on random columns; rows >= columns. */
export function orthonormal(seed: number, rows: number, columns: number): Float64Array {
  const a = uniform(seed, rows * columns);
  for (let j = 0; j < columns; j++) {
    for (let pass = 0; pass < 2; pass++) {
      for (let k = 0; k < j; k++) {
        let dot = 0;
        for (let i = 0; i < rows; i++) dot += a[i * columns + k]! * a[i * columns + j]!;
        for (let i = 0; i < rows; i++) a[i * columns + j]! -= dot * a[i * columns + k]!;
      }
      let squares = 0;
      for (let i = 0; i < rows; i++) squares += a[i * columns + j]! ** 2;
      for (let i = 0; i < rows; i++) a[i * columns + j]! /= Math.sqrt(squares);
    }
  }
  return a;
}

/** U diag(s) Vᵀ for U [m, s.length], V [n, s.length]. */
export function compose(u: Real, s: Real, v: Real, m: number, n: number): Float64Array {
  const q = s.length;
  const scaled = Float64Array.from(u, (value, i) => value * s[i % q]!);
  return product(scaled, transpose(v, n, q), m, q, n);
}
