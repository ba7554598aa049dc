/**
 * How the next token is drawn, against transformers' formulas (generation/logits_process.py) in float64: which ids
 * top-k, top-p and min-p leave, the repetition penalty, and how often each token comes.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, memoryStats, scope, tensor } from "../../../src/index.js";
import { checkedSampling, keptIds, Sampler, type SamplingOptions } from "../../../src/models/sampling.js";

await init();

/** Numbers in 0 .. 1 (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function softmax64(scores: readonly number[]): number[] {
  const max = Math.max(...scores);
  const e = scores.map((x) => Math.exp(x - max));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

interface Filters {
  topK: number;
  topP: number;
  minP: number;
}

/**
 * TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper, line by line. What is within a rounding of a bound may fall
 * on either side of it: `close`.
 */
function reference(logits: readonly number[], { topK, topP, minP }: Filters): { kept: number[]; close: boolean } {
  let close = false;
  const near = (a: number, b: number): void => {
    close ||= Math.abs(a - b) < 1e-6 * Math.max(1e-3, Math.abs(b));
  };
  let scores = [...logits];
  if (topK !== 0) {
    const k = Math.min(topK, scores.length);
    const least = [...scores].sort((a, b) => b - a)[k - 1]!;
    scores = scores.map((x) => (x < least ? -Infinity : x));
  }
  if (topP < 1) {
    // Ascending; of equals the lower id comes last, so that it stays longest.
    const order = scores.map((_, i) => i).sort((a, b) => scores[a]! - scores[b]! || b - a);
    const probabilities = softmax64(order.map((id) => scores[id]!));
    let sum = 0;
    const masked = [...scores];
    order.forEach((id, place) => {
      sum += probabilities[place]!;
      if (probabilities[place]! > 0 && place < order.length - 1) near(sum, 1 - topP);
      if (sum <= 1 - topP && place < order.length - 1) masked[id] = -Infinity;
    });
    scores = masked;
  }
  if (minP > 0) {
    const probabilities = softmax64(scores);
    const bound = minP * Math.max(...probabilities);
    const best = probabilities.indexOf(Math.max(...probabilities));
    scores = scores.map((x, id) => {
      if (minP < 1 && x > -Infinity) near(probabilities[id]!, bound);
      return probabilities[id]! < bound && id !== best ? -Infinity : x;
    });
  }
  return { kept: scores.flatMap((x, id) => (x > -Infinity ? [id] : [])), close };
}

function kept(logits: readonly number[], filters: Partial<Filters>): number[] {
  const all = { topK: 0, topP: 1, minP: 0, ...filters };
  const scores = Float32Array.from(logits);
  const probabilities = Float32Array.from(softmax64(Array.from(scores)));
  const ids = keptIds(scores, probabilities, all);
  if (!ids) return logits.map((_, id) => id);
  assert.deepEqual(
    ids,
    [...ids].sort((a, b) => scores[b]! - scores[a]! || a - b),
    "largest first, of equals the lower id",
  );
  return [...ids].sort((a, b) => a - b);
}

test("what top-k, top-p and min-p leave, alone and together, is what transformers leaves", () => {
  const random = randomOf(1);
  let compared = 0;
  for (let round = 0; round < 3000; round++) {
    const n = 1 + Math.floor(random() * 40);
    const spread = [3, 12, 60, 4000][Math.floor(random() * 4)]!;
    // Multiples of 1/4 in half of the rounds, for ties.
    const logits = Array.from({ length: n }, () => {
      const x = (random() - 0.5) * spread;
      return Math.fround(round % 2 ? x : Math.round(x * 4) / 4);
    });
    const filters = {
      topK: random() < 0.5 ? 0 : 1 + Math.floor(random() * 1.3 * n),
      topP: random() < 0.4 ? 1 : random(),
      minP: random() < 0.5 ? 0 : random() ** 3,
    };
    const expected = reference(logits, filters);
    if (expected.close) continue;
    compared++;
    assert.deepEqual(kept(logits, filters), expected.kept, `${JSON.stringify(filters)} of ${logits.join(", ")}`);
  }
  console.log(`${compared} of 3000 random rows compared`);
  assert.ok(compared > 2500);
});

test("edges: more than all, all but one, ties at the border, a share of nothing and of everything", () => {
  const logits = [1, 3, 2, 3, 0];
  const all = [0, 1, 2, 3, 4];
  for (const none of [{}, { topK: 5 }, { topK: 1000 }, { topP: 1 }, { minP: 0 }])
    assert.deepEqual(kept(logits, none), all);
  assert.deepEqual(kept(logits, { topK: 1 }), [1, 3], "what equals the k-th stays");
  assert.deepEqual(kept(logits, { topK: 3 }), [1, 2, 3]);
  assert.deepEqual(kept(logits, { topP: 0 }), [1], "the lower id of two");
  assert.deepEqual(kept(logits, { topP: 1e-9 }), [1]);
  assert.deepEqual(kept(logits, { minP: 1 }), [1, 3]);
  assert.deepEqual(kept(logits, { topK: 1, topP: 0.4 }), [1], "top-p counts what top-k left");
  assert.deepEqual(kept([0, 0, 0, 0], { topP: 0.5 }), [0, 1], "a share that is met exactly needs no more");
  assert.deepEqual(kept([7], { topK: 1, topP: 0.1, minP: 1 }), [0]);
  assert.deepEqual(kept([0, 200, -200], { topP: 0.99, minP: 0.5 }), [1]);
});

