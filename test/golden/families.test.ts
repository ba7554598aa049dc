/**
 * Models of every family with an adapter each (test/fixtures/families, but zoo/), by transformers 5.17 and PEFT 0.21:
 * logits, loss and greedy tokens without the adapter; logits, loss and every gradient with it; 15 steps of AdamW, and
 * the logits after merging. Nothing here is of one case but what its config says: a folder that is laid beside the
 * others is tried too.
 */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "uvu";
import { fileURLToPath } from "node:url";
import { init, models, noGrad, optim, peft, scope, tensor, type nn, type Tensor } from "../../src/index.js";
import { assertClose, f32, ints, readGolden, type Golden } from "../support/golden.js";
import { ROOT } from "../support/root.js";

await init();
const FAMILIES = new URL("test/fixtures/families/", ROOT);
/** Of greedy tokens so many are the prompt. */
const PROMPT = 7;
const cases = readdirSync(FAMILIES).filter((name) => name !== "zoo");

/** How a case is computed: its logits, and the loss of them. */
interface Run {
  logits(): Tensor;
  loss(): Tensor;
}

/** What the model gives decides, and which inputs there are. */
function runOf({ head, model }: { head: string; model: unknown }, reference: Golden): Run {
  const int32 = (key: string): Tensor => {
    const { shape, data } = ints(reference, `in.${key}`);
    return tensor(data, shape);
  };
  const has = (key: string): boolean => reference.tensors.has(`in.${key}`);
  const options = (key = "attention_mask") => (has(key) ? { attentionMask: int32(key) } : {});
  if (head === "image-classification") {
    const vit = model as models.ViTForImageClassification;
    const { shape, data } = f32(reference, "in.pixel_values");
    const pixels = (): Tensor => tensor(data, shape);
    return { logits: () => vit.forward(pixels()), loss: () => vit.loss(pixels(), int32("labels")) };
  }
  if (head === "sequence-classification") {
    const classifier = model as models.SequenceClassifier;
    return {
      logits: () => classifier.forward(int32("input_ids"), options()),
      loss: () => classifier.loss(int32("input_ids"), int32("labels"), options()),
    };
  }
  if (head === "none") {
    const encoder = new models.SentenceEncoder(model as models.Encoder);
    const logits = (second = ""): Tensor =>
      encoder.forward(int32(`input_ids${second}`), options(`attention_mask${second}`));
    return { logits, loss: () => models.multipleNegativesRankingLoss(logits(), logits("2")) };
  }
  const lm = model as models.CausalLM;
  return {
    logits: () => lm.forward(int32("input_ids"), options()),
    loss: () => {
      // transformers takes the text itself as labels, and shifts it.
      const { shape, data } = ints(reference, "in.labels");
      const steps = shape[1]!;
      const targets = data.map((_, i) => (i % steps === steps - 1 ? -100 : data[i + 1]!));
      return lm.loss(int32("input_ids"), tensor(targets, shape), options());
    },
  };
}

for (const name of cases) {
  const path = fileURLToPath(new URL(name, FAMILIES));
  const reference = readGolden(`families/${name}/reference`);
  const close = (label: string, got: ArrayLike<number>, key: string, tolerance: number): void =>
    assertClose(label, got, f32(reference, key).data, tolerance, 0);

  // In this order, on one model: where the longest text so far decides positions' angles, what was run before counts.
  test(name, () => {
    const { model, head } = models.loadModel(path) as { model: nn.Module; head: string };
    const run = runOf({ head, model }, reference);
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
