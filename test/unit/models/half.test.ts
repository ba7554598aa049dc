/**
 * Language models whose matrices are stored as bfloat16 or float16 against the same as float32: logits, losses, the
 * factors that training makes and generated text have the same bits.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, manualSeed, memoryStats, models, type nn, noGrad, scope } from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { HALVES, halfBits } from "../../support/half.js";
import { GPT2, LLAMA, threeSteps, twoTexts } from "../../support/language_models.js";

await init();

const ids = twoTexts().keep();

for (const dtype of HALVES)
  for (const [name, make] of [
    ["Llama", () => new models.Llama(LLAMA)],
    ["GPT-2", () => new models.Gpt2(GPT2)],
  ] as const)
    test(`${name} of ${dtype}: half the memory of its matrices, every bit of float32`, () => {
      manualSeed(3);
      const wide = make();
      const live = memoryStats().liveBytes;
      const half = make();
      const whole = memoryStats().liveBytes - live;
      const matrices = (model: nn.Module): nn.Parameter[] => model.parameters().filter((p) => p.rank === 2);
      let saved = 0;
      for (const [key, p] of half.namedParameters()) {
        const other = [...wide.namedParameters()].find(([k]) => k === key)![1];
        if (p.rank === 2) {
          const bits = halfBits(p.size, dtype, p.size);
          const size = (bytes: number): number => Math.ceil(bytes / 64) * 64;
          saved += size(4 * p.size) - size(2 * p.size);
          p.materialize(dtype).bytes.set(new Uint8Array(bits.buffer));
        } else p.set(other.data);
        other.set(p.toFloat32());
      }
      assert.equal(memoryStats().liveBytes - live, whole - saved);

      const of = <T>(run: (model: models.Llama | models.Gpt2) => T): [T, T] => [run(half), run(wide)];
      const logits = of((model) => noGrad(() => scope(() => model.forward(ids).data.slice())));
      assertBits("logits", ...logits);
      const texts = of((model) => [...models.generate(model, [1, 2, 3], { maxNewTokens: 8 })]);
      assert.deepEqual(...texts);

      const [factors, others] = of((model) => threeSteps(model));
      assert.deepEqual(factors.losses, others.losses);
      for (const [key, { data }] of others.state) assertBits(key, factors.state.get(key)!.data, data);
      assert(matrices(half).every((p) => p.requiresGrad || p.dtype === dtype));
      for (const model of [half, wide]) model.dispose();
    });

test.run();
