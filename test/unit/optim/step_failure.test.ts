/**
 * A training step is all or nothing: every allocation of it fails in turn, under every optimiser, with dropout and
 * checkpoints; done again, it gives the bits of a run that never failed, and leaves no memory behind.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  gradientCheckpoint,
  init,
  lora,
  manualSeed,
  memoryStats,
  nn,
  ops,
  optim,
  OutOfMemoryError,
  scope,
  StateError,
  tensor,
  type Tensor,
} from "../../../src/index.js";
import { streamsOf } from "../../../src/random/seed.js";
import { engine } from "../../../src/runtime/engine.js";
import { assertBits } from "../../support/golden.js";

await init();

class Net extends nn.Module {
  first = new lora.Linear(6, 6, { r: 2, loraDropout: 0.3 });
  second = new lora.MergedLinear(6, 4, { r: 1, loraDropout: 0.3, enableLora: [true, false] });
  norm = new nn.RMSNorm(4);
  constructor(readonly checkpointing: boolean) {
    super();
  }
  block(x: Tensor): Tensor {
    return ops.relu(this.first.forward(x));
  }
  forward(x: Tensor): Tensor {
    const h = this.checkpointing ? gradientCheckpoint((t) => this.block(t), x) : this.block(x);
    return this.norm.forward(this.second.forward(ops.dropout(h, 0.2)));
  }
}

type Optimizer = optim.SGD | optim.Adam | optim.AdamW | optim.LoraFA;
const trained = (m: nn.Module): nn.Parameter[] => m.parameters().filter((p) => p.requiresGrad);
const makers: Record<string, (m: Net) => Optimizer> = {
  SGD: (m) => new optim.SGD(trained(m), { lr: 0.1 }),
  "SGD with momentum": (m) => new optim.SGD(trained(m), { lr: 0.1, momentum: 0.9, nesterov: true }),
  Adam: (m) => new optim.Adam(trained(m), { lr: 0.1, weightDecay: 0.1 }),
  AdamW: (m) => new optim.AdamW(trained(m), { lr: 0.1 }),
  "LoRA+": (m) => new optim.AdamW(optim.loraPlusGroups(m, { lr: 0.1, loraplusLrRatio: 4 })),
  "LoRA-FA": (m) => new optim.LoraFA(m, { scaling: 0.5, lr: 0.1, weightDecay: 0.1 }),
};

const X = Float32Array.from({ length: 18 }, (_, i) => ((i * 5) % 7) / 4 - 0.7);
const { memory } = engine();
const alloc = memory.alloc.bind(memory);

/** Three steps, of which one fails at its allocation number `at` and is done again. @returns null if it had fewer */
function run(
  make: (m: Net) => Optimizer,
  checkpointing: boolean,
  failing: number,
  at: number,
): { bits: Float32Array[]; counts: number[] } | null {
  manualSeed(3);
  const model = new Net(checkpointing);
  for (const layer of [model.first, model.second]) nn.normal_(layer.loraB!, 0, 0.5);
  lora.markOnlyLoraAsTrainable(model, "all");
  const optimizer = make(model);
  let failed = false;
  for (let step = 0; step < 3; step++) {
    const attempt = (): void =>
      scope(() => {
        const y = model.forward(tensor(X, [3, 6]));
        ops.sum(ops.mul(y, y)).backward();
        optim.clipGradNorm_(trained(model), 1);
        optimizer.step();
        optimizer.zeroGrad();
      });
    let count = 0;
    if (step === failing)
      memory.alloc = (bytes) => {
        if (count++ === at) throw new OutOfMemoryError(bytes, 0, 0);
        return alloc(bytes);
      };
    const before = model.parameters().map((p) => p.data.slice());
    try {
      attempt();
    } catch (error) {
      assert(error instanceof OutOfMemoryError);
      failed = true;
      memory.alloc = alloc;
      for (const [i, p] of model.parameters().entries())
        assertBits(`parameter ${i} of a step that failed`, p.data, before[i]!);
      assert.equal(optimizer.steps, step);
      optimizer.zeroGrad();
      attempt();
    } finally {
      memory.alloc = alloc;
    }
  }
  const state = [...optimizer.stateDict()].map(([, { data }]) => data);
  const out = {
    bits: [...model.parameters().map((p) => p.data.slice()), ...state],
    counts: [optimizer.steps, streamsOf(model).nextMask],
  };
  optimizer.dispose();
  model.dispose();
  return failed || at < 0 ? out : null;
}

