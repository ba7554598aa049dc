/** A bias on loraB (PEFT's lora_bias): y = W x + b + s (B A x + b'). */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, manualSeed, memoryStats, nn, ops, peft, scope, tensor } from "../../../src/index.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { ALL, assertValues, batch, layersOf, outputs, tiny, train, values } from "../../support/peft.js";
import { refuses } from "../../support/refuses.js";

await init();
const LAYERS = ["fc", "proj", "conv", "head"];

test("it starts as 0 and is scaled as the product is; false draws it below 1 / sqrt(r)", () => {
  const model = tiny();
  const before = outputs(model);
  const adapted = peft.getLoraModel(model, { r: 2, loraAlpha: 6, targetModules: LAYERS, loraBias: true });
  assertBits("at first", outputs(model), before);
  const { layer } = layersOf(adapted).find(({ path }) => path === "head")!;
  const { loraBias } = layer.adapters.get("default")!;
  assert.deepEqual(loraBias!.shape, [5]);
  loraBias!.data.fill(0.5);
  assertClose(
    "s times the bias",
    outputs(model),
    before.map((v) => v + 1.5),
  );
  adapted.dispose();
  const drawn = peft.getLoraModel(tiny(), { r: 4, targetModules: LAYERS, loraBias: true, initLoraWeights: false });
  for (const { path, layer } of layersOf(drawn)) {
    const bias = layer.adapters.get("default")!.loraBias!.data;
    assert.ok(
      bias.every((v) => v !== 0 && Math.abs(v) < 0.5),
      path,
    );
  }
  drawn.dispose();
});

test("it trains: its gradient is s times the sum over the rows", () => {
  manualSeed(2);
  class Net extends nn.Module {
    readonly fc = new nn.Linear(3, 2);
  }
  const model = new Net();
  peft.getLoraModel(model, { r: 1, loraAlpha: 3, targetModules: ["fc"], loraBias: true });
  const { loraBias } = (model.fc as unknown as peft.LoraLinear).adapters.get("default")!;
  scope(() =>
    ops
      .sum(
        ops.mul(
          model.fc.forward(
            tensor([
              [1, 2, 3],
              [4, 5, 6],
            ]),
          ),
          tensor([
            [1, 2],
            [3, 5],
          ]),
        ),
      )
      .backward(),
  );
  assert.deepEqual([...loraBias!.grad!.data], [12, 21]);
  assert.equal((model.fc as unknown as peft.LoraLinear).baseLayer.bias!.requiresGrad, false);
  model.dispose();
});

test("merged it is in the base layer's bias, and taken back to the bit", () => {
  const model = tiny();
  const live = memoryStats().liveBytes;
  const base = outputs(model);
  const plain = values(model);
  manualSeed(8);
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: LAYERS, loraBias: true });
  train(adapted, "default", 3);
  const state = new Map([...adapted.stateDict()].map(([key, { data }]) => [key, (data as Float32Array).slice()]));
  const y = outputs(model);
  adapted.mergeAdapter();
  assertClose("merged", outputs(model), y, 2e-6);
  assertBits(
    "disabled while merged",
    adapted.disableAdapter(() => outputs(model)),
    base,
  );
  for (const [key, { data }] of adapted.stateDict()) assertBits(key, data as Float32Array, state.get(key)!);
  adapted.unmergeAdapter();
  assertBits("unmerged", outputs(model), y);
  adapted.unload();
  assertValues("unloaded", model, plain);
  assert.equal(memoryStats().liveBytes, live);
  manualSeed(8);
  const merged = peft.getLoraModel(model, { r: 2, targetModules: LAYERS, loraBias: true });
  train(merged, "default", 3);
  assertClose("for good", outputs(merged.mergeAndUnload()), y, 2e-6);
  model.dispose();
});

