/** Trains a LoRA adapter, saves it, loads it into a fresh model and merges it. Runs in Node, Deno and Bun alike. */
import { fileURLToPath } from "node:url";
import { init, manualSeed, models, noGrad, optim, peft, scope, tensor } from "wasm-lora";

const base = fileURLToPath(new URL(".", import.meta.resolve("wasm-lora/models/base/config.json")));
const out = fileURLToPath(new URL("runs/adapter", import.meta.url));
const STEPS = 30;

await init();
manualSeed(0);

// Train: all linear layers of the embedded Llama, on one sequence of token ids.
const { model } = models.loadLlama(base);
const adapted = peft.getLoraModel(model, { r: 4, loraAlpha: 8, targetModules: "all-linear" });
adapted.printTrainableParameters();
const ids = Int32Array.from({ length: 33 }, (_, i) => (i * i) % 251 + 1);
const batch = () => [tensor(ids.subarray(0, 32), [1, 32]), tensor(ids.subarray(1), [1, 32])];
const optimizer = new optim.AdamW(adapted.parameters().filter((p) => p.requiresGrad), { lr: 1e-2 });
for (let step = 1; step <= STEPS; step++) {
  scope(() => { // frees everything made inside
    const loss = model.loss(...batch());
    loss.backward();
    optimizer.step();
    optimizer.zeroGrad();
    if (step % 10 === 0 || step === 1) console.log(`step ${step}: loss ${loss.item().toFixed(4)}`);
  });
}

// Save: a folder that PEFT's PeftModel.from_pretrained reads.
adapted.savePretrained(out);

// Load into a fresh model, then merge: a plain Llama that has learned the sequence.
const logits = (llama) => noGrad(() => scope(() => llama.forward(tensor(ids.subarray(0, 32), [1, 32])).data.slice()));
const trained = logits(model);
const loaded = peft.LoraModel.fromPretrained(models.loadLlama(base).model, out);
console.log(`loaded: the same bits as the trained one: ${logits(loaded.model).every((x, i) => x === trained[i])}`);
const merged = loaded.mergeAndUnload();
console.log(`merged: loss ${noGrad(() => scope(() => merged.loss(...batch()).item())).toFixed(4)}, ${merged.parameters().length} plain weights`);
