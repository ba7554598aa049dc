/** What each family of the table says of its keys is what its module has: loading fills all that it leaves unset. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, type nn } from "../../../src/index.js";
import { familyOf, modelTypes } from "../../../src/models/families.js";
import type { FamilyConfig, Head } from "../../../src/models/parts/family.js";
import { GPT2 } from "../../support/language_models.js";

await init();
const SIZES = {
  vocab_size: 10,
  hidden_size: 8,
  dim: 8,
  intermediate_size: 6,
  hidden_dim: 6,
  num_hidden_layers: 2,
  n_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 2,
  head_dim: 4,
  rotary_pct: 1,
  sliding_window: 3,
  n_heads: 2,
  max_position_embeddings: 6,
  pad_token_id: 1,
  image_size: 4,
  patch_size: 2,
};
/** By what the family is called; of a model of texts and images the text's is within. */
const CONFIGS: readonly (readonly [modelType: string, config: FamilyConfig])[] = modelTypes().map((model_type) => {
  const sizes = { ...SIZES, model_type };
  const json = model_type === "gemma3" ? { model_type, text_config: sizes } : sizes;
  return [model_type, model_type === "gpt2" ? GPT2 : familyOf(model_type)!.parseConfig(json, "config.json")] as const;
});
const LABELS = { id2label: ["a", "b", "c"], problemType: null, padTokenId: 1 };

/** transformers 5.17's classes, by model_type. Source: models/auto/modeling_auto.py. */
const CLASSES: Readonly<Record<string, readonly (readonly [Head, string])[]>> = {
  ...Object.fromEntries(
    [
      ["llama", "Llama"],
      ["mistral", "Mistral"],
      ["qwen2", "Qwen2"],
      ["qwen3", "Qwen3"],
      ["smollm3", "SmolLM3"],
      ["phi3", "Phi3"],
      ["olmo2", "Olmo2"],
      ["granite", "Granite"],
      ["gemma", "Gemma"],
      ["gemma2", "Gemma2"],
      ["gpt_neox", "GPTNeoX"],
    ].map(([type, name]) => [
      type,
      [
        ["none", `${name}Model`],
        ["causal-lm", `${name}ForCausalLM`],
        // There is none of Granite.
        ...(type === "granite" ? [] : [["sequence-classification", `${name}ForSequenceClassification`] as const]),
      ],
    ]),
  ),
  gemma3_text: [
    ["none", "Gemma3TextModel"],
    ["causal-lm", "Gemma3ForCausalLM"],
    ["sequence-classification", "Gemma3TextForSequenceClassification"],
  ],
  gemma3: [
    ["none", "Gemma3Model"],
    ["causal-lm", "Gemma3ForConditionalGeneration"],
    ["sequence-classification", "Gemma3ForSequenceClassification"],
  ],
  gpt2: [
    ["none", "GPT2Model"],
    ["causal-lm", "GPT2LMHeadModel"],
    ["sequence-classification", "GPT2ForSequenceClassification"],
  ],
  vit: [
    ["none", "ViTModel"],
    ["image-classification", "ViTForImageClassification"],
  ],
  ...Object.fromEntries(
    [
      ["bert", "Bert"],
      ["roberta", "Roberta"],
      ["distilbert", "DistilBert"],
      ["modernbert", "ModernBert"],
    ].map(([type, name]) => [
      type,
      [
        ["none", `${name}Model`],
        ["sequence-classification", `${name}ForSequenceClassification`],
      ],
    ]),
  ),
};

for (const modelType of modelTypes())
  test(`${modelType}: transformers' classes`, () => {
    for (const [head, name] of CLASSES[modelType]!)
      assert.ok(familyOf(modelType)!.heads[head]!.architectures.includes(name), name);
  });

test("what is of no family is told apart", () => {
  for (const other of ["bloom", "toString", "__proto__", undefined, 5]) assert.equal(familyOf(other), undefined);
});

for (const [modelType, config] of CONFIGS) {
  const family = familyOf(modelType)!;
  const heads = Object.keys(family.heads) as Head[];
  const build = (head: Head, tieWordEmbeddings: boolean): nn.Module =>
    family.heads[head]!.create({
      ...config,
      ...(head.endsWith("classification") ? LABELS : {}),
      ...(family.tied ? { tieWordEmbeddings } : {}),
    } as FamilyConfig);
  const keysOf = (model: nn.Module): string[] => {
    const keys = [...model.stateDict().keys()];
    model.dispose();
    return keys;
  };
  for (const tieWordEmbeddings of family.tied ? [true, false] : [false]) {
    test(`${modelType}, ${tieWordEmbeddings ? "tied" : "untied"}: keys of base, heads and layers`, () => {
      const base = keysOf(build("none", tieWordEmbeddings));
      assert.ok(base.some((key) => key.startsWith(`${family.layers}${config.numHiddenLayers - 1}.`)));
      for (const key of base) assert.ok(!family.isBuffer(key) && !family.headKeys.some((k) => key.startsWith(k)), key);
      for (const head of heads) {
        if (head === "none") continue;
        const { keys, unused = [] } = family.heads[head]!;
        const all = keysOf(build(head, tieWordEmbeddings));
        const ofHead = all.filter((key) => family.headKeys.some((start) => key.startsWith(start)));
        assert.deepEqual(
          all.filter((key) => !ofHead.includes(key)),
          base.map((key) => family.prefix + key).filter((key) => !unused.some((start) => key.startsWith(start))),
        );
        // A head may count a part of the base model to what is drawn with it, as BERT's pooler.
        for (const start of keys) assert.ok(family.headKeys.includes(start) || start.startsWith(family.prefix), start);
        for (const key of ofHead)
          assert.ok(
            keys.some((start) => key.startsWith(start)),
            key,
          );
        if (head !== "causal-lm" || !family.tied) continue;
        assert.ok(all.includes(family.tied.table));
        assert.equal(ofHead.includes(family.tied.head), !tieWordEmbeddings);
      }
    });
  }
}

test.run();
