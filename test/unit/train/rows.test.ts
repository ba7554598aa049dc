/**
 * A run on rows against the loop that it stands for, written out with the library's other pieces; what is held out,
 * what an epoch is, and what is no row.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  data,
  DivergedError,
  init,
  manualSeed,
  memoryStats,
  type models,
  noGrad,
  optim,
  OutOfMemoryError,
  peft,
  scope,
  StateError,
  tensor,
  train,
  type nn,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { LLAMA } from "../../support/language_models.js";
import { says } from "../../support/refuses.js";
import { finish, llama, learned, sameStates, trainingRows } from "../../support/training.js";

await init();

const { vocabSize } = LLAMA;
const rows = trainingRows(11, vocabSize);
const test5 = trainingRows(5, vocabSize, 50);
const adapter = { r: 2, loraAlpha: 4 };
const SETTINGS = { adapter, epochs: 2, batch: 2, accumulation: 2, lr: 0.02, seed: 5 };

const begin = (settings: object = {}, given: train.RowData = { train: rows, test: test5 }): train.Finetuning =>
  new train.Finetuning<models.CausalLM>(llama(), given, { ...SETTINGS, ...settings });

/** The loss of some rows, as `model.loss` takes them. */
function lossOf(model: models.CausalLM, some: readonly data.TrainingRow[], numItemsInBatch?: number) {
  const { ids, targets, attentionMask, shape } = data.collate(some, { packing: true });
  return model.loss(tensor(ids, shape), tensor(targets, shape), {
    attentionMask: attentionMask ? tensor(attentionMask, shape) : undefined,
    numItemsInBatch,
  });
}

/** Targets of a row that are scored: all but its first token may be. */
const scoredOf = ({ labels }: data.TrainingRow): number => labels.subarray(1).filter((label) => label !== -100).length;
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

for (const [name, settings] of Object.entries({
  plainly: {},
  "with everything": {
    schedule: "linear",
    warmupRatio: 0.3,
    weightDecay: 0.1,
    maxGradNorm: 0.05,
    loraplusLrRatio: 4,
    packing: false,
  },
  "not clipped, at a constant rate": { schedule: "constant", maxGradNorm: 0 },
} satisfies Record<string, object>))
  test(`the loop written out, ${name}`, () => {
    const { batch, accumulation, lr, seed } = SETTINGS;
    const { weightDecay = 0, maxGradNorm = 1, loraplusLrRatio = null, warmupRatio = 0.05 } = settings as any;
    const schedule = {
      cosine: optim.cosineSchedule,
      linear: optim.linearSchedule,
      constant: (_: number, warmup: number) => optim.constantSchedule(warmup),
    }[(settings as { schedule?: "linear" }).schedule ?? ("cosine" as const)](6, Math.ceil(6 * warmupRatio));
    const model = llama();
    manualSeed(seed);
    const adapted = peft.getLoraModel(model, { ...adapter, targetModules: "all-linear" });
    const trained = adapted.parameters().filter((p) => p.requiresGrad);
    const groups = loraplusLrRatio
      ? optim.loraPlusGroups(adapted, { lr, weightDecay, loraplusLrRatio }).filter(({ params }) => params.length > 0)
      : [{ params: trained, lr, weightDecay }];
    const optimizer = new optim.AdamW(groups);
    const metrics: train.StepMetrics[] = [];
    for (let step = 0; step < 6; step++) {
      const all = data
        .rowsOfStep(
          rows.map(({ ids }) => ids.length),
          step,
          { batch: batch * accumulation, seed },
        )
        .map((row) => rows[row]!);
      const scored = sum(all.map(scoredOf));
      const shards: { loss: number; gradients: Float32Array[] }[] = [];
      for (let from = 0; from < all.length; from += batch) {
        const loss = scope(() => {
          const loss = lossOf(model, all.slice(from, from + batch), scored);
          const value = loss.item();
          loss.backward();
          return value;
        });
        shards.push({ loss, gradients: trained.map((p) => p.grad!.data.slice()) });
        optimizer.zeroGrad();
      }
      for (const [i, p] of trained.entries()) {
        const total = shards[0]!.gradients[i]!.slice();
        for (const { gradients } of shards.slice(1))
          for (let j = 0; j < total.length; j++) total[j] = Math.fround(total[j]! + gradients[i]![j]!);
        p.grad = tensor(total, p.shape).keep();
      }
      const gradNorm = optim.clipGradNorm_(trained, maxGradNorm === 0 ? 1e30 : maxGradNorm);
      for (const [i, group] of optimizer.paramGroups.entries()) group.lr = groups[i]!.lr * schedule(step);
      optimizer.step();
      optimizer.zeroGrad();
      metrics.push({
        step: step + 1,
        epoch: (step + 1) / 3,
        loss: sum(shards.map(({ loss }) => loss)),
        gradNorm,
        learningRate: lr * schedule(step),
        tokens: sum(all.map(({ ids }) => ids.length - 1)),
        scored,
      });
    }
    const run = begin(settings);
    assert.equal(run.steps, 6);
    finish(run);
    assert.deepEqual(run.metrics, metrics);
    learned(run, adapted);
  });

