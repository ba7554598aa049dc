/** Training that allocates nothing new: a test for one shape, and one for shapes that take turns. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { lora, type MemoryStats, memoryStats, nn, ops, optim, scope, type Tensor } from "../../src/index.js";
import { gridTensor as grid } from "./gradcheck.js";

const live = (): number => memoryStats().liveBytes;

class Model extends nn.Module {
  readonly first = new lora.Linear(12, 16, { r: 4, loraDropout: 0.1 });
  readonly second = new lora.Linear(16, 5, { r: 4 });
  forward(x: Tensor): Tensor {
    return this.second.forward(ops.dropout(ops.gelu(this.first.forward(x)), 0.2));
  }
}

/**
 * Trains; batch sizes take turns. Returns memory after the first round, the second and
 * the last. The second, because AdamW makes its state at the end of step 1, when the activations are
 * gone: only from the second step on are both there at the peak.
 */
function train(batchSizes: number[], steps: number) {
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
  for (let step = 1; step <= steps; step++) {
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
    if ([batchSizes.length, 2 * batchSizes.length, steps].includes(step)) stats.push(memoryStats());
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

/** Tests that memory stays as it is for so many steps. */
export function staysFlat(steps: number): void {
  test(`${steps} steps of one shape: live bytes stay those of step 1, the peak that of step 2`, () => {
    const before = live();
    const { first, second, last, losses } = train([8], steps);
    for (const [when, s] of [
      ["step 1", first],
      ["step 2", second],
      [`step ${steps}`, last],
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

  test(`${steps} steps of varied shapes: memory stays that of the first rounds`, () => {
    const before = live();
    const { first, second, last } = train([8, 33, 1, 64, 5], steps);
    console.log(
      `step 5: live ${first.liveBytes}, reserved ${first.reservedBytes}; step ${steps}: live ${last.liveBytes}, ` +
        `reserved ${last.reservedBytes}`,
    );
    assert.equal(last.liveBytes, first.liveBytes);
    assert.equal(last.reservedBytes, first.reservedBytes);
    assert.deepEqual(last, second);
    assert.equal(live(), before);
  });
}
