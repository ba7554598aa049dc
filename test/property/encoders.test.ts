/** What classifiers and embeddings rest on: a text's bits do not depend on its padding, its neighbours or its row. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "uvu";
import { init, models, noGrad, scope, tensor, type Tensor } from "../../src/index.js";
import { familyPath } from "../support/families.js";
import { assertBits } from "../support/golden.js";

await init();

const FAMILIES = ["bert", "roberta", "distilbert", "modernbert", "llama", "qwen3"];
const padTokenId = 1;

/** Ids of a text; a RoBERTa does not count its padding token. */
const text = fc.array(fc.integer({ min: 2, max: 95 }), { minLength: 1, maxLength: 9 });
const batch = fc.array(fc.record({ ids: text, left: fc.integer({ min: 0, max: 5 }) }), { minLength: 1, maxLength: 4 });

const int32 = (values: readonly number[], shape: number[]): Tensor => tensor(Int32Array.from(values), shape);
/** The values of part of a row, [from, to) of its steps. */
function part(x: Tensor, row: number, from: number, to: number): Float32Array {
  const [, steps, size] = x.shape as [number, number, number];
  return x.data.slice((row * steps + from) * size, (row * steps + to) * size);
}

for (const family of FAMILIES) {
  const base = models.loadModel(familyPath(`${family}_cls`), { head: "none" }).model;
  const classifier = models.loadModel(familyPath(`${family}_cls`), { head: "sequence-classification" }).model;
  const embedders = (["mean", "cls"] as const).map((pooling) => new models.SentenceEncoder(base, { pooling }));

  test(`${family}: states, logits and embeddings of padded texts are those of each alone`, () =>
    fc.assert(
      fc.property(batch, (texts) =>
        scope(() =>
          noGrad(() => {
            const steps = Math.max(...texts.map(({ ids, left }) => left + ids.length));
            const filled = (fill: number, of: (ids: number[]) => number[]): number[] =>
              texts.flatMap(({ ids, left }) => [
                ...new Array<number>(left).fill(fill),
                ...of(ids),
                ...new Array<number>(steps - left - ids.length).fill(fill),
              ]);
            const shape = [texts.length, steps];
            const ids = int32(
              filled(padTokenId, (all) => all),
              shape,
            );
            const attentionMask = int32(
              filled(0, (all) => all.map(() => 1)),
              shape,
            );
            const states = base.forward(ids, { attentionMask });
            const vectors = [classifier, ...embedders].map((model) => model.forward(ids, { attentionMask }));
            for (const [row, { ids: own, left }] of texts.entries()) {
              const alone = int32(own, [1, own.length]);
              const what = `row ${row}`;
              assertBits(what, part(states, row, left, left + own.length), base.forward(alone).data);
              for (const [i, model] of [classifier, ...embedders].entries()) {
                const width = vectors[i]!.shape[1]!;
                assertBits(what, vectors[i]!.data.slice(row * width, (row + 1) * width), model.forward(alone).data);
              }
            }
          }),
        ),
      ),
      { numRuns: 15 },
    ));

  test(`${family}: states of texts packed into one row are those of each alone`, () =>
    fc.assert(
      fc.property(fc.array(text, { minLength: 1, maxLength: 4 }), (texts) =>
        scope(() =>
          noGrad(() => {
            const ids = texts.flat();
            const numbers = texts.flatMap((own, i) => own.map(() => i + 1));
            const states = base.forward(int32(ids, [1, ids.length]), {
              attentionMask: int32(numbers, [1, ids.length]),
            });
            let from = 0;
            for (const own of texts) {
              assertBits(
                "text",
                part(states, 0, from, from + own.length),
                base.forward(int32(own, [1, own.length])).data,
              );
              from += own.length;
            }
            assert.equal(from, ids.length);
          }),
        ),
      ),
      { numRuns: 15 },
    ));
}

test.run();