test("packing is layout: it decides no bit; order, batch and accumulation do", () => {
  const packed = finish(begin({ evalEvery: 2 })).state();
  sameStates(finish(begin({ evalEvery: 2, packing: false })).state(), packed);
  for (const other of [{ seed: 6 }, { accumulation: 1 }, { batch: 3 }, { batch: 4, accumulation: 1 }])
    assert.notDeepEqual(
      finish(begin(other)).metrics.map(({ loss }) => loss),
      packed.metrics.map(({ loss }) => loss),
    );
});

test("each row is trained on once an epoch, also in an epoch's last step, whatever the batch is", () => {
  for (const settings of [
    { batch: 2, accumulation: 2 },
    { batch: 3, accumulation: 1, groupByLength: true },
    { batch: 1, accumulation: 7 },
    { batch: 100, accumulation: 3 },
  ]) {
    const model = llama();
    const { loss } = model;
    const seen: string[] = [];
    model.loss = function (ids, targets, options) {
      seen.push(...ids.indices.join().split("|"));
      return loss.call(this, ids, targets, options);
    };
    const run = new train.Finetuning<models.CausalLM>(
      model,
      { train: rows, test: [] },
      { ...SETTINGS, ...settings, epochs: 3, packing: false },
    );
    const perEpoch = Math.ceil(11 / (settings.batch * settings.accumulation));
    assert.equal(run.steps, 3 * perEpoch);
    const tokens: number[] = [];
    for (let epoch = 0; epoch < 3; epoch++) {
      for (let step = 0; step < perEpoch; step++) {
        const { shardCount } = run;
        const before = seen.length;
        run.step();
        assert.equal(seen.length - before, shardCount);
      }
      tokens.push(sum(run.metrics.slice(-perEpoch).map((m) => m.tokens)));
    }
    assert.deepEqual(tokens, Array(3).fill(sum(rows.map(({ ids }) => ids.length - 1))));
    assert.equal(run.metrics.at(-1)!.epoch, 3);
    assert.throws(() => run.step(), says(StateError, `all of its ${3 * perEpoch} steps`));
    assert.throws(() => run.shardCount, says(StateError, "all of its"));
  }
});

test("the rows that a run takes are those that rowsOfStep names, an epoch's steps together all of them", () => {
  const model = llama();
  const { loss } = model;
  let taken: number[] = [];
  model.loss = function (ids, targets, options) {
    taken.push(...ids.indices);
    return loss.call(this, ids, targets, options);
  };
  const settings = { ...SETTINGS, batch: 3, groupByLength: true };
  const run = new train.Finetuning<models.CausalLM>(model, { train: rows, test: [] }, settings);
  const lengths = rows.map(({ ids }) => ids.length);
  const all: number[] = [];
  for (let step = 0; step < 4; step++) {
    taken = [];
    const indices = data.rowsOfStep(lengths, step, { batch: 6, seed: 5, groupByLength: true });
    run.step();
    assert.deepEqual(
      taken,
      indices.flatMap((row) => [...rows[row]!.ids.subarray(0, -1)]),
    );
    all.push(...indices);
  }
  const each = Array.from({ length: 11 }, (_, i) => i);
  assert.deepEqual(
    all.slice(0, 11).sort((a, b) => a - b),
    each,
  );
  assert.deepEqual(
    all.slice(11).sort((a, b) => a - b),
    each,
  );
});

