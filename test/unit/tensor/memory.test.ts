/** Lifetimes: training that allocates nothing new, scopes, keep(), dispose. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  init,
  lora,
  type MemoryStats,
  memoryStats,
  nn,
  noGrad,
  ops,
  optim,
  scope,
  tensor,
  type Tensor,
  zeros,
} from "../../../src/index.js";
import { gridTensor as grid } from "../../support/gradcheck.js";

await init();
// The first draw makes the random stream's state, which stays.
new nn.Linear(1, 1).dispose();

const STEPS = 2000;
const live = (): number => memoryStats().liveBytes;

class Model extends nn.Module {
  readonly first = new lora.Linear(12, 16, { r: 4, loraDropout: 0.1 });
  readonly second = new lora.Linear(16, 5, { r: 4 });
  forward(x: Tensor): Tensor {
    return this.second.forward(ops.dropout(ops.gelu(this.first.forward(x)), 0.2));
  }
}

/**
 * Trains for STEPS steps; batch sizes take turns. Returns memory after the first round, the second and
 * the last. The second, because AdamW makes its state at the end of step 1, when the activations are
 * gone: only from the second step on are both there at the peak.
 */
function train(batchSizes: number[]) {
  const model = new Model();
  lora.markOnlyLoraAsTrainable(model, "all");
  const optimizer = new optim.AdamW(
    model.parameters().filter((p) => p.requiresGrad),
    { lr: 1e-2 },
  );
  const data = batchSizes.map((n) => ({
    x: grid([n, 12], n, false).keep(),
    target: grid([n, 5], n + 1, false).keep(),
  }));
  const losses: number[] = [];
  const stats: MemoryStats[] = [];
  for (let step = 1; step <= STEPS; step++) {
    const { x, target } = data[step % data.length]!;
    losses.push(
      scope(() => {
        const loss = ops.mseLoss(model.forward(x), target);
        loss.backward();
        optimizer.step();
        optimizer.zeroGrad();
        return loss.item();
      }),
    );
    if ([batchSizes.length, 2 * batchSizes.length, STEPS].includes(step)) stats.push(memoryStats());
  }
  for (const { x, target } of data) {
    x.dispose();
    target.dispose();
  }
  optimizer.dispose();
  model.dispose();
  const [first, second, last] = stats as [MemoryStats, MemoryStats, MemoryStats];
  return { first, second, last, losses };
}

test(`${STEPS} steps of one shape: live bytes stay those of step 1, the peak that of step 2`, () => {
  const before = live();
  const { first, second, last, losses } = train([8]);
  for (const [when, s] of [
    ["step 1", first],
    ["step 2", second],
    [`step ${STEPS}`, last],
  ] as const) {
    console.log(`${when}: live ${s.liveBytes}, peak ${s.peakBytes}, reserved ${s.reservedBytes}, blocks ${s.blocks}`);
  }
  assert.equal(last.liveBytes, first.liveBytes);
  assert.deepEqual(last, second);
  assert(
    losses.slice(-100).every((l) => l < losses[0]! / 2),
    "and it learned",
  );
  assert.equal(live(), before, "model and optimiser give everything back");
});

test(`${STEPS} steps of varied shapes: memory stays that of the first rounds`, () => {
  const before = live();
  const { first, second, last } = train([8, 33, 1, 64, 5]);
  console.log(
    `step 5: live ${first.liveBytes}, reserved ${first.reservedBytes}; step ${STEPS}: live ${last.liveBytes}, ` +
      `reserved ${last.reservedBytes}`,
  );
  assert.equal(last.liveBytes, first.liveBytes);
  assert.equal(last.reservedBytes, first.reservedBytes);
  assert.deepEqual(last, second);
  assert.equal(live(), before);
});

test("scope: what is returned survives, the rest goes", () => {
  const before = live();
  const one = scope(() => ops.add(tensor([1]), tensor([2])));
  assert.equal(one.item(), 3);
  const pair = scope(() => [tensor([1]), tensor([2]), "text"] as const);
  const named = scope(() => ({ a: tensor([1]), n: 5 }));
  assert.deepEqual([pair[0].item(), pair[1].item(), named.a.item()], [1, 2, 1]);
  assert.equal(
    scope(() => tensor([7]).item()),
    7,
  );
  for (const t of [one, pair[0], pair[1], named.a]) t.dispose();
  assert.equal(live(), before);
});

test("scope: nested scopes hand tensors on to the scope around them", () => {
  const before = live();
  let inner: Tensor | undefined;
  let lost: Tensor | undefined;
  let outer: Tensor | undefined;
  const result = scope(() => {
    outer = tensor([1]);
    inner = scope(() => {
      lost = tensor([2]);
      return ops.add(lost, outer!);
    });
    assert(lost!.disposed && !inner.disposed && !outer.disposed);
    return scope(() => scope(() => tensor([4])));
  });
  assert(inner!.disposed && outer!.disposed && !result.disposed);
  result.dispose();
  assert.equal(live(), before);
});

test("scope: a throw frees too, also through nested scopes", () => {
  const before = live();
  assert.throws(
    () =>
      scope(() => {
        tensor([1]);
        scope(() => {
          tensor([2]);
          throw new Error("on purpose");
        });
      }),
    /on purpose/,
  );
  assert.equal(live(), before);
  const after = tensor([3]);
  assert(!after.disposed, "no scope is left open");
  after.dispose();
});

test("scope: a graph that was never walked goes with what it saved", () => {
  const layer = new lora.Linear(4, 4, { r: 2 });
  const before = live();
  scope(() => {
    ops.crossEntropy(
      ops.softmax(ops.rmsNorm(layer.forward(zeros([3, 4])), layer.bias!, 1e-5)),
      tensor(new Int32Array([0, 1, 2])),
    );
  });
  assert.equal(live(), before);
  const x = zeros([3, 4]);
  layer.forward(x).dispose();
  scope(() => {
    noGrad(() => layer.forward(x));
  });
  x.dispose();
  assert.equal(live(), before);
  layer.dispose();
});

test("keep() takes a tensor out of every scope and of backward's hands", () => {
  const before = live();
  let x: Tensor | undefined;
  let h: Tensor | undefined;
  scope(() =>
    scope(() => {
      x = tensor([3]).keep();
      x.requiresGrad = true;
      h = ops.mul(x, x).keep();
      const dropped = ops.scale(h, 2);
      ops.sum(dropped).backward();
      assert(dropped.disposed, "activations go with backward");
    }),
  );
  assert.equal(h!.item(), 9);
  assert.equal(x!.grad!.item(), 12);
  h!.dispose();
  x!.dispose();
  x!.dispose();
  assert.equal(live(), before, "dispose() takes the gradient along, and twice is once");
});

test("parameters and gradients belong to no scope", () => {
  const before = live();
  const layer = scope(() => {
    const made = new nn.Linear(3, 2);
    ops.sum(made.forward(zeros([1, 3]))).backward();
    return made;
  });
  assert.deepEqual([...layer.bias!.grad!.data], [1, 1]);
  layer.dispose();
  assert.equal(live(), before);
});

test("Symbol.dispose disposes", () => {
  const key = (Symbol as { dispose?: symbol }).dispose ?? Symbol.for("Symbol.dispose");
  const t = tensor([1, 2, 3]);
  const dispose = (t as unknown as Record<symbol, () => void>)[key];
  assert.equal(typeof dispose, "function");
  dispose!.call(t);
  assert(t.disposed);
});

test.run();
