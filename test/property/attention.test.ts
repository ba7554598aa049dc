/**
 * Attention of a text has the bits of that text alone, forward and backward: padded on either side, packed with others,
 * with earlier keys from a cache, and with rows in k and v that nobody sees.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "uvu";
import { full, init, ops, scope, tensor, type Tensor } from "../../src/index.js";
import { assertBits } from "../support/golden.js";
import { stream } from "../support/random.js";

await init();

const HEADS = 4;
const KV_HEADS = 2;

/** The queries, keys, values and dy of a text. */
interface Text {
  length: number;
  dim: number;
  parts: readonly Float32Array[];
}
const WIDTHS = [HEADS, KV_HEADS, KV_HEADS, HEADS] as const;

function text(length: number, dim: number, seed: number): Text {
  const next = stream(seed);
  return {
    length,
    dim,
    parts: WIDTHS.map((heads) => Float32Array.from({ length: length * heads * dim }, () => 4 * next() - 2)),
  };
}

interface Kind {
  causal: boolean;
  window: number | null;
  softcap: number | null;
}

/** y, dq, dk, dv. */
type Results = readonly Float32Array[];

/** Texts in a row of `capacity` positions from `at` on, with other values between. */
function run(kind: Kind, places: readonly { at: number; text: Text }[], keys: number, capacity = keys): Results[] {
  return scope(() => {
    const { dim } = places[0]!.text;
    const [q, k, v, dy] = WIDTHS.map((heads, i) => {
      const rows = i === 1 || i === 2 ? capacity : keys;
      const values = new Float32Array(rows * heads * dim).fill(0.7);
      for (const { at, text } of places) values.set(text.parts[i]!, at * heads * dim);
      const t = tensor(values, [1, rows, heads, dim]);
      t.requiresGrad = i < 3;
      return t;
    }) as [Tensor, Tensor, Tensor, Tensor];
    const mask = new Int32Array(keys);
    for (const [i, { at, text }] of places.entries()) mask.fill(i + 1, at, at + text.length);
    const { softcap, ...seen } = kind;
    const attentionMask = tensor(mask, [1, keys]);
    const ranges = ops.attentionRanges({ batch: 1, queries: keys, ...seen, attentionMask });
    const y = ops.attention(q, k, v, { ranges, softcap });
    // What is no text's has no loss, and must have no part in the results.
    for (let i = 0; i < keys; i++)
      if (mask[i] === 0) {
        assert(y.data.subarray(i * HEADS * dim, (i + 1) * HEADS * dim).every((x) => x === 0));
        dy.data.fill(0, i * HEADS * dim, (i + 1) * HEADS * dim);
      }
    const values = y.data.slice();
    ops.sum(ops.mul(y, dy)).backward();
    const all = [values, q.grad!.data, k.grad!.data, v.grad!.data];
    return places.map(({ at, text: { length } }) =>
      all.map((x, i) => {
        const row = (i === 2 || i === 3 ? KV_HEADS : HEADS) * dim;
        return x.slice(at * row, (at + length) * row);
      }),
    );
  });
}

const alone = (kind: Kind, t: Text): Results => run(kind, [{ at: 0, text: t }], t.length)[0]!;
function assertSame(what: string, got: Results, expected: Results): void {
  for (const [i, name] of ["y", "dq", "dk", "dv"].entries()) assertBits(`${what}: ${name}`, got[i]!, expected[i]!);
}

const kinds = fc.record({
  causal: fc.boolean(),
  window: fc.constantFrom(null, 1, 3, 17),
  softcap: fc.constantFrom(null, 0.8),
});
const lengths = fc.constantFrom(1, 2, 3, 5, 8, 31, 32, 33, 40);
const dims = fc.constantFrom(1, 3, 4, 8);
const gaps = fc.constantFrom(0, 1, 2, 3, 7, 33);

