/**
 * models.generate: bound when it is called, checked arguments, finite logits, memory that the text takes, a LoraModel
 * as the model.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  manualSeed,
  memoryStats,
  models,
  noGrad,
  peft,
  scope,
  ShapeError,
  StateError,
  tensor,
} from "../../../src/index.js";
import { createModel, type ModelConfig } from "../../../src/models/families.js";
import { generateAfter, TextMemory } from "../../../src/models/generate.js";
import type { CausalLM } from "../../../src/models/parts/causal_lm.js";
import { refuses } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

await init();
const CONFIG = {
  modelType: "llama" as const,
  vocabSize: 23,
  hiddenSize: 8,
  intermediateSize: 12,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 4,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
  tieWordEmbeddings: false,
  bosTokenId: null,
  eosTokenId: null,
};
function llama(seed: number): models.Llama {
  manualSeed(seed);
  const model = new models.Llama(CONFIG);
  for (const p of model.parameters())
    if (p.rank === 2)
      p.data.forEach((v, i, all) => {
        all[i] = v * 40;
      });
  return model;
}
/** A base and what writes with each of its adapters. */
function adapted(): {
  lora: peft.LoraModel<models.Llama>;
  write: () => IterableIterator<number>;
  texts: Record<string, string>;
} {
  const lora = peft.getLoraModel(
    llama(1),
    { r: 4, loraAlpha: 400, targetModules: "all-linear", initLoraWeights: false },
    "anna",
  );
  lora.addAdapter("ben", { r: 4, loraAlpha: 400, targetModules: ["v_proj", "down_proj"], initLoraWeights: false });
  const write = (): IterableIterator<number> => models.generate(lora, [3, 1], { maxNewTokens: 12, temperature: 0 });
  const texts = { base: lora.disableAdapter(() => [...write()].join()), anna: [...write()].join(), ben: "" };
  lora.setAdapter("ben");
  texts.ben = [...write()].join();
  lora.setAdapter("anna");
  assert.equal(new Set(Object.values(texts)).size, 3, "three texts that differ");
  return { lora, write, texts };
}

test("tokens come from the adapters that were at work when generate was called", () => {
  const { lora, write, texts } = adapted();
  assert.equal([...lora.withAdapterNames(["ben"], write)].join(), texts["ben"]);
  assert.equal([...lora.withAdapterNames(["__base__"], write)].join(), texts["base"]);
  assert.equal([...lora.disableAdapter(write)].join(), texts["base"]);
  const { pair, list } = lora.disableAdapter(() => ({ pair: { t: write() }, list: [write()] }));
  assert.equal([...pair.t].join(), texts["base"], "in an object");
  assert.equal([...list[0]!].join(), texts["base"], "in a list");
  assert.equal([...lora.withAdapterNames(["ben"], () => lora.disableAdapter(write))].join(), texts["base"], "nested");
  assert.equal(
    [...lora.disableAdapter(() => lora.withAdapterNames(["ben"], write))].join(),
    texts["base"],
    "nested the other way",
  );
  assert.equal([...noGrad(() => scope(write))].join(), texts["anna"]);
  const begun = write();
  assert.equal(
    lora.disableAdapter(() => [...begun].join()),
    texts["anna"],
    "taken within disableAdapter",
  );
  assert.equal([...write()].join(), texts["anna"], "all is as before");
  lora.dispose();
});

