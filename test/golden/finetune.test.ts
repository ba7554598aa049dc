/**
 * Fifteen steps of fine-tuning on rows, with accumulation, against the definition in float64 on PyTorch's own modules
 * (test/fixtures/finetune): losses, gradients, norms, rates and the factors at the end. The reference takes each row
 * alone; the run here packs them into shards, of which an epoch's last step has fewer.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { data, init, models, peft, train } from "../../src/index.js";
import { familyPath } from "../support/families.js";
import { assertClose, f32, ints, readGolden, type Golden } from "../support/golden.js";

await init();
/**
 * Of the largest value of a tensor. Measured: losses and norms 3e-7, gradients 2.4e-6, factors 1.6e-6; rates 4e-7, near
 * the end of the cosine, which is float32.
 */
const [NUMBER, TENSOR] = [1e-6, 1e-5];

function rowsOf(reference: Golden): data.TrainingRow[] {
  const [ids, labels, lengths] = ["ids", "labels", "lengths"].map((key) => ints(reference, key).data) as [
    Int32Array,
    Int32Array,
    Int32Array,
  ];
  let at = 0;
  return Array.from(lengths, (length, row) => {
    const part = [at, (at += length)] as const;
    return { ids: ids.slice(...part), labels: labels.slice(...part), where: `row ${row}` };
  });
}

/** A run whose factors are those of the family's adapter. */
function startOf(name: string, settings: object): train.Finetuning {
  const folder = familyPath(`${name}/adapter`);
  const { r, loraAlpha, targetModules } = peft.readPeftAdapter(folder).config;
  const rows = rowsOf(readGolden(`finetune/${name}`));
  const { model } = models.loadModel(familyPath(name));
  const adapter = { r, loraAlpha, targetModules };
  const run = new train.Finetuning(model, { train: rows }, { ...settings, testSize: 0, adapter });
  const other = models.loadModel(familyPath(name)).model;
  const given = new Map(peft.LoraModel.fromPretrained(other, folder).namedParameters());
  const state = run.state();
  for (const [key, { data: values }] of state.factors) values.set(given.get(key)!.data);
  run.restore(state);
  other.dispose();
  return run;
}

for (const name of ["gemma2", "gpt2", "qwen3"])
  for (const packing of [true, false])
    test(`${name}, ${packing ? "packed" : "padded"}`, () => {
      const reference = readGolden(`finetune/${name}`);
      const said = (key: string): number[] => JSON.parse(reference.metadata[key]!) as number[];
      const run = startOf(name, { ...(JSON.parse(reference.metadata["settings"]!) as object), packing });
      const counts: number[] = [];
      while (!run.isComplete) {
        const step = run.metrics.length + 1;
        const shards = Array.from({ length: run.shardCount }, (_, i) => run.computeShard(i));
        counts.push(shards.length);
        for (const [key, { data: values }] of shards[0]!.gradients) {
          const expected = `grad.${step}.base_model.${key}`;
          if (!reference.tensors.has(expected)) continue;
          const sum = values.map((_, i) =>
            shards.reduce((all, { gradients }) => all + gradients.get(key)!.data[i]!, 0),
          );
          assertClose(expected, sum, f32(reference, expected).data, TENSOR, 0);
        }
        run.applyShards(shards.reverse());
      }
      // An epoch of 20 rows is three steps of three shards, and one of the two rows that are left.
      assert.deepEqual(counts, [3, 3, 3, 1, 3, 3, 3, 1, 3, 3, 3, 1, 3, 3, 3]);
      const { metrics } = run;
      assert.deepEqual(
        metrics.map(({ scored }) => scored),
        said("scored"),
      );
      for (const [i, { loss, gradNorm, learningRate }] of metrics.entries()) {
        assertClose(`loss ${i}`, [loss], [said("losses")[i]!], NUMBER, 0);
        assertClose(`gradNorm ${i}`, [gradNorm], [said("gradNorms")[i]!], NUMBER, 0);
        assertClose(`learningRate ${i}`, [learningRate], [said("learningRates")[i]!], NUMBER, 0);
      }
      for (const [key, { data: values }] of run.state().factors)
        assertClose(key, values, f32(reference, `final.base_model.${key}`).data, TENSOR, 0);
      run.dispose();
      run.adapted.model.dispose();
    });

test("a mean of shards' means is another loss: what others compute", () => {
  const reference = readGolden("finetune/gpt2");
  const settings = JSON.parse(reference.metadata["settings"]!) as train.FinetuningSettings;
  const { batch, accumulation, seed, groupByLength } = settings;
  const run = startOf("gpt2", settings);
  const lengths = [...ints(reference, "lengths").data];
  const order = data.rowsOfStep(lengths, 0, { batch: batch * accumulation, seed, groupByLength });
  const rows = rowsOf(reference);
  const counts = Array.from({ length: accumulation }, (_, i) => {
    const own = order.slice(i * batch, (i + 1) * batch).map((row) => rows[row]!);
    return data.collate(own, { packing: true }).scored;
  });
  const all = counts.reduce((a, b) => a + b, 0);
  const [expected] = JSON.parse(reference.metadata["losses"]!) as [number];
  const shards = counts.map((_, i) => run.computeShard(i));
  const mean = shards.reduce((sum, { loss }, i) => sum + (loss * all) / counts[i]! / accumulation, 0);
  assertClose("the step's loss", [shards.reduce((sum, { loss }) => sum + loss, 0)], [expected], NUMBER, 0);
  assert(Math.abs(mean / expected - 1) > 1e-3, `${mean} and ${expected}`);
  run.dispose();
  run.adapted.model.dispose();
});

test.run();
