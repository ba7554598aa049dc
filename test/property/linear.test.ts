/** What holds for a linear op with any branches, and for lora.Linear and lora.Embedding of any size. */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { init, lora, ops, scope, tensor, type Tensor } from "../../src/index.js";
import { assertBits } from "../support/golden.js";
import { stream } from "../support/random.js";

await init();

const branch = fc.record({
  r: fc.integer({ min: 1, max: 6 }),
  cuts: fc.tuple(fc.nat(9), fc.nat(9)),
  whole: fc.boolean(),
});
const shapes = fc.record({
  items: fc.integer({ min: 1, max: 9 }),
  steps: fc.integer({ min: 1, max: 4 }),
  d: fc.integer({ min: 1, max: 20 }),
  k: fc.integer({ min: 1, max: 36 }),
  branches: fc.array(branch, { maxLength: 3 }),
  fanInFanOut: fc.boolean(),
  seed: fc.nat(),
});

/** Integers in -2 .. 2: sums of their products are exact in float32. */
function integers(shape: readonly number[], next: () => number): Tensor {
  return tensor(
    Float32Array.from({ length: shape.reduce((n, s) => n * s, 1) }, () => Math.floor(next() * 5) - 2),
    shape,
  );
}

test("backward of linear in x is the adjoint of forward: <f(x), dy> = <x, f*(dy)>, exactly on integers", () => {
  fc.assert(
    fc.property(shapes, ({ items, steps, d, k, branches, fanInFanOut, seed }) =>
      scope(() => {
        const next = stream(seed);
        const x = integers([items, steps, d], next);
        const dy = integers([items, steps, k], next);
        const weight = integers(fanInFanOut ? [d, k] : [k, d], next);
        const terms = branches.map(({ r, cuts, whole }) => {
          const [from, to] = cuts.map((c) => Math.min(c, items)).sort((a, b) => a - b);
          return {
            loraA: integers([r, d], next),
            loraB: integers([k, r], next),
            scaling: 2,
            mask: null,
            ...(whole ? {} : { from, to }),
          };
        });
        x.requiresGrad = true;
        const product = ops.sum(ops.mul(ops.linear(x, weight, null, terms, fanInFanOut), dy));
        product.backward();
        assert.equal(
          product.item(),
          x.data.reduce((sum, v, i) => sum + v * x.grad!.data[i]!, 0),
        );
      }),
    ),
    { numRuns: 300 },
  );
});

test("an item has the same bits with its branches alone and among others", () => {
  fc.assert(
    fc.property(shapes, ({ items, steps, d, k, branches, fanInFanOut, seed }) =>
      scope(() => {
        const next = stream(seed);
        const real = (shape: number[]): Tensor =>
          tensor(
            Float32Array.from({ length: shape.reduce((n, s) => n * s, 1) }, () => next() * 2 - 1),
            shape,
          );
        const x = real([items, steps, d]);
        const weight = real(fanInFanOut ? [d, k] : [k, d]);
        const bias = real([k]);
        const terms = branches.map(({ r, cuts }) => {
          const [from, to] = cuts.map((c) => Math.min(c, items)).sort((a, b) => a - b) as [number, number];
          return { loraA: real([r, d]), loraB: real([k, r]), scaling: 0.7, mask: null, from, to };
        });
        const y = ops.linear(x, weight, bias, terms, fanInFanOut).data.slice();
        for (let i = 0; i < items; i++) {
          const one = tensor(x.data.slice(i * steps * d, (i + 1) * steps * d), [1, steps, d]);
          const own = terms.filter(({ from, to }) => from <= i && i < to).map(({ from: _, to: __, ...term }) => term);
          assertBits(
            `item ${i}`,
            ops.linear(one, weight, bias, own, fanInFanOut).data,
            y.slice(i * steps * k, (i + 1) * steps * k),
          );
        }
      }),
    ),
  );
});

const layers = fc.record({
  d: fc.integer({ min: 1, max: 40 }),
  k: fc.integer({ min: 1, max: 40 }),
  r: fc.integer({ min: 1, max: 6 }),
  make: fc.constantFrom("linear", "fanInFanOut", "embedding"),
  loraAlpha: fc.float({ min: -8, max: 8, noNaN: true }),
  seed: fc.nat(),
});

test("train() after eval() gives back every bit; a state dict never holds merged weights", () => {
  fc.assert(
    fc.property(layers, ({ d, k, r, make, loraAlpha, seed }) => {
      const layer =
        make === "embedding"
          ? new lora.Embedding(d, k, { r, loraAlpha })
          : new lora.Linear(d, k, { r, loraAlpha, fanInFanOut: make !== "linear" });
      const next = stream(seed);
      for (const p of layer.parameters())
        p.data.forEach((_, i, all) => {
          all[i] = next() * 2 - 1;
        });
      const original = layer.weight.data.slice();
      const merged = layer.eval().weight.data.slice();
      assertBits("saved while merged", layer.stateDict().get("weight")!.data, original);
      assertBits("restored", layer.train().weight.data, original);
      assertBits("merged again", layer.eval().weight.data, merged);
      layer.dispose();
    }),
  );
});

test.run();