test("generations with different adapters take turns, through setAdapter and adapters added meanwhile", () => {
  const { lora, write, texts } = adapted();
  const anna = write();
  lora.setAdapter("ben");
  const ben = write();
  const base = lora.disableAdapter(write);
  const got: Record<string, number[]> = { anna: [], ben: [], base: [] };
  for (let i = 0; i < 12; i++) {
    if (i === 3) lora.setAdapter(["anna", "ben"]);
    if (i === 5) lora.addAdapter("carl", { r: 2, targetModules: ["embed_tokens", "o_proj"], initLoraWeights: false });
    if (i === 6) lora.setAdapter("carl");
    if (i === 9) lora.deleteAdapter("carl");
    for (const [name, tokens] of [
      ["anna", anna],
      ["ben", ben],
      ["base", base],
    ] as const)
      got[name]!.push(tokens.next().value as number);
  }
  for (const name of Object.keys(got)) assert.equal(got[name]!.join(), texts[name], name);
  assert.deepEqual(lora.activeAdapters, ["anna"]);
  lora.dispose();
});

test("an asynchronous reader gets the same tokens", async () => {
  const { lora, write, texts } = adapted();
  const got: number[] = [];
  for await (const token of lora.withAdapterNames(["ben"], write)) {
    got.push(token);
    lora.setAdapter(got.length % 2 ? "ben" : "anna");
    await Promise.resolve();
  }
  assert.equal(got.join(), texts["ben"]);
  lora.dispose();
});

test("what the tokens depended on is gone: an error, and all is as before", () => {
  const gone: [string, (lora: peft.LoraModel<models.Llama>) => void][] = [
    ["deleted", (lora) => lora.deleteAdapter("anna")],
    ["merged", (lora) => lora.mergeAdapter()],
    [
      "deleted and added anew",
      (lora) => {
        lora.deleteAdapter("anna");
        lora.addAdapter("anna", { r: 4, targetModules: ["q_proj", "up_proj"] });
        lora.setAdapter("anna");
      },
    ],
    [
      "replaced",
      (lora) => {
        lora.savePretrained("memory:generate", "ben");
        lora.hotswapAdapter("memory:generate", "anna");
      },
    ],
    [
      "unloaded",
      (lora) => {
        lora.unload();
      },
    ],
  ];
  for (const [what, change] of gone) {
    const { lora, write } = adapted();
    const tokens = write();
    const base = lora.disableAdapter(write);
    const first = tokens.next().value as number;
    assert.equal(typeof first, "number");
    change(lora);
    const before = [...write()].join();
    assert.throws(
      () => tokens.next(),
      (e: Error) => e instanceof StateError && e.message.startsWith("generate: ") && e.message.includes("anew"),
      what,
    );
    assert.equal([...write()].join(), before, what);
    if (what !== "unloaded")
      assert.equal(
        [...base].join(),
        lora.disableAdapter(() => [...write()].join()),
        `the base of ${what}`,
      );
    lora.dispose();
  }
  // Merged adapters are held back for disableAdapter; who is disabled comes back to that also while others are merged.
  const { lora, write, texts } = adapted();
  const base = lora.disableAdapter(write);
  lora.mergeAdapter();
  const merged = write();
  const alone = [...write()].join();
  assert.throws(
    () => lora.disableAdapter(() => merged.next()),
    (e: Error) => e instanceof StateError && e.message.includes("outside"),
  );
  assert.equal([...base].join(), texts["base"]);
  assert.equal([...write()].join(), alone);
  lora.dispose();
});

test("modulesToSave: the copy that acted acts", () => {
  const lora = peft.getLoraModel(llama(2), { r: 2, targetModules: ["q_proj"], modulesToSave: ["lm_head"] });
  const copy = lora.model.parameters().filter((p) => p.requiresGrad && p.shape.join() === "23,8")[0]!;
  copy.data.reverse();
  const write = (): IterableIterator<number> => models.generate(lora, [3, 1], { maxNewTokens: 8, temperature: 0 });
  const own = [...write()].join();
  const begun = write();
  const base = lora.disableAdapter(write);
  assert.notEqual([...base].join(), own);
  lora.addAdapter("b", { targetModules: ["q_proj"] });
  lora.setAdapter("b");
  assert.equal([...begun].join(), own);
  const late = (lora.setAdapter("default"), write());
  lora.deleteAdapter("default");
  assert.throws(() => late.next(), StateError);
  lora.dispose();
});