test("accumulation of any split gives the whole batch's gradient, but for rounding", () => {
  const gradientsOf = (batch: number, accumulation: number): Map<string, Float64Array> => {
    const run = begin({ batch, accumulation, epochs: 1 });
    const total = new Map<string, Float64Array>();
    for (let i = 0; i < run.shardCount; i++)
      for (const [key, { data }] of run.computeShard(i).gradients) {
        const sums = total.get(key) ?? new Float64Array(data.length);
        total.set(
          key,
          sums.map((v, j) => v + data[j]!),
        );
      }
    return total;
  };
  const whole = gradientsOf(8, 1);
  for (const [batch, accumulation] of [
    [4, 2],
    [2, 4],
    [1, 8],
    [3, 3],
  ] as const) {
    // Nine rows are others than eight: the split of those is compared with their whole.
    const wanted = batch * accumulation === 8 ? whole : gradientsOf(9, 1);
    for (const [key, values] of gradientsOf(batch, accumulation)) {
      const norm = Math.hypot(...wanted.get(key)!);
      const off = Math.hypot(...values.map((v, i) => v - wanted.get(key)![i]!));
      assert(off <= 2e-6 * norm + 1e-9, `${key}: ${off} of ${norm}`);
    }
  }
});

test("rows are held out by the seed, and what is held out is not trained on", () => {
  const all = trainingRows(40, vocabSize);
  const of = (settings: object) => begin(settings, { train: all });
  const run = of({ testSize: 0.25 });
  const [kept, held] = [run.train, run.test] as [data.TrainingRow[], data.TrainingRow[]];
  assert.deepEqual([kept.length, held.length], [30, 10]);
  const number = ({ where }: data.TrainingRow): number => Number(where.split(":")[1]);
  assert.deepEqual(
    [...kept, ...held].map(number).sort((a, b) => a - b),
    all.map(number),
  );
  assert.deepEqual(
    held.map(number),
    held.map(number).sort((a, b) => a - b),
  );
  assert.deepEqual(of({ testSize: 0.25 }).test, held);
  assert.notDeepEqual(of({ testSize: 0.25, seed: 6 }).test, held);
  for (const [testSize, count] of [
    [0, 0],
    [0.01, 1],
    [0.1, 4],
    [0.26, 11],
    [0.999, 39],
  ] as const) {
    assert.equal(of({ testSize }).test.length, count);
    assert.equal(train.heldOutRows(40, testSize), count);
  }
  assert.deepEqual(begin({}).test, test5);
});

test("the held-out loss is over scored tokens, not over rows or batches", () => {
  const run = begin();
  const told: string[] = [];
  const loss = run.evaluate({ onBatch: (done, total) => told.push(`${done}/${total}`) });
  assert.deepEqual(told, ["1/3", "2/3", "3/3"]);
  assert.equal(run.evaluationBatches, 3);
  const model = run.adapted.model;
  const of = (some: readonly data.TrainingRow[]): number => noGrad(() => scope(() => lossOf(model, some).item()));
  let total = 0;
  for (const row of test5) total += of([row]) * scoredOf(row);
  const scored = sum(test5.map(scoredOf));
  assert(Math.abs(loss - total / scored) < 1e-6, `${loss} and ${total / scored}`);
  const ofBatches = [test5.slice(0, 2), test5.slice(2, 4), test5.slice(4)];
  const parts = ofBatches.map((some) => of(some) * sum(some.map(scoredOf)));
  assert.equal(loss, sum(parts) / scored);
  const perBatch = sum(ofBatches.map(of)) / 3;
  assert(Math.abs(loss - perBatch) > 1e-4, "the rows must tell the means apart");
  assert.equal(begin({ packing: false }).evaluate(), loss);
});

test("how many rows are held out is told without a run, of sizes that a run takes", () => {
  assert.deepEqual(
    [1, 2, 10, 11, 216].map((n) => train.heldOutRows(n)),
    [0, 1, 1, 2, 22],
  );
  assert.throws(() => train.heldOutRows(0), says(ArgumentError, "heldOutRows", "rows", "0"));
  assert.throws(() => train.heldOutRows(3, 1.5), says(ArgumentError, "heldOutRows", "testSize", "1.5"));
});

