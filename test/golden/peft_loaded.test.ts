/**
 * The factors of a loaded model's adapter are those of torch.manual_seed, AutoModelForCausalLM.from_pretrained and
 * get_peft_model (torch 2.11, transformers 5.17, PEFT 0.21), to the bit: loading draws nothing, there and here.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import { init, manualSeed, models, peft } from "../../src/index.js";
import { Sha256 } from "../../src/io/digest.js";
import { ROOT } from "../support/root.js";

await init();

/** SHA-256 of PEFT's tensors' bytes in the order of their names: r = 8, "all-linear", on the embedded base. */
const DIGESTS = {
  0: "ff44bcff02e67b05f00698dd3159fe8ec40d850a4fdbea8676bafa72d82f38d3",
  7: "27998b05c4ba1e9bcae5bee5b24e946c495419a9fdfc9b3c08d27460ddc22e4a",
};

for (const [seed, digest] of Object.entries(DIGESTS)) {
  test(`manualSeed(${seed}), loadModel, getLoraModel: PEFT's factors`, () => {
    manualSeed(Number(seed));
    const { model } = models.loadModel(fileURLToPath(new URL("models/base", ROOT)));
    const adapted = peft.getLoraModel(model, { r: 8, loraAlpha: 16, targetModules: "all-linear" });
    const factors = [...adapted.namedParameters()].filter(([key]) => key.includes("lora_"));
    const hash = new Sha256();
    const name = ([key]: readonly [string, unknown]): string => key.replace(/\.default\b/, "");
    for (const [, p] of factors.sort((a, b) => (name(a) < name(b) ? -1 : 1))) hash.update(p.data);
    assert.equal(factors.length, 56);
    assert.equal(hash.digest(), digest);
    adapted.dispose();
  });
}

test.run();