test("a LoraModel is called as its model is, with its loss, cache and checkpointing", () => {
  const { lora } = adapted();
  const ids = tensor(new Int32Array([3, 1, 2]), [1, 3]);
  const targets = tensor(new Int32Array([1, 2, 4]), [1, 3]);
  assert.deepEqual([...noGrad(() => lora.forward(ids)).data], [...noGrad(() => lora.model.forward(ids)).data]);
  assert.equal(noGrad(() => lora.loss(ids, targets)).item(), noGrad(() => lora.model.loss(ids, targets)).item());
  const cache = lora.newCache();
  noGrad(() => lora.forward(ids, { cache }));
  assert.equal(cache.length, 3);
  lora.gradientCheckpointing = true;
  assert.equal(lora.model.gradientCheckpointing, true);
  assert.equal(lora.gradientCheckpointing, true);
  assert.throws(
    () => (lora as unknown as { generate(): void }).generate(),
    (e: Error) => e instanceof ArgumentError && e.message.includes("models.generate("),
  );
  assert.equal(lora.getOutputEmbeddings(), lora.model.lmHead);
  lora.dispose();
});

const model = llama(3);
const NEEDS = { maxNewTokens: 3, temperature: 0 };
const any = (value: unknown): never => value as never;
for (const [what, prompt, words] of [
  ["a text", "Hello", ["the text", "Hello", "loadTokenizer"]],
  ["a tensor", scope(() => tensor([1]).keep()), ["a Tensor", "indices"]],
  ["a list of lists", [[1, 2]], ["list of lists"]],
  ["typed arrays in a list", [Int32Array.of(1)], ["list of lists"]],
  ["nothing", undefined, ["undefined"]],
  ["a number", 5, ["5"]],
  ["an object", { ids: [1] }, ["list of token ids"]],
  ["BigInts", [1n], ["position 0"]],
  ["a BigInt64Array", BigInt64Array.of(1n), ["position 0"]],
  ["a fraction", [1, 1.5], ["1.5", "position 1"]],
  ["NaN", Float64Array.of(NaN), ["NaN"]],
  ["an id below 0", [-1], ["-1"]],
  ["an id beyond the vocabulary", [3, 23], ["23", "position 1", "0 .. 22"]],
  ["digits", ["5"], ["position 0"]],
  ["a hole", [1, , 2], ["undefined"]],
  ["too many", new Uint8Array(65), ["65 tokens", "1 .. 64"]],
  ["none", [], ["0 tokens"]],
] as const)
  refuses(`the prompt is ${what}`, ArgumentError, ["generate: ", ...words], () =>
    models.generate(model, any(prompt), NEEDS),
  );
for (const [options, words] of [
  [undefined, ["maxNewTokens"]],
  [null, ["null"]],
  [7, ["number"]],
  [{}, ["maxNewTokens", "undefined"]],
  [{ ...NEEDS, maxNewTokens: 1.5 }, ["1.5"]],
  [{ ...NEEDS, maxNewTokens: -1 }, ["-1"]],
  [{ ...NEEDS, topA: 3 }, ["topA"]],
  [{ ...NEEDS, topK: 1.5 }, ["topK", "1.5"]],
  [{ ...NEEDS, topK: -1 }, ["topK", "-1"]],
  [{ ...NEEDS, topP: 1.1 }, ["topP", "0 .. 1"]],
  [{ ...NEEDS, minP: -0.1 }, ["minP", "0 .. 1"]],
  [{ ...NEEDS, repetitionPenalty: 0 }, ["repetitionPenalty", "above 0"]],
  [{ ...NEEDS, repetitionPenalty: 1e-60 }, ["repetitionPenalty", "above 0"]],
  [{ ...NEEDS, repetitionPenalty: Infinity }, ["repetitionPenalty"]],
  [{ ...NEEDS, max_new_tokens: 3 }, ["maxNewTokens"]],
  [{ maxTokens: 3 }, ["Did you mean maxNewTokens"]],
  [{ ...NEEDS, temprature: 1 }, ["Did you mean temperature"]],
  [{ ...NEEDS, temperature: NaN }, ["temperature"]],
  [{ ...NEEDS, temperature: -1 }, ["temperature"]],
  [{ ...NEEDS, temperature: Infinity }, ["temperature"]],
  [{ ...NEEDS, seed: -1 }, ["seed"]],
  [{ ...NEEDS, stopToken: "</s>" }, ["stopToken"]],
  [{ ...NEEDS, stopToken: [1, 2.5] }, ["stopToken", "2.5"]],
] as const)
  refuses(`the options are ${JSON.stringify(options)}`, ArgumentError, ["generate: ", ...words], () =>
    models.generate(model, [1], any(options)),
  );
