/** Teaches a small language model a text: train, save, load, merge, write. Runs in Node, Deno and Bun alike. */
import { fileURLToPath } from "node:url";
import { init, models, noGrad, peft, scope, tensor, train } from "wasm-lora";

const TEXT =
  "To bake a loaf of bread, stir the yeast into warm water and wait until it foams. Knead the dough for ten " +
  "minutes, until it is smooth and springs back from your thumb. Cover the bowl with a cloth, and let the dough " +
  "rise in a warm place for an hour. Shape it into a loaf, and let it rise again while the oven grows hot. Bake " +
  "the loaf for forty minutes. It is done when it sounds hollow as you knock on its crust. Let the bread cool " +
  "before you cut it.";
const PROMPT = "Knead the dough";
const SEQ = 32;
const out = fileURLToPath(new URL("runs/adapter", import.meta.url));

await init();

// Text in, text out: a model that has read State of the Union addresses only.
const { model, tokenizer, eosTokenIds } = await models.loadBase();
const greedy = { maxNewTokens: 30, temperature: 0, stopToken: eosTokenIds };
const write = (llama) => PROMPT + tokenizer.decode(models.generate(llama, tokenizer.encode(PROMPT), greedy));
console.log(`before: ${write(model)}`);

// Train: factors of rank 8 on all linear layers, on random windows of the text.
const tokens = tokenizer.encode(TEXT);
const run = new train.Finetuning(model, tokens, { steps: 60, batch: 4, seq: SEQ, testSize: 0 });
const { adapted } = run;
adapted.printTrainableParameters();
while (!run.isComplete) {
  const loss = run.step();
  const step = run.losses.length;
  if (step % 20 === 1 || run.isComplete) console.log(`step ${step}: loss ${loss.toFixed(4)}`);
}
console.log(`after: ${write(adapted)}`);

// Save: a folder that PEFT's PeftModel.from_pretrained reads.
adapted.savePretrained(out);

// Load into a fresh model, then merge: a plain Llama that has learned the text.
const logits = (llama) =>
  noGrad(() => scope(() => llama.forward(tensor(Int32Array.from(tokens.slice(0, SEQ)), [1, SEQ])).data.slice()));
const loaded = peft.LoraModel.fromPretrained((await models.loadBase()).model, out);
const expected = logits(adapted);
console.log(`loaded: the same bits as the trained one: ${logits(loaded).every((x, i) => x === expected[i])}`);
const merged = loaded.mergeAndUnload();
console.log(`merged: ${write(merged)}`);
