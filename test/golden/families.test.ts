/**
 * Models of every family with an adapter each (test/fixtures/families, but zoo/), by transformers 5.17 and PEFT 0.21:
 * logits, loss and greedy tokens without the adapter; logits, loss and every gradient with it; 15 steps of AdamW, and
 * the logits after merging. Nothing here is of one case but what its config says: a folder that is laid beside the
 * others is tried too.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, models, noGrad, optim, peft, scope } from "../../src/index.js";
import { familyCases, loadFamilyCase } from "../support/families.js";
import { assertClose, f32 } from "../support/golden.js";

await init();
/** Of greedy tokens so many are the prompt. */
const PROMPT = 7;

for (const name of familyCases()) {
  // In this order, on one model: where the longest text so far decides positions' angles, what was run before counts.
  test(name, () => {
    const { path, model, reference, ...run } = loadFamilyCase(name);
    const close = (label: string, got: ArrayLike<number>, key: string, tolerance: number): void =>
      assertClose(label, got, f32(reference, key).data, tolerance, 0);
    const logits = (): Float32Array => noGrad(() => scope(() => run.logits().data.slice()));
    const loss = (): number[] => [noGrad(() => scope(() => run.loss().item()))];
    close("logits without the adapter", logits(), "base_logits", 1e-5);
    close("loss without the adapter", loss(), "base_loss", 1e-4);
    const greedy = (JSON.parse(reference.metadata["greedy"] ?? "null") ?? []) as number[];
    if (greedy.length > 0) {
      const prompt = greedy.slice(0, PROMPT);
      const maxNewTokens = greedy.length - PROMPT;
      const tokens = models.generate(model as models.DecoderForCausalLM, prompt, { maxNewTokens, temperature: 0 });
      assert.deepEqual([...prompt, ...tokens], greedy);
    }

    const lora = peft.LoraModel.fromPretrained(model, `${path}/adapter`, { isTrainable: true });
    close("logits", logits(), "logits", 1e-5);
    close("loss", loss(), "loss", 1e-4);
    scope(() => run.loss().backward());
    const trained = [...lora.namedParameters()].filter(([, p]) => p.requiresGrad);
    const gradients = [...reference.tensors.keys()].filter((key) => key.startsWith("grad."));
    assert.deepEqual(trained.map(([key]) => `grad.base_model.${key}`).sort(), gradients.sort());
    for (const [key, p] of trained) close(key, p.grad!.data, `grad.base_model.${key}`, 1e-5);

    const parameters = trained.map(([, p]) => p);
    const adamW = new optim.AdamW(parameters, { lr: 2e-3, weightDecay: 0 });
    adamW.zeroGrad();
    const losses = Array.from(f32(reference, "losses").data, () => {
      const before = scope(() => {
        const y = run.loss();
        y.backward();
        return y.item();
      });
      adamW.step();
      adamW.zeroGrad();
      return before;
    });
    close("losses", losses, "losses", 1e-4);
    const merged = lora.mergeAndUnload();
    close("logits after training, merged", logits(), "trained_logits", 1e-5);
    adamW.dispose();
    merged.dispose();
  });
}

test.run();
