/** Every kind of decoder: gradient checkpointing keeps its bits, and a plan tells its memory to the byte. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, memoryStats, type models, optim, peft, scope, tensor, train } from "../../../src/index.js";
import { createModel, type ModelConfig } from "../../../src/models/families.js";
import { engine } from "../../../src/runtime/engine.js";
import { decoderCases, loadFamilyCase } from "../../support/families.js";
import { assertBits } from "../../support/golden.js";

await init();
const adapter = { r: 4, targetModules: "all-linear" as const };

for (const name of decoderCases()) {
  test(`${name}: gradient checkpointing`, () => {
    const gradients = (gradientCheckpointing: boolean): Map<string, Float32Array> => {
      const { path, model, loss } = loadFamilyCase(name);
      (model as models.DecoderForCausalLM).gradientCheckpointing = gradientCheckpointing;
      const adapted = peft.LoraModel.fromPretrained(model, `${path}/adapter`, { isTrainable: true });
      scope(() => loss().backward());
      const trained = [...adapted.namedParameters()].filter(([, p]) => p.requiresGrad);
      const found = new Map(trained.map(([key, p]) => [key, p.grad!.data.slice()]));
      adapted.dispose();
      return found;
    };
    const again = gradients(true);
    for (const [key, values] of gradients(false)) assertBits(key, again.get(key)!, values);
  });

  test(`${name}: the plan`, () => {
    const config = (loadFamilyCase(name).model as models.DecoderForCausalLM).config as ModelConfig;
    const plan = train.planTraining(config, { batch: 2, seq: 22, adapter });
    const before = memoryStats().liveBytes;
    engine().memory.resetPeak();
    const adapted = peft.getLoraModel(createModel("plan", config), adapter);
    const adamW = new optim.AdamW(adapted.parameters());
    scope(() => {
      const ids = tensor(new Int32Array(44), [2, 22]);
      const targets = tensor(new Int32Array(44), [2, 22]);
      for (let step = 0; step < 2; step++)
        scope(() => {
          adapted.loss(ids, targets).backward();
          adamW.step();
          adamW.zeroGrad();
        });
    });
    assert.equal(memoryStats().peakBytes - before, plan.peak - plan.scratch);
    adamW.dispose();
    adapted.dispose();
  });
}

test.run();