test("one row is trained on, and nothing is held out", () => {
  const run = begin({ epochs: 4 }, { train: rows.slice(0, 1) });
  assert.deepEqual([run.train.length, run.test.length, run.evaluationBatches, run.steps], [1, 0, 0, 4]);
  const first = run.step();
  finish(run);
  assert(run.losses.at(-1)! < first);
  run.checkFinite();
  assert.throws(() => run.evaluate(), says(StateError, "nothing to measure on"));
});

test("settings of rows: defaults, epochs as fractions, and what belongs to a text", () => {
  const { settings, steps, learningRate } = new train.Finetuning(llama(), { train: rows }, { adapter });
  assert.deepEqual(settings, {
    adapter: { r: 2, loraAlpha: 4, loraDropout: 0, targetModules: "all-linear", taskType: "CAUSAL_LM" },
    epochs: 3,
    batch: 8,
    accumulation: 1,
    lr: "auto",
    schedule: "cosine",
    warmupRatio: 0.05,
    weightDecay: 0,
    maxGradNorm: 1,
    loraplusLrRatio: null,
    evalEvery: 0,
    patience: 0,
    minDelta: 0,
    seed: 0,
    testSize: 0.1,
    packing: true,
    groupByLength: false,
  });
  assert.deepEqual([steps, learningRate], [6, 5e-3]);
  const stepsOf = (given: object): number => begin({ epochs: undefined, batch: 4, accumulation: 1, ...given }).steps;
  assert.deepEqual(
    [stepsOf({}), stepsOf({ epochs: 0.5 }), stepsOf({ epochs: 1.1 }), stepsOf({ steps: 50 })],
    [9, 2, 4, 50],
  );
  for (const [given, message] of [
    [{ seq: 8 }, "seq is for a text; the data is rows"],
    [{ testWindows: 4 }, "testWindows is for a text"],
    [{ steps: 4 }, "steps = 4 and epochs = 2 both say how long the run is; give one"],
    [{ epochs: 1e300 }, "epochs = 1e+300 makes 3e+300 steps; at most 4294967296"],
    [{ epochs: undefined, steps: 1e10 }, "steps = 10000000000 makes 10000000000 steps"],
    [{ epochs: 0 }, "epochs must be a number above 0; got 0"],
    [{ packing: "yes" }, 'packing must be true or false; got "yes"'],
    [{ groupByLength: 1 }, "groupByLength must be true or false; got 1"],
    [{ testSize: 0.1 }, "testSize = 0.1 holds rows out of train, and there are rows to test on already"],
  ] as const)
    assert.throws(() => begin(given), says(ArgumentError, message));
});

