/** What each family of the table says of its keys is what its module has: loading fills all that it leaves unset. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, type nn } from "../../../src/index.js";
import { familyOf, modelTypes, type ModelConfig } from "../../../src/models/families.js";
import type { Head } from "../../../src/models/family.js";
import { GPT2, LLAMA } from "../../support/language_models.js";

await init();
const CONFIGS: ModelConfig[] = [LLAMA, GPT2];

test("every family of the table is tried, under its own name", () => {
  assert.deepEqual(CONFIGS.map(({ modelType }) => modelType).sort(), modelTypes().sort());
  for (const other of ["bloom", "toString", "__proto__", undefined, 5]) assert.equal(familyOf(other), undefined);
});

for (const config of CONFIGS) {
  const family = familyOf(config.modelType)!;
  const heads = Object.keys(family.heads) as Head[];
  const build = (head: Head, tieWordEmbeddings: boolean): nn.Module =>
    family.heads[head]!.create({ ...config, tieWordEmbeddings });
  const keysOf = (model: nn.Module): string[] => {
    const keys = [...model.stateDict().keys()];
    model.dispose();
    return keys;
  };
  for (const tieWordEmbeddings of [true, false]) {
    test(`${config.modelType}, ${tieWordEmbeddings ? "tied" : "untied"}: keys of base, heads and layers`, () => {
      const base = keysOf(build("none", tieWordEmbeddings));
      assert.ok(base.some((key) => key.startsWith(`${family.layers}${config.numHiddenLayers - 1}.`)));
      for (const key of base) assert.ok(!family.isBuffer(key) && !family.headKeys.some((k) => key.startsWith(k)), key);
      for (const head of heads) {
        if (head === "none") continue;
        const { keys } = family.heads[head]!;
        const all = keysOf(build(head, tieWordEmbeddings));
        const ofHead = all.filter((key) => keys.some((start) => key.startsWith(start)));
        assert.deepEqual(
          all.filter((key) => !ofHead.includes(key)),
          base.map((key) => family.prefix + key),
        );
        for (const start of keys) assert.ok(family.headKeys.includes(start), start);
        if (head !== "causal-lm" || !family.tied) continue;
        assert.ok(all.includes(family.tied.table));
        assert.equal(ofHead.includes(family.tied.head), !tieWordEmbeddings);
      }
    });
  }
}

test.run();
