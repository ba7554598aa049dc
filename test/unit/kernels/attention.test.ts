/**
 * Attention, forward and backward, against its formula and its analytic gradient in float64, which
 * central differences check. Bound: 1e-5 of the largest value plus 1e-6. With cached keys (fewer
 * queries than keys) and for a batch entry alone, the bits are those of the whole.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { type Engine, init } from "../../../src/runtime/engine.js";
import {
  draw,
  Frame,
  gradient,
  plus,
  type Reals,
  run,
  runWanted,
  same,
  softmax,
  weighted,
} from "../../support/frame.js";
import { assertClose } from "../../support/golden.js";

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

interface Shape {
  batch: number;
  queries: number;
  keys: number;
  heads: number;
  kvHeads: number;
  dim: number;
  /** Of each query of each batch entry; default: causal. */
  ranges?: readonly (readonly [from: number, to: number])[];
  softcap?: number;
}

const rangesOf = ({ batch, queries, keys, ranges }: Shape): readonly (readonly [number, number])[] =>
  ranges ?? range(1, batch).flatMap(() => range(keys - queries + 1, keys).map((to) => [0, to] as const));

/**
 * Calls back for each head and query with its probabilities, the slopes of its scores, the queries' and the keys' row
 * offsets; what counts keys from 0 begins at the query's first.
 */
function attentionRows(
  s: Shape,
  scale: number,
  q: Reals,
  k: Reals,
  visit: (probs: Float64Array, query: number, keyRow: (u: number) => number, slopes: Float64Array) => void,
): void {
  const { batch, queries, keys, heads, kvHeads, dim, softcap } = s;
  const ranges = rangesOf(s);
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++) {
      for (let t = 0; t < queries; t++) {
        const [from, to] = ranges[b * queries + t]!;
        if (from === to) continue;
        const keyRow = (u: number): number =>
          ((b * keys + from + u) * kvHeads + Math.floor((h * kvHeads) / heads)) * dim;
        const query = ((b * queries + t) * heads + h) * dim;
        const scores = new Float64Array(to - from);
        for (let u = 0; u < scores.length; u++)
          for (let j = 0, at = keyRow(u); j < dim; j++) scores[u] = scores[u]! + scale * q[query + j]! * k[at + j]!;
        const tanh = scores.map((x) => (softcap === undefined ? 0 : Math.tanh(x / softcap)));
        visit(
          softmax(scores.map((x, u) => (softcap === undefined ? x : softcap * tanh[u]!))),
          query,
          keyRow,
          tanh.map((x) => 1 - x * x),
        );
      }
    }
}

function attention(s: Shape, scale: number, q: Reals, k: Reals, v: Reals): Float64Array {
  const y = new Float64Array(q.length);
  attentionRows(s, scale, q, k, (probs, query, keyRow) =>
    probs.forEach((p, u) => {
      for (let j = 0, at = keyRow(u); j < s.dim; j++) y[query + j] = y[query + j]! + p * v[at + j]!;
    }),
  );
  return y;
}

function attentionGradient(s: Shape, scale: number, dy: Reals, q: Reals, k: Reals, v: Reals): Float64Array[] {
  const dq = new Float64Array(q.length);
  const dk = new Float64Array(k.length);
  const dv = new Float64Array(v.length);
  attentionRows(s, scale, q, k, (probs, query, keyRow, slopes) => {
    const dProbs = probs.map((_, u) =>
      weighted(dy.subarray(query, query + s.dim), v.subarray(keyRow(u), keyRow(u) + s.dim)),
    );
    const inner = weighted(probs, dProbs);
    probs.forEach((p, u) => {
      const dScore = scale * slopes[u]! * p * (dProbs[u]! - inner);
      for (let j = 0, at = keyRow(u); j < s.dim; j++) {
        dq[query + j] = dq[query + j]! + dScore * k[at + j]!;
        dk[at + j] = dk[at + j]! + dScore * q[query + j]!;
        dv[at + j] = dv[at + j]! + p * dy[query + j]!;
      }
    });
  });
  return [dq, dk, dv];
}

function attentionForward(
  engine: Engine,
  s: Shape,
  scale: number,
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
): Float32Array {
  const f = new Frame(engine, "attentionForward");
  const ranges = f.integers("ranges", rangesOf(s).flat());
  const [y] = run(
    engine,
    `attentionForward ${JSON.stringify(s)}`,
    [q, k, v],
    [q.length, engine.kernels.attentionProbsBytes(s.keys) / 4],
    ([pq, pk, pv], [y, probs]) =>
      engine.kernels.attentionForward({
        y: y!,
        q: pq!,
        k: pk!,
        v: pv!,
        batch: s.batch,
        queries: s.queries,
        keys: s.keys,
        heads: s.heads,
        kvHeads: s.kvHeads,
        dim: s.dim,
        scale,
        softcap: s.softcap ?? 0,
        ranges,
        probs: probs!,
        scratch: engine.scratch,
      }),
  );
  f.end();
  return y!;
}

