/** lora.MergedLinear: gradients, the exact start, the plain layer it is without factors, and the memory of a step. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  lora,
  manualSeed,
  memoryStats,
  ops,
  optim,
  scope,
  ShapeError,
  tensor,
  type Tensor,
  zeros,
} from "../../../src/index.js";
import { newMask } from "../../../src/random/seed.js";
import { engine } from "../../../src/runtime/engine.js";
import { assertBits } from "../../support/golden.js";
import { gradcheck, gridTensor as grid } from "../../support/gradcheck.js";
import { type ErrorClass, says } from "../../support/refuses.js";

await init();

for (const fanInFanOut of [false, true]) {
  for (const enableLora of [[true], [true, false, true], [false, true]]) {
    for (const p of [0, 0.3]) {
      for (const trainable of [false, true]) {
        const label =
          `mergedLinear: [${enableLora}], fanInFanOut = ${fanInFanOut}, dropout = ${p}, weight ` +
          `${trainable ? "trainable" : "frozen"}`;
        test(label, () =>
          scope(() => {
            const d = 5;
            const width = 3;
            const k = width * enableLora.length;
            const g = enableLora.filter(Boolean).length;
            const r = 2;
            const x = grid([2, 2, d], 1);
            const weight = grid(fanInFanOut ? [d, k] : [k, d], 2, trainable);
            const bias = grid([k], 3);
            const loraA = grid([g * r, d], 4);
            const loraB = grid([g * width, r], 5);
            const op = (): Tensor => {
              manualSeed(7);
              return ops.mergedLinear(
                x,
                weight,
                bias,
                { loraA, loraB, scaling: 1.5, mask: p ? newMask(p) : null, enableLora },
                fanInFanOut,
              );
            };
            gradcheck(label, { x, weight, bias, loraA, loraB }, op);
            x.requiresGrad = bias.requiresGrad = loraA.requiresGrad = false;
            gradcheck(`${label}, B alone`, { x, bias, loraA, loraB }, op);
          }),
        );
      }
    }
  }
}

test("it starts as its base, to the bit", () =>
  scope(() => {
    const layer = new lora.MergedLinear(7, 12, { r: 2, loraAlpha: 4, enableLora: [true, false, true] });
    const x = grid([4, 7], 1, false);
    const base = ops.linear(x, layer.weight, layer.bias).data.slice();
    assertBits("training", layer.forward(x).data, base);
    assertBits("merged", layer.eval().forward(x).data, base);
    layer.dispose();
  }));

test("without an enabled block, or with r = 0, it is the plain layer and trains", () =>
  scope(() => {
    for (const options of [{ r: 4 }, { r: 4, enableLora: [false, false] }, { enableLora: [true, true] }]) {
      const layer = new lora.MergedLinear(5, 6, options);
      const x = grid([3, 5], 1, false);
      assert.equal(layer.loraA, null);
      assert(layer.weight.requiresGrad);
      assert.deepEqual([...layer.stateDict().keys()], ["weight", "bias"]);
      const y = layer.forward(x);
      assertBits("y", y.data, ops.linear(x, layer.weight, layer.bias).data);
      ops.sum(y).backward();
      assert(layer.weight.grad !== null);
      layer.eval();
      assert(!layer.merged);
      layer.dispose();
    }
  }));

test("dropout acts on the branch, and only in training", () =>
  scope(() => {
    const layer = new lora.MergedLinear(32, 8, {
      r: 2,
      loraDropout: 0.5,
      enableLora: [false, true],
      mergeWeights: false,
    });
    layer.loraB!.data.fill(0.25);
    const x = grid([4, 32], 1, false);
    const first = layer.forward(x).data.slice();
    const second = layer.forward(x).data.slice();
    const base = ops.linear(x, layer.weight, layer.bias).data;
    first.forEach((v, i) => assert.equal(v === second[i], i % 8 < 4, `y[${i}]`));
    first.forEach((v, i) => assert.equal(v === base[i], i % 8 < 4, `y[${i}]`));
    layer.eval();
    assertBits("evaluation", layer.forward(x).data, layer.forward(x).data.slice());
    layer.dispose();
  }));

test("a training step takes less memory than one dense update would", () => {
  const d = 512;
  const layer = new lora.MergedLinear(d, 3 * d, {
    r: 8,
    loraAlpha: 16,
    enableLora: [true, false, true],
    fanInFanOut: true,
  });
  lora.markOnlyLoraAsTrainable(layer);
  const optimizer = new optim.SGD(
    layer.parameters().filter((p) => p.requiresGrad),
    { lr: 1e-3, momentum: 0.9 },
  );
  const before = memoryStats().liveBytes;
  engine().memory.resetPeak();
  for (let step = 0; step < 2; step++) {
    scope(() => {
      const x = grid([32, d], step);
      ops.sum(layer.forward(x)).backward();
      optimizer.step();
      optimizer.zeroGrad();
    });
  }
  const dense = 3 * d * d * 4;
  const used = memoryStats().peakBytes - before;
  assert(used < dense, `${used} bytes; a dense update has ${dense}`);
  optimizer.dispose();
  layer.dispose();
});

function refuses(error: ErrorClass, words: string[], fn: () => unknown): void {
  const before = memoryStats().liveBytes;
  assert.throws(fn, says(error, ...words));
  assert.equal(memoryStats().liveBytes, before, "memory leaked");
}

test("refusals name the argument", () => {
  refuses(
    ArgumentError,
    ["lora.MergedLinear", "outFeatures", "3", "8"],
    () => new lora.MergedLinear(4, 8, { r: 2, enableLora: [true, false, true] }),
  );
  refuses(ArgumentError, ["enableLora", "[]"], () => new lora.MergedLinear(4, 8, { r: 2, enableLora: [] }));
  refuses(
    ArgumentError,
    ["enableLora", "[1]"],
    () => new lora.MergedLinear(4, 8, { r: 2, enableLora: [1 as unknown as boolean] }),
  );
  refuses(
    ArgumentError,
    ["lora.MergedLinear", "loraDropout", "2"],
    () => new lora.MergedLinear(4, 8, { r: 2, loraDropout: 2 }),
  );
  refuses(ArgumentError, ["inFeatures", "0"], () => new lora.MergedLinear(0, 8));
  const layer = new lora.MergedLinear(4, 6, { r: 2, enableLora: [true, false] });
  refuses(ShapeError, ["lora.MergedLinear.forward", "x", "[2,3]", "inFeatures = 4"], () =>
    scope(() => layer.forward(zeros([2, 3]))),
  );
  const factors = { loraA: layer.loraA!, loraB: layer.loraB!, scaling: 1, mask: null };
  const op = (changes: object) => () =>
    scope(() =>
      ops.mergedLinear(zeros([2, 4]), layer.weight, null, { ...factors, enableLora: [true, false], ...changes }),
    );
  refuses(ArgumentError, ["mergedLinear", "enableLora", "[false]"], op({ enableLora: [false] }));
  refuses(ShapeError, ["outFeatures = 6", "4"], op({ enableLora: [true, false, true, false] }));
  refuses(ShapeError, ["loraB", "[3,2]", "[6, 1]"], op({ enableLora: [true, true] }));
  refuses(ShapeError, ["loraA", "[2,4]", "3 enabled"], op({ enableLora: [true, true, true] }));
  refuses(ArgumentError, ["scaling", "NaN"], op({ scaling: NaN }));
  refuses(ShapeError, ["loraA", "[2,3]", "[*, 4]"], () =>
    scope(() =>
      ops.mergedLinear(zeros([2, 4]), layer.weight, null, {
        ...factors,
        loraA: tensor([
          [1, 2, 3],
          [4, 5, 6],
        ]),
        enableLora: [true, false],
      }),
    ),
  );
  layer.dispose();
});

test.run();
