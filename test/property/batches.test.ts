/**
 * Rows of any lengths, of which any tokens are scored: packed, padded, one after the other, and with all rows of the
 * head, a model gives the same loss and gradients, to the bit. Lengths cross the blocks of attention (32 queries), of
 * products (96 rows) and of the loss (128 rows).
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "uvu";
import { data, init, models, ops, peft, scope, tensor, type Tensor } from "../../src/index.js";
import { familyPath } from "../support/families.js";
import { assertBits } from "../support/golden.js";

await init();

const row = fc
  .record({
    ids: fc.array(fc.integer({ min: 0, max: 95 }), { minLength: 2, maxLength: 65, size: "max" }),
    from: fc.nat(64),
    every: fc.integer({ min: 1, max: 5 }),
  })
  .map(({ ids, from, every }): data.TrainingRow => {
    const labels = ids.map((id, i) => (i >= from % ids.length && i % every === 0 ? id : -100));
    return { ids: Int32Array.from(ids), labels: Int32Array.from(labels), where: "a row" };
  });
const rows = fc
  .array(row, { minLength: 1, maxLength: 7, size: "max" })
  .filter((all) => data.collate(all, { packing: true }).scored > 0);

const CASES = {
  gemma2: "all-linear",
  gpt2: ["c_attn", "lm_head"],
  mistral_window: "all-linear",
  qwen3: ["q_proj", "lm_head"],
} as const;

for (const [family, targets] of Object.entries(CASES)) {
  const model = models.loadModel(familyPath(family)).model as models.DecoderForCausalLM;
  const targetModules = typeof targets === "string" ? targets : [...targets];
  const adapted = peft.getLoraModel(model, { r: 3, targetModules, initLoraWeights: false });
  const lossOf = ({ ids, targets, attentionMask, shape }: data.Batch, numItemsInBatch: number, all = false): Tensor => {
    const mask = attentionMask ? tensor(attentionMask, shape) : undefined;
    const [x, t] = [tensor(ids, shape), tensor(targets, shape)];
    return all
      ? ops.crossEntropy(model.forward(x, { attentionMask: mask }), t, -100, numItemsInBatch)
      : model.loss(x, t, { attentionMask: mask, numItemsInBatch });
  };
  /** Gradients, and the loss if there is one. */
  const run = (losses: readonly (() => Tensor)[]): Float32Array[] => {
    const values = losses.map((loss) =>
      scope(() => {
        const y = loss();
        y.backward();
        return y.item();
      }),
    );
    const gradients = adapted.parameters().flatMap((p) => {
      const values = p.grad?.data.slice();
      p.grad?.dispose();
      p.grad = null;
      return values ?? [];
    });
    return [...gradients, ...(values.length === 1 ? [Float32Array.from(values)] : [])];
  };

  test(`${family}: one loss and one gradient, whatever the layout`, () =>
    fc.assert(
      fc.property(rows, (all) => {
        const packed = data.collate(all, { packing: true });
        const padded = data.collate(all, { packing: false, padTokenId: 7 });
        const n = packed.scored;
        const expected = run([() => lossOf(packed, n)]);
        assert(expected.length > 4);
        const same = (label: string, got: readonly Float32Array[]): void => {
          assert(got.length >= expected.length - 1);
          for (const [i, values] of got.entries()) assertBits(`${label} ${i}`, values, expected[i]!);
        };
        same("padded", run([() => lossOf(padded, n)]));
        same("all rows of the head", run([() => lossOf(packed, n, true)]));
        const alone = all.map((one) => data.collate([one], { packing: true }));
        same("row by row", run(alone.map((batch) => () => lossOf(batch, n))));
      }),
      { numRuns: 12 },
    ));
}

test.run();
