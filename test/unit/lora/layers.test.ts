/** What lora.Linear and lora.Embedding promise: exact start, reversible merging, who trains, what is saved. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, lora, manualSeed, nn, ops, scope, tensor, type Tensor } from "../../../src/index.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { gridTensor as grid, perturb } from "../../support/gradcheck.js";

await init();

const ids = new Int32Array([3, 0, 9, 3, 7]);

for (const fanInFanOut of [false, true]) {
  test(`lora.Linear starts as its base, to the bit (fanInFanOut = ${fanInFanOut})`, () =>
    scope(() => {
      const layer = new lora.Linear(19, 23, { r: 4, loraAlpha: 8, fanInFanOut });
      assert(layer.loraA!.data.every((v) => v !== 0) && layer.loraB!.data.every((v) => v === 0));
      const x = grid([6, 19], 1, false);
      const base = ops.linear(x, layer.weight, layer.bias, [], fanInFanOut).data.slice();
      assertBits("training", layer.forward(x).data, base);
      layer.eval();
      assertBits("merged", layer.forward(x).data, base);
      layer.dispose();
    }));
}

test("lora.Embedding starts as its base, to the bit", () =>
  scope(() => {
    const layer = new lora.Embedding(10, 7, { r: 3, loraAlpha: 6 });
    assert(layer.loraA!.data.every((v) => v === 0) && layer.loraB!.data.every((v) => v !== 0));
    const base = ops.embedding(tensor(ids), layer.weight).data.slice();
    assertBits("training", layer.forward(tensor(ids)).data, base);
    layer.eval();
    assertBits("merged", layer.forward(tensor(ids)).data, base);
    layer.dispose();
  }));

test("eval() merges, train() restores the bits, a hundred times without drift", () =>
  scope(() => {
    const x = grid([6, 19], 1, false);
    const tokens = tensor(ids);
    const layers: [lora.Linear | lora.Embedding, Tensor][] = [
      [new lora.Linear(19, 23, { r: 4, loraAlpha: 8 }), x],
      [new lora.Linear(19, 23, { r: 4, loraAlpha: -3, fanInFanOut: true, bias: false }), x],
      [new lora.Embedding(10, 7, { r: 3, loraAlpha: 6, paddingIdx: 9 }), tokens],
    ];
    for (const [layer, input] of layers) {
      perturb(layer.weight, layer.loraA, layer.loraB);
      const weight = layer.weight.data.slice();
      const y = layer.forward(input).data.slice();
      layer.eval();
      const merged = layer.weight.data.slice();
      const yMerged = layer.forward(input).data.slice();
      assert(layer.merged);
      assert(merged.some((v, i) => v !== weight[i]));
      assertClose("merged", yMerged, y, 1e-5, 0);
      assertBits("checkpoint while merged", layer.stateDict().get("weight")!.data, weight);
      for (let i = 0; i < 100; i++) {
        layer.train();
        layer.train();
        assert(!layer.merged);
        assertBits("weight", layer.weight.data, weight);
        assertBits("y", layer.forward(input).data, y);
        layer.eval();
        layer.eval();
        assertBits("merged weight", layer.weight.data, merged);
        assertBits("merged y", layer.forward(input).data, yMerged);
      }
      layer.dispose();
    }
  }));

test("mergeWeights: false never merges", () =>
  scope(() => {
    const layer = new lora.Linear(5, 6, { r: 2, mergeWeights: false });
    const table = new lora.Embedding(10, 7, { r: 2, mergeWeights: false });
    perturb(layer.loraB, table.loraA);
    const x = grid([3, 5], 1, false);
    const y = layer.forward(x).data.slice();
    const rows = table.forward(tensor(ids)).data.slice();
    const weights = [layer.weight.data.slice(), table.weight.data.slice()];
    layer.eval();
    table.eval();
    assert(!layer.merged && !table.merged && !layer.training && !table.training);
    assertBits("weight", layer.weight.data, weights[0]!);
    assertBits("table", table.weight.data, weights[1]!);
    assertBits("y", layer.forward(x).data, y);
    assertBits("rows", table.forward(tensor(ids)).data, rows);
    layer.dispose();
    table.dispose();
  }));

class Block extends nn.Module {
  readonly queryProj = new lora.Linear(4, 4, { r: 2 });
  readonly outProj = new nn.Linear(4, 4);
  readonly norm = new nn.LayerNorm(4);
}
class Network extends nn.Module {
  readonly embed = new lora.Embedding(10, 4, { r: 2 });
  readonly layers = [new Block(), new Block()];
  readonly bare = new lora.Linear(4, 4, { r: 2, bias: false });
  readonly plain = new lora.Linear(4, 4);
  readonly qkv = new lora.MergedLinear(4, 12, { r: 2, enableLora: [true, false, true] });
  readonly conv = new lora.Conv2d(2, 4, 3, { r: 1 });
  readonly head = new nn.Linear(4, 10);
}

const factors = [
  "embed.lora_A",
  "embed.lora_B",
  "layers.0.query_proj.lora_A",
  "layers.0.query_proj.lora_B",
  "layers.1.query_proj.lora_A",
  "layers.1.query_proj.lora_B",
  "bare.lora_A",
  "bare.lora_B",
  "qkv.lora_A",
  "qkv.lora_B",
  "conv.lora_A",
  "conv.lora_B",
];
const besideFactors = ["layers.0.query_proj.bias", "layers.1.query_proj.bias", "qkv.bias", "conv.bias"];
const otherBiases = [
  "head.bias",
  "layers.0.norm.bias",
  "layers.0.out_proj.bias",
  "layers.1.norm.bias",
  "layers.1.out_proj.bias",
];
/** A loralib layer of rank 0 is a LoRALayer to mark_only_lora_as_trainable; lora_state_dict goes by "lora_" keys. */
const rankZero = ["plain.bias"];