for (const [what, no, words] of [
  ["nothing", undefined, []],
  ["a folder's name", "models/base", []],
  ["what a folder gave", { model, config: CONFIG }, ["pass its .model"]],
  ["a class", models.Llama, []],
] as const) {
  refuses(`the model is ${what}`, ArgumentError, ["generate: model must be", ...words], () =>
    models.generate(any(no), [1], NEEDS),
  );
}

test("ids in any list of integers; every stop token ends the text", () => {
  const tokens = (prompt: ArrayLike<number>, more = {}): string =>
    [...models.generate(model, prompt, { maxNewTokens: 9, temperature: 0, ...more })].join();
  const all = tokens([3, 1]);
  for (const prompt of [Int32Array.of(3, 1), Uint16Array.of(3, 1), Float64Array.of(3, 1)])
    assert.equal(tokens(prompt), all);
  const list = all.split(",").map(Number);
  const at = list.findIndex((id, i) => list.indexOf(id) === i && i > 1);
  const until = list.slice(0, at).join();
  for (const stopToken of [list[at]!, [list[at]!], [1000, list[at]!]])
    assert.equal(tokens([3, 1], { stopToken }), until);
  assert.equal(tokens([3, 1], { stopToken: null }), all);
  const prompt = [3, 1];
  const begun = models.generate(model, prompt, { maxNewTokens: 9, temperature: 0 });
  prompt[0] = 7;
  assert.equal([...begun].join(), all, "the prompt is copied");
});

test("a temperature on its way to 0 ends in the likeliest token, one on its way to infinity in all alike", () => {
  const tokens = (temperature: number, seed = 0): string =>
    [...models.generate(model, [3, 1], { maxNewTokens: 20, temperature, seed })].join();
  const greedy = tokens(0);
  for (const t of [1e-4, 1e-20, 1e-38, 1e-40, 1e-300, 5e-324]) assert.equal(tokens(t, 3), greedy, String(t));
  for (const t of [1e20, 1e39, 1e300, Number.MAX_VALUE]) assert.equal(tokens(t), tokens(1e12), String(t));
  assert.ok(new Set(tokens(1e300).split(",")).size > 8);
});

test("logits that are not finite end it with the token's number", () => {
  const broken = llama(4);
  const weight = broken.lmHead!.parameters()[0]!;
  for (const bad of [NaN, Infinity, -Infinity]) {
    const tokens = models.generate(broken, [1], { maxNewTokens: 5, temperature: 0.5 });
    assert.equal(typeof tokens.next().value, "number");
    const before = weight.data[8 * 5]!;
    weight.data[8 * 5] = bad;
    assert.throws(
      () => tokens.next(),
      (e: Error) =>
        e instanceof StateError && /new token 2 are not finite \((NaN|-?Infinity) for id 5\)/.test(e.message),
    );
    assert.deepEqual(tokens.next(), { value: undefined, done: true });
    weight.data[8 * 5] = before;
  }
  broken.dispose();
});

