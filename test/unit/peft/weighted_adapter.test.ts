/** addWeightedAdapter on a model: what the new adapter adds, against float64 sums of the others' products. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  memoryStats,
  nn,
  ops,
  peft,
  ShapeError,
  StateError,
  type Tensor,
} from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { assertNear, product } from "../../support/float64.js";
import {
  ALL,
  Tiny,
  assertSameFolder,
  assertValues,
  layersOf,
  outputs,
  temporary,
  tiny,
  train,
  trainable,
  values,
} from "../../support/peft.js";
import { refuses } from "../../support/refuses.js";

await init();
const at = temporary();

/** s B A of each layer that has the adapter, as a dense matrix. */
function products(adapted: peft.LoraModel, name: string): Map<string, Float64Array> {
  return new Map(
    layersOf(adapted, name).map(({ path, layer }) => {
      const { loraA, loraB, scaling } = layer.adapters.get(name)!;
      const r = loraA.shape[0]!;
      return [path, product(loraB.data, loraA.data, loraB.shape[0]!, r, loraA.size / r).map((v) => scaling * v)];
    }),
  );
}

function sum(adapted: peft.LoraModel, names: string[], weights: number[]): Map<string, Float64Array> {
  const total = new Map<string, Float64Array>();
  names.forEach((name, n) => {
    for (const [path, delta] of products(adapted, name)) {
      const so = total.get(path) ?? new Float64Array(delta.length);
      total.set(
        path,
        so.map((v, i) => v + weights[n]! * delta[i]!),
      );
    }
  });
  return total;
}

function assertProducts(label: string, got: Map<string, Float64Array>, expected: Map<string, Float64Array>): void {
  assert.deepEqual([...got.keys()].sort(), [...expected.keys()].sort(), label);
  for (const [path, delta] of expected) assertNear(`${label}: ${path}`, got.get(path)!, delta, 2e-6);
}

/** Of other layers, ranks, alphas and scalings. */
function adapt(): peft.LoraModel<Tiny> {
  const adapted = new peft.LoraModel(tiny());
  adapted.addAdapter("a", {
    r: 2,
    loraAlpha: 3,
    targetModules: ["fc", "proj", "conv"],
    rankPattern: { conv: 3 },
    alphaPattern: { fc: 1 },
    loraDropout: 0.1,
  });
  adapted.addAdapter("b", { r: 3, loraAlpha: 2, useRslora: true, targetModules: ALL });
  adapted.addAdapter("c", { r: 2, targetModules: "body\\.fc|head" });
  for (const [i, name] of ["a", "b", "c"].entries()) train(adapted, name, i);
  return adapted;
}
const NAMES = ["a", "b", "c"];
const WEIGHTS = [0.7, -0.4, 1.5];

test("cat, and svd of full rank, are the weighted sum in every layer; saved and read again they still are", () => {
  for (const options of [{ combinationType: "cat" }, { combinationType: "svd", svdRank: 8 }] as const) {
    const adapted = adapt();
    const before = values(adapted);
    const trains = trainable(adapted);
    const y = outputs(adapted.model.eval());
    adapted.addWeightedAdapter(NAMES, WEIGHTS, "mix", options);
    const label = options.combinationType;
    const expected = sum(adapted, NAMES, WEIGHTS);
    assertProducts(label, products(adapted, "mix"), expected);
    assert.deepEqual([adapted.activeAdapters, trainable(adapted)], [["a"], trains]);
    assertBits("mix waits", outputs(adapted.model), y);
    for (const [key, data] of before) assertBits(key, values(adapted).get(key)!, data);

    adapted.savePretrained(at(label), "mix");
    const again = peft.LoraModel.fromPretrained(tiny(), at(label));
    adapted.setAdapter("mix");
    assertBits("read again", outputs(again.model), outputs(adapted.model));
    assertProducts("read again", products(again, "default"), expected);
    again.savePretrained(at(`${label} again`));
    assertSameFolder(label, at(label), at(`${label} again`));
    adapted.deleteAdapter("mix");
    assert.deepEqual([...values(adapted).keys()].sort(), [...before.keys()].sort());
    again.dispose();
    adapted.dispose();
  }
});

test("svd is the default, of the layer's largest rank; linear adds up factors", () => {
  const adapted = adapt();
  adapted.addWeightedAdapter(["a", "b"], [1, 0.5], "svd");
  assert.deepEqual(
    layersOf(adapted, "svd").map(({ path, layer }) => [path, layer.adapters.get("svd")!.r]),
    [
      ["embed", 3],
      ["body.fc", 3],
      ["body.proj", 3],
      ["conv", 3],
      ["head", 3],
    ],
  );
  adapted.addWeightedAdapter(["c", "a"], [-2, 0.25], "linear", { combinationType: "linear" });
  for (const { path, layer } of layersOf(adapted, "linear")) {
    const parts = (
      [
        ["c", -2],
        ["a", 0.25],
      ] as const
    ).flatMap(([name, weight]) => {
      const adapter = layer.adapters.get(name);
      return adapter ? [{ adapter, ws: weight * adapter.scaling }] : [];
    });
    for (const [factor, isSigned] of [
      ["loraA", true],
      ["loraB", false],
    ] as const) {
      const expected = parts.reduce(
        (total, { adapter, ws }) =>
          total.map((v, i) => v + (isSigned ? Math.sign(ws) : 1) * Math.sqrt(Math.abs(ws)) * adapter[factor].data[i]!),
        new Float64Array(parts[0]!.adapter[factor].size),
      );
      assertNear(`${path} ${factor}`, layer.adapters.get("linear")![factor].data, expected, 1e-6);
    }
  }
  adapted.dispose();
});

