/**
 * models.generateBatch: each text has the tokens that it has alone, whatever its neighbours, their lengths, ends and
 * adapters; what ends is left out; arguments are checked.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, manualSeed, memoryStats, models, peft, StateError } from "../../../src/index.js";
import type { CausalLM } from "../../../src/models/parts/causal_lm.js";
import { familyPath } from "../../support/families.js";
import { GPT2, LLAMA } from "../../support/language_models.js";
import { refuses } from "../../support/refuses.js";

await init();
/** Decoders of every kind: windows, partial rotary embeddings, softcaps, layers without positions. */
const FAMILIES = [
  "gemma2",
  "gemma3_text",
  "gpt_neox",
  "granite",
  "llama_rope_llama3",
  "mistral_window",
  "olmo2",
  "phi3",
  "phi3_longrope",
  "qwen2_window",
  "qwen3",
  "smollm3",
];

/** With weights large enough for texts that vary. */
function loud<M extends models.Llama | models.Gpt2>(make: () => M): M {
  manualSeed(5);
  const model = make();
  for (const p of model.parameters())
    if (p.rank === 2)
      p.data.forEach((v, i, all) => {
        all[i] = v * 40;
      });
  return model;
}
const llama = loud(() => new models.Llama(LLAMA));
const gpt2 = loud(() => new models.Gpt2(GPT2));

/** The texts of a batch, and how often each token came in which turn. */
function textsOf(tokens: Iterable<models.BatchToken>, rows: number): string[] {
  const texts: number[][] = Array.from({ length: rows }, () => []);
  for (const { row, token } of tokens) texts[row]!.push(token);
  return texts.map((text) => text.join());
}
const alone = (
  model: CausalLM | peft.LoraModel<models.Llama>,
  prompt: readonly number[],
  options: models.GenerateOptions,
) => [...models.generate(model, prompt, options)].join();

const PROMPTS = [[3, 1], [7], [4, 9, 30, 2, 11, 5, 6], [3, 1], Array.from({ length: 32 }, (_, i) => (5 * i) % 37)];

for (const [name, model] of [
  ["Llama", llama],
  ["GPT-2", gpt2],
] as const)
  test(`${name}: texts of all lengths, seeds and ends are those of each prompt alone`, () => {
    const before = memoryStats().liveBytes;
    for (const options of [
      { maxNewTokens: 12, temperature: 0 },
      { maxNewTokens: 60, temperature: 1, topK: 9, repetitionPenalty: 1.2 },
      { maxNewTokens: 30, temperature: 0.9, stopToken: [1, 2, 3, 4, 5, 6] },
      { maxNewTokens: 0 },
    ]) {
      const texts = textsOf(models.generateBatch(model, PROMPTS, { ...options, seed: 3 }), PROMPTS.length);
      for (const [i, prompt] of PROMPTS.entries())
        assert.equal(texts[i], alone(model, prompt, { ...options, seed: 3 + i }), `prompt ${i}`);
      const seeds = [4, 4, 9, 0, 2];
      const other = textsOf(models.generateBatch(model, PROMPTS, { ...options, seed: seeds }), PROMPTS.length);
      for (const [i, prompt] of PROMPTS.entries())
        assert.equal(other[i], alone(model, prompt, { ...options, seed: seeds[i] }), `prompt ${i}`);
    }
    assert.equal(memoryStats().liveBytes, before);
  });

for (const name of FAMILIES)
  test(`${name}: a batch's texts are those of each prompt alone`, () => {
    const { model } = models.loadModel(familyPath(name));
    const prompts = [[3, 1, 17, 8], [7], Array.from({ length: 19 }, (_, i) => (5 * i + 2) % 37)];
    const options = { maxNewTokens: 12, temperature: 0.7 };
    const texts = textsOf(models.generateBatch(model, prompts, options), prompts.length);
    for (const [i, prompt] of prompts.entries())
      assert.equal(texts[i], alone(model, prompt, { ...options, seed: i }), `prompt ${i}`);
    model.dispose();
  });