test("a text has the bits of itself alone: padded left and right, and with spare rows behind its keys", () => {
  fc.assert(
    fc.property(kinds, lengths, dims, gaps, gaps, fc.nat(), (kind, length, dim, left, right, seed) => {
      const t = text(length, dim, seed);
      const keys = left + length + right;
      const [padded] = run(kind, [{ at: left, text: t }], keys, keys + right);
      assertSame("padded", padded!, alone(kind, t));
    }),
    { numRuns: 120, seed: 1 },
  );
});

test("texts in one row have the bits of each alone, with padding between them or not", () => {
  fc.assert(
    fc.property(
      kinds,
      dims,
      fc.array(fc.tuple(lengths, gaps), { minLength: 2, maxLength: 5 }),
      fc.nat(),
      (kind, dim, row, seed) => {
        let keys = 0;
        const places = row.map(([length, gap], i) => {
          const at = keys + gap;
          keys = at + length;
          return { at, text: text(length, dim, seed + i) };
        });
        run(kind, places, keys).forEach((results, i) => assertSame(`text ${i}`, results, alone(kind, places[i]!.text)));
      },
    ),
    { numRuns: 80, seed: 2 },
  );
});

test("queries after cached keys have the bits of the whole text, in a cache with spare rows of NaN", () => {
  fc.assert(
    fc.property(
      kinds,
      lengths,
      dims,
      gaps,
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.nat(),
      ({ window, softcap }, length, dim, spare, share, seed) => {
        const kind = { causal: true, window, softcap };
        const t = text(length, dim, seed);
        const first = Math.min(length - 1, Math.floor(share * length));
        const expected = alone(kind, t)[0]!.subarray(first * HEADS * dim);
        scope(() => {
          const q = tensor(t.parts[0]!.slice(first * HEADS * dim), [1, length - first, HEADS, dim]);
          const [k, v] = [t.parts[1]!, t.parts[2]!].map((values) => {
            const cache = full([1, length + spare, KV_HEADS, dim], NaN);
            cache.data.set(values);
            return cache;
          }) as [Tensor, Tensor];
          const ranges = ops.attentionRanges({ batch: 1, queries: length - first, keys: length, window });
          assertBits("cached", ops.attention(q, k, v, { ranges, softcap }).data, expected);
        });
      },
    ),
    { numRuns: 100, seed: 3 },
  );
});

test("a NaN in one text reaches no other text of its row", () => {
  const kind = { causal: true, window: null, softcap: null };
  const [a, b] = [text(7, 4, 1), text(9, 4, 2)];
  const poisoned = { ...a, parts: a.parts.map((x) => x.map(() => NaN)) };
  const [, second] = run(
    kind,
    [poisoned, b].map((t, i) => ({ at: i * 7, text: t })),
    16,
  );
  assertSame("the other text", second!, alone(kind, b));
});

test("ranges of causality, windows and masks, as transformers' masks have them", () => {
  const sees = {
    causal: (i: number, j: number) => j <= i,
    sliding: (i: number, j: number, w: number) => j <= i && j > i - w,
    bidirectional: (i: number, j: number, w: number) => Math.abs(i - j) <= w,
  };
  const mask = [0, 3, 3, 3, 1, 1, 0, 2, 2];
  for (const causal of [true, false])
    for (const window of [null, 1, 2, 5])
      for (const queries of [9, 4, 1])
        scope(() => {
          const keys = mask.length;
          const attentionMask = tensor(Int32Array.from(mask), [1, keys]);
          const { indices } = ops.attentionRanges({ batch: 1, queries, keys, causal, window, attentionMask });
          for (let t = 0; t < queries; t++) {
            const i = keys - queries + t;
            const seen = mask.flatMap((m, j) => {
              const near = causal
                ? window === null
                  ? sees.causal(i, j)
                  : sees.sliding(i, j, window)
                : window === null || sees.bidirectional(i, j, window);
              return m !== 0 && m === mask[i] && near ? [j] : [];
            });
            const [from, to] = [indices[2 * t]!, indices[2 * t + 1]!];
            assert.deepEqual(
              Array.from({ length: to - from }, (_, u) => from + u),
              seen,
              `${causal} ${window} query ${i}`,
            );
          }
        });
});

test.run();
