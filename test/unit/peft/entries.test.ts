/**
 * What a config or a call says and means nothing by: refused by name, with the nearest name that would. And what is
 * asked to train trains.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, io, lora, nn, peft, StateError, WasmLoraError } from "../../../src/index.js";
import { refuses } from "../../support/refuses.js";
import { peftKey } from "../../support/peft_keys.js";
import { serializePeftConfig } from "../../../src/io/peft/config.js";
import { layersOf } from "../../support/peft.js";

await init();

class Attention extends nn.Module {
  qProj = new nn.Linear(4, 4);
  vProj = new nn.Linear(4, 4);
}
class Block extends nn.Module {
  selfAttn = new Attention();
  upProj = new nn.Linear(4, 4);
}
class Inner extends nn.Module {
  embedTokens = new nn.Embedding(5, 4);
  layers = [new Block(), new Block(), new Block()];
  norm = new nn.LayerNorm(4);
}
class Model extends nn.Module {
  model = new Inner();
  lmHead = new nn.Linear(4, 5);
}
const any = (value: unknown): never => value as never;
const lists = { targetModules: ["q_proj", "v_proj"] };
const model = new Model();

const idle: [config: object, words: string[]][] = [
  [{ targetModules: ["q_porj"] }, ["targetModules", "q_porj", "Did you mean q_proj"]],
  [{ ...lists, excludeModules: ["v_proj", "lm_haed"] }, ["excludeModules", "lm_haed", "Did you mean lm_head"]],
  [{ ...lists, excludeModules: ".*\\.mlp\\..*" }, ["excludeModules", "mlp", "matches no module"]],
  [{ ...lists, excludeModules: ["self_attn"] }, ["excludeModules", "self_attn", "can be adapted", "pattern"]],
  [{ targetModules: "q_proj" }, ["targetModules", "whole paths", '["q_proj"]']],
  [{ ...lists, layersToTransform: [0, 3] }, ["layersToTransform", "holds 3", "there are 0, 1, 2"]],
  [{ ...lists, layersToTransform: 7 }, ["layersToTransform", "holds 7"]],
  [
    { targetModules: ["q_proj", "lm_head"], layersToTransform: [2], layersPattern: "layer" },
    ["layersPattern", "layer", "Did you mean layers"],
  ],
  [{ ...lists, layersToTransform: [1], layersPattern: ["layers", "h"] }, ["layersPattern", '"h"']],
  [
    { ...lists, rankPattern: { q_porj: 4 } },
    ["rankPattern", "q_porj", "matches no adapted module", "Did you mean q_proj"],
  ],
  [{ ...lists, rankPattern: { up_proj: 4 } }, ["rankPattern", "up_proj", "matches no adapted module"]],
  [{ ...lists, rankPattern: { "^q_proj": 4 } }, ["rankPattern", "^q_proj"]],
  [{ ...lists, layersToTransform: [0, 1], rankPattern: { "layers.2.*": 4 } }, ["rankPattern", "layers.2.*"]],
  [{ ...lists, alphaPattern: { v_porj: 4 } }, ["alphaPattern", "v_porj", "Did you mean v_proj"]],
  [
    { ...lists, alphaPattern: { q_proj: 4, "layers.0.self_attn.q_proj": 2 } },
    ["alphaPattern", "layers.0.self_attn.q_proj", "never counts"],
  ],
  [{ ...lists, modulesToSave: ["norm", "lm_heda"] }, ["modulesToSave", "lm_heda", "Did you mean lm_head"]],
  [{ ...lists, lora_alpha: 32 }, ["lora_alpha", "Did you mean loraAlpha"]],
  [{ ...lists, alpha: 32 }, ['"alpha"', "Did you mean loraAlpha"]],
  [{ ...lists, dropout: 0.1 }, ["dropout", "Did you mean loraDropout"]],
  [{ target_modules: ["q_proj"] }, ["target_modules", "Did you mean targetModules"]],
  [{ ...lists, taskType: "CASUAL_LM" }, ["taskType", "CASUAL_LM", "did you mean CAUSAL_LM"]],
  [{ ...lists, taskType: "chat" }, ["taskType", "chat", "SEQ_CLS"]],
  [{ ...lists, loraAlpha: 1e300 }, ["loraAlpha", "float32"]],
  [{ ...lists, alphaPattern: { q_proj: -1e39 } }, ["alphaPattern", "float32"]],
];
for (const [config, words] of idle)
  refuses(`addAdapter: ${JSON.stringify(config)}`, ArgumentError, ["addAdapter", ...words], () =>
    peft.getLoraModel(model, config),
  );

test("every entry that says something is taken", () => {
  for (const config of [
    { ...lists, excludeModules: ["lm_head", "0.self_attn.v_proj"] },
    { ...lists, excludeModules: ".*\\.1\\..*" },
    { ...lists, layersToTransform: [2, 0], layersPattern: ["layers"] },
    {
      ...lists,
      rankPattern: { "layers.0.self_attn.q_proj": 2, q_proj: 4 },
      alphaPattern: { "^model.layers.1.*": 2, ".*": 3 },
    },
    { targetModules: "all-linear", modulesToSave: ["norm"] },
    { targetModules: ["model.layers.0.self_attn.q_proj", "up_proj"], layersToTransform: 1 },
  ])
    peft.getLoraModel(model, config).unload();
});

const described: [string, () => unknown, string][] = [
  ["serializePeftConfig", () => serializePeftConfig(any({ rank: 4 })), "rank"],
  ["serializePeftConfig", () => serializePeftConfig(any(undefined)), "config"],
  ["serializePeftConfig", () => serializePeftConfig(any(null)), "null"],
  ["writePeftAdapter", () => peft.writePeftAdapter("memory:x", any({ lora_dropout: 0.5 }), []), "loraDropout"],
  ["addAdapter", () => peft.getLoraModel(model, any(undefined)), "targetModules"],
  ["addAdapter", () => peft.getLoraModel(model, any(null)), "null"],
  ["addAdapter", () => peft.getLoraModel(model, any(["q_proj"])), "array"],
  ["addAdapter", () => peft.getLoraModel(model, lists, any(7)), "7"],
  ["addAdapter", () => peft.getLoraModel(model, lists, "a.b"), "dots"],
  ["LoraModel", () => peft.getLoraModel(any({ model, config: {} }), lists), "pass its .model"],
  ["LoraModel", () => peft.getLoraModel(any(undefined), lists), "undefined"],
  ["LoraModel", () => peft.LoraModel.fromPretrained(any("memory:adapter"), any(model)), "memory:adapter"],
  ["fromPretrained", () => peft.LoraModel.fromPretrained(model, any({ adapterName: "a" })), "directory"],
  [
    "fromPretrained",
    () => peft.LoraModel.fromPretrained(model, "memory:a", any({ is_trainable: true })),
    "isTrainable",
  ],
  ["loralibToPeft", () => peft.loralibToPeft(new Map(), any({ fc: { kind: "Linear", r: 2, alpha: 4 } })), "loraAlpha"],
];
for (const [where, fn, word] of described)
  refuses(`${where}: ${String(fn).slice(6)}`, ArgumentError, [`${where}: `, word], fn);

test("a LoraModel's methods name what they cannot use", () => {
  const adapted = peft.getLoraModel(new Model(), lists, "anna");
  const wrong: [string, () => unknown, string][] = [
    ["loadAdapter", () => adapted.loadAdapter("memory:a", "b", any({ trainable: true })), "Did you mean isTrainable"],
    ["loadAdapter", () => adapted.loadAdapter("memory:a", "b", any({ isTrainable: "yes" })), "isTrainable"],
    ["loadAdapter", () => adapted.loadAdapter("memory:a", any(undefined)), "name"],
    ["loadAdapter", () => adapted.loadAdapter(any(undefined), "b"), "directory"],
    ["loadAdapter", () => adapted.loadAdapter("memory:a", "anna"), "already"],
    ["mergeAdapter", () => adapted.mergeAdapter(any("anna")), "list of names"],
    ["mergeAdapter", () => adapted.mergeAdapter(["anna"], any({ safe_merge: true })), "Did you mean safeMerge"],
    ["mergeAdapter", () => adapted.mergeAndUnload(undefined, any({ safeMerge: 1 })), "safeMerge"],
    ["setAdapter", () => adapted.setAdapter(any({ anna: 1 })), "list of names"],
    ["withAdapterNames", () => adapted.withAdapterNames(any("anna"), () => 1), "list of names"],
    ["addWeightedAdapter", () => adapted.addWeightedAdapter(any("anna"), [1], "x"), "list of names"],
    ["addWeightedAdapter", () => adapted.addWeightedAdapter(["anna"], any(1), "x"), "weights"],
    [
      "addWeightedAdapter",
      () => adapted.addWeightedAdapter(["anna"], [1], "x", any({ combination_type: "cat" })),
      "combinationType",
    ],
    ["savePretrained", () => adapted.savePretrained(any(undefined), "anna"), "directory"],
    ["hotswapAdapter", () => adapted.hotswapAdapter(any(7), "anna"), "directory"],
    ["LoraModel", () => adapted.deleteAdapter(any(undefined)), "no adapter"],
    ["LoraModel.forward", () => (adapted as unknown as { forward(): void }).forward(), "has no method forward()"],
  ];
  for (const [where, fn, word] of wrong) {
    assert.throws(
      fn,
      (e: Error) => e instanceof ArgumentError && e.message.startsWith(where) && e.message.includes(word),
      `${where}, ${word}`,
    );
  }
  assert.throws(
    () => new peft.LoraModel(adapted),
    (e: Error) => e instanceof StateError && e.message.includes("already"),
  );
  assert.deepEqual(adapted.adapters, ["anna"]);
  adapted.dispose();
});

test("in a folder, names that match nothing change no result, and PEFT writes some itself", () => {
  const factors = [0, 1, 2].flatMap((i) =>
    ["q_proj"].flatMap((name) => [
      { name: peftKey(`model.layers.${i}.self_attn.${name}`, "lora_A"), shape: [2, 4], data: new Float32Array(8) },
      { name: peftKey(`model.layers.${i}.self_attn.${name}`, "lora_B"), shape: [4, 2], data: new Float32Array(8) },
    ]),
  );
  peft.writePeftAdapter(
    "memory:idle",
    {
      r: 2,
      targetModules: ["q_proj", "query"],
      modulesToSave: ["classifier", "score"],
      rankPattern: { k_proj: 3 },
      excludeModules: ["pooler"],
    },
    factors,
  );
  const adapted = peft.LoraModel.fromPretrained(new Model(), "memory:idle");
  assert.equal(layersOf(adapted).length, 3);
  adapted.dispose();
  // What is not true of the tensors is refused: another rank by a pattern, a module of which nothing is there.
  peft.writePeftAdapter("memory:lie", { r: 2, targetModules: ["q_proj"], modulesToSave: ["norm"] }, factors);
  assert.throws(
    () => peft.LoraModel.fromPretrained(new Model(), "memory:lie"),
    (e: Error) => e.message.includes("norm.weight is missing"),
  );
  assert.throws(
    () =>
      peft.writePeftAdapter(
        "memory:lie",
        { r: 2, targetModules: ["q_proj"], rankPattern: { "0.self_attn.q_proj": 1 } },
        factors,
      ),
    /r = 1, by rank_pattern/,
  );
});

test("what is asked to train trains, also after a freeze, and nothing else does", () => {
  const trains = (adapted: peft.LoraModel): string[] => [
    ...new Set(
      adapted
        .parameters()
        .filter((p) => p.requiresGrad)
        .flatMap((p) =>
          [...adapted.namedParameters()]
            .filter(([, q]) => q === p)
            .map(([key]) => /\.(anna|ben|carl)\./.exec(key)?.[1] ?? key),
        ),
    ),
  ];
  const first = peft.getLoraModel(new Model(), lists, "anna");
  first.savePretrained("memory:anna", "anna");
  first.dispose();
  const adapted = peft.LoraModel.fromPretrained(new Model(), "memory:anna", { adapterName: "anna" });
  assert.deepEqual(trains(adapted), []);
  assert.equal(adapted.training, false);
  adapted.loadAdapter("memory:anna", "ben", { isTrainable: true });
  assert.deepEqual(
    [trains(adapted), adapted.activeAdapters, adapted.training],
    [["ben"], ["anna"], false],
    "beside a frozen one",
  );
  adapted.loadAdapter("memory:anna", "carl");
  assert.deepEqual(trains(adapted), ["ben"], "one more, frozen");
  adapted.train();
  assert.deepEqual(trains(adapted), ["ben"], "train() changes the mode alone");
  adapted.hotswapAdapter("memory:anna", "ben");
  adapted.hotswapAdapter("memory:anna", "carl");
  assert.deepEqual(trains(adapted), ["ben"], "others in their places");
  adapted.setAdapter("carl");
  assert.deepEqual(trains(adapted), ["carl"]);
  for (const p of adapted.parameters()) p.requiresGrad = false;
  adapted.setAdapter("carl");
  assert.deepEqual(trains(adapted), ["carl"], "after a freeze");
  adapted.setAdapter(["anna", "ben"]);
  assert.deepEqual(trains(adapted).sort(), ["anna", "ben"]);
  adapted.dispose();
  const trained = peft.LoraModel.fromPretrained(new Model(), "memory:anna", { adapterName: "anna", isTrainable: true });
  trained.loadAdapter("memory:anna", "ben");
  assert.deepEqual(trains(trained), ["anna"], "loading another for use leaves what trains");
  for (const p of trained.parameters()) p.requiresGrad = true;
  lora.markOnlyLoraAsTrainable(trained);
  assert.deepEqual(trains(trained).sort(), ["anna", "ben"]);
  trained.dispose();
});

test("whatever is given, it is taken or refused by an error of the library", () => {
  const odd = [
    undefined,
    null,
    0,
    -1.5,
    NaN,
    "memory:x",
    "",
    [],
    [1],
    [null],
    ["fc"],
    {},
    { a: 1 },
    () => 1,
    Symbol("s"),
    10n,
    new Map(),
    new Set([1]),
    new Float32Array(2),
    true,
    new Date(0),
    Object.create(null),
    new Model(),
  ];
  const make = (): peft.LoraModel<Model> => peft.getLoraModel(new Model(), lists, "a");
  const calls: ((x: never) => unknown)[] = [
    (x) => serializePeftConfig(x),
    (x) => serializePeftConfig({ targetModules: x, rankPattern: x }),
    (x) => peft.writePeftAdapter(x, x, x),
    (x) => peft.writePeftAdapter("memory:odd", {}, [x]),
    (x) => peft.writePeftAdapter("memory:odd", {}, [{ name: x, shape: x, data: x }]),
    (x) => peft.readPeftAdapter(x),
    (x) => peft.getLoraModel(x, x),
    (x) => peft.getLoraModel(new Model(), x),
    (x) => peft.getLoraModel(new Model(), { targetModules: x }),
    (x) => peft.getLoraModel(new Model(), { ...lists, excludeModules: x }),
    (x) => peft.getLoraModel(new Model(), { ...lists, initLoraWeights: x, alphaPattern: x }),
    (x) => peft.getLoraModel(new Model(), lists, x),
    (x) => make().setAdapter(x),
    (x) => make().addAdapter(x, x),
    (x) => make().deleteAdapter(x),
    (x) => make().disableAdapter(x),
    (x) => make().withAdapterNames(x, x),
    (x) => make().mergeAdapter(x, x),
    (x) => make().mergeAndUnload(["a"], x),
    (x) => make().addWeightedAdapter(x, x, x, x),
    (x) => make().addWeightedAdapter(["a"], [x], "n"),
    (x) => make().addWeightedAdapter(["a"], [1], "n", { combinationType: x, svdRank: x }),
    (x) => make().savePretrained(x),
    (x) => make().loadAdapter(x, x),
    (x) => make().hotswapAdapter(x, x),
    (x) => peft.LoraModel.fromPretrained(x, x),
    (x) => peft.LoraModel.fromPretrained(new Model(), "memory:odd", x),
    (x) => make().config(x),
    (x) => peft.loralibToPeft(x, x),
    (x) => peft.loralibToPeft(new Map(), { a: x }),
    (x) => peft.loralibToPeft(new Map([["a.lora_A", x]]), { a: { kind: "Linear", r: 1, loraAlpha: 1 } }),
    (x) => peft.loralibToPeft(new Map(), { a: { kind: "Conv2d", r: 1, loraAlpha: 1, kernelSize: x } }),
    (x) => io.saveLoralib(x, x),
    (x) => io.saveLoralib("memory:odd", new Map([["lora_A", x]])),
    (x) => io.loadLoralib(x),
  ];
  for (const call of calls)
    for (const [i, x] of odd.entries()) {
      try {
        call(x as never);
      } catch (error) {
        assert.ok(error instanceof WasmLoraError, `${String(call)} of odd[${i}]: ${String(error)}`);
      }
    }
});

test.run();
