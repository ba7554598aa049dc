/**
 * exp, log, tanh, erf, sin, cos against float64: the largest error in units in the last place (ulp) over bit patterns
 * of float32 and over an even grid, special values, symmetry and tails. test/slow/ulp.test.ts has more patterns.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { assertSameBits, Operand } from "../../support/kernels.js";
import { loadProbes } from "../../support/probes.js";
import { bitPatterns, CASES, checkUlp, run, ULP_LIMIT } from "../../support/vector_functions.js";

/** A prime: 100,000 patterns of all. */
const STRIDE = 40_009;
const GRID = 20_000;

for (const the of CASES) {
  const { kernel, domain, special, odd = false } = the;
  test(`${kernel}: at most ${ULP_LIMIT} ulp from float64`, async () => checkUlp(await loadProbes(), the, STRIDE, GRID));

  test(`${kernel}: special values`, async () => {
    const y = run(await loadProbes(), kernel, new Float32Array(special.map(([x]) => x)));
    special.forEach(([x, expected], i) =>
      assert.ok(Object.is(y[i], expected), `${kernel}(${x}) = ${y[i]}, expected ${expected}`),
    );
  });

  if (odd) {
    test(`${kernel}: odd, bit for bit`, async () => {
      const probes = await loadProbes();
      const x = bitPatterns([0, domain[1]], STRIDE);
      const mirrored = run(
        probes,
        kernel,
        x.map((v) => -v),
      );
      assertSameBits(
        mirrored,
        run(probes, kernel, x).map((v) => -v),
        x.length,
        () => kernel,
      );
    });
  }

  test(`${kernel}: tails of 0 to 9 values, within bounds, same bits as in a long buffer, in place`, async () => {
    const probes = await loadProbes();
    const { memory, kernels } = probes;
    const long = new Float32Array(12).map((_, i) => 0.37 * i + 0.11);
    const expected = run(probes, kernel, long);
    for (let n = 0; n <= 9; n++) {
      for (const offset of [0, 1]) {
        const label = (): string => `${kernel}, n = ${n}, offset ${offset}`;
        const x = new Operand(memory, 1, n, { offset }).fill(long.subarray(0, n));
        const y = new Operand(memory, 1, n, { offset: 1 - offset });
        const end = new Operand(memory, 1, n, { atEnd: true }).fill(long.subarray(0, n));
        kernels[kernel](y.address, x.address, n);
        assertSameBits(y.read(), expected.subarray(0, n), n, label);
        y.assertGuards(label);
        x.assertUnchanged(label);
        kernels[kernel](end.address, end.address, n);
        assertSameBits(end.read(), expected.subarray(0, n), n, label);
        end.assertGuards(label);
        x.free();
        y.free();
      }
    }
  });
}

test.run();
