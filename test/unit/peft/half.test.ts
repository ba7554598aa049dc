/**
 * Adapters on a base of 16-bit weights against the same on its float32 copy: outputs, losses, merged weights and
 * gradients have the same bits, and the base stays as it is stored wherever nobody writes it.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, lora, memoryStats, nn, ops, optim, OutOfMemoryError, peft, scope } from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import type { HalfType } from "../../../src/tensor/dtype.js";
import { assertBits } from "../../support/golden.js";
import { HALVES, halfBits } from "../../support/half.js";
import { batch, outputs, type Tiny, tiny } from "../../support/peft.js";

await init();

const MATRICES = ["embed", "fc", "proj", "head"];

const matrices = (model: nn.Module): nn.Parameter[] =>
  model.parameters().filter((p) => p.rank === 2 && !p.requiresGrad);

/** The model with its matrices stored so, and the same as float32; all frozen. */
function pair(dtype: HalfType): [half: Tiny, wide: Tiny] {
  const [half, wide] = [tiny(), tiny()];
  for (const model of [half, wide]) for (const p of model.parameters()) p.requiresGrad = false;
  const others = matrices(wide);
  for (const [i, p] of matrices(half).entries()) {
    const bits = halfBits(p.size, dtype, i + 1);
    p.materialize(dtype).bytes.set(new Uint8Array(bits.buffer));
    others[i]!.set(p.toFloat32());
  }
  return [half, wide];
}

const stored = (model: nn.Module): string =>
  matrices(model)
    .map((p) => p.dtype)
    .join();

for (const dtype of HALVES) {
  for (const config of [{}, { useDora: true }, { loraDropout: 0.2 }, { useDora: true, loraDropout: 0.2 }]) {
    test(`${dtype}: trained with ${JSON.stringify(config)} it has the losses and factors of float32`, () => {
      const models = pair(dtype);
      const before = stored(models[0]);
      const runs = models.map((model) => {
        const adapted = peft.getLoraModel(model, { r: 2, targetModules: MATRICES, initLoraWeights: false, ...config });
        const optimizer = new optim.AdamW(adapted.parameters(), { lr: 0.05 });
        const losses = [1, 2, 3].map((seed) =>
          scope(() => {
            const y = adapted.model.forward(batch(3, seed));
            const loss = ops.mean(ops.mul(y, y));
            loss.backward();
            optimizer.step();
            optimizer.zeroGrad();
            return loss.item();
          }),
        );
        return { losses, state: adapted.stateDict() };
      });
      assert.deepEqual(runs[0]!.losses, runs[1]!.losses);
      for (const [key, { data }] of runs[1]!.state) assertBits(key, runs[0]!.state.get(key)!.data, data);
      assert.equal(stored(models[0]), before);
      for (const model of models) model.dispose();
    });
  }

  test(`${dtype}: merged it is float32's; unmerged the stored bits and their memory are back`, () => {
    const models = pair(dtype);
    const adapteds = models.map((model) =>
      peft.getLoraModel(model, { r: 2, targetModules: MATRICES, initLoraWeights: false, useDora: true }).eval(),
    );
    const [half, wide] = adapteds as [peft.LoraModel<Tiny>, peft.LoraModel<Tiny>];
    const before = half.model.stateDict();
    const plain = outputs(half.model);
    const plainBase = half.disableAdapter(() => outputs(half.model));
    const live = memoryStats().liveBytes;
    for (const adapted of adapteds) adapted.mergeAdapter();
    assertBits("merged", outputs(half.model), outputs(wide.model));
    assert(
      stored(half.model)
        .split(",")
        .every((d) => d === "float32"),
    );
    for (const [key, { data }] of half.model.stateDict()) assertBits(key, data, before.get(key)!.data);
    half.disableAdapter(() => assertBits("held back", outputs(half.model), plainBase));
    for (const adapted of adapteds) adapted.unmergeAdapter();
    assert(
      stored(half.model)
        .split(",")
        .every((d) => d === dtype),
    );
    assert.equal(memoryStats().liveBytes, live);
    assertBits("unmerged", outputs(half.model), plain);
    for (const adapted of adapteds) adapted.mergeAndUnload();
    assertBits("for good", outputs(half.model), outputs(wide.model));
    for (const model of models) model.dispose();
  });

  test(`${dtype}: pissa and olora change the base, so it is float32 as long as the adapter is there`, () => {
    for (const initLoraWeights of ["pissa", "olora"] as const) {
      const models = pair(dtype);
      const plain = outputs(models[0]);
      const adapteds = models.map((model) =>
        peft.getLoraModel(model, { r: 2, targetModules: ["fc", "proj", "head"], initLoraWeights }),
      );
      assertBits("adapted", outputs(models[0]), outputs(models[1]));
      assert.equal(stored(models[0]), `${dtype},float32,float32,float32`);
      adapteds[0]!.deleteAdapter("default");
      assert.equal(stored(models[0]), [dtype, dtype, dtype, dtype].join());
      assertBits("as before", outputs(models[0]), plain);
      for (const model of models) model.dispose();
    }
  });

  test(`${dtype}: a trained copy of a module is float32`, () => {
    const [half, wide] = pair(dtype);
    for (const model of [half, wide])
      peft.getLoraModel(model, { r: 2, targetModules: ["fc"], modulesToSave: ["head", "embed"] });
    assertBits("outputs", outputs(half), outputs(wide));
    for (const p of half.parameters()) if (p.requiresGrad) assert.equal(p.dtype, "float32");
    for (const model of [half, wide]) model.dispose();
  });
}

