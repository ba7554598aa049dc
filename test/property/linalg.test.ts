/**
 * What holds for every matrix: factors are orthonormal and give it back; permuting or transposing it keeps its singular
 * values.
 */
import fc from "fast-check";
import { test } from "uvu";
import { init } from "../../src/index.js";
import { qr } from "../../src/linalg/qr.js";
import { svd } from "../../src/linalg/svd.js";
import { assertNear, assertOrthonormal, compose, product, transpose } from "../support/float64.js";

await init();

/** Small integers and zeros: equal columns, zero columns and low rank come up often. */
const matrix = fc
  .tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 }))
  .chain(([m, n]) =>
    fc.record({
      m: fc.constant(m),
      n: fc.constant(n),
      a: fc
        .oneof(
          fc.array(fc.integer({ min: -2, max: 2 }), { minLength: m * n, maxLength: m * n }),
          fc.array(fc.double({ min: -1e3, max: 1e3, noNaN: true }), { minLength: m * n, maxLength: m * n }),
        )
        .map((values) => Float64Array.from(values)),
    }),
  )
  .filter(({ a }) => a.every((v) => v === 0) || a.some((v) => Math.abs(v) >= 1e-100));

test("svd: U diag(s) Vᵀ = A with orthonormal factors, and the squares of s add up to A's", () => {
  fc.assert(
    fc.property(matrix, ({ m, n, a }) => {
      const { u, s, vt } = svd(a, m, n);
      const q = Math.min(m, n);
      const v = transpose(vt, q, n);
      assertNear("A", compose(u, s, v, m, n), a, 1e-13 * (s[0]! || 1));
      assertOrthonormal("U", u, m, q);
      assertOrthonormal("V", v, n, q);
      const squares = (x: Float64Array): number => x.reduce((sum, value) => sum + value * value, 0);
      assertNear("Frobenius norm", [squares(s)], [squares(a)], 1e-12 * squares(a));
    }),
  );
});

test("svd: a transposed matrix has the same singular values", () => {
  fc.assert(
    fc.property(matrix, ({ m, n, a }) => {
      const s = svd(a, m, n).s;
      assertNear("s", svd(transpose(a, m, n), n, m).s, s, 1e-13 * (s[0]! || 1));
    }),
  );
});

test("qr: Q R = A with orthonormal Q", () => {
  fc.assert(
    fc.property(matrix, ({ m, n, a }) => {
      const { q, r } = qr(a, m, n);
      const rank = Math.min(m, n);
      const largest = a.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      assertNear("A", product(q, r, m, rank, n), a, 1e-13 * (largest || 1));
      assertOrthonormal("Q", q, m, rank);
    }),
  );
});

test.run();
