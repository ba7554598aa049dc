/**
 * Adapters on a model whose output head is its embedding table. Expected: what PEFT 0.21 on transformers 5.17 does with
 * modules_to_save of table, head and both, ensure_weight_tying either way, and with LoRA on either; the logits in
 * float64 by hand. The model's layers add nothing, so that logits are head · rmsnorm(table[id]).
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  FormatError,
  init,
  io,
  manualSeed,
  memoryStats,
  models,
  noGrad,
  optim,
  peft,
  scope,
  StateError,
  tensor,
} from "../../../src/index.js";
import { peftEmbeddingKey, peftKey } from "../../support/peft_keys.js";
import { layersOf, copiesOf } from "../../support/peft.js";
import { stream } from "../../support/random.js";

await init();
const V = 7;
const D = 4;
const EPS = 1e-5;
const CONFIG = {
  modelType: "llama" as const,
  vocabSize: V,
  hiddenSize: D,
  intermediateSize: 2,
  numHiddenLayers: 1,
  numAttentionHeads: 1,
  numKeyValueHeads: 1,
  headDim: D,
  maxPositionEmbeddings: 16,
  rmsNormEps: EPS,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
};
const random = stream(5);
const numbers = (n: number): Float32Array => Float32Array.from({ length: n }, () => random() * 2 - 1);
const TABLE = numbers(V * D);
const OTHER = numbers(V * D);
const THIRD = numbers(V * D);
function tiedModel(): models.Llama {
  manualSeed(0);
  const model = new models.Llama(CONFIG);
  for (const [key, p] of model.namedParameters())
    if (p.rank === 2) p.set(key === "model.embed_tokens.weight" ? TABLE : new Float32Array(p.size));
  return model;
}
const logits = (model: { forward(ids: ReturnType<typeof tensor>): ReturnType<typeof tensor> }, id: number): number[] =>
  noGrad(() => scope(() => [...model.forward(tensor(Int32Array.of(id), [1, 1])).data]));
/** In float64. */
function expected(table: ArrayLike<number>, head: ArrayLike<number>, id: number): number[] {
  const x = Array.from({ length: D }, (_, i) => table[id * D + i]!);
  const root = Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / D + EPS);
  return Array.from({ length: V }, (_, k) => x.reduce((sum, v, i) => sum + (head[k * D + i]! * v) / root, 0));
}
function close(
  what: string,
  model: Parameters<typeof logits>[0],
  table: ArrayLike<number>,
  head: ArrayLike<number>,
): void {
  for (let id = 0; id < V; id++) {
    const got = logits(model, id);
    const want = expected(table, head, id);
    assert.ok(
      got.every((v, i) => Math.abs(v - want[i]!) < 2e-6),
      `${what}, id ${id}: ${got.join()}; expected ${want.join()}`,
    );
  }
}
const EMBED = "base_model.model.model.embed_tokens.weight";
const HEAD = "base_model.model.lm_head.weight";
const Q = "model.layers.0.self_attn.q_proj";
const factors = ["lora_A", "lora_B"].map((factor) => ({
  name: peftKey(Q, factor as "lora_A"),
  shape: factor === "lora_A" ? [2, D] : [D, 2],
  data: new Float32Array(2 * D),
}));
const weight = (name: string, data: Float32Array): peft.NamedPeftTensor => ({ name, shape: [V, D], data });
const keysOf = (folder: string): string[] =>
  [...peft.readPeftAdapter(folder).tensors.keys()].filter((key) => !key.includes("lora_")).sort();

/**
 * What is named; what the folder holds; which parameters train; table and head that act; whether the merged model is
 * tied.
 */
