/** The tree of modules: where it looks, how it names, what is one parameter under two names. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  lora,
  models,
  nn,
  ops,
  optim,
  peft,
  scope,
  StateError,
  tensor,
  type Tensor,
} from "../../../src/index.js";
import { LLAMA } from "../../support/language_models.js";
import { layersOf } from "../../support/peft.js";

await init();

const linear = (): nn.Linear => new nn.Linear(2, 2, { bias: false });
const keys = (m: nn.Module): string[] => [...m.stateDict().keys()];

class Nested extends nn.Module {
  heads = { anna: linear(), ben: { deep: linear() } };
  blocks = [[linear(), linear()], [linear()]];
  table = new Map<string, unknown>([
    ["a", linear()],
    ["list", [linear()]],
  ]);
  upProj = linear();
  scales = { one: new nn.Parameter([1]).set([1]), others: [new nn.Parameter([1]).set([2])] };
  config = { hidden: 4, names: ["x"], nothing: null };
  missing = Object.assign(Object.create(null) as Record<string, unknown>, { bare: linear() });
}

const NAMES = [
  "scales.one",
  "scales.others.0",
  "heads.anna.weight",
  "heads.ben.deep.weight",
  "blocks.0.0.weight",
  "blocks.0.1.weight",
  "blocks.1.0.weight",
  "table.a.weight",
  "table.list.0.weight",
  "up_proj.weight",
  "missing.bare.weight",
];

test("modules and parameters in plain objects, nested arrays and maps have names, modes, states and gradients", () => {
  const model = new Nested();
  assert.deepEqual(keys(model), NAMES);
  assert.deepEqual(
    [...model.namedParameters()].map(([key]) => key),
    NAMES,
  );
  model.eval();
  assert.deepEqual([model.heads.ben.deep.training, model.blocks[1]![0]!.training], [false, false]);
  const state = model.stateDict();
  const other = new Nested();
  other.loadStateDict(state);
  assert.deepEqual(other.stateDict(), state);
  other.loadStateDict(Object.fromEntries(state));
  lora.markOnlyLoraAsTrainable(model);
  assert.deepEqual(
    model.parameters().filter((p) => p.requiresGrad),
    [],
  );
  model.dispose();
  assert(model.heads.anna.weight.disposed && model.scales.others[0]!.disposed);
});

test("adapters find modules in all of these places", () => {
  const model = new Nested();
  const adapted = peft.getLoraModel(model, { r: 1, targetModules: "all-linear" });
  for (const layer of [
    model.heads.anna,
    model.heads.ben.deep,
    model.blocks[0]![1],
    model.table.get("a"),
    (model.table.get("list") as unknown[])[0],
    model.missing["bare"],
  ]) {
    assert(layer instanceof peft.LoraLinear);
  }
  assert.deepEqual(
    layersOf(adapted).map(({ path }) => `${path}.weight`),
    NAMES.slice(2),
  );
  assert.equal(adapted.unload(), model);
  assert.deepEqual(keys(model), NAMES);
});

test("a parameter with two names is one parameter; its state has both", () => {
  class Tied extends nn.Module {
    first = linear();
    second = this.first;
    third = Object.assign(linear(), { weight: this.first.weight });
    both = [this.first.weight, this.first.weight];
  }
  const model = new Tied();
  const { weight } = model.first;
  assert.deepEqual(model.parameters(), [weight]);
  assert.deepEqual(
    [...model.namedParameters()].map(([key]) => key),
    ["both.0"],
  );
  assert.deepEqual(keys(model), ["both.0", "both.1", "first.weight", "second.weight", "third.weight"]);

  scope(() => ops.sum(model.second.forward(tensor([[3, 4]]))).backward());
  const norm = Math.hypot(...weight.grad!.data);
  assert(Math.abs(optim.clipGradNorm_([weight, ...model.parameters(), weight], 1) - norm) < 1e-5);
  assert(Math.abs(Math.hypot(...weight.grad!.data) - 1) < 1e-5);

  const adapted = peft.getLoraModel(Object.assign(new Tied(), { other: linear() }), { r: 1, targetModules: ["other"] });
  assert.deepEqual(adapted.getNbTrainableParameters(), [4, 12]);
  weight.set([1, 2, 3, 4]);
  const state = model.stateDict();
  state.get("second.weight")!.data.fill(9);
  model.loadStateDict(new Map([...state].filter(([key]) => key !== "third.weight")), false);
  assert.deepEqual(weight.data[0], 9);
  assert.deepEqual(
    optim.loraPlusGroups(model, { lr: 1, loraplusLrRatio: 2 }).map(({ params }) => params.length),
    [1, 0, 0, 0],
  );
});

test("what leads back to itself ends", () => {
  class Child extends nn.Module {
    fc = linear();
    constructor(readonly parent: nn.Module) {
      super();
    }
  }
  class Parent extends nn.Module {
    child = new Child(this);
    self: nn.Module = this;
    ring: Record<string, unknown> = { fc: linear() };
    constructor() {
      super();
      this.ring["again"] = [this.ring];
      // Each of thirty refers to all: as many ways through them as 30!.
      const crowd: unknown[][] = Array.from({ length: 30 }, () => []);
      for (const one of crowd) one.push(...crowd);
      this.ring["crowd"] = crowd;
    }
  }
  const model = new Parent();
  assert.deepEqual(keys(model), ["child.fc.weight", "ring.fc.weight"]);
  model.eval();
  assert.equal(model.child.fc.training, false);
  const adapted = peft.getLoraModel(model, { r: 1, targetModules: "all-linear" });
  assert.equal(layersOf(adapted).length, 2);
});

test("a module where the tree does not look is refused, but for what refers to the whole", () => {
  class Box {
    constructor(readonly content: unknown) {}
  }
  const refused = (value: unknown, ...words: string[]): void => {
    const model = Object.assign(linear(), { extra: value });
    for (const use of [
      () => model.parameters(),
      () => model.stateDict(),
      () => [...model.namedParameters()],
      () => model.loadStateDict(new Map()),
    ]) {
      assert.throws(
        use,
        (e: Error) => e instanceof StateError && ["extra", ...words].every((w) => e.message.includes(w)),
        String(words),
      );
    }
  };
  refused(new Set([linear()]), "Set", "Linear", "array");
  refused(new Box(linear()), "Box", "Linear", "#private");
  refused(new Box({ deep: [new nn.Parameter([1])] }), "Box", "Parameter");
  refused({ list: [new Set([[linear()]])] }, "Set", "Linear");

  const model = Object.assign(new Nested(), { helper: null as unknown });
  for (const helper of [
    new Box(model),
    new Box(model.heads.anna),
    new Set([model.upProj.weight]),
    new Set([1]),
    new Box(3),
    new Date(),
    new Float32Array(3),
    tensor([1]),
    new optim.AdamW(model.parameters()),
    new Map([[model, 1]]),
  ]) {
    model.helper = helper;
    assert.deepEqual(keys(model), NAMES);
  }
});

test("loadStateDict: what is no state dict is refused by name", () => {
  const model = linear();
  const cases: [unknown, string][] = [
    [undefined, "undefined"],
    [null, "null"],
    [[], "an array"],
    [new Set(), "a Set"],
    ["path", '"path"'],
    [model, "a Linear"],
    [{ weight: [1, 2, 3, 4] }, "weight"],
    [new Map([["weight", null]]), "weight"],
    [{ weight: { shape: [2, 2] } }, "weight"],
  ];
  const before = model.weight.data.slice();
  for (const [state, word] of cases) {
    assert.throws(
      () => model.loadStateDict(state as nn.StateDict),
      (e: Error) => e instanceof ArgumentError && e.message.startsWith("loadStateDict: ") && e.message.includes(word),
    );
  }
  assert.deepEqual(model.weight.data, before);
});

test("the tree of a language model has the keys it had", () => {
  const model = new models.Llama({ ...LLAMA, numHiddenLayers: 1 });
  assert.deepEqual(keys(model), [
    "model.embed_tokens.weight",
    ...[
      "self_attn.q_proj",
      "self_attn.k_proj",
      "self_attn.v_proj",
      "self_attn.o_proj",
      "mlp.gate_proj",
      "mlp.up_proj",
      "mlp.down_proj",
      "input_layernorm",
      "post_attention_layernorm",
    ].map((n) => `model.layers.0.${n}.weight`),
    "model.norm.weight",
  ]);
  const y: Tensor = model.forward(tensor(new Int32Array([1, 2]), [1, 2]));
  assert.deepEqual(y.shape, [1, 2, LLAMA.vocabSize]);
  model.dispose();
});

test("a name that begins with a capital is the key as it is", () => {
  class Norms extends nn.Module {
    LayerNorm = new nn.LayerNorm(2, 1e-5, false);
    Wqkv = linear();
    lnF = new nn.LayerNorm(2);
  }
  const model = new Norms();
  assert.deepEqual(keys(model), ["LayerNorm.weight", "Wqkv.weight", "ln_f.weight", "ln_f.bias"]);
  const x = tensor([
    [1, 3],
    [2, -5],
  ]);
  assert.deepEqual(model.LayerNorm.forward(x).data, model.lnF.forward(x).data);
  model.dispose();
});

test("a long list of numbers in a config costs a walk next to nothing", () => {
  const model = Object.assign(new Nested(), {
    settings: {
      ids: Array.from({ length: 1_000_000 }, (_, i) => i),
      names: { list: new Array<string>(1_000_000).fill("x") },
    },
  });
  const start = performance.now();
  for (let i = 0; i < 5; i++) model.parameters();
  assert(performance.now() - start < 3000);
});

test.run();