for (const [name, make] of Object.entries(makers))
  for (const checkpointing of [false, true]) {
    test(`${name}${checkpointing ? " with checkpoints" : ""}: a step that ran out of memory, done again`, () => {
      const live = memoryStats().liveBytes;
      const good = run(make, checkpointing, 0, -1)!;
      for (const failing of [0, 1]) {
        let at = 0;
        for (let got; (got = run(make, checkpointing, failing, at)) !== null; at++) {
          for (const [i, v] of good.bits.entries())
            assertBits(`step ${failing}, allocation ${at}: ${i}`, got.bits[i]!, v);
          assert.deepEqual(got.counts, good.counts);
          assert.equal(memoryStats().liveBytes, live, `step ${failing}, allocation ${at} left memory behind`);
        }
        assert(at > 30, `only ${at} allocations`);
      }
    });
  }

test("backward that runs out of memory outside of a scope frees its graph, which is then used up", () => {
  const w = new nn.Parameter([4]).set([1, 2, 3, 4]);
  const live = memoryStats().blocks;
  for (let at = 0; at < 4; at++) {
    const x = ops.mul(w, w);
    const h = ops.relu(ops.mul(x, x));
    const loss = ops.sum(h);
    let count = 0;
    memory.alloc = (bytes) => {
      if (count++ === at) throw new OutOfMemoryError(bytes, 0, 0);
      return alloc(bytes);
    };
    assert.throws(() => loss.backward(), OutOfMemoryError);
    memory.alloc = alloc;
    if (at === 0) {
      // Nothing had begun.
      loss.backward();
    } else {
      assert.throws(() => loss.backward(), StateError);
      assert(x.disposed && h.disposed);
    }
    loss.dispose();
    w.grad?.dispose();
    w.grad = null;
    assert.equal(memoryStats().blocks, live, `allocation ${at}`);
  }
  w.dispose();
});

test("eval() that runs out of memory in some layer leaves every layer unmerged and in training", () => {
  class Two extends nn.Module {
    a = new lora.Linear(4, 4, { r: 2 });
    rest = {
      b: new lora.MergedLinear(4, 4, { r: 1, enableLora: [true, false] }),
      c: [new lora.Conv2d(2, 2, 3, { r: 1 }), new lora.Embedding(5, 3, { r: 1 })],
    };
    frozen = new lora.Linear(4, 4, { r: 2 }).eval();
  }
  const model = new Two();
  const weights = model.parameters().map((p) => p.data.slice());
  const live = memoryStats().liveBytes;
  const modes = (): boolean[] => [...model.namedModules()].map(([, m]) => m.training);
  const before = modes();
  const layers = [model.a, model.rest.b, ...model.rest.c];
  for (let at = 0; at < 5; at++) {
    let count = 0;
    memory.alloc = (bytes) => {
      if (count++ === at) throw new OutOfMemoryError(bytes, 0, 0);
      return alloc(bytes);
    };
    assert.throws(() => model.eval(), OutOfMemoryError);
    memory.alloc = alloc;
    assert.deepEqual(
      [modes(), layers.map((l) => l.merged), model.frozen.merged, memoryStats().liveBytes],
      [before, [false, false, false, false], true, live],
    );
    for (const [i, p] of model.parameters().entries()) assertBits(`parameter ${i}`, p.data, weights[i]!);
  }
  for (const layer of layers) {
    memory.alloc = (bytes) => {
      throw new OutOfMemoryError(bytes, 0, 0);
    };
    assert.throws(() => layer.eval(), OutOfMemoryError);
    memory.alloc = alloc;
    assert.deepEqual([layer.training, layer.merged], [true, false]);
  }
  model.eval();
  assert.deepEqual(
    layers.map((l) => l.merged),
    [true, true, true, true],
  );
  model.train();
  assert.deepEqual(
    layers.map((l) => l.merged),
    [false, false, false, false],
  );
});

test.run();
