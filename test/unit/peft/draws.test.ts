/** getLoraModel after manualSeed: PEFT's draws, layer by layer in the order of the model's modules. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, manualSeed, nn, peft } from "../../../src/index.js";
import { assertBits, readGolden } from "../../support/golden.js";
import { type Tiny, assertValues, layersOf, tiny, values } from "../../support/peft.js";

await init();

/** torch.rand after manual_seed(42). */
const rand = readGolden("random_42").tensors.get("rand_1000")!.data as Float32Array;

/** What torch's uniform_(-1 / sqrt(fanIn), ...) makes of its draws from `from` on. */
function uniform(from: number, n: number, fanIn: number): Float32Array {
  const bound = 1 / Math.sqrt(fanIn);
  const low = Math.fround(-bound);
  const range = Math.fround(Math.fround(bound) - low);
  return Float32Array.from({ length: n }, (_, i) => rand[from + i]! * range + low);
}

test("linear layers and convolutions: A and B are constructed, then A is drawn again", () => {
  const model = tiny();
  manualSeed(42);
  // DoRA and modulesToSave draw nothing; neither does the order of the names matter.
  const adapted = peft.getLoraModel(model, {
    r: 2,
    targetModules: ["head", "conv", "proj", "fc"],
    useDora: true,
    modulesToSave: ["norm"],
  });
  let from = 0;
  for (const [path, fanIn] of [
    ["body.fc", 6],
    ["body.proj", 8],
    ["conv", 24],
    ["head", 24],
  ] as const) {
    const { loraA, loraB } = layersOf(adapted)
      .find((l) => l.path === path)!
      .layer.adapters.get("default")!;
    from += loraA.size + loraB.size;
    assertBits(`${path} A`, loraA.data, uniform(from, loraA.size, fanIn));
    assert(
      loraB.data.every((v) => v === 0),
      path,
    );
    from += loraA.size;
  }
  adapted.addAdapter("second", { r: 3, targetModules: ["fc"], initLoraWeights: false });
  const { loraA, loraB } = layersOf(adapted, "second")[0]!.layer.adapters.get("second")!;
  assertBits("second A", loraA.data, uniform(from, 18, 6));
  assertBits("second B", loraB.data, uniform(from + 18, 24, 3));
  adapted.dispose();
});

test("the same seed gives the same adapters, for every init", () => {
  for (const initLoraWeights of [true, false, "gaussian", "orthogonal", "pissa", "pissa_niter_2", "olora"] as const) {
    const [first, second] = [1, 2].map(() => {
      const model = tiny();
      manualSeed(5);
      return peft.getLoraModel(model, { r: 2, targetModules: ["embed", "fc", "proj"], initLoraWeights });
    }) as [peft.LoraModel<Tiny>, peft.LoraModel<Tiny>];
    assertValues(String(initLoraWeights), second, values(first));
    for (const m of [first, second]) m.dispose();
  }
});

test("what is refused draws nothing", () => {
  const draw = (): Float32Array => {
    const layer = new nn.Linear(3, 2);
    const data = layer.weight.data.slice();
    layer.dispose();
    return data;
  };
  manualSeed(42);
  const expected = draw();
  const model = tiny();
  manualSeed(42);
  assert.throws(() => peft.getLoraModel(model, { targetModules: ["fc", "norm"] }));
  assert.throws(() => peft.getLoraModel(model, { targetModules: ["fc"], modulesToSave: ["nope"] }));
  assertBits("next", draw(), expected);
  model.dispose();
});

test.run();