test("what is no row, or trains on nothing, is refused by its place before the model is changed", () => {
  const model = llama();
  const keys = [...model.stateDict().keys()];
  const { liveBytes } = memoryStats();
  const ids = Int32Array.of(1, 2, 3);
  const row = (change: object): data.TrainingRow => ({ ids, labels: ids, where: "chats.jsonl:7", ...change });
  for (const [given, ...words] of [
    [{ train: [] }, "there are no rows to train on"],
    [{ train: 3 }, "train must be a list of tokenised rows; got 3"],
    [{ train: rows, test: {} }, "test must be a list of tokenised rows"],
    [{ train: rows, valid: rows }, 'there is no option "valid"'],
    [{ train: [null] }, "train[0] must be { ids, labels, where }"],
    [{ train: [row({ ids: [1, 2, 3] })] }, "chats.jsonl:7 must be { ids, labels, where }"],
    [{ train: [row({ labels: Int32Array.of(1) })] }, "chats.jsonl:7 has 3 ids and 1 labels"],
    [{ train: [row({ ids: ids.slice(1, 2), labels: ids.slice(1, 2) })] }, "chats.jsonl:7 has 1 tokens"],
    [{ train: [row({ ids: Int32Array.of(1, 61, 3) })] }, "chats.jsonl:7 holds 61 at position 1", "0 .. 60"],
    [{ train: [row({ ids: Int32Array.of(-1, 6, 3) })] }, "chats.jsonl:7 holds -1 at position 0"],
    [{ train: [row({ labels: Int32Array.of(1, -1, 3) })] }, "chats.jsonl:7 has the label -1 at position 1"],
    [{ train: [row({ labels: Int32Array.of(1, -100, -100) })] }, "chats.jsonl:7 would train on nothing"],
    [{ train: rows, test: [row({ labels: Int32Array.of(1, -100, -100) })] }, "chats.jsonl:7 would train on nothing"],
    [
      { train: [row({ ids: new Int32Array(42), labels: new Int32Array(42) })] },
      "chats.jsonl:7 has 42 tokens; the model has 40 positions",
    ],
  ] as const)
    assert.throws(
      () => new train.Finetuning<models.CausalLM>(model, given as never, SETTINGS),
      says(ArgumentError, ...words),
    );
  const tokenized = { rows, truncated: 0, skipped: [], split: 0 };
  assert.throws(
    () => new train.Finetuning<models.CausalLM>(model, tokenized as never, SETTINGS),
    says(ArgumentError, "{ train: tokenized.rows }"),
  );
  assert.throws(
    () => new train.Finetuning<models.CausalLM>(model, rows as never, SETTINGS),
    says(ArgumentError, "{ train: rows }"),
  );
  assert.deepEqual([...model.stateDict().keys()], keys);
  assert.equal(memoryStats().liveBytes, liveBytes);
  const longest = begin({}, { train: [row({ ids: new Int32Array(41), labels: new Int32Array(41) })] });
  longest.step();
});

test("memory that runs out anywhere in a step of shards changes nothing, and the step done again has its bits", () => {
  const settings = { adapter: { ...adapter, loraDropout: 0.2 }, accumulation: 3 };
  const clean = begin(settings);
  const run = begin(settings);
  const { memory } = engine();
  const { alloc } = memory;
  for (let step = 0; step < 2; step++) {
    clean.step();
    const before = run.state();
    const { liveBytes } = memoryStats();
    let failed = 0;
    for (let at = 0; ; at += 17) {
      let calls = 0;
      memory.alloc = (bytes) => {
        if (calls++ === at) throw new OutOfMemoryError(bytes, 0, memory.limit);
        return alloc.call(memory, bytes);
      };
      try {
        run.step();
        break;
      } catch (error) {
        assert(error instanceof OutOfMemoryError, String(error));
        failed++;
      } finally {
        delete (memory as Partial<typeof memory>).alloc;
      }
      assert.equal(memoryStats().liveBytes, liveBytes, `allocation ${at} left memory behind`);
      sameStates(run.state(), before);
    }
    assert(failed > 20, `${failed} failures`);
    sameStates(run.state(), clean.state());
  }
});

test("a gradient that is not finite is told by the step and the tensor's name, and nothing is updated", () => {
  const run = begin();
  run.step();
  const before = run.state();
  const shards = [run.computeShard(0), run.computeShard(1)];
  const key = [...shards[1]!.gradients.keys()][3]!;
  shards[1]!.gradients.get(key)!.data[1] = Infinity;
  assert.throws(
    () => run.applyShards(shards),
    (error) =>
      error instanceof DivergedError &&
      error.reason === `the gradient of ${key} in step 2 is not finite` &&
      /nothing was updated\. Lower lr \(0\.02 here\)/.test(error.message),
  );
  sameStates(run.state(), before);
  assert(run.adapted.parameters().every((p: nn.Parameter) => p.grad === null));
  run.step();
});

test("the digest tells rows, their labels and which of them are held out", () => {
  const hex = begin().digest();
  assert.match(hex, /^[0-9a-f]{64}$/);
  assert.equal(begin({ packing: false }).digest(), hex);
  const labels = rows[4]!.labels.slice();
  labels[1] = -100;
  for (const other of [
    { train: rows.slice(1), test: test5 },
    { train: rows, test: test5.slice(1) },
    { train: rows.map((row, i) => (i === 4 ? { ...row, labels } : row)), test: test5 },
    { train: [...rows, test5[0]!], test: test5.slice(1) },
  ])
    assert.notEqual(begin({}, other).digest(), hex);
});

test.run();