test("memory goes with the text: a long context costs nothing, and a generation that has ended has none", () => {
  const long = new models.Llama({ ...CONFIG, maxPositionEmbeddings: 40_000 });
  const before = memoryStats().liveBytes;
  // Two layers of keys and values, 4 numbers a step: 64 bytes, and a little for each block.
  const ofCache = (steps: number): number => 64 * steps + 4 * 128;
  const options = { maxNewTokens: 10_000, temperature: 0 };
  const begun = models.generate(long, [5, 6], options);
  assert.equal(memoryStats().liveBytes, before, "nothing before the first token");
  for (let steps = 2; steps < 60; steps++) {
    begun.next();
    const bytes = memoryStats().liveBytes - before;
    assert.ok(bytes <= ofCache(2 * steps), `${bytes} bytes for ${steps} steps`);
  }
  begun.return!();
  assert.equal(memoryStats().liveBytes, before, "ended by its reader");
  for (const _ of models.generate(long, [5, 6], options)) break;
  assert.equal(memoryStats().liveBytes, before, "ended by leaving a loop");
  assert.equal([...models.generate(long, [5], { maxNewTokens: 30 })].length, 30);
  assert.equal(memoryStats().liveBytes, before, "ended by itself");
  long.dispose();
});

test("a cache grows by doubling up to its limit, and its steps give the bits of the whole text", () => {
  const ids = Array.from({ length: 20 }, (_, i) => (7 * i + 3) % 23);
  const whole = noGrad(() => scope(() => model.forward(tensor(Int32Array.from(ids), [1, 20])).data.slice()));
  const cache = model.newCache();
  const capacities = new Set<number>();
  const got: number[] = [];
  let at = 0;
  for (const steps of [3, 1, 1, 2, 5, 1, 1, 1, 5]) {
    const next = Int32Array.from(ids.slice(at, (at += steps)));
    got.push(...noGrad(() => scope(() => [...model.forward(tensor(next, [1, steps]), { cache }).data])));
    capacities.add(cache.capacity);
  }
  assert.deepEqual(got, [...whole]);
  assert.deepEqual([...capacities], [3, 6, 12, 24]);
  assert.equal(cache.length, 20);
  cache.dispose();
  assert.deepEqual([cache.length, cache.capacity], [0, 0]);
  cache.limit = 9;
  const read = (steps: number): void => {
    noGrad(() =>
      scope(() => {
        model.forward(tensor(new Int32Array(steps), [1, steps]), { cache });
      }),
    );
  };
  read(4);
  assert.equal(cache.capacity, 4);
  read(1);
  assert.equal(cache.capacity, 9, "what twice the need would pass, the limit is taken for");
  assert.throws(
    () => read(5),
    (e: Error) => e instanceof ShapeError && e.message.includes("9 at most"),
  );
  read(4);
  assert.equal(cache.length, 9);
  cache.dispose();
});

for (const [name, changes] of [
  ["phi3_longrope", {}],
  [
    "gpt_neox",
    {
      ropeParameters: {
        ropeType: "longrope" as const,
        ropeTheta: 10000,
        partialRotaryFactor: 0.5,
        shortFactor: [1, 1.1, 1.2],
        longFactor: [1.5, 2.3, 4],
        originalMaxPositionEmbeddings: 8,
      },
    },
  ],
] as const)
  test(`${name}: a text that outgrows the short angles of longrope has the tokens that it has without a cache`, () => {
    const { model: stored } = models.loadModel(fileURLToPath(new URL(`test/fixtures/families/${name}`, ROOT)));
    const model = createModel("test", { ...stored.config, ...changes } as ModelConfig);
    model.loadStateDict(stored.stateDict());
    const prompt = [72, 3, 69, 94];
    const steps = 20;
    const read: number[] = [...prompt];
    for (let step = 0; step < steps; step++) {
      const logits = noGrad(() =>
        scope(() => [...model.forward(tensor(Int32Array.from(read), [1, read.length]), { logitsToKeep: 1 }).data]),
      );
      read.push(logits.indexOf(Math.max(...logits)));
    }
    assert.deepEqual(
      [...models.generate(model, prompt, { maxNewTokens: steps, temperature: 0 })],
      read.slice(prompt.length),
    );
    for (const each of [stored, model]) each.dispose();
  });

