/** A language model's loss: the bits of crossEntropy(forward()), whatever its head is. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, manualSeed, models, ops, peft, scope, type Tensor, tensor } from "../../../src/index.js";
import { outputEmbeddings } from "../../../src/peft/places.js";
import { assertBits } from "../../support/golden.js";
import { GPT2, LLAMA } from "../../support/language_models.js";

await init();
const ids = new Int32Array([5, 0, 60, 17, 5, 9, 1, 2, 3, 4, 44, 31]);
const targets = new Int32Array([0, 60, 17, 5, -100, 1, 2, -100, 4, 44, 31, 8]);

function headName(model: models.CausalLM): string {
  return [...model.namedModules()]
    .find(([, module]) => module === outputEmbeddings(model))![0]
    .split(".")
    .at(-1)!;
}

const heads: Record<string, (model: models.CausalLM) => void> = {
  "full fine-tuning": () => {},
  "LoRA on the layers": (model) => {
    peft.getLoraModel(model, { r: 2, targetModules: "all-linear", initLoraWeights: false });
  },
  "LoRA on the head": (model) => {
    peft.getLoraModel(model, { r: 2, targetModules: [headName(model)], initLoraWeights: false });
  },
  "a trained copy of the head": (model) => {
    peft.getLoraModel(model, {
      r: 2,
      targetModules: "all-linear",
      modulesToSave: [headName(model)],
      initLoraWeights: false,
    });
  },
};

function gradients(
  model: models.CausalLM,
  lossOf: (ids: Tensor, targets: Tensor) => Tensor,
): Map<string, Float32Array> {
  return scope(() => {
    const loss = lossOf(tensor(ids, [2, 6]), tensor(targets, [2, 6]));
    const out = new Map([["loss", loss.data.slice()]]);
    loss.backward();
    for (const [key, p] of model.namedParameters()) {
      if (p.grad) out.set(key, p.grad.data.slice());
      p.grad?.dispose();
      p.grad = null;
    }
    return out;
  });
}

for (const tieWordEmbeddings of [true, false])
  for (const kind of ["Llama", "Gpt2"] as const)
    for (const [name, adapt] of Object.entries(heads)) {
      test(`${kind}, ${tieWordEmbeddings ? "tied" : "untied"}: ${name}`, () => {
        manualSeed(3);
        const model =
          kind === "Llama"
            ? new models.Llama({ ...LLAMA, tieWordEmbeddings })
            : new models.Gpt2({ ...GPT2, tieWordEmbeddings });
        adapt(model);
        const expected = gradients(model, (x, t) => ops.crossEntropy(model.forward(x), t));
        const got = gradients(model, (x, t) => model.loss(x, t));
        assert(expected.size > 2);
        assert.deepEqual([...got.keys()], [...expected.keys()]);
        for (const [key, values] of expected) assertBits(key, got.get(key)!, values);
        model.dispose();
      });
    }

test.run();
