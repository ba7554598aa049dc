/** Many adapters on one base: which are there, which act, which train, and that the base survives. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  lora,
  memoryStats,
  nn,
  ops,
  optim,
  peft,
  scope,
  ShapeError,
  StateError,
  zeros,
} from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import {
  ALL,
  Tiny,
  assertValues,
  batch,
  layersOf,
  outputs,
  parametersOf,
  tiny,
  train,
  trainable,
  values,
} from "../../support/peft.js";
import { refuses } from "../../support/refuses.js";

await init();
const isOf = (name: string, key: string): boolean => key.split(".").slice(1).includes(name);
const keysOf = (adapted: peft.LoraModel, name: string): string[] =>
  [...adapted.namedParameters()].map(([key]) => key).filter((key) => isOf(name, key));

test("state-dict keys and shapes are PEFT's", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ALL, useDora: true, modulesToSave: ["norm"] }, "a");
  const shapes = Object.fromEntries(
    [...adapted.namedParameters()]
      .filter(([key]) => isOf("a", key) || key.startsWith("model.head"))
      .map(([key, p]) => [key, p.shape]),
  );
  assert.deepEqual(shapes, {
    "model.embed.lora_embedding_A.a": [2, 10],
    "model.embed.lora_embedding_B.a": [6, 2],
    "model.embed.lora_magnitude_vector.a.weight": [6],
    "model.body.fc.lora_A.a.weight": [2, 6],
    "model.body.fc.lora_B.a.weight": [8, 2],
    "model.body.fc.lora_magnitude_vector.a.weight": [8],
    "model.body.proj.lora_A.a.weight": [2, 8],
    "model.body.proj.lora_B.a.weight": [6, 2],
    "model.body.proj.lora_magnitude_vector.a.weight": [6],
    "model.norm.modules_to_save.a.weight": [6],
    "model.norm.modules_to_save.a.bias": [6],
    "model.conv.lora_A.a.weight": [2, 4, 2, 3],
    "model.conv.lora_B.a.weight": [4, 2, 1, 1],
    "model.conv.lora_magnitude_vector.a.weight": [4],
    "model.head.base_layer.weight": [5, 24],
    "model.head.base_layer.bias": [5],
    "model.head.lora_A.a.weight": [2, 24],
    "model.head.lora_B.a.weight": [5, 2],
    "model.head.lora_magnitude_vector.a.weight": [5],
  });
  const state = adapted.stateDict();
  train(adapted, "a", 1);
  adapted.loadStateDict(state);
  assert.deepEqual(adapted.stateDict(), state);
  adapted.dispose();
});

const targeted: [string, Partial<peft.LoraConfig>, string[]][] = [
  ["names, by the end of the path", { targetModules: ["fc", "embed"] }, ["embed", "body.fc"]],
  ["a whole path", { targetModules: ["body.proj"] }, ["body.proj"]],
  ["a pattern for the whole path", { targetModules: "body\\..*|.*d" }, ["embed", "body.fc", "body.proj", "head"]],
  ["all-linear: not the output layer", { targetModules: "all-linear" }, ["body.fc", "body.proj"]],
  ["all-linear but for what is excluded", { targetModules: "all-linear", excludeModules: ["fc"] }, ["body.proj"]],
  ["not what modulesToSave holds", { targetModules: ["fc", "head"], modulesToSave: ["head"] }, ["body.fc"]],
];
for (const [label, config, expected] of targeted) {
  test(`targetModules: ${label}`, () => {
    const adapted = peft.getLoraModel(tiny(), config);
    assert.deepEqual(
      layersOf(adapted).map(({ path }) => path),
      expected,
    );
    adapted.dispose();
  });
}

test("all-linear is spelled out in the config, also for a model whose output layer is called like others", () => {
  class Head extends nn.Module {
    readonly body = new Tiny();
    readonly fc: nn.Layer = new nn.Linear(6, 6);
    getOutputEmbeddings(): nn.Module {
      return this.fc;
    }
  }
  const adapted = peft.getLoraModel(new Head(), { targetModules: "all-linear" });
  const again = new peft.LoraModel(new Head());
  again.addAdapter("default", adapted.config("default"));
  for (const a of [adapted, again])
    assert.deepEqual(
      layersOf(a).map(({ path }) => path),
      ["body.body.fc", "body.body.proj", "body.head"],
    );
  const plain = peft.getLoraModel(tiny(), { targetModules: "all-linear" });
  assert.deepEqual(plain.config("default").targetModules, ["fc", "proj"]);
  for (const a of [adapted, again, plain]) a.dispose();
});

test("adding leaves what trains and what acts as it is; setAdapter changes both", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ALL }, "a");
  assert.deepEqual(trainable(adapted), keysOf(adapted, "a"));
  train(adapted, "a", 1);
  const before = outputs(adapted.model);
  const frozen = parametersOf(adapted, "a")[0]!;
  frozen.requiresGrad = false;
  adapted.addAdapter("b", { r: 3, targetModules: ["fc"] });
  train(adapted, "b", 2);
  assert.equal(frozen.requiresGrad, false);
  assert.deepEqual(trainable(adapted), keysOf(adapted, "a").slice(1));
  assert.deepEqual([adapted.adapters, adapted.activeAdapters], [["a", "b"], ["a"]]);
  assertBits("b waits", outputs(adapted.model), before);

  adapted.setAdapter("b");
  assert.deepEqual(trainable(adapted), keysOf(adapted, "b"));
  adapted.setAdapter(["b", "a", "b"]);
  assert.deepEqual(adapted.activeAdapters, ["b", "a"]);
  assert.deepEqual(trainable(adapted).sort(), [...keysOf(adapted, "a"), ...keysOf(adapted, "b")].sort());
  adapted.setAdapter("a");
  assertBits("a again", outputs(adapted.model), before);
  adapted.dispose();
});

test("only active adapters get gradients and train, the base never", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ALL, modulesToSave: ["norm"] }, "a");
  adapted.addAdapter("b", { r: 2, targetModules: ALL });
  for (const name of ["a", "b"]) train(adapted, name, 3);
  const before = values(adapted);
  const optimizer = new optim.AdamW(
    adapted.parameters().filter((p) => p.requiresGrad),
    { lr: 0.01 },
  );
  scope(() => ops.sum(ops.mul(adapted.model.forward(batch(3)), adapted.model.forward(batch(3)))).backward());
  for (const [key, p] of adapted.namedParameters()) assert.equal(p.grad !== null, isOf("a", key), key);
  optimizer.step();
  optimizer.zeroGrad();
  for (const [key, data] of values(adapted))
    assert.equal(
      data.some((v, i) => v !== before.get(key)![i]),
      isOf("a", key),
      key,
    );
  optimizer.dispose();
  adapted.dispose();
});

test("bias: all trains every bias of the base, lora_only those of adapted layers; others must have none", () => {
  for (const [bias, biases] of [
    ["all", ["body.fc.base_layer", "body.proj", "norm", "conv", "head"]],
    ["lora_only", ["body.fc.base_layer"]],
    ["none", []],
  ] as const) {
    const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ["fc"], bias }, "a");
    assert.deepEqual(
      trainable(adapted).filter((key) => !key.includes("lora_")),
      biases.map((path) => `model.${path}.bias`),
    );
    adapted.addAdapter("b", { r: 2, targetModules: ["fc"] });
    adapted.setAdapter(["b", "a"]);
    if (bias !== "none")
      assert.throws(
        () => adapted.addAdapter("c", { targetModules: ["fc"], bias }),
        /bias must be "none" where there are several adapters/,
      );
    adapted.deleteAdapter("a");
    assert.deepEqual(trainable(adapted), keysOf(adapted, "b"));
    adapted.dispose();
  }
});

test("modulesToSave: a copy for each adapter, trained and used in the place of the original", () => {
  const model = tiny();
  const base = outputs(model);
  const before = values(model);
  const live = memoryStats().liveBytes;
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["fc"], modulesToSave: ["head", "norm"] }, "a");
  assertBits("a copy", outputs(model), base);
  adapted.addAdapter("b", { r: 2, targetModules: ["fc"], modulesToSave: ["head"] });
  adapted.addAdapter("c", { r: 2, targetModules: ["fc"] });
  for (const [i, name] of ["a", "b"].entries()) train(adapted, name, i);
  const seen = new Map<string, Float32Array>();
  for (const name of ["a", "b", "c"]) {
    adapted.setAdapter(name);
    seen.set(name, outputs(model));
  }
  assertBits("c has no copies", seen.get("c")!, base);
  assert.throws(
    () => adapted.setAdapter(["a", "b"]),
    /a, b have a copy of the same module each \(modulesToSave\); only one/,
  );
  adapted.setAdapter(["c", "b"]);
  assertBits("b's head beside c", outputs(model), seen.get("b")!);
  assertBits(
    "disabled",
    adapted.disableAdapter(() => outputs(model)),
    base,
  );
  for (const name of ["a", "b"]) adapted.deleteAdapter(name);
  assertBits("c", outputs(model), base);
  adapted.unload();
  assertValues("unloaded", model, before);
  assert.equal(memoryStats().liveBytes, live);
  model.dispose();
});

test("deleteAdapter frees it; the oldest of the others takes over; the last leaves the base", () => {
  const model = tiny();
  const base = outputs(model);
  const live = memoryStats().liveBytes;
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ALL, useDora: true, modulesToSave: ["norm"] }, "a");
  const withA = memoryStats().liveBytes;
  adapted.addAdapter("b", { r: 3, targetModules: ["fc"] });
  train(adapted, "b", 1);
  adapted.setAdapter("b");
  const b = outputs(model);
  const parameters = parametersOf(adapted, "a");
  adapted.deleteAdapter("a");
  assert.deepEqual([adapted.adapters, adapted.activeAdapters], [["b"], ["b"]]);
  assert(parameters.every((p) => p.disposed));
  assertBits("b acts on", outputs(model), b);
  adapted.addAdapter("c", { r: 2, targetModules: ["fc"] });
  adapted.deleteAdapter("b");
  assert.deepEqual(
    [adapted.adapters, adapted.activeAdapters, trainable(adapted)],
    [["c"], ["c"], keysOf(adapted, "c")],
  );
  adapted.deleteAdapter("c");
  assert.deepEqual([adapted.adapters, adapted.activeAdapters, trainable(adapted)], [[], [], []]);
  assertBits("base", outputs(model), base);
  assert.equal(memoryStats().liveBytes, live);
  assert.deepEqual(layersOf(adapted), []);
  adapted.addAdapter("a", { r: 2, targetModules: ["fc"], modulesToSave: ["head"] });
  adapted.deleteAdapter("a");
  adapted.addAdapter("a", { r: 2, targetModules: ALL, useDora: true, modulesToSave: ["norm"] });
  assert.deepEqual([adapted.activeAdapters, memoryStats().liveBytes], [["a"], withA]);
  adapted.dispose();
});

test("disableAdapter: the base's bits, nested, merged and when fn throws; then all is as before", () => {
  const model = tiny();
  const base = outputs(model);
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ALL, modulesToSave: ["norm"] }, "a");
  adapted.addAdapter("b", { r: 2, targetModules: ALL, useDora: true });
  for (const [i, name] of ["a", "b"].entries()) train(adapted, name, i);
  adapted.setAdapter(["a", "b"]);
  for (const merged of [false, true]) {
    if (merged) adapted.mergeAdapter(["b", "a"]);
    const before = outputs(model);
    const state = values(adapted);
    const trains = trainable(adapted);
    const nested = adapted.disableAdapter(() => {
      assertBits(
        "inner",
        adapted.disableAdapter(() => outputs(model)),
        base,
      );
      return outputs(model);
    });
    assertBits("outer", nested, base);
    assert.throws(
      () =>
        adapted.disableAdapter(() => {
          throw new RangeError("mine");
        }),
      RangeError,
    );
    for (const [where, run] of [
      ["mergeAdapter", () => adapted.mergeAdapter()],
      ["unmergeAdapter", () => adapted.unmergeAdapter()],
      ["setAdapter", () => adapted.setAdapter("a")],
      ["deleteAdapter", () => adapted.deleteAdapter("a")],
      ["addAdapter", () => adapted.addAdapter("c", { targetModules: ["fc"] })],
      ["unload", () => adapted.unload()],
      ["mergeAdapter", () => adapted.mergeAndUnload()],
    ] as const) {
      assert.throws(
        () => adapted.disableAdapter(run),
        (e: Error) =>
          e instanceof StateError &&
          e.message === `${where}: disableAdapter is running its function; call this after it.`,
      );
    }
    assert.throws(() => adapted.disableAdapter(async () => {}), /disableAdapter: fn must be synchronous/);
    assertBits("after", outputs(model), before);
    assertValues("after", adapted, state);
    assert.deepEqual([adapted.mergedAdapters, trainable(adapted)], [merged ? ["b", "a"] : [], trains]);
  }
  adapted.dispose();
});

for (const init of ["pissa", "pissa_niter_4", "olora"] as const) {
  test(`${init}: disabled, deleted or unloaded, the base is what it was; nothing can stand beside it`, () => {
    const model = tiny();
    const before = values(model);
    const base = outputs(model);
    const live = memoryStats().liveBytes;
    const config = { r: 3, loraAlpha: 6, initLoraWeights: init, targetModules: ["fc", "proj", "embed"] };
    for (const end of ["delete", "unload"]) {
      const adapted = peft.getLoraModel(model, config);
      assert(
        layersOf(adapted)
          .filter(({ path }) => path !== "embed")
          .every(({ path, layer }) => layer.weight.data.some((v, i) => v !== before.get(`${path}.weight`)![i])),
      );
      train(adapted, "default", 1);
      const y = outputs(model);
      assertBits(
        "disabled",
        adapted.disableAdapter(() => adapted.disableAdapter(() => outputs(model))),
        base,
      );
      assertBits("enabled", outputs(model), y);
      assert.throws(
        () => adapted.addAdapter("b", { targetModules: ["fc"] }),
        (e: Error) => e instanceof StateError && e.message.includes('adapter "default" changed the base weights'),
      );
      adapted.mergeAdapter();
      assertBits(
        "disabled while merged",
        adapted.disableAdapter(() => outputs(model)),
        base,
      );
      adapted.unmergeAdapter();
      if (end === "delete") adapted.deleteAdapter("default");
      adapted.unload();
      assertValues(end, model, before);
    }
    assert.equal(memoryStats().liveBytes, live);
    const adapted = peft.getLoraModel(model, { targetModules: ["fc"] }, "plain");
    assert.throws(
      () => adapted.addAdapter("b", config),
      /changes the base weights under plain; use it on a model without adapters/,
    );
    adapted.dispose();
  });
}

test("the report counts values", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ["fc"] });
  const all = adapted.parameters().reduce((n, p) => n + p.size, 0);
  assert.deepEqual(adapted.getNbTrainableParameters(), [2 * 6 + 2 * 8, all]);
  const { log } = console;
  const printed: unknown[] = [];
  console.log = (...args) => {
    printed.push(...args);
  };
  try {
    adapted.printTrainableParameters();
  } finally {
    console.log = log;
  }
  assert.deepEqual(printed, [`trainable params: 28 || all params: ${all} || trainable%: ${(2800 / all).toFixed(4)}`]);
  adapted.dispose();
});

{
  const model = tiny();
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["fc"] }, "a");
  const before = values(adapted);
  const add =
    (config: Partial<peft.LoraConfig>, name = "b"): (() => void) =>
    () =>
      adapted.addAdapter(name, config);
  refuses(
    "a name that is taken",
    ArgumentError,
    ['addAdapter: there is an adapter "a" already'],
    add({ targetModules: ["fc"] }, "a"),
  );
  for (const name of ["", "a.b", "__base__"])
    refuses(
      `the name "${name}"`,
      ArgumentError,
      [`"${name}" is no name for an adapter`],
      add({ targetModules: ["fc"] }, name),
    );
  refuses(
    "targets that are not there",
    ArgumentError,
    ["addAdapter: targetModules", "nope", "fc, proj"],
    add({ targetModules: ["nope"] }),
  );
  refuses("one target that is not there", ArgumentError, ["nope"], add({ targetModules: ["fc", "nope"] }));
  refuses(
    "a target of another kind",
    ArgumentError,
    ["target module norm is a LayerNorm"],
    add({ targetModules: ["fc", "norm"] }),
  );
  refuses(
    "a module to save that is not there",
    ArgumentError,
    ['modulesToSave holds "nope"'],
    add({ targetModules: ["fc"], modulesToSave: ["nope"] }),
  );
  refuses(
    "a module to save that is no layer",
    ArgumentError,
    ["modulesToSave: body is a Body"],
    add({ targetModules: ["head"], modulesToSave: ["body"] }),
  );
  refuses(
    "a module to save that is adapted",
    ArgumentError,
    ["modulesToSave: body.fc is a LoraLinear"],
    add({ targetModules: ["proj"], modulesToSave: ["fc"] }),
  );
  test("a target that another adapter saves", () => {
    const other = peft.getLoraModel(tiny(), { targetModules: ["fc"], modulesToSave: ["head"] }, "a");
    assert.throws(
      () => other.addAdapter("b", { targetModules: ["head"] }),
      /target module head is in another adapter's modulesToSave/,
    );
    other.dispose();
  });
  refuses("a config out of range", ArgumentError, ["addAdapter: r is 0"], add({ r: 0, targetModules: ["fc"] }));
  refuses(
    "an init that a later layer cannot have",
    ArgumentError,
    ["addAdapter: conv"],
    add({ targetModules: ["fc", "conv"], initLoraWeights: "orthogonal", r: 2 }),
  );
  refuses(
    "an odd rank for orthogonal",
    ArgumentError,
    ["body.proj", "even r"],
    add({ targetModules: ["fc", "proj"], initLoraWeights: "orthogonal", r: 2, rankPattern: { proj: 3 } }),
  );
  refuses("unknown names", ArgumentError, ['there is no adapter "x"; there are a'], () =>
    adapted.setAdapter(["a", "x"]),
  );
  refuses("no names", ArgumentError, ["setAdapter: expected at least one"], () => adapted.setAdapter([]));
  refuses("deleting an unknown name", ArgumentError, ['no adapter "x"'], () => adapted.deleteAdapter("x"));
  refuses("wrapping a wrapped model", StateError, ["body.fc has adapters already; call addAdapter()"], () =>
    peft.getLoraModel(model, { targetModules: ["fc"] }),
  );
  test("a refusal changes nothing", () => {
    assertValues("refused", adapted, before);
    assert.deepEqual(
      [adapted.adapters, adapted.activeAdapters, trainable(adapted)],
      [["a"], ["a"], keysOf(adapted, "a")],
    );
  });

  const grouped = new Tiny(2);
  refuses("a rank that groups do not divide", ArgumentError, ["addAdapter: conv: r = 3", "groups = 2"], () =>
    peft.getLoraModel(grouped, { r: 3, targetModules: ["conv"] }),
  );
  refuses("DoRA on groups", ArgumentError, ["addAdapter: conv: a convolution with groups = 2", "without DoRA"], () =>
    peft.getLoraModel(grouped, { r: 2, targetModules: ["conv"], useDora: true }),
  );
  class Loralib extends nn.Module {
    readonly fc = new lora.Linear(3, 3, { r: 1 });
  }
  const loralib = new Loralib();
  refuses("loralib's layers", ArgumentError, ["target module fc is a Linear", "not what extends them"], () =>
    peft.getLoraModel(loralib, { targetModules: ["fc"] }),
  );
  class Shared extends nn.Module {
    readonly up: nn.Layer = new nn.Linear(3, 3);
    readonly down = this.up;
  }
  const shared = new Shared();
  refuses("one layer in two places", ArgumentError, ["addAdapter: up and down share their weight"], () =>
    peft.getLoraModel(shared, { targetModules: "all-linear" }),
  );
  test("one layer in two places, the second adapter in the other place", () => {
    const adapted = peft.getLoraModel(shared, { targetModules: ["up"] });
    assert.throws(() => adapted.addAdapter("b", { targetModules: ["down"] }), /up and down share their weight/);
    adapted.dispose();
  });
  test("a pissa that a later layer cannot have gives the earlier ones their weights back", () => {
    const plain = tiny();
    const weights = values(plain);
    const keys = plain.children();
    (plain.body.proj as nn.Linear).weight.data[0] = NaN;
    weights.set("body.proj.weight", (plain.body.proj as nn.Linear).weight.data.slice());
    assert.throws(
      () => peft.getLoraModel(plain, { r: 2, initLoraWeights: "pissa", targetModules: ["fc", "proj"] }),
      /body\.proj: weight holds NaN/,
    );
    assertValues("refused", plain, weights);
    assert([...keys].every(([, module]) => !(module instanceof peft.LoraLayer)));
    plain.dispose();
  });
}

test("an adapted layer names what is wrong with its input", () => {
  const adapted = peft.getLoraModel(tiny(), { r: 2, targetModules: ALL });
  scope(() =>
    assert.throws(
      () => adapted.model.body.fc.forward(zeros([3, 5])),
      (e: Error) => e instanceof ShapeError && e.message.startsWith("peft.LoraLinear.forward: x has shape [3,5]"),
    ),
  );
  adapted.dispose();
});

test.run();