test("a combined adapter is in its adapters' layers only, whatever others are called, with their ranks", () => {
  class Twins extends nn.Module {
    readonly fc: nn.Layer = new nn.Linear(6, 6);
    readonly tiny = tiny();
    forward(ids: Tensor): Tensor {
      return ops.add(this.tiny.forward(ids), this.tiny.forward(ids));
    }
  }
  const adapted = new peft.LoraModel(new Twins());
  adapted.addAdapter("a", { r: 2, targetModules: "fc" });
  adapted.addAdapter("b", { r: 4, targetModules: ".*proj" });
  adapted.addWeightedAdapter(["a", "b"], [1, 1], "mix", { combinationType: "cat" });
  assert.deepEqual(
    layersOf(adapted, "mix").map(({ path, layer }) => [path, layer.adapters.get("mix")!.r]),
    [
      ["fc", 2],
      ["tiny.body.proj", 4],
    ],
  );
  adapted.addAdapter("all", { r: 4, targetModules: ["fc"] });
  adapted.addWeightedAdapter(["a", "all"], [1, 1], "other", { combinationType: "cat" });
  assert.deepEqual(
    layersOf(adapted, "other").map(({ path, layer }) => [path, layer.adapters.get("other")!.r]),
    [
      ["fc", 6],
      ["tiny.body.fc", 4],
    ],
  );
  adapted.dispose();
});

{
  const adapted = adapt();
  for (const [name, special] of [
    ["dora", { useDora: true }],
    ["saved", { modulesToSave: ["norm"] }],
  ] as const)
    adapted.addAdapter(name, { r: 2, targetModules: ["fc"], ...special });
  const before = values(adapted);
  const add =
    (names: string[], weights: number[], name = "x", options = {}) =>
    () =>
      adapted.addWeightedAdapter(names, weights, name, options);
  refuses("no adapters", ArgumentError, ["addWeightedAdapter: 0 adapters"], add([], []));
  refuses("too few weights", ArgumentError, ["2 adapters and 1 weights"], add(["a", "b"], [1]));
  refuses("a weight that is no number", ArgumentError, ["weights[1]"], add(["a", "b"], [1, NaN]));
  refuses("an unknown adapter", ArgumentError, ['no adapter "z"'], add(["a", "z"], [1, 1]));
  refuses(
    "a name that is taken",
    ArgumentError,
    ['addWeightedAdapter: there is an adapter "b" already'],
    add(["a"], [1], "b"),
  );
  refuses("DoRA", ArgumentError, ['"dora" has DoRA'], add(["a", "dora"], [1, 1]));
  refuses("modulesToSave", ArgumentError, ['"saved" has DoRA, biases, modulesToSave'], add(["saved"], [1]));
  refuses(
    "linear of other ranks",
    ShapeError,
    ["equal ranks"],
    add(["a", "b"], [1, 1], "x", { combinationType: "linear" }),
  );
  refuses(
    "another type",
    ArgumentError,
    ['"cat", "linear" or "svd"', "ties"],
    add(["a"], [1], "x", { combinationType: "ties" }),
  );
  refuses(
    "svdRank without svd",
    ArgumentError,
    ["svdRank"],
    add(["a"], [1], "x", { combinationType: "cat", svdRank: 2 }),
  );
  const grouped = peft.getLoraModel(new Tiny(2), { r: 2, targetModules: ["conv"] });
  refuses("groups", ArgumentError, ["addWeightedAdapter: conv", "groups = 2"], () =>
    grouped.addWeightedAdapter(["default"], [1], "x"),
  );
  const pissa = peft.getLoraModel(tiny(), { r: 2, targetModules: ["fc"], initLoraWeights: "pissa" });
  refuses("a changed base", StateError, ["addWeightedAdapter: adapter", "changed the base weights"], () =>
    pissa.addWeightedAdapter(["default"], [1], "x"),
  );
  test("a refusal changes nothing", () => {
    assertValues("refused", adapted, before);
    const live = memoryStats().liveBytes;
    adapted.addWeightedAdapter(["a", "b"], [1, 1], "x");
    adapted.deleteAdapter("x");
    assert.equal(memoryStats().liveBytes, live);
  });
}

test.run();
