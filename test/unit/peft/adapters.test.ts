/** The mechanism below LoraModel, and an adapter in no format's words: W + scaling B A is the merged weight. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { completeConfig } from "../../../src/io/peft/config.js";
import { init, manualSeed, type nn, type peft } from "../../../src/index.js";
import { Adapters } from "../../../src/peft/adapters.js";
import { type CollectedPart, collect } from "../../../src/peft/collect.js";
import { addInitialised } from "../../../src/peft/initial_adapter.js";
import { mergeAdapters, unmergeAdapters } from "../../../src/peft/merging.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { ALL, type Tiny, tiny, values } from "../../support/peft.js";

await init();

function adapted(model: nn.Module, config: Partial<peft.LoraConfig>): Adapters {
  const adapters = new Adapters(model);
  manualSeed(2);
  addInitialised(adapters, "a", completeConfig("test", config));
  for (const p of adapters.parameters("a"))
    p.data.forEach((v, i, all) => {
      all[i] = v + 0.2 * ((i % 5) - 2);
    });
  return adapters;
}

/** W + scaling B A in float64; an embedding's weight and Hugging Face's Conv1D's hold the transpose. */
function sum({ kind, loraA, loraB, scaling }: CollectedPart, weight: Float32Array, fanInFanOut: boolean): Float32Array {
  const r = loraA.shape[0]!;
  const d = loraA.data.length / r;
  const k = loraB.shape[0]!;
  return weight.map((w, at) => {
    const [i, j] = fanInFanOut || kind === "embedding" ? [at % k, Math.floor(at / k)] : [Math.floor(at / d), at % d];
    let product = 0;
    for (let p = 0; p < r; p++) product += loraB.data[i * r + p]! * loraA.data[p * d + j]!;
    return w + scaling * product;
  });
}

const CONFIGS: Record<string, Partial<peft.LoraConfig>> = {
  "every kind of layer": { r: 2, loraAlpha: 6, targetModules: ALL, initLoraWeights: false },
  "patterns and rsLoRA": {
    r: 2,
    targetModules: ALL,
    rankPattern: { fc: 3 },
    alphaPattern: { conv: 5 },
    useRslora: true,
  },
  "a changed base": { r: 2, loraAlpha: 6, targetModules: ["fc", "proj", "embed"], initLoraWeights: "pissa" },
};
for (const [name, config] of Object.entries(CONFIGS)) {
  test(`${name}: what is collected says what merging does`, () => {
    const model: Tiny = tiny();
    const before = values(model);
    const adapters = adapted(model, config);
    const { parts, copies, biases } = collect(adapters, "a");
    mergeAdapters(adapters, ["a"], false);
    assert.deepEqual([copies, biases], [[], []]);
    assert.deepEqual(
      parts.map(({ path }) => path),
      adapters.layers("a").map(({ path }) => path),
    );
    for (const [i, { layer }] of adapters.layers("a").entries()) {
      const part = parts[i]!;
      const { fanInFanOut = false } = layer.baseLayer as Partial<nn.Linear>;
      assertClose(part.path, layer.weight.data, sum(part, before.get(`${part.path}.weight`)!, fanInFanOut));
    }
    unmergeAdapters(adapters);
    adapters.delete("a");
    for (const [key, p] of model.namedParameters()) assertBits(key, p.data, before.get(key)!);
  });
}

test("what trains whole is collected by its module's path", () => {
  const model = tiny();
  const adapters = adapted(model, { r: 2, targetModules: ["fc"], bias: "all", modulesToSave: ["norm"], useDora: true });
  const { parts, copies, biases } = collect(adapters, "a");
  assert.deepEqual(
    parts.map(({ path, kind, magnitude }) => [path, kind, magnitude?.length]),
    [["body.fc", "linear", 8]],
  );
  assert.deepEqual(
    copies.map(({ path, name }) => `${path}.${name}`),
    ["norm.weight", "norm.bias"],
  );
  assert.deepEqual(
    biases.map(({ path }) => path),
    ["body.fc", "body.proj", "conv", "head"],
  );
});

test.run();