const CASES: [
  names: string[],
  tying: boolean,
  keys: string[],
  trains: string[],
  table: Float32Array,
  head: Float32Array,
][] = [
  [["embed_tokens"], false, [EMBED], ["embed_tokens"], OTHER, TABLE],
  [["lm_head"], false, [HEAD], ["lm_head"], TABLE, THIRD],
  [["embed_tokens", "lm_head"], false, [HEAD, EMBED], ["embed_tokens", "lm_head"], OTHER, THIRD],
  [["embed_tokens"], true, [HEAD, EMBED], ["embed_tokens"], OTHER, OTHER],
  [["lm_head"], true, [HEAD, EMBED], ["embed_tokens"], OTHER, OTHER],
  [["embed_tokens", "lm_head"], true, [HEAD, EMBED], ["embed_tokens"], OTHER, OTHER],
];
for (const [names, tying, keys, trains, table, head] of CASES) {
  test(`modulesToSave ${names.join(" and ")}, ensureWeightTying ${tying}`, () => {
    const live = memoryStats().liveBytes;
    const folder = `memory:tied-${names.join("-")}-${tying}`;
    const config = { r: 2, targetModules: ["q_proj"], modulesToSave: names, ensureWeightTying: tying };
    peft.writePeftAdapter(folder, config, [
      ...factors,
      ...keys.map((key) => weight(key, key === EMBED ? OTHER : tying ? OTHER : THIRD)),
    ]);
    const loaded = peft.LoraModel.fromPretrained(tiedModel(), folder, { isTrainable: true });
    close("loaded", loaded, table, head);
    close("the base", { forward: (ids) => loaded.disableAdapter(() => loaded.forward(ids)) }, TABLE, TABLE);
    const trained = [...loaded.namedParameters()]
      .filter(([key, p]) => p.requiresGrad && !key.includes("lora_"))
      .map(([key]) => /(embed_tokens|lm_head)\.modules_to_save\.default\.weight$/.exec(key)?.[1]);
    assert.deepEqual(trained, trains);
    assert.equal(loaded.model.config.tieWordEmbeddings, true);
    // Written again, it is the same adapter, and says so.
    loaded.savePretrained(`${folder}-again`);
    assert.deepEqual(keysOf(`${folder}-again`), keys);
    assert.equal(
      (
        JSON.parse(new TextDecoder().decode(io.memoryFiles.get(`${folder}-again/adapter_config.json`))) as {
          ensure_weight_tying: boolean;
        }
      ).ensure_weight_tying,
      tying,
    );
    const again = peft.LoraModel.fromPretrained(tiedModel(), `${folder}-again`);
    close("read again", again, table, head);
    again.dispose();
    // One weight, or two, gets the gradients of both uses, or of its own.
    const ids = tensor(Int32Array.of(1, 2, 3), [1, 3]);
    const targets = tensor(Int32Array.of(2, 3, 4), [1, 3]);
    const optimizer = new optim.SGD(
      loaded.parameters().filter((p) => p.requiresGrad),
      { lr: 0.5 },
    );
    scope(() => loaded.loss(ids, targets).backward());
    optimizer.step();
    optimizer.zeroGrad();
    const copies = new Map(
      copiesOf(loaded, "default").map(({ path, module }) => [path, [...module.parameters()[0]!.data]]),
    );
    const own = (path: string, base: Float32Array): number[] => copies.get(path) ?? [...base];
    const after = [own("model.embed_tokens", TABLE), own("lm_head", TABLE)] as const;
    assert.equal(after[0].join() === after[1].join(), tying);
    close("trained", loaded, ...after);
    const merged = loaded.mergeAndUnload();
    close("merged", merged, ...after);
    assert.deepEqual([merged.config.tieWordEmbeddings, merged.lmHead === null], [tying, tying]);
    assert.deepEqual(
      [...merged.namedParameters()].map(([key]) => key).filter((key) => /embed|head/.test(key)),
      tying ? ["model.embed_tokens.weight"] : ["model.embed_tokens.weight", "lm_head.weight"],
    );
    merged.dispose();
    optimizer.dispose();
    ids.dispose();
    targets.dispose();
    assert.equal(memoryStats().liveBytes, live);
  });
}

test("a head or a table that is named trains from the base's values, and unload gives the tied model back", () => {
  for (const ensureWeightTying of [false, true])
    for (const modulesToSave of [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]]) {
      const model = tiedModel();
      const keys = [...model.stateDict().keys()];
      const live = memoryStats().liveBytes;
      const lora = peft.getLoraModel(model, { r: 2, targetModules: ["q_proj"], modulesToSave, ensureWeightTying });
      close("begins as the base", lora, TABLE, TABLE);
      for (const { module } of copiesOf(lora, "default")) module.parameters()[0]!.set(OTHER);
      lora.addAdapter("second", { r: 2, targetModules: ["v_proj"], modulesToSave: ["lm_head"] });
      close(
        "the first",
        lora,
        modulesToSave[0] === "lm_head" && !ensureWeightTying ? TABLE : OTHER,
        modulesToSave.length === 1 && modulesToSave[0] === "embed_tokens" && !ensureWeightTying ? TABLE : OTHER,
      );
      lora.setAdapter("second");
      close("the second", lora, TABLE, TABLE);
      lora.deleteAdapter("default");
      lora.unload();
      close("unloaded", model, TABLE, TABLE);
      assert.deepEqual(
        [[...model.stateDict().keys()], model.lmHead, model.config.tieWordEmbeddings, memoryStats().liveBytes],
        [keys, null, true, live],
      );
      model.dispose();
    }
});