test("rows take turns, and a row that has ended has none", () => {
  const turns = [...models.generateBatch(llama, PROMPTS, { maxNewTokens: 20, temperature: 0 })].map(({ row }) => row);
  // The last prompt has 32 of 40 positions.
  assert.deepEqual(turns, [
    ...Array.from({ length: 8 }, () => [0, 1, 2, 3, 4]).flat(),
    ...Array.from({ length: 12 }, () => [0, 1, 2, 3]).flat(),
  ]);
});

test("each prompt with its own adapter, also when others have ended", () => {
  const base = loud(() => new models.Llama(LLAMA));
  const lora = peft.getLoraModel(
    base,
    { r: 4, loraAlpha: 400, targetModules: "all-linear", initLoraWeights: false },
    "anna",
  );
  lora.addAdapter("ben", { r: 3, loraAlpha: 300, targetModules: ["v_proj", "down_proj"], initLoraWeights: false });
  lora.eval();
  const names = ["anna", "__base__", "ben", "ben", "anna"];
  for (const options of [
    { maxNewTokens: 12, temperature: 0 },
    { maxNewTokens: 30, temperature: 0.9, stopToken: [1, 2, 3, 4] },
  ]) {
    const batch = lora.withAdapterNames(names, () => models.generateBatch(lora, PROMPTS, options));
    lora.setAdapter("ben");
    const texts = textsOf(batch, PROMPTS.length);
    for (const [i, prompt] of PROMPTS.entries()) {
      const own = lora.withAdapterNames([names[i]!], () => models.generate(lora, prompt, { ...options, seed: i }));
      assert.equal(texts[i], [...own].join(), `prompt ${i} with ${names[i]}`);
    }
    lora.setAdapter("anna");
  }
  const gone = lora.withAdapterNames(names, () => models.generateBatch(lora, PROMPTS, { maxNewTokens: 5 }));
  gone.next();
  lora.deleteAdapter("ben");
  assert.throws(
    () => [...gone],
    (e: Error) => e instanceof StateError && e.message.startsWith("generateBatch: ") && e.message.includes("ben"),
  );
  lora.dispose();
});

test("logits that are not finite name the prompt; then all memory is back", () => {
  const broken = loud(() => new models.Llama({ ...LLAMA, tieWordEmbeddings: false }));
  const before = memoryStats().liveBytes;
  const weight = broken.model.embedTokens.weight;
  weight.data.fill(NaN, 9 * LLAMA.hiddenSize, 10 * LLAMA.hiddenSize);
  const tokens = models.generateBatch(broken, [[3], [4, 9]], { maxNewTokens: 5 });
  assert.throws(
    () => tokens.next(),
    (e: Error) =>
      e instanceof StateError && e.message.startsWith("generateBatch: prompts[1]: the logits of new token 1"),
  );
  assert.equal(memoryStats().liveBytes, before);
  broken.dispose();
});

const any = (value: unknown): never => value as never;
const NEEDS = { maxNewTokens: 3 };
for (const [what, prompts, options, words] of [
  ["no list", 5, NEEDS, ["prompts must be a list"]],
  ["no prompts", [], NEEDS, ["at least one"]],
  ["one prompt's ids", [3, 1], NEEDS, ["prompts[0]", "list of token ids"]],
  ["an empty prompt", [[3], []], NEEDS, ["prompts[1] has 0 tokens"]],
  ["an id beyond the vocabulary", [[3], [61]], NEEDS, ["prompts[1] holds 61"]],
  ["a text", ["Hello"], NEEDS, ["prompts[0]", "loadTokenizer"]],
  ["too few seeds", [[3], [4]], { ...NEEDS, seed: [1] }, ["seed", "2 prompts"]],
  ["a seed below 0", [[3], [4]], { ...NEEDS, seed: [1, -1] }, ["seed[1]"]],
  ["a seed that is a text", [[3]], { ...NEEDS, seed: "1" }, ["seed"]],
  ["no options", [[3]], undefined, ["maxNewTokens"]],
] as const)
  refuses(`generateBatch of ${what}`, ArgumentError, ["generateBatch: ", ...words], () =>
    models.generateBatch(llama, any(prompts), any(options)),
  );

test.run();
