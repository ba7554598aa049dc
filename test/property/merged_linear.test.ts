/**
 * What holds for every lora.MergedLinear: linearity in x, reversible merging, and being lora.Linear where it is one
 * block.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import fc from "fast-check";
import { init, lora, manualSeed, ops, scope, tensor, type Tensor } from "../../src/index.js";
import { assertBits } from "../support/golden.js";
import { stream } from "../support/random.js";

await init();

const shapes = fc.record({
  n: fc.integer({ min: 1, max: 9 }),
  d: fc.integer({ min: 1, max: 20 }),
  width: fc.integer({ min: 1, max: 20 }),
  r: fc.integer({ min: 1, max: 6 }),
  enableLora: fc.array(fc.boolean(), { minLength: 1, maxLength: 4 }).filter((e) => e.includes(true)),
  fanInFanOut: fc.boolean(),
  seed: fc.nat(),
});

/** Integers in -3 .. 3: sums of their products are exact in float32. */
function integers(seed: number, ...tensors: Tensor[]): void {
  const next = stream(seed);
  for (const t of tensors)
    t.data.forEach((_, i, all) => {
      all[i] = Math.floor(next() * 7) - 3;
    });
}

function real(seed: number, ...tensors: Tensor[]): void {
  const next = stream(seed);
  for (const t of tensors)
    t.data.forEach((_, i, all) => {
      all[i] = next() * 2 - 1;
    });
}

test("backward is the adjoint of forward: <f(x), dy> = <x, f*(dy)>, exactly on integers", () => {
  fc.assert(
    fc.property(shapes, ({ n, d, width, r, enableLora, fanInFanOut, seed }) =>
      scope(() => {
        const layer = new lora.MergedLinear(d, width * enableLora.length, {
          r,
          loraAlpha: 2 * r,
          enableLora,
          fanInFanOut,
          bias: false,
        });
        const x = tensor(new Float32Array(n * d), [n, d]);
        const dy = tensor(new Float32Array(n * layer.outFeatures), [n, layer.outFeatures]);
        integers(seed, x, dy, layer.weight, layer.loraA!, layer.loraB!);
        x.requiresGrad = true;
        const product = ops.sum(ops.mul(layer.forward(x), dy));
        product.backward();
        let pulled = 0;
        x.data.forEach((v, i) => {
          pulled += v * x.grad!.data[i]!;
        });
        assert.equal(product.item(), pulled);
        layer.dispose();
      }),
    ),
  );
});

test("train() after eval() gives back every bit, and eval() gives the same merged bits again", () => {
  fc.assert(
    fc.property(shapes, ({ d, width, r, enableLora, fanInFanOut, seed }) => {
      const layer = new lora.MergedLinear(d, width * enableLora.length, { r, loraAlpha: 3, enableLora, fanInFanOut });
      real(seed, layer.weight, layer.loraA!, layer.loraB!);
      const original = layer.weight.data.slice();
      const merged = layer.eval().weight.data.slice();
      assertBits("restored", layer.train().weight.data, original);
      assertBits("merged again", layer.eval().weight.data, merged);
      assertBits("saved while merged", layer.stateDict().get("weight")!.data, original);
      layer.dispose();
    }),
  );
});

test("one enabled block is lora.Linear, to the bit: init, y, every gradient, merged weight", () => {
  fc.assert(
    fc.property(shapes, fc.constantFrom(0, 0.4), ({ n, d, width, r, fanInFanOut, seed }, loraDropout) =>
      scope(() => {
        const options = { r, loraAlpha: 3, fanInFanOut, loraDropout };
        const run = (make: () => lora.Linear | lora.MergedLinear): Float32Array[] => {
          manualSeed(seed);
          const layer = make();
          const initial = layer.parameters().map((p) => p.data.slice());
          const x = tensor(new Float32Array(n * d), [n, d]);
          const dy = tensor(new Float32Array(n * width), [n, width]);
          real(seed, x, dy, layer.loraB!);
          x.requiresGrad = true;
          const y = layer.forward(x).keep();
          ops.sum(ops.mul(y, dy)).backward();
          const results = [
            ...initial,
            y.data.slice(),
            ...[x, layer.loraA!, layer.loraB!, layer.bias!].map((t) => t.grad!.data.slice()),
          ];
          results.push(layer.eval().weight.data.slice());
          y.dispose();
          layer.dispose();
          return results;
        };
        const plain = run(() => new lora.Linear(d, width, options));
        for (const [i, got] of run(() => new lora.MergedLinear(d, width, { ...options, enableLora: [true] })).entries())
          assertBits(`${i}`, got, plain[i]!);
      }),
    ),
  );
});

test("the outputs of a block without factors are the base layer's bits", () => {
  fc.assert(
    fc.property(shapes, ({ n, d, width, r, enableLora, fanInFanOut, seed }) =>
      scope(() => {
        const k = width * enableLora.length;
        const layer = new lora.MergedLinear(d, k, { r, enableLora, fanInFanOut });
        const x = tensor(new Float32Array(n * d), [n, d]);
        real(seed, x, layer.loraB!);
        const y = layer.forward(x).data.slice();
        const base = ops.linear(x, layer.weight, layer.bias, [], fanInFanOut).data;
        for (let i = 0; i < n * k; i++)
          if (!enableLora[Math.floor((i % k) / width)]) assert(Object.is(y[i], base[i]), `y[${i}]`);
        layer.dispose();
      }),
    ),
  );
});

test.run();
