/**
 * Adapter folders of models: what is saved is read with the same bits, and what does not fit leaves the model as it
 * was.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  FileError,
  FormatError,
  init,
  memoryStats,
  models,
  nn,
  peft,
  StateError,
  type Tensor,
  type WasmLoraError,
} from "../../../src/index.js";
import { readPeftAdapter, writePeftAdapter } from "../../../src/io/peft/folder.js";
import type { StateEntry } from "../../../src/runtime/state_entry.js";
import { assertBits, assertClose } from "../../support/golden.js";
import {
  ALL,
  assertSameFolder,
  assertValues,
  layersOf,
  outputs,
  parametersOf,
  temporary,
  tiny,
  train,
  trainable,
  values,
} from "../../support/peft.js";
import { stream } from "../../support/random.js";

await init();
const at = temporary();
type Config = Partial<peft.LoraConfig>;

/** An adapter as after training, with the biases that train, too. */
function trained<M extends nn.Module>(model: M, config: Config, seed = 1): peft.LoraModel<M> {
  const adapted = peft.getLoraModel(model, config);
  const next = stream(seed);
  train(adapted, "default", seed);
  const factorsAndCopies = new Set(parametersOf(adapted, "default"));
  for (const p of adapted.parameters().filter((p) => p.requiresGrad && !factorsAndCopies.has(p)))
    p.data.forEach((v, i, all) => {
      all[i] = v + next() - 0.5;
    });
  return adapted;
}

const CONFIGS: Record<string, Config> = {
  "every kind of layer": { r: 2, loraAlpha: 3, targetModules: ALL },
  DoRA: { r: 2, loraAlpha: 3, targetModules: ALL, useDora: true },
  patterns: {
    r: 2,
    targetModules: "embed|.*\\.proj|conv",
    rankPattern: { "body\\.proj": 3, conv: 4 },
    alphaPattern: { proj: 5.5, embed: 1 },
  },
  "rsLoRA and dropout": { r: 3, loraAlpha: 5, useRslora: true, loraDropout: 0.25, targetModules: ["fc", "head"] },
  modulesToSave: { r: 2, targetModules: ["fc"], modulesToSave: ["norm", "head", "conv"] },
  "bias all": { r: 2, targetModules: ["fc", "conv"], bias: "all" },
  "bias lora_only": { r: 2, targetModules: ["fc", "conv", "embed"], bias: "lora_only" },
  "bias all with modulesToSave": { r: 2, targetModules: ["fc"], bias: "all", modulesToSave: ["head"] },
  "all-linear": { r: 2, targetModules: "all-linear", excludeModules: ["fc"] },
  everything: {
    r: 2,
    targetModules: ["embed", "fc", "proj", "conv"],
    modulesToSave: ["head", "norm"],
    bias: "all",
    useDora: true,
    useRslora: true,
    rankPattern: { fc: 5 },
    alphaPattern: { conv: 7 },
    initLoraWeights: false,
  },
};
for (const [label, config] of Object.entries(CONFIGS)) {
  test(`${label}: read again the outputs have the same bits, written again the files have the same bytes`, () => {
    const first = trained(tiny(), config);
    first.eval();
    first.savePretrained(at(label));
    const live = memoryStats().liveBytes;
    const model = tiny();
    const second = peft.LoraModel.fromPretrained(model, at(label));
    assertValues("read", second, values(first));
    assertBits("output", outputs(model), outputs(first.model));
    assert.deepEqual([trainable(second), second.training, model.training], [[], false, false]);
    second.savePretrained(at(`${label} again`));
    assertSameFolder(label, at(label), at(`${label} again`));
    const third = new peft.LoraModel(tiny());
    third.loadAdapter(at(`${label} again`), "default", { isTrainable: true });
    assert.deepEqual([trainable(third), third.training], [trainable(first), true]);
    for (const m of [second, third]) m.dispose();
    assert.equal(memoryStats().liveBytes, live);
    first.dispose();
  });
}

