/** What each family of the table says of its keys is what its module has: loading fills all that it leaves unset. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init } from "../../../src/index.js";
import { createModel, FAMILIES, familyOf, type ModelConfig } from "../../../src/models/families.js";
import { GPT2, LLAMA } from "../../support/language_models.js";

await init();
const CONFIGS: ModelConfig[] = [LLAMA, GPT2];

test("every family of the table is tried, under its own name", () => {
  assert.deepEqual(CONFIGS.map(({ modelType }) => modelType).sort(), Object.keys(FAMILIES).sort());
  for (const [name, { modelType }] of Object.entries(FAMILIES)) assert.equal(modelType, name);
  for (const other of ["mistral", "toString", "__proto__", undefined, 5]) assert.equal(familyOf(other), undefined);
});

for (const config of CONFIGS) {
  for (const tieWordEmbeddings of [true, false]) {
    test(`${config.modelType}, ${tieWordEmbeddings ? "tied" : "untied"}: keys, shapes, table, head and layers`, () => {
      const own = { ...config, tieWordEmbeddings };
      const family = familyOf(config.modelType)!;
      const model = createModel("families", own);
      const state = model.stateDict();
      const told = Array.from(family.shapes(own), ([key, shape]) => [key, shape.map(([, size]) => size).join()]);
      const has = Array.from(state, ([key, { shape }]) => [key, shape.join()]);
      assert.deepEqual(told.sort(), has.sort());
      assert.ok(state.has(family.table));
      assert.equal(state.has(family.head), !tieWordEmbeddings);
      for (const key of state.keys()) {
        assert.ok(key.startsWith(family.prefix) || key === family.head, key);
        assert.ok(!family.isBuffer(key), key);
      }
      assert.ok([...state.keys()].some((key) => key.startsWith(`${family.layers}${config.numHiddenLayers - 1}.`)));
      model.dispose();
    });
  }
}

test.run();