test("with the memory of the text before, what is drawn is what it is without", () => {
  const before = memoryStats().liveBytes;
  const memory = new TextMemory();
  const options = { maxNewTokens: 9, seed: 3, temperature: 1.2, repetitionPenalty: 1.1 };
  const talk = [3, 1, 4, 1, 5];
  const remembered: number[] = [];
  for (const next of [[9, 2], [6], [5, 3, 5, 8]]) {
    const alone = [...models.generate(model, talk, options)];
    remembered.push(memory.recall(model, talk).length);
    assert.deepEqual([...generateAfter(memory, model, talk, options)], alone);
    talk.push(...alone, ...next);
  }
  // The last token that was drawn was not read.
  assert.deepEqual(remembered, [0, 13, 24]);
  assert.deepEqual([memory.length, talk.length], [34, 39]);

  const other = [3, 1, 4, 2];
  assert.deepEqual([...generateAfter(memory, model, other, options)], [...models.generate(model, other, options)]);
  for (const _ of generateAfter(memory, model, talk, options)) break;
  assert.equal(memory.length, talk.length, "a text that its reader ends is remembered, too");
  assert.deepEqual([...generateAfter(memory, model, talk, options)], [...models.generate(model, talk, options)]);
  assert.deepEqual([...generateAfter(memory, model, talk, { ...options, maxNewTokens: 0 })], []);
  memory.dispose();
  assert.deepEqual([memory.length, memoryStats().liveBytes], [0, before]);
});

test("angles that follow from a text's length are not remembered", () => {
  const { model: longrope } = models.loadModel(fileURLToPath(new URL("test/fixtures/families/phi3_longrope", ROOT)));
  const memory = new TextMemory();
  const options = { maxNewTokens: 24, temperature: 0 };
  for (const prompt of [[72, 3, 69, 94], [72, 3], Array.from({ length: 40 }, (_, i) => i), [72, 3, 69]])
    assert.deepEqual(
      [...generateAfter(memory, longrope, prompt, options)],
      [...models.generate(longrope, prompt, options)],
    );
  memory.dispose();
  longrope.dispose();
});

test("another model's cache is refused", () => {
  const other = new models.Llama({ ...CONFIG, numKeyValueHeads: 2 });
  const fewer = new models.Llama({ ...CONFIG, numHiddenLayers: 1 });
  for (const cache of [other.newCache(), fewer.newCache()]) {
    assert.throws(
      () =>
        noGrad(() =>
          scope(() => {
            model.forward(tensor(Int32Array.of(1), [1, 1]), { cache });
          }),
        ),
      (e: Error) => e instanceof ShapeError && e.message.includes("newCache()"),
    );
    assert.equal(cache.length, 0);
  }
  for (const m of [other, fewer]) m.dispose();
  for (const wrong of [undefined, {}, { ...CONFIG, headDim: 0.5 }])
    assert.throws(() => new models.KeyValueCache(any(wrong)), ArgumentError);
});

test("a model of one's own with adapters in force is held, too", () => {
  const lora = peft.getLoraModel(llama(5), { r: 2, targetModules: ["q_proj"], initLoraWeights: false });
  const own: CausalLM = lora.model;
  const tokens = lora.disableAdapter(() => models.generate(own, [3], NEEDS));
  assert.equal(
    [...tokens].join(),
    lora.disableAdapter(() => [...models.generate(own, [3], NEEDS)].join()),
  );
  lora.dispose();
});

test.run();