/** before: dq, dk, dv; undefined: not wanted. */
function attentionBackward(
  engine: Engine,
  s: Shape,
  scale: number,
  before: readonly (Float32Array | undefined)[],
  dy: Float32Array,
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
): (Float32Array | undefined)[] {
  const label = `attentionBackward ${JSON.stringify(s)}`;
  const f = new Frame(engine, label);
  const room = engine.kernels.attentionGradientBytes(s.batch * s.kvHeads, s.keys) / 4;
  const probs = f.room("probs", room);
  const dprobs = f.room("dprobs", room);
  const tanh = s.softcap === undefined ? 0 : f.room("tanh", room).address;
  const ranges = f.integers("ranges", rangesOf(s).flat());
  const results = runWanted(engine, label, [dy, q, k, v], before, ([pdy, pq, pk, pv], [dq, dk, dv]) =>
    engine.kernels.attentionBackward({
      dq: dq!,
      dk: dk!,
      dv: dv!,
      dy: pdy!,
      q: pq!,
      k: pk!,
      v: pv!,
      batch: s.batch,
      queries: s.queries,
      keys: s.keys,
      heads: s.heads,
      kvHeads: s.kvHeads,
      dim: s.dim,
      scale,
      softcap: s.softcap ?? 0,
      ranges,
      tanh,
      probs: probs.address,
      dprobs: dprobs.address,
      scratch: engine.scratch,
    }),
  );
  f.end();
  return results;
}

const attentionOperands = ({ batch, queries, keys, heads, kvHeads, dim }: Shape) => {
  const size = batch * queries * heads * dim;
  const sizeK = batch * keys * kvHeads * dim;
  return {
    q: draw(size).map((x) => 3 * x),
    k: draw(sizeK).map((x) => 3 * x),
    v: draw(sizeK),
    dy: draw(size),
    before: [draw(size), draw(sizeK), draw(sizeK)],
    scale: Math.fround(1 / Math.sqrt(dim)),
  };
};

/** Rows [from, steps) of each batch entry of [batch, steps, width]. */
const lastRows = (x: Float32Array, batch: number, steps: number, from: number): Float32Array => {
  const width = x.length / batch / steps;
  return Float32Array.from(
    range(0, batch - 1).flatMap((b) => [...x.subarray((b * steps + from) * width, (b + 1) * steps * width)]),
  );
};

test("attention: the float64 gradient agrees with central differences", () => {
  const s: Shape = { batch: 2, queries: 3, keys: 5, heads: 4, kvHeads: 2, dim: 2 };
  const { q, k, v, dy, scale } = attentionOperands(s);
  const loss = (q: Reals, k: Reals, v: Reals): number => weighted(dy, attention(s, scale, q, k, v));
  const [dq, dk, dv] = attentionGradient(s, scale, dy, q, k, v);
  assertClose(
    "dq",
    dq!,
    gradient((x) => loss(x, k, v), q),
    0,
    1e-8,
  );
  assertClose(
    "dk",
    dk!,
    gradient((x) => loss(q, x, v), k),
    0,
    1e-8,
  );
  assertClose(
    "dv",
    dv!,
    gradient((x) => loss(q, k, x), v),
    0,
    1e-8,
  );
});

for (const [heads, kvHeads] of [
  [1, 1],
  [4, 2],
  [4, 1],
] as const) {
  test(`attention, ${heads} heads over ${kvHeads}: formula, gradients, cached keys, batch entries alone`, async () => {
    const engine = await init();
    for (const keys of [1, 2, 31, 32, 33, 65])
      for (const dim of [2, 8, 32]) {
        const s: Shape = { batch: 2, queries: keys, keys, heads, kvHeads, dim };
        const label = JSON.stringify(s);
        const { q, k, v, dy, before, scale } = attentionOperands(s);
        const y = attentionForward(engine, s, scale, q, k, v);
        assertClose(label, y, attention(s, scale, q, k, v));
        const results = attentionBackward(engine, s, scale, before, dy, q, k, v) as Float32Array[];
        attentionGradient(s, scale, dy, q, k, v).forEach((g, j) =>
          assertClose(`${label} d${"qkv"[j]}`, results[j]!, plus(before[j]!, g)),
        );

        for (const mask of range(0, 7)) {
          attentionBackward(
            engine,
            s,
            scale,
            before.map((b, j) => ((mask >> j) & 1 ? b : undefined)),
            dy,
            q,
            k,
            v,
          ).forEach((r, j) => {
            if (r !== undefined) same(`${label} d${"qkv"[j]}, wanted ${mask.toString(2)}`, r, results[j]!);
          });
        }

        const second = (x: Float32Array): Float32Array => x.subarray(x.length / 2);
        const one = { ...s, batch: 1 };
        same(
          `${label}, an entry alone`,
          attentionForward(engine, one, scale, second(q), second(k), second(v)),
          second(y),
        );
        attentionBackward(engine, one, scale, before.map(second), second(dy), second(q), second(k), second(v)).forEach(
          (r, j) => same(`${label} d${"qkv"[j]}, an entry alone`, r!, second(results[j]!)),
        );

        for (const from of new Set([1, keys >> 1, 30, 31, 32, 33, keys - 1].filter((t) => t > 0 && t < keys))) {
          const cached: Shape = { ...s, queries: keys - from };
          const last = (x: Float32Array): Float32Array => lastRows(x, s.batch, keys, from);
          same(`${label}, queries from ${from}`, attentionForward(engine, cached, scale, last(q), k, v), last(y));
          const parts = attentionBackward(
            engine,
            cached,
            scale,
            [last(before[0]!), before[1], before[2]],
            last(dy),
            last(q),
            k,
            v,
          ) as Float32Array[];
          same(`${label} dq, queries from ${from}`, parts[0]!, last(results[0]!));
          attentionGradient(cached, scale, last(dy), last(q), k, v).forEach((g, j) =>
            assertClose(
              `${label} d${"qkv"[j]}, queries from ${from}`,
              parts[j]!,
              plus(j === 0 ? last(before[0]!) : before[j]!, g),
            ),
          );
        }
      }
  });
}

