/** When a run measures, what it keeps as its best, when it stops early, and that all of it goes on from any step. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, FormatError, init, type models, StateError, train } from "../../../src/index.js";
import { Evaluations } from "../../../src/train/evaluations.js";
import { autoLearningRate, warmupSteps } from "../../../src/train/settings.js";
import { assertBits } from "../../support/golden.js";
import { LLAMA } from "../../support/language_models.js";
import { says } from "../../support/refuses.js";
import { finish, llama, sameStates, trainingRows, trainingTokens } from "../../support/training.js";

await init();

const rows: train.RowData = { train: trainingRows(9, LLAMA.vocabSize), test: trainingRows(4, LLAMA.vocabSize, 30) };
const tokens = trainingTokens(300);
const adapter = { r: 2, loraAlpha: 4, loraDropout: 0.1 };
/** Learns so fast that the held-out loss rises after a while. */
const SETTINGS = { adapter, epochs: 5, batch: 2, accumulation: 2, lr: 0.05, seed: 5, evalEvery: 2, loraplusLrRatio: 4 };

const begin = (settings: object = {}): train.Finetuning =>
  new train.Finetuning<models.CausalLM>(llama(), rows, { ...SETTINGS, ...settings });
const stepsOf = (run: train.Finetuning): number[] => run.evaluations.map(({ step }) => step);

test("an evaluation is due after every so many steps and the last, and must come before the next step", () => {
  const run = begin({ epochs: undefined, steps: 5 });
  assert.equal(run.isEvaluationDue, false);
  run.evaluate();
  run.evaluate();
  assert.deepEqual(stepsOf(run), [0]);
  run.step();
  run.evaluate();
  assert.deepEqual(stepsOf(run), [0]);
  run.step();
  assert.equal(run.isEvaluationDue, true);
  for (const next of [() => run.step(), () => run.computeShard(0), () => run.applyShards([])])
    assert.throws(next, says(StateError, "an evaluation is due after step 2 (evalEvery is 2): call evaluate() first"));
  const loss = run.evaluate();
  assert.equal(run.isEvaluationDue, false);
  assert.equal(run.evaluate(), loss);
  assert.deepEqual(run.evaluations.at(-1), { step: 2, loss });
  finish(run);
  assert.deepEqual(stepsOf(run), [0, 2, 4, 5]);
  assert(run.isComplete && !run.stoppedEarly);
});

test("without evalEvery nothing is due and there is no best, but the first and the last are kept", () => {
  const run = begin({ evalEvery: 0, epochs: undefined, steps: 3 });
  run.evaluate();
  run.step();
  run.evaluate();
  finish(run);
  run.evaluate();
  assert.deepEqual(stepsOf(run), [0, 3]);
  assert.equal(run.best, null);
  assert.equal(run.state().bestFactors, null);
  const last = run.state().factors;
  run.withBest(() => sameFactors(run, last));
});

function sameFactors(run: train.Finetuning, factors: train.FinetuningState["factors"]): void {
  for (const [key, { data }] of run.state().factors) assertBits(key, data, factors.get(key)!.data);
}

test("measuring between steps changes no bit of the steps", () => {
  const plain = finish(begin({ evalEvery: 0 }));
  const measured = finish(begin({ evalEvery: 1 }));
  assert.deepEqual(measured.metrics, plain.metrics);
  sameFactors(measured, plain.state().factors);
});

test("the best are the factors of the lowest loss, and the last come back", () => {
  const run = begin({ lr: 0.3, epochs: 8 });
  const factors = [run.state().factors];
  const losses = [run.evaluate()];
  while (!run.isComplete) {
    run.step();
    if (!run.isEvaluationDue) continue;
    losses.push(run.evaluate());
    factors.push(run.state().factors);
  }
  const lowest = Math.min(...losses);
  const at = losses.indexOf(lowest);
  assert(at > 0 && at < losses.length - 1, `the lowest is at ${at}: ${losses.join(" ")}`);
  assert.deepEqual(run.best, { step: run.evaluations[at]!.step, loss: lowest });
  const last = run.state();
  const found = run.withBest(() => {
    sameFactors(run, factors[at]!);
    return run.evaluate();
  });
  assert.equal(found, lowest);
  sameStates(run.state(), last);
  assert.throws(
    () =>
      run.withBest(() => {
        throw new RangeError("within");
      }),
    RangeError,
  );
  assert.throws(() => run.withBest(() => Promise.resolve(1)), says(StateError, "withBest", "synchronous"));
  assert.throws(() => run.withBest(3 as never), says(ArgumentError, "withBest"));
  sameStates(run.state(), last);
});

test("the run stops after so many evaluations without a better loss", () => {
  const run = finish(begin({ patience: 2, epochs: 20 }));
  assert(run.stoppedEarly && run.isComplete && run.metrics.length < run.steps);
  const best = run.evaluations.findIndex(({ step }) => step === run.best!.step);
  assert.equal(run.evaluations.length - 1 - best, 2);
  assert.throws(() => run.step(), says(StateError, "has stopped early", "2 evaluations brought no better loss"));
  const whole = finish(begin({ epochs: 20 }));
  assert.equal(whole.metrics.length, run.steps);
});