for (const [bias, trained, saved] of [
  ["none", factors, factors],
  [
    "all",
    [...factors, ...besideFactors, ...otherBiases, ...rankZero],
    [...factors, ...besideFactors, ...otherBiases, ...rankZero],
  ],
  ["lora_only", [...factors, ...besideFactors, ...rankZero], [...factors, ...besideFactors]],
] as const) {
  test(`markOnlyLoraAsTrainable and loraStateDict, bias "${bias}"`, () => {
    const model = new Network();
    lora.markOnlyLoraAsTrainable(model, bias);
    const trainable = [...model.namedParameters()].filter(([, p]) => p.requiresGrad).map(([key]) => key);
    assert.deepEqual(trainable.sort(), [...trained].sort());
    const state = lora.loraStateDict(model, bias);
    assert.deepEqual([...state.keys()].sort(), [...saved].sort());
    const named = new Map(model.namedParameters());
    for (const [key, { shape, data }] of state) {
      assert.deepEqual(shape, named.get(key)!.shape);
      assertBits(key, data, named.get(key)!.data);
    }
    model.dispose();
  });
}

test("a LoRA state dict moves the adaptation to a model with the same base", () =>
  scope(() => {
    manualSeed(1);
    const a = new lora.Linear(5, 6, { r: 2 });
    manualSeed(1);
    const b = new lora.Linear(5, 6, { r: 2 });
    perturb(a.loraA, a.loraB);
    const x = grid([3, 5], 1, false);
    b.loadStateDict(lora.loraStateDict(a), false);
    assertBits("y", b.forward(x).data, a.forward(x).data);
    a.dispose();
    b.dispose();
  }));

test("r = 0 is the plain layer and trains", () =>
  scope(() => {
    const layer = new lora.Linear(5, 6);
    const table = new lora.Embedding(10, 6);
    assert.equal(layer.loraA, null);
    assert.equal(table.loraB, null);
    assert(layer.weight.requiresGrad && table.weight.requiresGrad);
    const x = grid([3, 5], 1, false);
    assertBits("y", layer.forward(x).data, ops.linear(x, layer.weight, layer.bias).data);
    ops.sum(ops.add(layer.forward(x), table.forward(tensor(new Int32Array([1, 2, 3]))))).backward();
    // d sum(x Wᵀ + b) / dW[j] is the column sums of x, exact for multiples of 2^-10.
    const columns = Float32Array.from({ length: 5 }, (_, j) => x.data[j]! + x.data[5 + j]! + x.data[10 + j]!);
    for (let j = 0; j < 6; j++) assertBits("dW", layer.weight.grad!.data.slice(5 * j, 5 * j + 5), columns);
    assert.deepEqual([...layer.bias!.grad!.data], [3, 3, 3, 3, 3, 3]);
    assert.deepEqual(
      [...table.weight.grad!.data],
      Array.from({ length: 60 }, (_, i) => Number(i >= 6 && i < 24)),
    );
    const weight = layer.weight.data.slice();
    layer.eval();
    assert(!layer.merged);
    assertBits("weight", layer.weight.data, weight);
    layer.dispose();
    table.dispose();
  }));