/** The ranges of `length` queries: texts of these lengths after one another, 0 of which are padding. */
const texts = (lengths: readonly number[], window = Infinity, causal = true): (readonly [number, number])[] => {
  let start = 0;
  return lengths.flatMap((length) => {
    const first = start;
    start += Math.abs(length);
    return range(first, start - 1).map((i) =>
      length < 0
        ? ([0, 0] as const)
        : ([Math.max(first, i - window + 1), causal ? i + 1 : Math.min(start, i + window)] as const),
    );
  });
};

for (const [name, ranges] of Object.entries({
  "a window": texts([70], 9),
  "a window both ways": texts([70], 9, false),
  "all keys": texts([70], Infinity, false),
  "texts and padding": texts([-2, 5, 1, 30, -3, 29]),
  "texts, a window both ways": texts([-40, 20, -1, 9], 4, false),
  "nothing seen": texts([-70]),
}))
  for (const softcap of [undefined, 1.5]) {
    test(`attention: ${name}${softcap === undefined ? "" : ", softcap"}: formula and gradients`, async () => {
      const engine = await init();
      for (const [heads, kvHeads] of [
        [2, 2],
        [4, 2],
      ] as const)
        for (const dim of [3, 8]) {
          const s: Shape = {
            batch: 2,
            queries: 70,
            keys: 70,
            heads,
            kvHeads,
            dim,
            ranges: [...ranges, ...texts([70])],
          };
          if (softcap !== undefined) s.softcap = softcap;
          const { q, k, v, dy, before, scale } = attentionOperands(s);
          assertClose(name, attentionForward(engine, s, scale, q, k, v), attention(s, scale, q, k, v));
          const results = attentionBackward(engine, s, scale, before, dy, q, k, v);
          attentionGradient(s, scale, dy, q, k, v).forEach((g, j) =>
            assertClose(`${name} d${"qkv"[j]}`, results[j]!, plus(before[j]!, g)),
          );
        }
    });
  }

test("attention: the float64 gradient of a softcap agrees with central differences", () => {
  const s: Shape = { batch: 1, queries: 4, keys: 4, heads: 2, kvHeads: 1, dim: 2, softcap: 0.7, ranges: texts([1, 3]) };
  const { q, k, v, dy, scale } = attentionOperands(s);
  const [dq, dk] = attentionGradient(s, scale, dy, q, k, v);
  const loss = (q: Reals, k: Reals): number => weighted(dy, attention(s, scale, q, k, v));
  assertClose(
    "dq",
    dq!,
    gradient((x) => loss(x, k), q),
    0,
    1e-8,
  );
  assertClose(
    "dk",
    dk!,
    gradient((x) => loss(q, x), k),
    0,
    1e-8,
  );
});

test("attention: huge scores do not overflow; a NaN key reaches no earlier query", async () => {
  const engine = await init();
  const s: Shape = { batch: 1, queries: 65, keys: 65, heads: 2, kvHeads: 1, dim: 8 };
  const { q, k, v, scale } = attentionOperands(s);
  const huge = attentionForward(
    engine,
    s,
    scale,
    q.map((x) => x * 1e15),
    k.map((x) => x * 1e15),
    v,
  );
  assert.ok(huge.every((x) => Math.abs(x) <= 1));
  const y = attentionForward(engine, s, scale, q, k, v);
  const position = 40;
  const width = s.heads * s.dim;
  const withNaN = k.slice();
  withNaN[position * s.dim] = NaN;
  const poisoned = attentionForward(engine, s, scale, q, withNaN, v);
  same("queries before the NaN", poisoned.subarray(0, position * width), y.subarray(0, position * width));
  assert.ok(poisoned.subarray(position * width).every(Number.isNaN), "queries from the NaN on");
});

test.run();
