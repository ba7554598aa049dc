/**
 * Shards of a step: who computes them, in what order and how often decides no bit; how many there are, and the order in
 * which they are added, does.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, data, init, memoryStats, type models, OutOfMemoryError, train } from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { LLAMA } from "../../support/language_models.js";
import { says } from "../../support/refuses.js";
import { llama, sameStates, trainingRows, trainingTokens } from "../../support/training.js";

await init();

const tokens = trainingTokens(300);
const rows: train.RowData = { train: trainingRows(14, LLAMA.vocabSize), test: trainingRows(3, LLAMA.vocabSize, 20) };
const adapter = { r: 2, loraAlpha: 4, loraDropout: 0.2 };
const SETTINGS = { adapter, batch: 2, accumulation: 3, lr: 0.02, seed: 5, loraplusLrRatio: 2 };
const CASES: Record<string, () => train.Finetuning> = {
  "a text": () => new train.Finetuning<models.CausalLM>(llama(), tokens, { ...SETTINGS, steps: 6, seq: 10 }),
  rows: () => new train.Finetuning<models.CausalLM>(llama(), rows, { ...SETTINGS, epochs: 2 }),
};

/** The shards of the next step, computed in this order. */
const shardsOf = (run: train.Finetuning, order: (i: number, count: number) => number): train.Shard[] => {
  const { shardCount } = run;
  return Array.from({ length: shardCount }, (_, i) => run.computeShard(order(i, shardCount)));
};

for (const [name, begin] of Object.entries(CASES)) {
  test(`${name}: shards computed last to first, or twice, by other runs, are a step to the bit`, () => {
    const whole = begin();
    const run = begin();
    const helper = begin();
    let counts = "";
    while (!run.isComplete) {
      counts += run.shardCount;
      helper.restore(whole.state());
      const backwards = shardsOf(run, (i, n) => n - 1 - i);
      shardsOf(run, (i) => i);
      const others = shardsOf(helper, (i) => i);
      assert.deepEqual([...backwards].reverse(), others);
      // One of its own, the others from elsewhere.
      const loss = run.applyShards([...others.slice(1), backwards.at(-1)!]);
      assert.equal(loss, whole.step());
      sameStates(run.state(), whole.state());
    }
    assert.equal(counts, name === "rows" ? "331331" : "333333");
  });

  test(`${name}: a shard changes nothing`, () => {
    const run = begin();
    run.step();
    const before = run.state();
    const first = run.computeShard(1);
    sameStates(run.state(), before);
    assert(run.adapted.parameters().every((p) => p.grad === null));
    assert.deepEqual(run.computeShard(1), first);
  });

  test(`${name}: the number of shards, and another order of the sum, decide bits`, () => {
    const run = begin();
    const shards = shardsOf(run, (i) => i);
    // Numbers of shards exchanged: added in another order.
    const exchanged = shards.map((shard) => ({ ...shard, index: (shard.index + 1) % 3 }));
    const other = begin();
    other.applyShards(exchanged);
    run.applyShards(shards);
    let differ = 0;
    const { factors } = other.state();
    for (const [key, { data }] of run.state().factors)
      if (data.some((v, i) => v !== factors.get(key)!.data[i])) differ++;
    assert(differ > 5, `${differ} factors differ`);
    // Nor is the sum one of doubles, rounded once.
    let rounded = 0;
    for (const [key, { data }] of shards[0]!.gradients) {
      const of = (i: number) => shards[i]!.gradients.get(key)!.data;
      data.forEach((v, j) => {
        const sum = Math.fround(Math.fround(v + of(1)[j]!) + of(2)[j]!);
        if (sum !== Math.fround(v + of(1)[j]! + of(2)[j]!)) rounded++;
      });
    }
    assert(rounded > 50, `${rounded} sums differ`);
  });
}

test("masks of dropout follow from the step and the shard, and are those of the loop without shards", () => {
  const settings = { ...SETTINGS, loraplusLrRatio: null, accumulation: 1, batch: 1, steps: 4, seq: 10 };
  const run = new train.Finetuning<models.CausalLM>(llama(), tokens, settings);
  const late = new train.Finetuning<models.CausalLM>(llama(), tokens, settings);
  run.step();
  run.step();
  late.restore(run.state());
  assert.deepEqual(late.computeShard(0), run.computeShard(0));
  const dry = { ...settings, adapter: { ...adapter, loraDropout: 0 } };
  const dryRun = new train.Finetuning<models.CausalLM>(llama(), tokens, dry);
  dryRun.restore(run.state());
  assert.notDeepEqual(dryRun.computeShard(0), run.computeShard(0));
  // Both shards of a step see the same windows if the text has but one: then only masks tell them apart.
  const one = tokens.slice(0, 11);
  const of = (loraDropout: number) =>
    new train.Finetuning<models.CausalLM>(llama(), one, {
      ...settings,
      testSize: 0,
      accumulation: 2,
      adapter: { ...adapter, loraDropout, initLoraWeights: false },
    });
  const [first, second] = shardsOf(of(0.2), (i) => i);
  assert.notEqual(first!.loss, second!.loss);
  const [third, fourth] = shardsOf(of(0), (i) => i);
  assert.deepEqual({ ...third, index: 1 }, fourth);
});