test("the tensors have PEFT's names and shapes", () => {
  const adapted = peft.getLoraModel(tiny(), {
    r: 2,
    targetModules: ["embed", "fc", "proj", "conv"],
    useDora: true,
    bias: "lora_only",
    modulesToSave: ["head"],
  });
  adapted.savePretrained(at("names"));
  const { tensors } = readPeftAdapter(at("names"));
  const prefix = "base_model.model.";
  assert.deepEqual(Object.fromEntries([...tensors].map(([name, { shape }]) => [name.slice(prefix.length), shape])), {
    "embed.lora_embedding_A": [2, 10],
    "embed.lora_embedding_B": [6, 2],
    "embed.lora_magnitude_vector": [6],
    "body.fc.lora_A.weight": [2, 6],
    "body.fc.lora_B.weight": [8, 2],
    "body.fc.lora_magnitude_vector": [8],
    "body.fc.base_layer.bias": [8],
    "body.proj.lora_A.weight": [2, 8],
    "body.proj.lora_B.weight": [6, 2],
    "body.proj.lora_magnitude_vector": [6],
    "body.proj.base_layer.bias": [6],
    "conv.lora_A.weight": [2, 4, 2, 3],
    "conv.lora_B.weight": [4, 2, 1, 1],
    "conv.lora_magnitude_vector": [1, 4, 1, 1],
    "conv.base_layer.bias": [4],
    "head.weight": [5, 24],
    "head.bias": [5],
  });
  adapted.dispose();
});

const PISSA: Record<string, Config> = {
  pissa: { r: 3, loraAlpha: 5, initLoraWeights: "pissa", targetModules: ["fc", "proj"] },
  "pissa_niter_8 with rsLoRA": {
    r: 3,
    loraAlpha: 5,
    initLoraWeights: "pissa_niter_8",
    useRslora: true,
    targetModules: ["fc", "proj"],
  },
  "olora with patterns": {
    r: 3,
    loraAlpha: 5,
    initLoraWeights: "olora",
    targetModules: ["fc", "proj", "head"],
    rankPattern: { proj: 2 },
    alphaPattern: { fc: 7, "body\\.proj": 1 },
  },
  "olora with patterns and rsLoRA": {
    r: 3,
    initLoraWeights: "olora",
    useRslora: true,
    targetModules: ["fc", "proj"],
    rankPattern: { proj: 2 },
    alphaPattern: { proj: 3 },
  },
  "pissa with an embedding": { r: 2, initLoraWeights: "pissa", targetModules: ["fc", "embed"] },
  "pissa with DoRA": { r: 2, initLoraWeights: "pissa", targetModules: ["fc", "proj"], useDora: true },
};
for (const [label, config] of Object.entries(PISSA)) {
  test(`${label}: saved as the difference from the base as it was, at twice the rank`, () => {
    const first = trained(tiny(), config);
    first.eval();
    first.savePretrained(at(label));
    const again = peft.LoraModel.fromPretrained(tiny(), at(label));
    for (const { path, layer } of layersOf(again)) {
      const saved = layer.adapters.get("default")!;
      const { r, scaling } = layersOf(first)
        .find((l) => l.path === path)!
        .layer.adapters.get("default")!;
      assert.equal(saved.r, 2 * r, path);
      assert(Math.abs(saved.scaling / scaling - 1) < 1e-15, path);
    }
    assert.equal(again.config("default").initLoraWeights, true);
    assertClose("on the original base", outputs(again.model), outputs(first.model));
    again.savePretrained(at(`${label} again`));
    assertSameFolder(label, at(label), at(`${label} again`));
    const y = outputs(again.model);
    first.hotswapAdapter(at(label), "default");
    assertBits("in the place of itself", outputs(first.model), y);
    for (const m of [first, again]) m.dispose();
  });
}

const LLAMA = {
  modelType: "llama" as const,
  vocabSize: 10,
  hiddenSize: 16,
  intermediateSize: 24,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 8,
  maxPositionEmbeddings: 8,
  rmsNormEps: 1e-6,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
  tieWordEmbeddings: false,
  bosTokenId: null,
  eosTokenId: null,
};
const GPT2 = {
  modelType: "gpt2" as const,
  vocabSize: 10,
  hiddenSize: 16,
  intermediateSize: 32,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  maxPositionEmbeddings: 8,
  layerNormEpsilon: 1e-5,
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
};
const MODELS: [string, () => nn.Module & { forward(ids: Tensor): Tensor }, Config][] = [
  [
    "Llama",
    () => new models.Llama(LLAMA),
    { r: 2, targetModules: "all-linear", layersToTransform: null, modulesToSave: ["lm_head"] },
  ],
  [
    "Llama, its second layer",
    () => new models.Llama(LLAMA),
    { r: 2, targetModules: ["q_proj", "v_proj"], layersToTransform: [1], useDora: true },
  ],
  ["GPT-2", () => new models.Gpt2(GPT2), { r: 2, targetModules: ["c_attn", "c_proj", "wte", "wpe"], bias: "all" }],
];
for (const [label, make, config] of MODELS) {
  test(`${label}: the same logits after reading`, () => {
    const first = make();
    const second = make();
    second.loadStateDict(first.stateDict());
    const adapted = trained(first, config);
    adapted.eval();
    adapted.savePretrained(at(label));
    const again = peft.LoraModel.fromPretrained(second, at(label));
    assertBits("logits", outputs(second), outputs(first));
    again.savePretrained(at(`${label} again`));
    assertSameFolder(label, at(label), at(`${label} again`));
    if (label === "GPT-2") assert.equal(again.config("default").fanInFanOut, true);
    for (const m of [adapted, again]) m.dispose();
  });
}

