/**
 * Configs of any of PEFT's features together, on models whose head is the table and others: what is refused leaves the
 * model as it was; what is taken begins as the base, is read as it was saved, and leaves nothing behind.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "uvu";
import { ArgumentError, init, manualSeed, memoryStats, models, peft, StateError, tensor } from "../../src/index.js";
import { LLAMA } from "../support/language_models.js";
import { assertBits, assertClose } from "../support/golden.js";
import { assertValues, outputs, train, values } from "../support/peft.js";

await init();
const FOLDER = "memory:features";

const llama = (tieWordEmbeddings: boolean): models.Llama => {
  manualSeed(1);
  return new models.Llama({ ...LLAMA, numHiddenLayers: 3, tieWordEmbeddings });
};
const logits = (model: models.Llama): Float32Array =>
  outputs(model, () => tensor(Int32Array.of(7, 3, 60, 3, 11), [1, 5]));

const ids = fc.uniqueArray(fc.integer({ min: 0, max: 60 }), { minLength: 1, maxLength: 4 });
const rarely = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value });
const config: fc.Arbitrary<Partial<peft.LoraConfig>> = fc
  .record({
    r: fc.constantFrom(1, 2, 4),
    loraAlpha: fc.constantFrom(1, 6),
    targetModules: fc.constantFrom<peft.LoraConfig["targetModules"]>(
      null,
      "all-linear",
      ["q_proj", "down_proj"],
      ["embed_tokens", "v_proj"],
      ["lm_head", "o_proj"],
      ".*layers\\.[12].*(k|v)_proj",
    ),
    targetParameters: rarely(fc.constantFrom(["up_proj.weight"], ["mlp.gate_proj.weight", "q_proj.weight"])),
    useDora: rarely(fc.constant(true)),
    useRslora: rarely(fc.constant(true)),
    loraBias: rarely(fc.constant(true)),
    initLoraWeights: rarely(fc.constantFrom<peft.LoraInit>("gaussian", "orthogonal", "olora", "pissa")),
    trainableTokenIndices: rarely<peft.LoraConfig["trainableTokenIndices"]>(
      fc.oneof(
        ids,
        ids.map((list) => ({ lm_head: list })),
        fc.record({ embed_tokens: ids, lm_head: ids }),
      ),
    ),
    modulesToSave: rarely(fc.constantFrom(["lm_head"], ["embed_tokens"], ["norm"], ["layers.1.mlp"])),
    layerReplication: rarely(
      fc.array(fc.constantFrom([0, 2] as const, [1, 3] as const, [2, 3] as const), { minLength: 1, maxLength: 3 }),
    ),
    ensureWeightTying: rarely(fc.constant(true)),
  })
  .map((fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)));

test("property: a config of any features is refused without a trace, or taken, saved, read and taken off", () => {
  let taken = 0;
  fc.assert(
    fc.property(config, fc.boolean(), fc.nat(1000), (given, tied, seed) => {
      const model = llama(tied);
      const plain = values(model);
      const base = logits(model);
      const live = memoryStats().liveBytes;
      let adapted: peft.LoraModel;
      try {
        adapted = peft.getLoraModel(model, given);
      } catch (error) {
        assert.ok(error instanceof ArgumentError, String(error));
        assertValues("refused", model, plain);
        assert.equal(memoryStats().liveBytes, live);
        model.dispose();
        return;
      }
      taken++;
      if (!given.layerReplication) assertClose("at first", logits(model), base, 1e-5);
      train(adapted, "default", seed);
      const y = logits(model);
      assertBits(
        "disabled",
        adapted.disableAdapter(() => logits(model)),
        base,
      );
      adapted.savePretrained(FOLDER);
      const other = llama(tied);
      const read = peft.LoraModel.fromPretrained(other, FOLDER);
      if (/pissa|olora/.test(String(given.initLoraWeights))) assertClose("read", logits(other), y, 1e-5);
      else assertBits("read", logits(other), y);
      const before = logits(other);
      try {
        const merged = read.mergeAndUnload(undefined, { safeMerge: true });
        // The terms are far larger than the weights: what merging rounds grows from layer to layer.
        assertClose("merged", logits(merged), before, 2e-4);
      } catch (error) {
        const isOurs = error instanceof StateError || error instanceof ArgumentError;
        assert.ok(isOurs && (given.loraBias || given.layerReplication), String(error));
        assertBits("not merged", logits(other), before);
      }
      read.dispose();
      other.dispose();
      adapted.unload();
      assertValues("unloaded", model, plain);
      assertBits("unloaded", logits(model), base);
      assert.equal(memoryStats().liveBytes, live);
      model.dispose();
    }),
    { numRuns: 120, seed: 5 },
  );
  assert.ok(taken > 40, `${taken} of 120`);
});

test.run();
