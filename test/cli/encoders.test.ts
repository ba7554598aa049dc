/** Commands on folders of encoders: merge keeps the names of their files; what needs a language model says so. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { init, io, models, noGrad, peft, tensor, zeros, type Tensor } from "../../src/index.js";
import { refuse, succeed, temporaryFolder } from "../support/cli.js";
import { familyPath } from "../support/families.js";
import { assertBits } from "../support/golden.js";

await init();
const folder = temporaryFolder();

/** The answer to something that every model of its kind takes. */
function answer(model: unknown, head: string): Float32Array {
  const input = (): Tensor =>
    head === "image-classification" ? zeros([1, 3, 16, 16]) : tensor(new Int32Array([2, 45, 46, 3]), [1, 4]);
  return noGrad(() => (model as { forward(x: Tensor): Tensor }).forward(input()).data.slice());
}

for (const name of ["bert_cls", "distilbert_cls", "modernbert_cls", "vit_cls", "minilm_embed"])
  test(`merge on ${name}: a folder with the names of the base's, which gives the adapted model's answers`, async () => {
    const out = join(folder, name);
    const from = familyPath(name);
    await succeed(folder, ["merge", "--model", from, "--adapter", `${from}/adapter`, "--out", out]);
    const names = (path: string): string[] => [...io.loadWeights(path).keys()].sort();
    assert.deepEqual(names(out), names(from));
    const config = (path: string): Record<string, unknown> =>
      JSON.parse(readFileSync(join(path, "config.json"), "utf8")) as Record<string, unknown>;
    assert.deepEqual(config(out), config(from));
    const { model: base, head } = models.loadModel(from);
    peft.LoraModel.fromPretrained(base, `${from}/adapter`).mergeAndUnload();
    const { model } = models.loadModel(out);
    assertBits(name, answer(model, head), answer(base, head));
    for (const each of [base, model]) each.dispose();
  });

test("generate and finetune on an encoder name what it is", async () => {
  for (const command of [
    ["generate", "--prompt", "a"],
    ["finetune", "--data", "t.txt", "--out", "run"],
  ])
    await refuse(folder, [...command, "--model", familyPath("bert_cls")], "ArgumentError", "bert", '"causal-lm"');
});

test.run();