test("what are no shards of the step is refused, and the run is as it was", () => {
  const run = CASES["rows"]!();
  const old = shardsOf(run, (i) => i);
  run.step();
  const before = run.state();
  const shards = shardsOf(run, (i) => i);
  const [a, b, c] = shards as [train.Shard, train.Shard, train.Shard];
  const [key] = [...a.gradients.keys()] as [string];
  const changed = (change: (gradients: Map<string, any>) => void): train.Shard => {
    const gradients = new Map(b.gradients);
    change(gradients);
    return { ...b, gradients };
  };
  for (const [given, ...words] of [
    [undefined, "shards must be a list; got undefined"],
    [[a, b], "shard 2 of 3 is missing"],
    [[a, c], "shard 1 of 3 is missing"],
    [[], "shard 0 of 3 is missing"],
    [[a, b, c, b], "shards[3] has the index 1, which another has, too"],
    [[a, b, { ...c, index: 3 }], "shards[2] has the index 3; the step has 3 shards"],
    [[a, { ...b, index: -1 }, c], "shards[1] has the index -1"],
    [old, "shards[0] is of step 0, counted from 0; the run is at step 1"],
    [[a, null, c], "shards[1] must be what computeShard gives; got null"],
    [[a, { ...b, loss: "1" }, c], "shards[1] must be what computeShard gives"],
    [[a, { ...b, gradients: {} }, c], "shards[1] has gradients that are no Map"],
    [[a, changed((g) => g.set("x", a.gradients.get(key))), c], "shards[1] has a gradient x; nothing of that name"],
    [[a, changed((g) => g.set(key, { shape: [1], data: Float32Array.of(1) })), c], `gradient ${key} of shape [1]`],
    [[a, changed((g) => g.set(key, { ...b.gradients.get(key)!, data: [1] })), c], "in a Float32Array"],
    [[a, changed((g) => g.set(key, null)), c], `shards[1] has as gradient ${key} null`],
    [[a, changed((g) => g.set(key, { shape: 3, data: Float32Array.of(1) })), c], `has as gradient ${key} an object`],
    [[a, changed((g) => g.delete(key)), c], "shards[1] has gradients of other parameters"],
  ] as const)
    assert.throws(() => run.applyShards(given as never), says(ArgumentError, "Finetuning.applyShards", ...words));
  for (const index of [-1, 3, 0.5, undefined, "1"])
    assert.throws(() => run.computeShard(index as never), says(ArgumentError, "Finetuning.computeShard: index"));
  sameStates(run.state(), before);
  run.applyShards([c, a, b]);
  assert.equal(run.metrics.length, 2);
});

test("memory that runs out in a shard, in their sum or in an evaluation changes nothing", () => {
  const begin = (): train.Finetuning =>
    new train.Finetuning<models.CausalLM>(llama(), rows, { ...SETTINGS, epochs: 1, evalEvery: 1 });
  const run = begin();
  const clean = begin();
  const { memory } = engine();
  const { alloc } = memory;
  /** Does it with memory that ends at ever later allocations, until it succeeds. */
  const persist = <T>(fn: () => T): T => {
    const before = run.state();
    const { liveBytes } = memoryStats();
    for (let at = 0; ; at += 11) {
      let calls = 0;
      memory.alloc = (bytes) => {
        if (calls++ === at) throw new OutOfMemoryError(bytes, 0, memory.limit);
        return alloc.call(memory, bytes);
      };
      try {
        const result = fn();
        assert(at > 11, "it never ran out");
        return result;
      } catch (error) {
        assert(error instanceof OutOfMemoryError, String(error));
      } finally {
        delete (memory as Partial<typeof memory>).alloc;
      }
      assert.equal(memoryStats().liveBytes, liveBytes, `allocation ${at} left memory behind`);
      sameStates(run.state(), before);
    }
  };
  for (let step = 0; step < 2; step++) {
    const shards = [2, 1, 0].map((i) => persist(() => run.computeShard(i)));
    assert.equal(
      persist(() => run.applyShards(shards)),
      clean.step(),
    );
    assert.equal(
      persist(() => run.evaluate()),
      clean.evaluate(),
    );
    sameStates(run.state(), clean.state());
  }
});

test("a gradient of a shard is that of its rows' losses over the scored tokens of the whole step", () => {
  const settings = { ...SETTINGS, adapter: { r: 2, initLoraWeights: false as const }, epochs: 1 };
  const run = new train.Finetuning<models.CausalLM>(llama(), rows, settings);
  const lengths = rows.train.map(({ ids }) => ids.length);
  const indices = data.rowsOfStep(lengths, 0, { batch: 6, seed: 5 });
  const scored = ({ labels }: data.TrainingRow): number => labels.subarray(1).filter((v) => v !== -100).length;
  const counts = indices.map((row) => scored(rows.train[row]!));
  const all = counts.reduce((a, b) => a + b);
  const alone = indices.map((row) => {
    const one = new train.Finetuning<models.CausalLM>(llama(), { train: [rows.train[row]!], test: [] }, settings);
    return one.computeShard(0);
  });
  for (const { index, loss, gradients } of shardsOf(run, (i) => i)) {
    const mean = (of: (shard: train.Shard) => number): number =>
      [0, 1].reduce((sum, i) => sum + (of(alone[2 * index + i]!) * counts[2 * index + i]!) / all, 0);
    assert(Math.abs(loss - mean((shard) => shard.loss)) < 1e-6);
    for (const [key, { data }] of gradients) {
      const norm = Math.hypot(...data);
      const off = Math.hypot(...data.map((v, j) => v - mean((shard) => shard.gradients.get(key)!.data[j]!)));
      assert(off <= 5e-5 * norm + 1e-9, `${key}: ${off} of ${norm}`);
    }
  }
});

test.run();