test("r = 0 draws the base twice, as loralib's constructors do", () =>
  scope(() => {
    const twice = (
      make: () => nn.Module & { weight: Tensor },
      reset: (m: nn.Module) => void,
      layer: () => nn.Module & { weight: Tensor },
    ): void => {
      manualSeed(11);
      const plain = make();
      reset(plain);
      manualSeed(11);
      const lora0 = layer();
      assertBits("weight", lora0.weight.data, plain.weight.data);
      plain.dispose();
      lora0.dispose();
    };
    const reset = (m: nn.Module): void => (m as nn.Linear).resetParameters();
    twice(
      () => new nn.Linear(5, 6),
      reset,
      () => new lora.Linear(5, 6),
    );
    twice(
      () => new nn.Embedding(7, 4),
      reset,
      () => new lora.Embedding(7, 4),
    );
    twice(
      () => new nn.Conv1d(2, 3, 3),
      reset,
      () => new lora.Conv1d(2, 3, 3),
    );
    twice(
      () => new nn.Linear(5, 6),
      reset,
      () => new lora.MergedLinear(5, 6),
    );
  }));

test("dropout acts on the branch, and only in training", () =>
  scope(() => {
    for (const mergeWeights of [false, true]) {
      const layer = new lora.Linear(32, 8, { r: 2, loraDropout: 0.5, mergeWeights });
      perturb(layer.loraB);
      const x = grid([4, 32], 1, false);
      const without = ops
        .linear(x, layer.weight, layer.bias, [
          { loraA: layer.loraA!, loraB: layer.loraB!, scaling: layer.scaling, mask: null },
        ])
        .data.slice();
      const first = layer.forward(x).data.slice();
      const second = layer.forward(x).data.slice();
      assert(
        first.some((v, i) => v !== second[i]),
        "each call draws its own mask",
      );
      assert(first.some((v, i) => v !== without[i]));
      manualSeed(3);
      const seeded = layer.forward(x).data.slice();
      manualSeed(3);
      assertBits("the same seed, the same mask", layer.forward(x).data, seeded);
      layer.eval();
      if (mergeWeights) assertClose("evaluation", layer.forward(x).data, without);
      else assertBits("evaluation", layer.forward(x).data, without);
      layer.dispose();
    }
    const all = new lora.Linear(32, 8, { r: 2, loraDropout: 1 });
    perturb(all.loraB);
    const x = grid([4, 32], 1, false);
    assertBits("loraDropout = 1 leaves the base", all.forward(x).data, ops.linear(x, all.weight, all.bias).data);
    all.dispose();
  }));

test("a padding row starts at zero and gets no gradient", () =>
  scope(() => {
    const plain = new nn.Embedding(10, 4, { paddingIdx: 3 });
    const layer = new lora.Embedding(10, 4, { r: 2, paddingIdx: 3 });
    perturb(layer.loraA);
    for (const table of [plain, layer]) assert.deepEqual([...table.weight.data.slice(12, 16)], [0, 0, 0, 0]);
    ops.sum(ops.add(plain.forward(tensor(ids)), layer.forward(tensor(ids)))).backward();
    // ids holds 3 (padding) twice and 0, 7, 9 once.
    assert.deepEqual(
      [...plain.weight.grad!.data],
      Array.from({ length: 40 }, (_, i) => Number([0, 7, 9].includes(Math.floor(i / 4)))),
    );
    assert.equal(layer.weight.grad, null);
    for (let r = 0; r < 2; r++) {
      for (let id = 0; id < 10; id++)
        assert.equal(layer.loraA!.grad!.data[r * 10 + id] !== 0, [0, 7, 9].includes(id), `dA[${r}, ${id}]`);
    }
    plain.dispose();
    layer.dispose();
  }));

test.run();