test("reading another adapter leaves the first, and whether it trains, as they are", () => {
  const other = trained(tiny(), { r: 3, targetModules: ["fc", "head"] }, 2);
  other.savePretrained(at("other"));
  for (const isTrainable of [false, true]) {
    const adapted = trained(tiny(), { r: 2, targetModules: ALL, loraDropout: 0.5 });
    adapted.savePretrained(at("frozen"));
    const model = tiny();
    const loaded = peft.LoraModel.fromPretrained(model, at("frozen"), { adapterName: "a", isTrainable });
    const trains = trainable(loaded);
    assert.equal(trains.length, isTrainable ? 10 : 0);
    loaded.eval();
    const before = outputs(model);
    loaded.loadAdapter(at("other"), "b", { isTrainable: true });
    assert.deepEqual(loaded.activeAdapters, ["a"]);
    assert.deepEqual(
      new Set(trainable(loaded)),
      new Set([
        ...trains,
        ...["fc", "head"].flatMap((name) =>
          ["A", "B"].map((factor) => `model.${name === "fc" ? "body.fc" : name}.lora_${factor}.b.weight`),
        ),
      ]),
      "b waits, and trains",
    );
    assertBits("a acts", outputs(model), before);
    loaded.setAdapter("b");
    assertBits("b acts", outputs(model), outputs(other.model));
    loaded.hotswapAdapter(at("other"), "a");
    assert(trainable(loaded).length === 4 && trainable(loaded).every((key) => key.includes(".b.")));
    for (const m of [adapted, loaded]) m.dispose();
  }
  other.dispose();
});

test("hotswap: other values, ranks, targets; active and trained as it was; the old one is freed", () => {
  const swaps: Config[] = [
    { r: 2, targetModules: ALL },
    { r: 5, loraAlpha: 3, targetModules: ["fc"], useDora: true },
    { r: 2, targetModules: ["conv", "embed"], modulesToSave: ["norm"], useRslora: true },
  ];
  const adapted = trained(tiny(), { r: 2, targetModules: ["fc", "proj"], modulesToSave: ["norm"] });
  adapted.addAdapter("b", { r: 2, targetModules: ["fc"] });
  train(adapted, "b", 9);
  for (const active of [["default"], ["b", "default"]])
    for (const [i, config] of swaps.entries()) {
      const alone = trained(tiny(), config, i + 5);
      alone.eval();
      alone.savePretrained(at(`swap ${i}`));
      adapted.setAdapter(active);
      adapted.eval();
      const old = parametersOf(adapted, "default");
      const b = parametersOf(adapted, "b");
      adapted.hotswapAdapter(at(`swap ${i}`), "default");
      assert(old.every((p) => p.disposed) && b.every((p) => !p.disposed && p.requiresGrad === active.includes("b")));
      assert(
        parametersOf(adapted, "default").every((p) => p.requiresGrad),
        "the other one trained",
      );
      assert.deepEqual(
        [adapted.adapters, adapted.activeAdapters, adapted.config("default")],
        [["default", "b"], active, alone.config("default")],
      );
      if (active.length === 1) assertBits("output", outputs(adapted.model), outputs(alone.model));
      adapted.savePretrained(at(`swapped ${i}`));
      assertSameFolder("swapped", at(`swap ${i}`), at(`swapped ${i}`));
      alone.dispose();
    }
  const model = adapted.unload();
  assertValues("base", model, values(tiny()));
  model.dispose();
});

/** A folder like the one of `config`, with its tensors changed. */
function damaged(name: string, config: Config, change: (tensors: Map<string, StateEntry>) => void): string {
  const adapted = trained(tiny(), config);
  adapted.savePretrained(at("whole"));
  adapted.dispose();
  const { config: full, tensors } = readPeftAdapter(at("whole"));
  change(tensors);
  writePeftAdapter(
    at(name),
    full,
    [...tensors].map(([key, tensor]) => ({ name: `${key}`, ...tensor })),
  );
  return at(name);
}

