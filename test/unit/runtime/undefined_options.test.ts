/**
 * An option that is given as undefined is one left out, in every options object: `{ r: settings.rank }` without a rank.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, io, lora, manualSeed, models, nn, optim, peft, type Tensor } from "../../../src/index.js";
import { LLAMA } from "../../support/language_models.js";

await init({ module: undefined, fused: undefined, maximumBytes: undefined });

const UNDEFINED = undefined;

class Net extends nn.Module {
  readonly first = new nn.Linear(4, 4);
  forward(x: Tensor): Tensor {
    return this.first.forward(x);
  }
}

/** Everything that a layer is: its values and its fields. */
function facts(layer: nn.Module): unknown {
  const fields = Object.entries(layer).filter(([, value]) => !(value instanceof Object) || Array.isArray(value));
  return [fields, [...layer.stateDict()].map(([key, { shape, data }]) => [key, shape, [...data]])];
}

const LORA = { r: UNDEFINED, loraAlpha: UNDEFINED, mergeWeights: UNDEFINED };
const CONV = {
  stride: UNDEFINED,
  padding: UNDEFINED,
  dilation: UNDEFINED,
  groups: UNDEFINED,
  bias: UNDEFINED,
};
const LINEAR = { bias: UNDEFINED, fanInFanOut: UNDEFINED };
const EMBEDDING = { paddingIdx: UNDEFINED, maxNorm: UNDEFINED, normType: UNDEFINED, scaleGradByFreq: UNDEFINED };
const LAYERS: Record<string, [plain: () => nn.Module, given: () => nn.Module]> = {
  "nn.Linear": [() => new nn.Linear(4, 4), () => new nn.Linear(4, 4, LINEAR)],
  "nn.Embedding": [() => new nn.Embedding(4, 4), () => new nn.Embedding(4, 4, EMBEDDING)],
  "nn.Conv2d": [() => new nn.Conv2d(2, 2, 3), () => new nn.Conv2d(2, 2, 3, CONV)],
  "nn.GELU": [() => new nn.GELU(), () => new nn.GELU({ approximate: UNDEFINED })],
  "lora.Linear": [
    () => new lora.Linear(4, 4),
    () => new lora.Linear(4, 4, { ...LORA, ...LINEAR, loraDropout: UNDEFINED }),
  ],
  "lora.MergedLinear": [
    () => new lora.MergedLinear(4, 4),
    () => new lora.MergedLinear(4, 4, { ...LORA, ...LINEAR, loraDropout: UNDEFINED, enableLora: UNDEFINED }),
  ],
  "lora.Embedding": [() => new lora.Embedding(4, 4), () => new lora.Embedding(4, 4, { ...LORA, ...EMBEDDING })],
  "lora.Conv1d": [
    () => new lora.Conv1d(2, 2, 3),
    () => new lora.Conv1d(2, 2, 3, { ...LORA, ...CONV, loraDropout: UNDEFINED }),
  ],
};

for (const [name, [plain, given]] of Object.entries(LAYERS)) {
  test(name, () => {
    const [expected, actual] = [plain, given].map((make) => {
      manualSeed(0);
      return facts(make());
    });
    assert.deepEqual(actual, expected);
  });
}

const OPTIMIZERS: Record<
  string,
  [options: object, optimizer: (options: object) => { paramGroups: readonly object[] }]
> = {
  SGD: [
    { lr: UNDEFINED, momentum: UNDEFINED, weightDecay: UNDEFINED, nesterov: UNDEFINED },
    (o) => new optim.SGD(new Net().parameters(), o),
  ],
  Adam: [
    { lr: UNDEFINED, betas: UNDEFINED, eps: UNDEFINED, weightDecay: UNDEFINED },
    (o) => new optim.Adam(new Net().parameters(), o),
  ],
  AdamW: [
    { lr: UNDEFINED, betas: UNDEFINED, eps: UNDEFINED, weightDecay: UNDEFINED },
    (o) => new optim.AdamW(new Net().parameters(), o),
  ],
  "AdamW, of a group": [
    { lr: UNDEFINED, weightDecay: UNDEFINED },
    (o) => new optim.AdamW([{ params: new Net().parameters(), ...o }]),
  ],
};

for (const [name, [options, make]] of Object.entries(OPTIMIZERS)) {
  test(`optim.${name}`, () => {
    const [expected, actual] = [{}, options].map((given) =>
      make(given).paramGroups.map((group) => ({ ...group, params: null })),
    );
    assert.deepEqual(actual, expected);
  });
}

test("every field of a LoraConfig", () => {
  const expected = peft.getLoraModel(new Net(), { targetModules: ["first"] }).config("default");
  const given = {
    ...Object.fromEntries(Object.keys(expected).map((key) => [key, UNDEFINED])),
    targetModules: ["first"],
  };
  const adapted = peft.getLoraModel(new Net(), given);
  assert.deepEqual(adapted.config("default"), expected);
  adapted.addAdapter("second", given);
  assert.deepEqual(adapted.config("second"), expected);
});

test("PEFT's methods", () => {
  const adapted = peft.getLoraModel(new Net(), { targetModules: ["first"] });
  adapted.savePretrained("memory:undefined_options");
  adapted.loadAdapter("memory:undefined_options", "second", { isTrainable: UNDEFINED });
  const loaded = peft.LoraModel.fromPretrained(new Net(), "memory:undefined_options", {
    adapterName: UNDEFINED,
    isTrainable: UNDEFINED,
  });
  assert.deepEqual(
    [...loaded.parameters()].map((p) => p.requiresGrad).includes(true),
    false,
    "not trainable, by default",
  );
  adapted.mergeAdapter(UNDEFINED, { safeMerge: UNDEFINED });
});

test("sampling", async () => {
  const model = new models.Llama(LLAMA);
  const take = (options: object): number[] => [...models.generate(model, [5, 6], { maxNewTokens: 3, ...options })];
  assert.deepEqual(take({ temperature: UNDEFINED, seed: UNDEFINED, stopToken: UNDEFINED }), take({}));
});

test("safetensors", () => {
  const file = io.serializeSafetensors([{ name: "a", dtype: "F32", shape: [1], data: new Float32Array(1) }]);
  assert.equal(io.parseSafetensors(file, { name: UNDEFINED }).tensors.size, 1);
});

test.run();
