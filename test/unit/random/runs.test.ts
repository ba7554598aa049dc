/** Random streams belong to runs: what one draws does not depend on what others do between its steps. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  gradientCheckpoint,
  init,
  lora,
  manualSeed,
  models,
  nn,
  ops,
  optim,
  OutOfMemoryError,
  peft,
  scope,
  StateError,
  tensor,
  type Tensor,
} from "../../../src/index.js";
import { newMask, streamsOf } from "../../../src/random/seed.js";
import { engine } from "../../../src/runtime/engine.js";
import { assertBits } from "../../support/golden.js";
import { GPT2, LLAMA } from "../../support/language_models.js";

await init();

type Turn = () => Promise<unknown>;
const microtask: Turn = () => Promise.resolve();
const macrotask: Turn = () => new Promise((resolve) => setTimeout(resolve));

interface Kind {
  build(): nn.Module & { forward(x: Tensor): Tensor };
  x(): Tensor;
}
const OPTIONS = { r: 2, loraAlpha: 4, loraDropout: 0.5 };
const kinds: Record<string, Kind> = {
  "lora.Linear": { build: () => new lora.Linear(6, 4, OPTIONS), x: () => tensor(wave(12), [2, 6]) },
  "lora.MergedLinear": {
    build: () => new lora.MergedLinear(6, 4, { ...OPTIONS, enableLora: [true, false] }),
    x: () => tensor(wave(12), [2, 6]),
  },
  "lora.Conv1d": { build: () => new lora.Conv1d(3, 4, 2, OPTIONS), x: () => tensor(wave(12), [1, 3, 4]) },
  "a Llama with PEFT's adapter": {
    build: () => adapted(() => new models.Llama(LLAMA)),
    x: () => tensor(new Int32Array([3, 1, 4, 1]), [1, 4]),
  },
  "a GPT-2 with PEFT's adapter, DoRA": {
    build: () => adapted(() => new models.Gpt2(GPT2), true),
    x: () => tensor(new Int32Array([3, 1, 4, 1]), [1, 4]),
  },
  "PEFT's convolution": {
    build: () => peft.getLoraModel(new Net(), { r: 2, loraDropout: 0.5, targetModules: ["conv"] }).model,
    x: () => tensor(wave(12), [1, 3, 4]),
  },
};

class Net extends nn.Module {
  conv = new nn.Conv1d(3, 4, 2);
  forward(x: Tensor): Tensor {
    return this.conv.forward(x);
  }
}

function wave(n: number): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => ((i * 5) % 7) / 4 - 0.7);
}

function adapted<M extends models.CausalLM>(make: () => M, useDora = false): M {
  return peft.getLoraModel(make(), {
    r: 2,
    loraDropout: 0.5,
    initLoraWeights: false,
    useDora,
    targetModules: "all-linear",
  }).model;
}

/**
 * Three steps of training; the bits of all trained parameters. `pause` comes after the model is there and after each
 * step.
 */
async function run({ build, x }: Kind, seed: number, pause: Turn, checkpointing = false): Promise<Float32Array[]> {
  manualSeed(seed);
  const model = build();
  await pause();
  const trained = model.parameters().filter((p) => p.requiresGrad);
  const optimizer = new optim.AdamW(trained, { lr: 0.1 });
  for (let step = 0; step < 3; step++) {
    scope(() => {
      const y = checkpointing ? gradientCheckpoint((t) => model.forward(t), x()) : model.forward(x());
      ops.sum(ops.mul(y, y)).backward();
      optimizer.step();
      optimizer.zeroGrad();
    });
    await pause();
  }
  const bits = trained.map((p) => p.data.slice());
  optimizer.dispose();
  model.dispose();
  return bits;
}

for (const [name, kind] of Object.entries(kinds))
  for (const checkpointing of [false, true]) {
    if (checkpointing && name.includes("Conv")) continue;
    test(`${name}${checkpointing ? " with checkpoints" : ""}: runs that take turns, each with its bits`, async () => {
      const alone = [await run(kind, 1, macrotask, checkpointing), await run(kind, 2, macrotask, checkpointing)];
      assert.notDeepEqual(alone[0], alone[1]);
      for (const pause of [microtask, macrotask]) {
        const together = await Promise.all([run(kind, 1, pause, checkpointing), run(kind, 2, pause, checkpointing)]);
        for (const [i, values] of together.entries())
          for (const [j, v] of values.entries()) assertBits(`run ${i}, parameter ${j}`, v, alone[i]![j]!);
      }
    });
  }

test("a run that has seeded and awaits its data does not disturb one that trains", async () => {
  const kind = kinds["lora.Linear"]!;
  const alone = await run(kind, 1, macrotask);
  const late = async (): Promise<Float32Array[]> => {
    await macrotask();
    manualSeed(2);
    await macrotask();
    return run(kind, 3, macrotask);
  };
  const third = await run(kind, 3, macrotask);
  const [first, other] = await Promise.all([run(kind, 1, macrotask), late()]);
  for (const [j, v] of alone.entries()) assertBits(`parameter ${j}`, first[j]!, v);
  for (const [j, v] of third.entries()) assertBits(`parameter ${j}`, other[j]!, v);
});

