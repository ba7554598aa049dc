/**
 * A fine-tuning run against the loop that it stands for, written out with the library's other pieces: the same bits,
 * whatever was drawn, failed or measured in between, and also from a state that went through bytes.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  data,
  DivergedError,
  init,
  manualSeed,
  memoryStats,
  models,
  nn,
  noGrad,
  optim,
  OutOfMemoryError,
  peft,
  scope,
  tensor,
  train,
  zeros,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { rehearse } from "../../../src/runtime/rehearsal.js";
import { assertBits } from "../../support/golden.js";
import { GPT2, LLAMA } from "../../support/language_models.js";
import { llama, learned, sameStates, trainingTokens } from "../../support/training.js";

await init();

const tokens = trainingTokens(400);
const adapter = { r: 2, loraAlpha: 4, loraDropout: 0.2 };
const SETTINGS = { adapter, steps: 30, batch: 3, seq: 10, lr: 0.02, seed: 5 };

const begin = (model: models.CausalLM = llama()): train.Finetuning => new train.Finetuning(model, tokens, SETTINGS);
const steps = (run: train.Finetuning, n: number): void => {
  for (let i = 0; i < n; i++) run.step();
};
for (const [name, make] of [
  ["Llama", llama],
  [
    "GPT-2",
    () => {
      manualSeed(1);
      return new models.Gpt2(GPT2);
    },
  ],
] as const) {
  test(`${name}: the loop written out`, () => {
    const { batch, seq, lr, seed } = SETTINGS;
    const model: models.CausalLM = make();
    const windows = data.evenWindows(tokens.subarray(360), seq, 128);
    assert.equal(windows.length, 3);
    const measure = (): number => {
      adapted.eval();
      const losses = windows.map(({ ids, targets }) =>
        noGrad(() => scope(() => model.loss(tensor(ids, [1, seq]), tensor(targets, [1, seq])).item())),
      );
      adapted.train();
      return losses.reduce((a, b) => a + b) / 3;
    };
    manualSeed(seed);
    const adapted = peft.getLoraModel(model, { ...adapter, targetModules: "all-linear" });
    const trained = adapted.parameters().filter((p) => p.requiresGrad);
    const optimizer = new optim.AdamW(trained, { lr, weightDecay: 0 });
    const schedule = optim.cosineSchedule(30, 2);
    const before = measure();
    const losses: number[] = [];
    for (let step = 0; step < 30; step++)
      scope(() => {
        const { ids, targets } = data.randomWindows(tokens.subarray(0, 360), step, { batch, seq, seed });
        const loss = model.loss(tensor(ids, [batch, seq]), tensor(targets, [batch, seq]));
        losses.push(loss.item());
        loss.backward();
        optim.clipGradNorm_(trained, 1);
        for (const group of optimizer.paramGroups) group.lr = lr * schedule(step);
        optimizer.step();
        optimizer.zeroGrad();
      });
    const after = measure();
    assert(after < before);

    const run = begin(make());
    const told: string[] = [];
    assert.equal(run.evaluate({ onBatch: (done, total) => told.push(`${done}/${total}`) }), before);
    assert.deepEqual(told, ["1/3", "2/3", "3/3"]);
    while (!run.isComplete) run.step();
    assert.deepEqual([...run.losses], losses);
    learned(run, adapted);
    assert.equal(run.evaluate(), after);
    assert.throws(() => run.step(), { name: "StateError", message: /has taken all of its 30 steps/ });
  });
}

test("what a run draws is decided by its seed alone", () => {
  const plain = begin();
  const model = llama();
  manualSeed(99);
  nn.uniform_(zeros([1001]));
  const other = begin(model);
  steps(plain, 2);
  manualSeed(7);
  nn.uniform_(zeros([3]));
  steps(other, 2);
  sameStates(other.state(), plain.state());
});

test("measuring, and a model left in evaluation mode, change no bit of what follows", () => {
  const plain = begin();
  const measured = begin();
  for (let i = 0; i < 3; i++) {
    plain.step();
    measured.step();
    measured.checkFinite();
    measured.evaluate();
    measured.adapted.model.eval();
  }
  sameStates({ ...measured.state(), evaluations: [] }, plain.state());
});

test("beside other adapters: the factors that it gives alone, and theirs as they were", () => {
  const alone = begin();
  const shared: peft.LoraModel<models.Llama> = peft.getLoraModel(llama(), { targetModules: ["q_proj"] }, "ben");
  const before = shared.parameters().map((p) => [p, p.data.slice()] as const);
  const run = new train.Finetuning(shared, tokens, SETTINGS, "anna");
  steps(alone, 3);
  steps(run, 3);
  assert.deepEqual(run.losses, alone.losses);
  for (const [key, { data }] of alone.state().factors)
    assertBits(key, run.state().factors.get(key.replace(".default.", ".anna."))!.data, data);
  assert.deepEqual(shared.activeAdapters, ["anna"]);
  for (const [p, data] of before) assertBits("the base and ben", p.data, data);
  run.dispose();
  shared.deleteAdapter("anna");
  assert.deepEqual(shared.adapters, ["ben"]);
});

test("memory that runs out anywhere in a step changes nothing, and the step done again has its bits", () => {
  const clean = begin();
  const run = begin();
  const { memory } = engine();
  const alloc = memory.alloc;
  for (let step = 0; step < 2; step++) {
    clean.step();
    const before = run.state();
    const { liveBytes } = memoryStats();
    let failed = 0;
    for (let at = 0; ; at += 7) {
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

test("a state that went through bytes, on a fresh run, goes on to the same bits", () => {
  const whole = begin();
  steps(whole, 3);
  const bytes = train.encodeCheckpoint(whole.state(), { settings: SETTINGS });
  steps(whole, 4);
  const { state, notes } = train.decodeCheckpoint(bytes);
  const run = new train.Finetuning(llama(), tokens, notes["settings"] as typeof SETTINGS);
  run.restore(state);
  assert.equal(run.losses.length, 3);
  steps(run, 4);
  sameStates(run.state(), whole.state());
  assert.equal(run.evaluate(), whole.evaluate());
});

test("a state is a copy; the one of a run that has not begun is a state too", () => {
  const run = begin();
  const fresh = run.state();
  run.step();
  assert.equal(fresh.metrics.length, 0);
  run.restore(fresh);
  const again = begin();
  steps(run, 2);
  steps(again, 2);
  sameStates(run.state(), again.state());
});

test("a run of very many steps is restored: they are more than a call takes arguments", () => {
  const run = new train.Finetuning(llama(), tokens, { ...SETTINGS, steps: 300_000 });
  run.step();
  const [first] = run.metrics;
  const metrics = Array.from({ length: 200_000 }, (_, i) => ({ ...first!, step: i + 1, loss: i % 7 }));
  run.restore({ ...run.state(), metrics });
  assert.equal(run.losses.length, metrics.length);
  assert.equal(run.losses.at(-1), metrics.at(-1)!.loss);
});

test("what does not fit is refused by name, and the run is as it was", () => {
  const run = begin();
  steps(run, 2);
  const good = run.state();
  const [first] = [...good.factors.keys()];
  const without = new Map(good.factors);
  without.delete(first!);
  const shaped = new Map(good.factors).set(first!, { shape: [1], data: Float32Array.of(1) });
  const moments = new Map(good.optimizer);
  moments.delete("0.expAvg");
  const cases: [change: Partial<train.FinetuningState>, message: RegExp][] = [
    [{ factors: without }, /^run\.bin: factor .+lora_A.+ is missing\.$/],
    [{ factors: shaped }, /^run\.bin: factor .+lora_A.+ has shape \[1\]; the run needs \[2,24\]\.$/],
    [{ optimizer: moments }, /^run\.bin: it holds \d+ moments; expected 2 for each of \d+ factors\.$/],
    [{ metrics: [] }, /^run\.bin: it holds \d+ moments/],
    [{ metrics: good.metrics.slice(1) }, /^run\.bin: its metrics have step 2 at place 0; expected step 1\.$/],
    [
      { metrics: Array.from({ length: 31 }, (_, i) => ({ ...good.metrics[0]!, step: i + 1 })) },
      /^run\.bin: it is of step 31; the run has 30\.$/,
    ],
    [
      { evaluations: [{ step: 1, loss: 2 }] },
      /^run\.bin: it has an evaluation after step 1, where the run has none\.$/,
    ],
    [{ evaluations: [{ step: 30, loss: 2 }] }, /^run\.bin: it has an evaluation after step 30, where/],
    [{ bestFactors: good.factors }, /^run\.bin: it has best factors; the run keeps none\.$/],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => run.restore({ ...good, ...change }, "run.bin"), { name: "FormatError", message });
    sameStates(run.state(), good);
  }
  const shapeless = new Map(good.factors).set(first!, { shape: 48 as never, data: new Float32Array(48) });
  const broken = [{ metrics: 3 }, { factors: [] }, { factors: shapeless }].map((part) => ({ ...good, ...part }));
  for (const nothing of [undefined, null, 3, {}, ...broken])
    assert.throws(() => run.restore(nothing as never), {
      name: "ArgumentError",
      message: /^Finetuning\.restore: state/,
    });
  run.restore(good);
  sameStates(run.state(), good);
});

test("what is not finite is told as divergence, before anything is updated", () => {
  const run = begin();
  run.step();
  const good = run.state();
  const [factor] = run.adapted.parameters().filter((p) => p.requiresGrad);
  const was = factor!.data.slice();
  factor!.data.fill(3e38);
  assert.throws(
    () => run.step(),
    (error) =>
      error instanceof DivergedError &&
      /^the loss of step 2 is (NaN|-?Infinity)$/.test(error.reason) &&
      /^Finetuning\.step: the loss of step 2 .+ Lower lr \(0\.02 here\)/.test(error.message),
  );
  assert.throws(
    () => run.evaluate(),
    (error) => error instanceof DivergedError && /^the held-out loss after step 1 is /.test(error.reason),
  );
  factor!.set(was);
  sameStates(run.state(), good);
  const unmeasured = new train.Finetuning(llama(), tokens, { ...SETTINGS, testSize: 0 });
  for (const p of unmeasured.adapted.parameters()) if (p.requiresGrad) p.data.fill(3e38);
  assert.throws(
    () => unmeasured.checkFinite(),
    (error) => error instanceof DivergedError && /^the loss before training is /.test(error.reason),
  );
  const wild = new train.Finetuning(llama(), tokens, {
    ...SETTINGS,
    lr: 1e39,
    adapter: { ...adapter, loraDropout: 0 },
  });
  assert.throws(
    () => {
      while (!wild.isComplete) wild.step();
    },
    (error) => error instanceof DivergedError && /^in step \d+ |^the loss of step/.test(error.reason),
  );
});

test("the digest tells weights and tokens, and is that of any SHA-256", () => {
  const run = begin();
  const hex = run.digest();
  assert.match(hex, /^[0-9a-f]{64}$/);
  run.step();
  assert.equal(run.digest(), hex);
  const parts: number[] = [];
  const size = { update: (part: Uint8Array | Int32Array) => parts.push(part.length), digest: () => "size" };
  assert.equal(run.digest(size), "size");
  assert.deepEqual(parts.slice(-2), [360, 40]);
  assert.notEqual(new train.Finetuning(llama(), tokens.slice(1), SETTINGS).digest(), hex);
  const other = llama();
  other.parameters()[0]!.data[3]! += 1;
  assert.notEqual(begin(other).digest(), hex);
});

test("settings: defaults stand beside what is given", () => {
  const { settings } = new train.Finetuning(llama(), tokens, { seq: 8, adapter: { r: 3, targetModules: ["q_proj"] } });
  assert.deepEqual(settings, {
    adapter: { r: 3, loraAlpha: 16, loraDropout: 0, targetModules: ["q_proj"], taskType: "CAUSAL_LM" },
    steps: 400,
    batch: 8,
    accumulation: 1,
    seq: 8,
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
    testWindows: "auto",
  });
});

test("held-out windows: as many as are asked for, or fewer the larger the model is", () => {
  const text = Int32Array.from({ length: 60_000 }, (_, i) => i % LLAMA.vocabSize);
  const windows = (vocabSize: number, settings: object): number =>
    rehearse(
      () =>
        new train.Finetuning(new models.Llama({ ...LLAMA, vocabSize }), text, { adapter, ...settings })
          .evaluationBatches,
    );
  assert.equal(windows(61, { seq: 10 }), 128);
  assert.equal(windows(61, { seq: 10, testWindows: 7 }), 7);
  assert.equal(windows(61, { seq: 10, testWindows: 1000 }), 599);
  // 10^12 operations are 2 for each of 24 million weights, in so many windows of 40 tokens; the layers have few.
  assert.equal(windows(1e7, { seq: 40 }), 52);
  assert.equal(windows(1e9, { seq: 40 }), 4);
  for (const testWindows of [0, 1.5, "all"])
    assert.throws(
      () => windows(61, { seq: 10, testWindows }),
      /testWindows must be "auto" or an integer of at least 1/,
    );
});

test("a setting that is undefined is one left out", () => {
  const undefinedOf = (keys: readonly string[]): object => Object.fromEntries(keys.map((key) => [key, undefined]));
  const adapter = undefinedOf(["r", "loraAlpha", "loraDropout", "targetModules", "taskType"]);
  const given = { ...undefinedOf(["steps", "batch", "lr", "seed", "testSize", "testWindows"]), adapter, seq: 8 };
  assert.deepEqual(
    new train.Finetuning(llama(), tokens, given).settings,
    new train.Finetuning(llama(), tokens, { seq: 8 }).settings,
  );
  const run = begin();
  assert.equal(run.evaluate({ onBatch: undefined }), run.evaluate());
});

test("a text of which nothing is held out is trained on whole", () => {
  const run = new train.Finetuning(llama(), tokens.slice(0, 12), { ...SETTINGS, testSize: 0 });
  assert.deepEqual([run.train.length, run.test.length, run.evaluationBatches], [12, 0, 0]);
  run.step();
  assert.throws(() => run.evaluate(), { name: "StateError", message: /nothing is held out/ });
});

test("what cannot be is refused before the model is changed", () => {
  const model = llama();
  const keys = [...model.stateDict().keys()];
  const { liveBytes } = memoryStats();
  const wrong = tokens.slice();
  wrong[399] = LLAMA.vocabSize;
  for (const [text, settings, message] of [
    [tokens, { learningRate: 1 }, /Did you mean lr\?/],
    [tokens, { steps: 0 }, /steps must be an integer of at least 1; got 0/],
    [tokens, { batch: 1.5 }, /batch must be/],
    [tokens, { seq: 0 }, /seq must be/],
    [tokens, { lr: NaN }, /lr must be "auto" or a number of at least 0; got NaN/],
    [tokens, { lr: "fast" }, /lr must be "auto" or a number of at least 0; got "fast"/],
    [tokens, { accumulation: 0 }, /accumulation must be an integer of at least 1; got 0/],
    [tokens, { schedule: "step" }, /schedule must be "cosine", "linear" or "constant"; got "step"/],
    [tokens, { warmupRatio: 1.5 }, /warmupRatio must be a number in 0 \.\. 1; got 1\.5/],
    [tokens, { weightDecay: -1 }, /weightDecay must be a number of at least 0/],
    [tokens, { maxGradNorm: -1 }, /maxGradNorm must be a number of at least 0/],
    [tokens, { loraplusLrRatio: "16" }, /loraplusLrRatio must be null or a number of at least 0; got "16"/],
    [tokens, { evalEvery: -1 }, /evalEvery must be an integer of at least 0/],
    [tokens, { patience: 2 }, /patience = 2 counts evaluations, and evalEvery is 0/],
    [tokens, { minDelta: -1 }, /minDelta must be a number of at least 0/],
    [tokens, { evalEvery: 5, testSize: 0, seq: 8 }, /evalEvery = 5 asks for evaluations, and nothing is held out/],
    [tokens, { epochs: 2 }, /epochs is for rows; the data is one text/],
    [tokens, { packing: true }, /packing is for rows/],
    [tokens, { groupByLength: false }, /groupByLength is for rows/],
    [tokens, { seed: -1 }, /seed must be/],
    [tokens, { testSize: 1 }, /testSize must be a number below 1/],
    [tokens, { adapter: 3 }, /adapter must be an object; got 3/],
    [tokens, { seq: 8, adapter: { rank: 3 } }, /rank/],
    [tokens, { seq: 8, adapter: { targetModules: ["nothing"] } }, /nothing/],
    [tokens, { seq: 41 }, /seq = 41 is longer than the model's 40 positions/],
    [tokens, { seq: 40 }, /tokens has 400 tokens, of which 40 are held out.+seq = 40\. Lower seq/],
    [wrong, { seq: 8 }, /tokens holds 61 at position 399; expected an id in 0 \.\. 60/],
    ["a text", { seq: 8 }, /encode it first/],
  ] as const)
    assert.throws(() => new train.Finetuning(model, text as never, settings as never), {
      name: "ArgumentError",
      message,
    });
  assert.deepEqual([...model.stateDict().keys()], keys);
  assert.equal(memoryStats().liveBytes, liveBytes);
  for (const wrong of [undefined, { model }, new nn.Linear(2, 2)])
    assert.throws(() => new train.Finetuning(wrong as never, tokens), {
      name: "ArgumentError",
      message: /model must be/,
    });
});

test.run();
