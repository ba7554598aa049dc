/** What each family of the table says of its keys is what its module has: loading fills all that it leaves unset. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, type nn } from "../../../src/index.js";
import { familyOf, modelTypes } from "../../../src/models/families.js";
import type { FamilyConfig, Head } from "../../../src/models/family.js";
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
