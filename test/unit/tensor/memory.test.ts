/** Lifetimes: training that allocates nothing new, scopes, keep(), dispose. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, lora, memoryStats, nn, noGrad, ops, scope, tensor, type Tensor, zeros } from "../../../src/index.js";
import { staysFlat } from "../../support/flat_memory.js";

await init();
// The first draw makes the random stream's state, which stays.
new nn.Linear(1, 1).dispose();

const live = (): number => memoryStats().liveBytes;

staysFlat(300);

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