test("LoRA on table and head of a tied model: each for itself; merged for good they part, else they cannot", () => {
  const A = numbers(2 * V);
  const B = numbers(2 * D);
  const C = numbers(2 * D);
  const E = numbers(2 * V);
  const scaling = 3 / 2;
  const table = [...TABLE].map(
    (v, i) => v + scaling * [0, 1].reduce((sum, r) => sum + A[r * V + Math.floor(i / D)]! * B[(i % D) * 2 + r]!, 0),
  );
  const head = [...TABLE].map(
    (v, i) => v + scaling * [0, 1].reduce((sum, r) => sum + E[Math.floor(i / D) * 2 + r]! * C[r * D + (i % D)]!, 0),
  );
  const tensors: Record<string, peft.NamedPeftTensor[]> = {
    embed_tokens: [
      { name: peftEmbeddingKey("model.embed_tokens", "lora_embedding_A"), shape: [2, V], data: A },
      { name: peftEmbeddingKey("model.embed_tokens", "lora_embedding_B"), shape: [D, 2], data: B },
    ],
    lm_head: [
      { name: peftKey("lm_head", "lora_A"), shape: [2, D], data: C },
      { name: peftKey("lm_head", "lora_B"), shape: [V, 2], data: E },
    ],
  };
  for (const names of [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
    for (const withBase of [false, true]) {
      const wanted = [
        names.includes("embed_tokens") ? table : TABLE,
        names.includes("lm_head") ? head : TABLE,
      ] as const;
      // By default PEFT writes the base's weight beside the factors of an embedding or head.
      const base = withBase
        ? [
            weight(
              `base_model.model.${names[0] === "lm_head" ? "lm_head" : "model.embed_tokens"}.base_layer.weight`,
              TABLE,
            ),
          ]
        : [];
      peft.writePeftAdapter("memory:tied-lora", { r: 2, loraAlpha: 3, targetModules: names }, [
        ...names.flatMap((name) => tensors[name]!),
        ...base,
      ]);
      const live = memoryStats().liveBytes;
      const lora = peft.LoraModel.fromPretrained(tiedModel(), "memory:tied-lora");
      close("loaded", lora, ...wanted);
      close("the base", { forward: (ids) => lora.disableAdapter(() => lora.forward(ids)) }, TABLE, TABLE);
      assert.throws(
        () => lora.mergeAdapter(),
        (e: Error) => e instanceof StateError && e.message.includes("too") && e.message.includes("mergeAndUnload"),
      );
      close("not merged", lora, ...wanted);
      assert.equal(lora.mergedAdapters.length, 0);
      const merged = lora.mergeAndUnload(undefined, { safeMerge: true });
      close("merged", merged, ...wanted);
      assert.deepEqual(
        [merged.config.tieWordEmbeddings, [...merged.namedParameters()].at(-1)![0]],
        [false, "lm_head.weight"],
      );
      merged.dispose();
      assert.equal(memoryStats().liveBytes, live);
    }
});

test("a merge that is refused leaves table and head tied", () => {
  const lora = peft.getLoraModel(tiedModel(), { r: 2, targetModules: ["embed_tokens"], initLoraWeights: false });
  const live = memoryStats().liveBytes;
  layersOf(lora)[0]!.layer.adapters.get("default")!.loraA.data[0] = NaN;
  assert.throws(() => lora.mergeAndUnload(undefined, { safeMerge: true }), ArgumentError);
  assert.equal(memoryStats().liveBytes, live);
  lora.unload();
  assert.equal(lora.model.lmHead, null);
  close("unloaded", lora.model, TABLE, TABLE);
  lora.model.dispose();
});

test("what a tied model cannot have is refused by name, and leaves it as it was", () => {
  const model = tiedModel();
  const live = memoryStats().liveBytes;
  const refused: [() => unknown, new (m: string) => Error, string[]][] = [
    [
      () => peft.getLoraModel(model, { r: 2, targetModules: ["lm_head", "q_proj"], initLoraWeights: "pissa" }),
      ArgumentError,
      ["lm_head", "embed_tokens", "share"],
    ],
    [
      () => peft.getLoraModel(model, { r: 2, targetModules: ["embed_tokens"], ensureWeightTying: true }),
      ArgumentError,
      ["ensureWeightTying", "modulesToSave"],
    ],
    [
      () => peft.getLoraModel(model, { r: 2, targetModules: ["q_proj"], modulesToSave: ["lm_haed"] }),
      ArgumentError,
      ["lm_haed", "Did you mean lm_head"],
    ],
  ];
  peft.writePeftAdapter(
    "memory:tied-lie",
    { r: 2, targetModules: ["q_proj"], modulesToSave: ["lm_head"], ensureWeightTying: true },
    [...factors, weight(EMBED, OTHER), weight(HEAD, THIRD)],
  );
  refused.push([
    () => peft.LoraModel.fromPretrained(model, "memory:tied-lie"),
    FormatError,
    [EMBED, HEAD, "one weight"],
  ]);
  peft.writePeftAdapter(
    "memory:tied-half",
    { r: 2, targetModules: ["q_proj"], modulesToSave: ["lm_head"], ensureWeightTying: true },
    [...factors, weight(HEAD, THIRD)],
  );
  refused.push([() => peft.LoraModel.fromPretrained(model, "memory:tied-half"), FormatError, [EMBED, "missing"]]);
  for (const [fn, error, words] of refused) {
    assert.throws(
      fn,
      (e: Error) => e instanceof error && words.every((word) => e.message.includes(word)),
      words.join(),
    );
    assert.deepEqual([model.lmHead, memoryStats().liveBytes], [null, live], words.join());
  }
  close("as it was", model, TABLE, TABLE);
  model.dispose();
});

test("a base weight in the folder is put over the base's own, of which there is one, until the adapter goes", () => {
  const model = tiedModel();
  peft.writePeftAdapter("memory:tied-base", { r: 2, targetModules: ["lm_head"] }, [
    { name: peftKey("lm_head", "lora_A"), shape: [2, D], data: new Float32Array(2 * D) },
    { name: peftKey("lm_head", "lora_B"), shape: [V, 2], data: new Float32Array(2 * V) },
    weight("base_model.model.lm_head.base_layer.weight", OTHER),
  ]);
  const lora = peft.LoraModel.fromPretrained(model, "memory:tied-base");
  close("loaded", lora, OTHER, OTHER);
  close("the base", { forward: (ids) => lora.disableAdapter(() => lora.forward(ids)) }, TABLE, TABLE);
  assert.throws(() => lora.addAdapter("other", { targetModules: ["q_proj"] }), StateError);
  lora.savePretrained("memory:tied-base-again");
  const again = peft.LoraModel.fromPretrained(tiedModel(), "memory:tied-base-again");
  close("saved and read", again, OTHER, OTHER);
  again.dispose();
  lora.deleteAdapter("default");
  close("deleted", model, TABLE, TABLE);
  lora.addAdapter("other", { targetModules: ["q_proj"] });
  assert.throws(
    () => lora.loadAdapter("memory:tied-base", "late"),
    (e: Error) =>
      e instanceof FormatError && e.message.includes("lm_head.base_layer.weight") && e.message.includes("other"),
  );
  close("as it was", model, TABLE, TABLE);
  model.dispose();
});

test("all-linear leaves a tied head out, and an adapter says which base it does not fit", () => {
  const lora = peft.getLoraModel(tiedModel(), { r: 2, targetModules: "all-linear", baseModelNameOrPath: "org/this" });
  assert.equal(
    layersOf(lora).some(({ path }) => path === "lm_head"),
    false,
  );
  lora.savePretrained("memory:tied-other");
  const wide = new models.Llama({ ...CONFIG, intermediateSize: 6 });
  assert.throws(
    () => peft.LoraModel.fromPretrained(wide, "memory:tied-other"),
    (e: Error) =>
      e instanceof FormatError && e.message.includes("has shape") && e.message.includes('made for "org/this"'),
  );
  for (const m of [lora, wide]) m.dispose();
});

test("GPT-2's table and head are such a pair, too", () => {
  const config = {
    modelType: "gpt2" as const,
    vocabSize: 9,
    hiddenSize: 4,
    intermediateSize: 8,
    numHiddenLayers: 1,
    numAttentionHeads: 1,
    maxPositionEmbeddings: 8,
    layerNormEpsilon: 1e-5,
    tieWordEmbeddings: true,
    bosTokenId: null,
    eosTokenId: null,
  };
  const model = new models.Gpt2(config);
  const before = logits(model, 3);
  const lora = peft.getLoraModel(model, { r: 2, targetModules: ["c_attn"], modulesToSave: ["wte"] });
  copiesOf(lora, "default")[0]!
    .module.parameters()[0]!
    .data.forEach((v, i, all) => {
      all[i] = -v;
    });
  assert.notDeepEqual(logits(model, 3), before);
  assert.deepEqual(
    lora.disableAdapter(() => logits(model, 3)),
    before,
  );
  const after = logits(model, 3);
  const merged = lora.mergeAndUnload();
  assert.deepEqual(logits(merged, 3), after);
  assert.deepEqual(
    [merged.config.tieWordEmbeddings, [...merged.stateDict().keys()].includes("lm_head.weight")],
    [false, true],
  );
  merged.dispose();
});

test.run();
