/** What holds for every table that maxNorm limits. */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { init, ops, scope, tensor } from "../../src/index.js";
import { stream } from "../support/random.js";

await init();

test("rows looked up have at most maxNorm, keep their direction, and others keep their bits", () => {
  const cases = fc.record({
    ids: fc.array(fc.integer({ min: 0, max: 8 }), { minLength: 1, maxLength: 12 }),
    dim: fc.integer({ min: 1, max: 9 }),
    seed: fc.nat(),
    maxNorm: fc.double({ min: 0.01, max: 4, noNaN: true }),
    p: fc.constantFrom(0.5, 1, 1.5, 2, 3, 10, Infinity),
  });
  fc.assert(
    fc.property(cases, ({ ids, dim, seed, maxNorm, p }) =>
      scope(() => {
        const next = stream(seed);
        const before = Float32Array.from({ length: 9 * dim }, () => next() * 2 - 1);
        const w = tensor(before, [9, dim]);
        ops.embedding(tensor(Int32Array.from(ids)), w, { maxNorm, normType: p });
        for (let id = 0; id < 9; id++) {
          const row = [...w.data.slice(id * dim, (id + 1) * dim)];
          const old = [...before.slice(id * dim, (id + 1) * dim)];
          const norm = (x: number[]): number =>
            p === Infinity ? Math.max(...x.map(Math.abs)) : x.reduce((sum, v) => sum + Math.abs(v) ** p, 0) ** (1 / p);
          if (!ids.includes(id) || norm(old) < maxNorm * (1 - 1e-6)) {
            assert.deepEqual(row, old);
            continue;
          }
          assert(norm(row) <= maxNorm * (1 + 1e-6), `norm ${norm(row)}`);
          const ratio = norm(row) / norm(old);
          row.forEach((v, i) => assert(Math.abs(v - old[i]! * ratio) <= 1e-6 * Math.abs(old[i]!), `element ${i}`));
        }
      }),
    ),
  );
});

test.run();
