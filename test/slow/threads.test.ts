/** 10,000 steps on two threads: memory stays as it is, the bits are those of one thread, and no worker is left. */
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import { init, lora, manualSeed, memoryStats, nn, ops, optim, scope, zeros } from "../../src/index.js";
import { engine } from "../../src/runtime/engine.js";

const STEPS = 10_000;
const ROWS = 96;
const SYSTEM = "/proc/self/task";
const systemThreads = (): number => (existsSync(SYSTEM) ? readdirSync(SYSTEM).length : 0);

class Model extends nn.Module {
  readonly first = new lora.Linear(48, 96, { r: 4, loraDropout: 0.1 });
  readonly second = new lora.Linear(96, 32, { r: 4 });
}

/** Trains, and gives the factors and the losses. Memory after step 2 is that after the last one. */
async function train(threads: number): Promise<Float32Array[]> {
  await init({ threads });
  manualSeed(5);
  const model = new Model();
  lora.markOnlyLoraAsTrainable(model);
  const factors = model.parameters().filter((p) => p.requiresGrad);
  const optimizer = new optim.AdamW(factors, { lr: 1e-3 });
  const [x, target] = [nn.normal_(zeros([ROWS, 48]), 0, 1), nn.normal_(zeros([ROWS, 32]), 0, 1)];
  const losses = new Float32Array(STEPS);
  let second = memoryStats();
  for (let step = 0; step < STEPS; step++) {
    scope(() => {
      const loss = ops.mseLoss(model.second.forward(ops.gelu(model.first.forward(x))), target);
      loss.backward();
      optimizer.step();
      optimizer.zeroGrad();
      losses[step] = loss.item();
    });
    if (step === 1) second = memoryStats();
  }
  assert.deepEqual(memoryStats(), second);
  assert.equal(engine().threads, threads);
  const results = [losses, ...factors.map(({ data }) => data.slice())];
  engine().close();
  return results;
}

test(`${STEPS} steps on two threads: flat memory, the bits of one thread, no worker left`, async () => {
  const expected = await train(1);
  const before = systemThreads();
  assert.deepEqual(await train(2), expected);
  assert(expected[0]!.at(-1)! < expected[0]![0]!, "and it learned");
  for (let tries = 0; systemThreads() > before && tries < 1000; tries++) await sleep(10);
  assert(systemThreads() <= before);
});

test.run();