test("a merge that is refused leaves all as it was", () => {
  class Net extends nn.Module {
    readonly first = new nn.Linear(3, 3);
    readonly last = new nn.Linear(3, 2, { bias: false });
  }
  const model = new Net();
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["first", "last"], loraBias: true });
  train(adapted, "default", 4);
  const before = values(model);
  assert.throws(
    () => adapted.mergeAdapter(),
    (e: Error) => e instanceof ArgumentError && e.message.includes("last") && e.message.includes("loraBias"),
  );
  assertValues("no bias to take it", model, before);
  adapted.deleteAdapter("default");
  adapted.addAdapter("other", { r: 2, targetModules: ["first"], loraBias: true });
  const { loraBias } = (model.first as unknown as peft.LoraLinear).adapters.get("other")!;
  loraBias!.data[1] = NaN;
  const odd = values(model);
  assert.throws(
    () => adapted.mergeAdapter(undefined, { safeMerge: true }),
    (e: Error) => e instanceof ArgumentError && e.message.includes("merged bias"),
  );
  assertValues("not finite", model, odd);
  model.dispose();
});

test("beside DoRA the terms come in PEFT's order: its gain acts on what is before it", () => {
  class Net extends nn.Module {
    readonly fc = new nn.Linear(4, 3);
  }
  manualSeed(7);
  const model = new Net();
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["fc"], loraBias: true }, "biased");
  adapted.addAdapter("directed", { r: 2, targetModules: ["fc"], useDora: true });
  for (const name of ["biased", "directed"]) train(adapted, name, 5);
  const layer = model.fc as unknown as peft.LoraLinear;
  const { adapters, baseLayer } = layer;
  const [biased, directed] = [adapters.get("biased")!, adapters.get("directed")!];
  const x = [0.3, -0.7, 1.1, 0.2];
  const product = ({ loraA, loraB, scaling }: peft.Adapter, row: number, by: (j: number) => number): number =>
    [0, 1].reduce(
      (sum, r) =>
        sum +
        scaling * loraB.data[row * 2 + r]! * [0, 1, 2, 3].reduce((all, j) => all + loraA.data[r * 4 + j]! * by(j), 0),
      0,
    );
  const expected = (names: string[]): number[] =>
    [0, 1, 2].map((row) => {
      const w = [...baseLayer.weight.data.subarray(row * 4, row * 4 + 4)];
      const norm = Math.sqrt(
        w.reduce((sum, v, j) => sum + (v + product(directed, row, (k) => (k === j ? 1 : 0))) ** 2, 0),
      );
      const gain = directed.magnitude!.data[row]! / norm;
      let y = w.reduce((sum, v, j) => sum + v * x[j]!, 0);
      for (const name of names) {
        if (name === "biased") y += product(biased, row, (j) => x[j]!) + biased.scaling * biased.loraBias!.data[row]!;
        else y = gain * (y + product(directed, row, (j) => x[j]!));
      }
      return y + baseLayer.bias!.data[row]!;
    });
  for (const names of [
    ["biased", "directed"],
    ["directed", "biased"],
  ]) {
    adapted.setAdapter(names);
    scope(() => assertClose(names.join(), model.fc.forward(tensor([x])).data, expected(names), 2e-6));
  }
  model.dispose();
});

const model = tiny();
const before = values(model);
const add = (config: Partial<peft.LoraConfig>) => (): unknown =>
  peft.getLoraModel(model, { r: 2, targetModules: ALL, loraBias: true, ...config });
refuses("an embedding", ArgumentError, ["embed", "loraBias"], add({}));
refuses("with DoRA", ArgumentError, ["loraBias", "useDora"], add({ useDora: true }));
refuses("with an init", ArgumentError, ["loraBias", "initLoraWeights"], add({ initLoraWeights: "pissa" }));

test("what was refused left the model as it was; batches and combinations cannot have it", () => {
  assertValues("as it was", model, before);
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["fc"], loraBias: true });
  assert.throws(() => adapted.withAdapterNames(["default"], () => model.forward(batch(1))), /has loraBias/);
  assert.throws(() => adapted.addWeightedAdapter(["default"], [1], "new"), /cannot be combined/);
  adapted.dispose();
});

test.run();