/** Tokens that samplers with the seeds 0 .. n - 1 draw from the same logits. */
function draws(logits: readonly number[], options: SamplingOptions, n: number, prompt: number[] = []): number[] {
  return Array.from({ length: n }, (_, seed) =>
    scope(() => new Sampler("t", checkedSampling("t", options), seed, Int32Array.from(prompt)).draw(tensor(logits))),
  );
}

test("each token comes as often as its probability among what is kept", () => {
  const logits = [0.5, 2, 1.5, -1, 1.5, 0];
  const n = 4000;
  for (const [options, filters] of [
    [{ temperature: 1 }, {}],
    [{ temperature: 0.7 }, {}],
    [{ temperature: 1, topK: 3 }, { topK: 3 }],
    [{ temperature: 1.5, topP: 0.8 }, { topP: 0.8 }],
    [{ temperature: 1, minP: 0.25 }, { minP: 0.25 }],
    [
      { temperature: 2, topK: 5, topP: 0.9, minP: 0.1 },
      { topK: 5, topP: 0.9, minP: 0.1 },
    ],
  ] as const) {
    const scores = logits.map((x) => x / options.temperature);
    const ids = new Set(reference(scores, { topK: 0, topP: 1, minP: 0, ...filters }).kept);
    const expected = softmax64(scores.map((x, id) => (ids.has(id) ? x : -Infinity)));
    const counts = logits.map(() => 0);
    for (const id of draws(logits, options, n)) counts[id]!++;
    for (const [id, p] of expected.entries()) {
      const deviation = Math.sqrt(n * p * (1 - p));
      assert.ok(Math.abs(counts[id]! - n * p) <= 4 * deviation, `${JSON.stringify(options)}: ${counts.join()}`);
    }
  }
});

test("filters that leave all give the draws of none; those that leave one, its token", () => {
  const random = randomOf(2);
  const logits = Array.from({ length: 50 }, () => (random() - 0.5) * 4);
  const plain = draws(logits, { temperature: 1.1 }, 200);
  assert.ok(new Set(plain).size > 20);
  assert.deepEqual(draws(logits, { temperature: 1.1, topK: 50, topP: 1, minP: 0 }, 200), plain);
  assert.deepEqual(draws(logits, { temperature: 1.1, topK: 5000 }, 200), plain);
  const best = logits.indexOf(Math.max(...logits));
  for (const one of [{ topK: 1 }, { topP: 0 }, { minP: 1 }, { temperature: 0 }, { temperature: 1e-300 }])
    assert.deepEqual(draws(logits, { temperature: 1, ...one }, 5), Array(5).fill(best), JSON.stringify(one));
  assert.deepEqual(draws([1, 4, 4, 2], { temperature: 0 }, 2), [1, 1], "of equals the lower id");
});

test("the repetition penalty divides what is above 0 and multiplies what is below, once for an id", () => {
  const logits = [2, -1, 1.5, -0.5, 3];
  const prompt = [4, 1, 4, 4, 0];
  for (const penalty of [1.3, 2, 0.5]) {
    scope(() => {
      const t = tensor(logits);
      const sampling = checkedSampling("t", { temperature: 0, repetitionPenalty: penalty });
      const sampler = new Sampler("t", sampling, 0, Int32Array.from(prompt));
      const p = Math.fround(penalty);
      const expected = logits.map((x, id) => Math.fround(prompt.includes(id) ? (x < 0 ? x * p : x / p) : x));
      const token = sampler.draw(t);
      assert.deepEqual([...t.data], expected);
      assert.equal(token, expected.indexOf(Math.max(...expected)));
      const again = tensor(logits);
      sampler.draw(again);
      assert.deepEqual(
        [...again.data],
        logits.map((x, id) => Math.fround([...prompt, token].includes(id) ? (x < 0 ? x * p : x / p) : x)),
        "what was drawn counts, too",
      );
    });
  }
  // An extreme penalty leaves the numbers finite.
  assert.equal(draws([1, -2, 3], { temperature: 0.5, repetitionPenalty: 1e-38 }, 1, [2])[0], 2);
  assert.equal(draws([1, -2, 3], { temperature: 0.5, repetitionPenalty: 1e38 }, 1, [2])[0], 0);
});

test("a draw leaves no memory behind", () => {
  const before = memoryStats().liveBytes;
  draws([1, 2, 3], { temperature: 1, topP: 0.5, repetitionPenalty: 1.1 }, 3, [1]);
  assert.equal(memoryStats().liveBytes, before);
});

test.run();
