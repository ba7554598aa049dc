/** Loss and token accuracy of rows, against the definition on the logits of each row alone, and a run's evaluation. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import {
  ArgumentError,
  type data,
  init,
  memoryStats,
  models,
  noGrad,
  peft,
  scope,
  tensor,
  train,
} from "../../../src/index.js";
import { LLAMA } from "../../support/language_models.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";
import { llama, trainingRows } from "../../support/training.js";

await init();

/** By the definition: each row alone, all of its logits, sums in float64. */
function reference(model: models.CausalLM, rows: readonly data.TrainingRow[]): train.RowsEvaluation {
  let [sum, correct, scored] = [0, 0, 0];
  for (const { ids, labels } of rows) {
    const steps = ids.length - 1;
    const logits = noGrad(() => scope(() => [...model.forward(tensor(ids.slice(0, steps), [1, steps])).data]));
    const classes = logits.length / steps;
    for (let i = 0; i < steps; i++) {
      const target = labels[i + 1]!;
      if (target < 0) continue;
      const row = logits.slice(i * classes, (i + 1) * classes);
      const largest = Math.max(...row);
      sum += largest + Math.log(row.reduce((n, v) => n + Math.exp(v - largest), 0)) - row[target]!;
      if (row.indexOf(largest) === target) correct++;
      scored++;
    }
  }
  return { loss: sum / scored, tokenAccuracy: correct / scored, scored };
}

/** The rows with what the model holds for likeliest in some places, so that some are correct. */
function partlyRight(model: models.CausalLM, rows: readonly data.TrainingRow[]): data.TrainingRow[] {
  return rows.map(({ ids, labels, where }, r) => {
    const own = ids.slice();
    for (let i = 1; i < own.length; i++) {
      if ((i + r) % 3 !== 0) continue;
      const logits = noGrad(() => scope(() => [...model.forward(tensor(own.slice(0, i), [1, i])).data]));
      const row = logits.slice(-logits.length / i);
      own[i] = row.indexOf(Math.max(...row));
    }
    return { ids: own, labels: labels.map((label, i) => (label < 0 ? label : own[i]!)), where };
  });
}

function agrees(
  model: models.CausalLM,
  rows: readonly data.TrainingRow[],
  called: models.CausalLM | peft.LoraModel<models.CausalLM>,
): void {
  const expected = reference(model, rows);
  assert.ok(expected.tokenAccuracy > 0.1 && expected.tokenAccuracy < 0.9, `${expected.tokenAccuracy}`);
  const before = memoryStats().liveBytes;
  for (const batch of [1, 3, 8]) {
    const got = train.evaluateRows(called, rows, { batch });
    assert.ok(Math.abs(got.loss - expected.loss) < 1e-5 * expected.loss, `${got.loss} ${expected.loss}`);
    assert.deepEqual([got.tokenAccuracy, got.scored], [expected.tokenAccuracy, expected.scored]);
  }
  assert.equal(memoryStats().liveBytes, before);
}

test("loss and accuracy are those of each row alone, in any batch; with all scored, too", () => {
  const model = llama();
  const rows = partlyRight(model, trainingRows(13, LLAMA.vocabSize));
  agrees(model, rows, model);
  agrees(
    model,
    rows.map((row) => ({ ...row, labels: row.ids })),
    model,
  );
  model.dispose();
});

test("more scored tokens than the head takes at a time", () => {
  const model = llama();
  agrees(model, partlyRight(model, trainingRows(60, LLAMA.vocabSize)), model);
  model.dispose();
});

for (const name of ["gemma2", "granite", "gpt2"])
  test(`${name}: with scaled and capped logits`, () => {
    const { model } = models.loadModel(fileURLToPath(new URL(`test/fixtures/families/${name}`, ROOT)));
    agrees(model, partlyRight(model, trainingRows(9, model.config.vocabSize)), model);
    model.dispose();
  });

test("with an adapter, on the head, too; without it the base's", () => {
  const model = llama();
  const rows = trainingRows(9, LLAMA.vocabSize);
  const base = train.evaluateRows(model, rows);
  const lora = peft.getLoraModel(model, {
    r: 4,
    loraAlpha: 40,
    targetModules: ["q_proj", "lm_head"],
    initLoraWeights: false,
  });
  lora.train();
  agrees(model.eval(), partlyRight(model, rows), lora);
  assert.equal(model.training, false);
  const adapted = train.evaluateRows(lora, rows);
  assert.notEqual(adapted.loss, base.loss);
  assert.deepEqual(
    lora.disableAdapter(() => train.evaluateRows(lora, rows)),
    base,
  );
  model.dispose();
});

test("the loss is that of a run's evaluation, to the bit", () => {
  const rows = trainingRows(11, LLAMA.vocabSize);
  const held = trainingRows(7, LLAMA.vocabSize, 50);
  const run = new train.Finetuning<models.CausalLM>(
    llama(),
    { train: rows, test: held },
    { adapter: { r: 2 }, steps: 3, batch: 3, lr: 0.02 },
  );
  while (!run.isComplete) run.step();
  assert.equal(train.evaluateRows(run.adapted, held, { batch: 3 }).loss, run.evaluate());
  run.dispose();
  run.adapted.model.dispose();
});

test("progress is told batch by batch; what is no model, row or option is refused by name", () => {
  const model = llama();
  const rows = trainingRows(5, LLAMA.vocabSize);
  const told: number[][] = [];
  train.evaluateRows(model, rows, { batch: 2, onBatch: (...batch) => told.push(batch) });
  assert.deepEqual(told, [
    [1, 3],
    [2, 3],
    [3, 3],
  ]);
  const unscored = { ids: Int32Array.of(1, 2), labels: Int32Array.of(1, -100), where: "r.jsonl:8" };
  const refused: [() => unknown, ...string[]][] = [
    [() => train.evaluateRows(model, []), "no rows"],
    [() => train.evaluateRows(model, "rows" as never), "rows"],
    [() => train.evaluateRows(model, [unscored]), "r.jsonl:8"],
    [() => train.evaluateRows(model, [{ ...unscored, ids: Int32Array.of(1, 999) }]), "r.jsonl:8", "999"],
    [() => train.evaluateRows(model, rows, { batch: 0.5 }), "batch"],
    [() => train.evaluateRows(model, rows, { packing: true } as never), "packing"],
    [() => train.evaluateRows({} as never, rows), "evaluateRows", "model"],
    [() => train.evaluateRows(null as never, rows), "evaluateRows", "model"],
  ];
  for (const [fn, ...words] of refused) assert.throws(fn, says(ArgumentError, ...words));
  model.dispose();
});

test.run();