test("better is lower by more than minDelta for patience, and lower for the best", () => {
  const of = (losses: readonly number[], patience: number, minDelta = 0): string => {
    const list = new Evaluations({ evalEvery: 1, patience, minDelta }, losses.length);
    return losses
      .map((loss, step) => {
        list.add({ step, loss });
        return `${list.best!.step}${list.isHopeless ? "!" : ""}`;
      })
      .join(" ");
  };
  assert.equal(of([5, 4, 4, 3, 3, 3], 2), "0 1 1 3 3 3!");
  assert.equal(of([5, 6, 5, 4], 2), "0 0 0! 3");
  assert.equal(of([5, 4.75, 4.5, 4.25], 2, 0.25), "0 1 2! 3!");
  assert.equal(of([5, 4.5, 4, 3.5], 2, 0.25), "0 1 2 3");
  assert.equal(of([5, 6, 7, 8], 0), "0 0 0 0");
});

for (const [name, make] of [
  ["rows", () => begin({ patience: 3, minDelta: 0.001, epochs: 4 })],
  [
    "a text",
    () =>
      new train.Finetuning<models.CausalLM>(llama(), tokens, {
        ...SETTINGS,
        epochs: undefined,
        steps: 12,
        seq: 9,
        evalEvery: 3,
        patience: 3,
        schedule: "linear",
        weightDecay: 0.1,
      }),
  ],
] as const)
  test(`${name}: from every step, before or after its evaluation, the run goes on to the same bits`, () => {
    const whole = make();
    whole.evaluate();
    const states: Uint8Array[] = [];
    for (;;) {
      states.push(train.encodeCheckpoint(whole.state()));
      if (whole.isEvaluationDue) {
        whole.evaluate();
        states.push(train.encodeCheckpoint(whole.state()));
      }
      if (whole.isComplete) break;
      whole.step();
    }
    const end = whole.state();
    assert(end.metrics.length >= 8 && end.evaluations.length >= 4 && end.bestFactors, "it has what is to be kept");
    for (const bytes of states) {
      const again = make();
      again.restore(train.decodeCheckpoint(bytes).state);
      finish(again);
      sameStates(again.state(), end);
      assert.deepEqual([again.best, again.stoppedEarly], [whole.best, whole.stoppedEarly]);
    }
    // The bytes of a run that was resumed are those of one that was not.
    const resumed = make();
    resumed.restore(train.decodeCheckpoint(states[3]!).state);
    finish(resumed);
    assert.deepEqual(train.encodeCheckpoint(resumed.state()), train.encodeCheckpoint(end));
  });

test("a state whose best or evaluations do not fit is refused, and the run is as it was", () => {
  const run = begin();
  run.evaluate();
  run.step();
  run.step();
  run.evaluate();
  const good = run.state();
  const [key] = [...good.factors.keys()] as [string];
  const without = new Map(good.factors);
  without.delete(key);
  for (const [change, ...words] of [
    [
      { arithmetic: "fused" },
      "computed in fused arithmetic, and this engine computes in separate",
      "init({ fused: true })",
    ],
    [{ bestFactors: null }, "it lacks best factors; the run needs them"],
    [{ evaluations: [] }, "it has best factors; the run keeps none"],
    [{ bestFactors: without }, `best factor ${key} is missing`],
    [
      { bestFactors: new Map(good.factors).set(key, { shape: [1], data: Float32Array.of(1) }) },
      `best factor ${key} has shape [1]`,
    ],
    [{ evaluations: [{ step: 1, loss: 1 }] }, "an evaluation after step 1, where the run has none"],
    [{ evaluations: [{ step: 4, loss: 1 }] }, "an evaluation after step 4"],
    [{ evaluations: [...good.evaluations, good.evaluations[0]!] }, "an evaluation after step 0"],
  ] as const) {
    assert.throws(() => run.restore({ ...good, ...change } as never, "c"), says(FormatError, "c: ", ...words));
    sameStates(run.state(), good);
  }
});

test("the learning rate by the model's weights, and steps of the warm-up", () => {
  assert.deepEqual(
    [1, 9_999_999, 1e7, 99_999_999, 1e8, 999_999_999, 1e9, 7e9].map(autoLearningRate),
    [5e-3, 5e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2e-4, 2e-4],
  );
  // A twentieth, whatever the product's last bit is.
  for (let steps = 1; steps <= 20_000; steps++) assert.equal(warmupSteps(steps, 0.05), Math.ceil(steps / 20));
  assert.deepEqual([warmupSteps(10, 0), warmupSteps(10, 1), warmupSteps(10, 0.11)], [0, 10, 2]);
});

test.run();
