/**
 * Rows of training data as batches, for every kind of decoder: packed, padded or alone they give the same loss and the
 * same gradients, to the bit, and the head's rows that are not scored change nothing. Beside each claim stands what
 * breaks it.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { data, init, models, ops, peft, scope, type Tensor, tensor } from "../../../src/index.js";
import { decoderCases, familyPath } from "../../support/families.js";
import { assertBits } from "../../support/golden.js";

await init();

type Gradients = Map<string, Float32Array>;
type Model = models.DecoderForCausalLM;
/** Of the logits that all rows have. */
const fromAllRows = (model: Model, batch: data.Batch, numItemsInBatch?: number): Tensor => {
  const { ids, targets, attentionMask } = tensorsOf(batch);
  return ops.crossEntropy(model.forward(ids, { attentionMask }), targets, -100, numItemsInBatch);
};
const fromScoredRows = (model: Model, batch: data.Batch, numItemsInBatch?: number): Tensor => {
  const { ids, targets, attentionMask } = tensorsOf(batch);
  return model.loss(ids, targets, { attentionMask, numItemsInBatch });
};

function tensorsOf({ ids, targets, attentionMask, shape }: data.Batch) {
  return {
    ids: tensor(ids, shape),
    targets: tensor(targets, shape),
    attentionMask: attentionMask ? tensor(attentionMask, shape) : undefined,
  };
}

/** A row of n tokens, of which those that `scored` names are. */
function row(n: number, start: number, scored: (i: number) => boolean): data.TrainingRow {
  const ids = Int32Array.from({ length: n }, (_, i) => (start + i * i * 7 + i * 3) % 96);
  return { ids, labels: ids.map((id, i) => (scored(i) ? id : -100)), where: `row ${start}` };
}
const ROWS = [
  row(9, 5, (i) => i > 4),
  row(6, 71, () => true),
  row(17, 33, (i) => (i > 3 && i < 8) || i > 14),
  row(3, 18, (i) => i === 2),
];
const SCORED = 4 + 5 + 6 + 1;
const packed = data.collate(ROWS, { packing: true });
const padded = data.collate(ROWS, { packing: false, padTokenId: 95 });

/** The family's model with its adapter, to be trained. */
function load(name: string): peft.LoraModel<Model> {
  const { model } = models.loadModel(familyPath(name));
  return peft.LoraModel.fromPretrained(model as Model, familyPath(`${name}/adapter`), { isTrainable: true });
}

/** Losses of batches one after the other, and the gradients that they leave together, from zeros. */
function run(
  adapted: peft.LoraModel<Model>,
  batches: readonly data.Batch[],
  numItemsInBatch?: number,
  lossOf = fromScoredRows,
): { losses: Float32Array; gradients: Gradients } {
  const losses = batches.map((batch) =>
    scope(() => {
      const loss = lossOf(adapted.model, batch, numItemsInBatch);
      loss.backward();
      return loss.item();
    }),
  );
  const gradients: Gradients = new Map();
  for (const [key, p] of adapted.namedParameters()) {
    if (p.grad) gradients.set(key, p.grad.data.slice());
    p.grad?.dispose();
    p.grad = null;
  }
  return { losses: Float32Array.from(losses), gradients };
}
type Run = ReturnType<typeof run>;

function assertSame(label: string, got: Run, expected: Run, isLossToo = true): void {
  if (isLossToo) assertBits(`${label}: loss`, got.losses, expected.losses);
  assert.deepEqual([...got.gradients.keys()], [...expected.gradients.keys()]);
  assert(expected.gradients.size > 4);
  for (const [key, values] of expected.gradients) {
    assert(
      values.some((v) => v !== 0),
      `${label}: ${key} is nothing but zeros`,
    );
    assertBits(`${label}: ${key}`, got.gradients.get(key)!, values);
  }
}
const assertOther = (label: string, got: Run, expected: Run, isLossToo = true): void =>
  assert.throws(() => assertSame(label, got, expected, isLossToo), assert.AssertionError, label);

const without = (batch: data.Batch, place: number): data.Batch => ({
  ...batch,
  targets: batch.targets.map((target, i) => (i === place ? -100 : target)),
});

for (const name of decoderCases()) {
  test(`${name}: packed, padded, row by row and by shards`, () => {
    const adapted = load(name);
    const expected = run(adapted, [packed]);
    assertSame("padded", run(adapted, [padded]), expected);
    assertOther("packed, without a mask", run(adapted, [{ ...packed, attentionMask: null }]), expected);
    const wrong = { ...padded, targets: padded.targets.map((target, i) => (i === 31 ? 7 : target)) };
    assert.equal(padded.attentionMask![31], 0);
    assertOther("padded, of which one place is scored", run(adapted, [wrong]), expected);
    const turned = data.collate([...ROWS].reverse(), { packing: true });
    assertOther("rows in another order", run(adapted, [turned]), expected, false);

    // One after the other, onto the same gradients. Of a loss that is rounded a row the sum has other bits.
    const alone = ROWS.map((one) => data.collate([one], { packing: true }));
    const rows = run(adapted, alone, SCORED);
    assertSame("row by row", rows, expected, false);
    const sum = rows.losses.reduce((a, b) => a + b, 0);
    assert(Math.abs(sum - expected.losses[0]!) < 1e-6 * sum, `${sum} and ${expected.losses[0]}`);
    assertOther("means of rows", run(adapted, alone), expected, false);

    // Shards, each from zeros.
    const halves = [ROWS.slice(0, 2), ROWS.slice(2)];
    for (const rowsOfShard of halves) {
      const [one, other] = [true, false].map((packing) => data.collate(rowsOfShard, { packing }));
      const shard = run(adapted, [one!], SCORED);
      assertSame("a shard", run(adapted, [other!], SCORED), shard);
      assertOther("a shard of another step", run(adapted, [one!], SCORED + 1), shard);
    }
    adapted.model.dispose();
  });

  test(`${name}: scored rows alone and all rows`, () => {
    const adapted = load(name);
    for (const batch of [packed, padded])
      for (const numItemsInBatch of [undefined, 61]) {
        const expected = run(adapted, [batch], numItemsInBatch, fromAllRows);
        assertSame("scored rows", run(adapted, [batch], numItemsInBatch), expected);
        const place = batch.targets.findIndex((target) => target !== -100);
        assertOther("one less", run(adapted, [without(batch, place)], numItemsInBatch), expected);
      }
    adapted.model.dispose();
  });
}

test.run();