test("runs that all await between seed and model are told so: whose stream they would get is unclear", async () => {
  const { build } = kinds["lora.Linear"]!;
  const start = async (seed: number, pause: Turn, use: () => unknown): Promise<unknown> => {
    manualSeed(seed);
    await pause();
    return use();
  };
  for (const pause of [microtask, macrotask])
    for (const use of [build, () => nn.uniform_(tensor([1])), () => newMask(0.5)]) {
      const results = await Promise.allSettled([start(1, pause, use), start(2, pause, use)]);
      if (pause === macrotask)
        assert.deepEqual(
          results.map((r) => r.status),
          ["rejected", "rejected"],
        );
      for (const r of results)
        if (r.status === "rejected")
          assert(r.reason instanceof StateError && r.reason.message.includes("right after manualSeed"));
      manualSeed(1);
      assert(build() instanceof nn.Module);
    }
  // One after the other, or used at once, they are as ever.
  await start(1, macrotask, () => 1);
  await start(2, macrotask, build);
  manualSeed(3);
  manualSeed(4);
  const first = build();
  await macrotask();
  manualSeed(4);
  assertBits("the last seed", build().parameters()[0]!.data, first.parameters()[0]!.data);
});

test("a model built before manualSeed is adapted and dropped out with the new seed, as a torch program expects", () => {
  const factors = (before: number): Float32Array[] => {
    manualSeed(before);
    const model = new Net();
    manualSeed(7);
    peft.getLoraModel(model, { r: 2, initLoraWeights: false, targetModules: ["conv"] });
    return model
      .parameters()
      .filter((p) => p.requiresGrad)
      .map((p) => p.data.slice());
  };
  const [one, other] = [factors(1), factors(2)];
  for (const [i, v] of one.entries()) assertBits(`factor ${i}`, other[i]!, v);

  const layer = new lora.Linear(8, 8, { ...OPTIONS, r: 4 });
  const x = tensor(wave(8), [1, 8]);
  nn.normal_(layer.loraB!);
  const y = (): Float32Array => {
    manualSeed(5);
    return layer.forward(x).data.slice();
  };
  const first = y();
  assert.notDeepEqual(layer.forward(x).data, first);
  assertBits("the same seed", y(), first);
});

test("what a module draws later comes from its own streams, also while another run's are in force", () => {
  manualSeed(1);
  const a = new nn.Linear(3, 2);
  const again = nn.uniform_(new nn.Parameter([2, 3]), -1, 1).data.slice();
  manualSeed(1);
  const b = new nn.Linear(3, 2);
  manualSeed(2);
  const other = new nn.Linear(3, 2);
  b.resetParameters();
  // The draws that follow those of b's constructor: as many as a's own next ones.
  const bound = Math.fround(1 / Math.sqrt(3));
  for (const [i, v] of b.weight.data.entries()) assert(Math.abs(v - again[i]! * bound) < 1e-6);
  assert.notDeepEqual(other.weight.data, a.weight.data);
});

test("a module's masks are counted for its run, and can be set", () => {
  manualSeed(3);
  const a = new lora.Linear(4, 4, OPTIONS);
  const x = tensor(wave(4), [1, 4]);
  manualSeed(3);
  const b = new lora.Linear(4, 4, OPTIONS);
  for (let i = 0; i < 3; i++) a.forward(x);
  assert.deepEqual([streamsOf(a).nextMask, streamsOf(b).nextMask], [3, 0]);
  streamsOf(b).nextMask = 3;
  assert.deepEqual(
    [a.newMask(0.5), newMask(0.5)],
    [
      { p: 0.5, seed: 3, stream: 3 },
      { p: 0.5, seed: 3, stream: 3 },
    ],
  );
});

test("running out of memory takes draws back: a scope's, an op's, an adapter's; other errors do not", () => {
  const { memory } = engine();
  const alloc = memory.alloc.bind(memory);
  /**
   * Lets each allocation of fn fail in turn, until none is left; `after` looks at what the call that worked has left.
   */
  const failEach = (fn: () => void, after: () => void): void => {
    for (let at = 0; ; at++) {
      let count = 0;
      memory.alloc = (n) => {
        if (count++ === at) throw new OutOfMemoryError(n, 0, 0);
        return alloc(n);
      };
      try {
        fn();
        memory.alloc = alloc;
        assert(at > 1);
        return after();
      } catch (error) {
        assert(error instanceof OutOfMemoryError);
      } finally {
        memory.alloc = alloc;
      }
    }
  };
  manualSeed(4);
  const layer = new lora.Linear(4, 4, OPTIONS);
  const x = tensor(wave(4), [1, 4]);
  failEach(
    () => layer.forward(x),
    () => assert.equal(streamsOf(layer).nextMask, 1),
  );
  const live = memory.stats().liveBytes;
  failEach(
    () =>
      scope(() => {
        layer.forward(x);
        ops.dropout(x, 0.5);
        layer.forward(x);
      }),
    () => assert.equal(streamsOf(layer).nextMask, 4),
  );
  assert.equal(memory.stats().liveBytes, live);

  assert.throws(
    () =>
      scope(() => {
        layer.forward(x);
        throw new RangeError("the user's");
      }),
    RangeError,
  );
  assert.equal(streamsOf(layer).nextMask, 5);

  const draw = (): Float32Array => scope(() => nn.normal_(new nn.Parameter([3])).data.slice());
  manualSeed(6);
  draw();
  draw();
  const third = draw();
  manualSeed(6);
  failEach(
    () =>
      scope(() => {
        draw();
        draw();
      }),
    () => assertBits("after scopes that failed", draw(), third),
  );

  const factors = (fail: boolean): Float32Array[] => {
    manualSeed(8);
    const model = peft.getLoraModel(new Net(), { r: 2, initLoraWeights: false, targetModules: ["conv"] }, "first");
    const add = (): void => model.addAdapter("second", { r: 3, initLoraWeights: false, targetModules: ["conv"] });
    if (fail) failEach(add, () => {});
    else add();
    return model.parameters().map((p) => p.data.slice());
  };
  const without = factors(false);
  for (const [i, v] of factors(true).entries()) assertBits(`adapter, parameter ${i}`, v, without[i]!);
});

test.run();