{
  const key = (name: string): string => `base_model.model.${name}`;
  const base: Config = { r: 2, targetModules: ["fc", "head"], bias: "all", modulesToSave: ["norm"] };
  const cases: [string, string, new (...args: never[]) => WasmLoraError, string][] = [
    [
      "a missing layer",
      damaged("missing", base, (t) => {
        t.delete(key("head.lora_A.weight"));
        t.delete(key("head.lora_B.weight"));
      }),
      FormatError,
      "head.lora_A.weight is missing",
    ],
    [
      "a missing bias after others",
      damaged("bias", base, (t) => {
        t.delete(key("head.base_layer.bias"));
      }),
      FormatError,
      "head.base_layer.bias is missing",
    ],
    [
      "a missing copy",
      damaged("copy", base, (t) => {
        t.delete(key("norm.weight"));
      }),
      FormatError,
      "norm.weight is missing",
    ],
    [
      "a layer that is not targeted",
      damaged("stray", base, (t) => {
        t.set(key("conv.lora_A.weight"), t.get(key("body.fc.lora_A.weight"))!);
        t.set(key("conv.lora_B.weight"), t.get(key("body.fc.lora_B.weight"))!);
      }),
      FormatError,
      "conv.lora_A.weight fits nothing",
    ],
    [
      "a factor of another width",
      damaged("width", base, (t) => {
        t.set(key("head.lora_A.weight"), { shape: [2, 3], data: new Float32Array(6) });
      }),
      FormatError,
      "head.lora_A.weight has shape [2,3]; the model needs [2,24]",
    ],
    [
      "a bias of another size",
      damaged("long bias", base, (t) => {
        t.set(key("head.base_layer.bias"), { shape: [6], data: new Float32Array(6) });
      }),
      FormatError,
      "head.base_layer.bias has shape [6]; the model needs [5]",
    ],
    ["no such folder", at("nowhere"), FileError, "nowhere"],
  ];
  class Other extends nn.Module {
    readonly up: nn.Layer = new nn.Linear(2, 2);
  }
  for (const [label, folder, error, words] of cases) {
    test(`${label} is refused; a model, and an adapter it would have replaced, stay as they were`, () => {
      const model = tiny();
      const plain = values(model);
      const refused = (run: () => unknown): void => {
        const live = memoryStats().liveBytes;
        assert.throws(run, (e: Error) => (e instanceof error && e.message.includes(words)) || assert.fail(String(e)));
        assert.equal(memoryStats().liveBytes, live);
      };
      refused(() => peft.LoraModel.fromPretrained(model, folder));
      assertValues("never wrapped", model, plain);
      const adapted = trained(model, { r: 3, targetModules: ["fc", "conv"], modulesToSave: ["norm"] });
      const before = values(adapted);
      const trains = trainable(adapted);
      const y = outputs(model);
      refused(() => adapted.hotswapAdapter(folder, "default"));
      assertValues("kept", adapted, before);
      assertBits("kept", outputs(model), y);
      assert.deepEqual([adapted.activeAdapters, trainable(adapted)], [["default"], trains]);
      adapted.dispose();
    });
  }
  test("what cannot be read or written says so", () => {
    const adapted = trained(tiny(), { r: 2, targetModules: ["fc"] });
    adapted.savePretrained(at("good"));
    assert.throws(
      () => adapted.loadAdapter(at("good"), "default"),
      (e: Error) => e instanceof ArgumentError && e.message.startsWith('loadAdapter: there is an adapter "default"'),
    );
    assert.throws(() => adapted.hotswapAdapter(at("good"), "x"), /no adapter "x"; there are default/);
    assert.throws(() => adapted.savePretrained(at("bad"), "x"), /no adapter "x"/);
    assert.throws(
      () => peft.LoraModel.fromPretrained(new Other(), at("good")),
      (e: Error) =>
        e instanceof ArgumentError &&
        e.message.includes('loadAdapter: targetModules = ["fc"] matches no module') &&
        e.message.includes("up"),
    );
    adapted.addAdapter("b", { targetModules: ["fc"] });
    assert.throws(
      () =>
        adapted.hotswapAdapter(
          damaged("biased", { r: 2, targetModules: ["fc"], bias: "all" }, () => {}),
          "b",
        ),
      /hotswapAdapter: bias must be "none"/,
    );
    adapted.mergeAdapter();
    for (const [where, run] of [
      ["loadAdapter", () => adapted.loadAdapter(at("good"), "c")],
      ["hotswapAdapter", () => adapted.hotswapAdapter(at("good"), "b")],
    ] as const) {
      assert.throws(
        run,
        (e: Error) =>
          e instanceof StateError && e.message === `${where}: default is merged; call unmergeAdapter() first.`,
      );
    }
    adapted.savePretrained(at("while merged"));
    assertSameFolder("while merged", at("while merged"), at("good"));
    adapted.dispose();
  });
}

test.run();