test("out of memory at any point, the base is as it was stored", () => {
  const { memory } = engine();
  const alloc = memory.alloc.bind(memory);
  /** Runs fn, whose allocation number `at` fails; whether there were so many. */
  const failsAt = (at: number, fn: () => void): boolean => {
    let count = 0;
    memory.alloc = (bytes) => {
      if (count++ === at) throw new OutOfMemoryError(bytes, 0, 0);
      return alloc(bytes);
    };
    try {
      fn();
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
    } finally {
      memory.alloc = alloc;
    }
    return count > at;
  };
  const [half, other] = [pair("bfloat16")[0], pair("bfloat16")[0]];
  const target = { r: 2, targetModules: ["fc", "proj", "head"] };
  const adapted = peft.getLoraModel(half, { ...target, initLoraWeights: false, useDora: true }).eval();
  const actions = [
    () => adapted.mergeAdapter(),
    () => peft.getLoraModel(other, { ...target, initLoraWeights: "olora" }),
  ];
  for (const [i, action] of actions.entries()) {
    const model = i === 0 ? half : other;
    const [live, before, dtypes] = [memoryStats().liveBytes, outputs(model), stored(model)];
    let at = 0;
    for (; failsAt(at, action); at++) {
      assert.deepEqual([memoryStats().liveBytes, stored(model)], [live, dtypes], `action ${i}, allocation ${at}`);
      assertBits(`action ${i}, allocation ${at}`, outputs(model), before);
    }
    assert(at > 5);
  }
  for (const model of [half, other]) model.dispose();
});

test("loralib's layers merge on eval() and give the stored bits back on train()", () => {
  const layer = new lora.Linear(6, 5, { r: 2 });
  const bits = halfBits(30, "bfloat16", 3);
  layer.weight.materialize("bfloat16").bytes.set(new Uint8Array(bits.buffer));
  nn.uniform_(layer.loraB!);
  layer.eval();
  assert.equal(layer.weight.dtype, "float32");
  layer.train();
  assert.equal(layer.weight.dtype, "bfloat16");
  assert.deepEqual(layer.weight.bytes, new Uint8Array(bits.buffer));
  layer.dispose();
});

test.run();
