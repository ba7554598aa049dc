/**
 * Pretrains the embedded base model with this library: a Llama of 0.9 M weights, all of them trained
 * (r = 0), on State of the Union addresses. Writes model.safetensors (bf16), training.json and loss.svg
 * beside it. About forty minutes on one core.
 *
 *   npm ci && npm run build && npm --prefix models/base ci && node models/base/pretrain.mjs
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Tokenizer } from "@huggingface/tokenizers";
import { init, io, manualSeed, memoryStats, models, noGrad, optim, scope, tensor } from "../../dist/src/index.js";
import { lossCurveSvg } from "../../dist/src/cli/plot.js";
import { writeAtomic } from "../../dist/src/io/files.js";
import { parseLlamaConfig } from "../../dist/src/models/llama.js";
import { loadCorpus } from "./corpus.mjs";

const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "2400" },
    batch: { type: "string", default: "8" },
    seq: { type: "string", default: "256" },
    lr: { type: "string", default: "3e-3" },
    seed: { type: "string", default: "1234" },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(
    "node models/base/pretrain.mjs [--steps 2400] [--batch 8] [--seq 256] [--lr 3e-3] [--seed 1234] [--out " +
      "models/base]",
  );
  process.exit(0);
}
const [steps, batch, seq, lr, seed] = [flags.steps, flags.batch, flags.seq, flags.lr, flags.seed].map(Number);
const here = new URL(".", import.meta.url);
const out = flags.out ?? here.pathname.replace(/\/$/, "");
const readJson = (name) => JSON.parse(readFileSync(new URL(name, here), "utf8"));

await init();
manualSeed(seed);
const config = parseLlamaConfig(readJson("config.json"), "config.json");
const tokenizer = new Tokenizer(readJson("tokenizer.json"), readJson("tokenizer_config.json"));
const corpus = loadCorpus();
console.log("Encoding the addresses (half a minute) ...");
/** Each address starts with <|endoftext|>, the model's begin-of-text, which the tokenizer puts there. */
const encode = (addresses) => Int32Array.from(addresses.flatMap((a) => tokenizer.encode(a).ids));
const train = encode(corpus.train);
const heldOut = encode(corpus.heldOut);

const model = new models.Llama(config);
const count = model.parameters().reduce((n, p) => n + p.size, 0);
console.log(
  `${count} weights; ${train.length} tokens to train on, ${heldOut.length} held out; ${steps} steps of ${batch} ` +
    `x ${seq}`,
);
const named = [...model.namedParameters()].map(([, p]) => p);
const optimizer = new optim.AdamW(
  [
    { params: named.filter((p) => p.rank === 2), weightDecay: 0.1 },
    { params: named.filter((p) => p.rank === 1), weightDecay: 0 },
  ],
  { lr, betas: [0.9, 0.95] },
);
const schedule = optim.cosineSchedule(steps, Math.min(100, steps), 0.05);

/** xorshift32: where each window starts. */
let state = 12345;
function random() {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return state >>> 0;
}

function nextBatch() {
  const ids = new Int32Array(batch * seq);
  const targets = new Int32Array(batch * seq);
  for (let b = 0; b < batch; b++) {
    const start = random() % (train.length - seq - 1);
    ids.set(train.subarray(start, start + seq), b * seq);
    targets.set(train.subarray(start + 1, start + seq + 1), b * seq);
  }
  return [tensor(ids, [batch, seq]), tensor(targets, [batch, seq])];
}

/** Mean loss over consecutive windows of the held-out addresses. */
function heldOutLoss(model, windows = Infinity) {
  let total = 0;
  let n = 0;
  for (let at = 0; at + seq < heldOut.length && n < windows; at += seq, n++) {
    total += noGrad(() =>
      scope(() =>
        model
          .loss(tensor(heldOut.slice(at, at + seq), [1, seq]), tensor(heldOut.slice(at + 1, at + seq + 1), [1, seq]))
          .item(),
      ),
    );
  }
  return total / n;
}

function save() {
  const tensors = [...model.stateDict()].map(([name, { shape, data }]) => ({ name, dtype: "BF16", shape, data }));
  writeAtomic(`${out}/model.safetensors`, io.serializeSafetensors(tensors, { format: "pt" }));
}

const losses = [];
const before = heldOutLoss(model, 60);
const start = Date.now();
for (let step = 0; step < steps; step++) {
  for (const group of optimizer.paramGroups) group.lr = lr * schedule(step);
  losses.push(
    scope(() => {
      const loss = model.loss(...nextBatch());
      loss.backward();
      optim.clipGradNorm_(named, 1);
      optimizer.step();
      optimizer.zeroGrad();
      return loss.item();
    }),
  );
  if (step % 20 === 0 || step === steps - 1) {
    const seconds = (Date.now() - start) / 1000;
    const done = step + 1;
    console.log(
      `step ${done}/${steps}  loss ${losses[step].toFixed(4)}  ${Math.round((done * batch * seq) / seconds)} ` +
        `tokens/s  ` +
        `${Math.round(((steps - done) * seconds) / done / 60)} min left  ${memoryStats().peakBytes >> 20} MB`,
    );
  }
  if ((step + 1) % 200 === 0 && step + 1 < steps) {
    console.log(`  held-out loss ${heldOutLoss(model, 60).toFixed(4)}`);
    save();
  }
}
save();
model.dispose();
optimizer.dispose();
// What users load is the file, rounded to bf16: that is what is measured.
const rounded = new models.Llama(config);
rounded.loadStateDict(io.loadWeights(out));
const after = heldOutLoss(rounded);
console.log(
  `held-out loss of ${out}/model.safetensors: ${after.toFixed(4)} nats a token, all ${heldOut.length} tokens`,
);
writeAtomic(
  `${out}/training.json`,
  `${JSON.stringify({
    steps,
    batch,
    seq,
    lr,
    seed,
    weights: count,
    trainTokens: train.length,
    heldOutTokens: heldOut.length,
    heldOutLoss: after,
    seconds: Math.round((Date.now() - start) / 1000),
    losses: losses.map((l) => +l.toFixed(4)),
  })}\n`,
);
writeAtomic(
  `${out}/loss.svg`,
  lossCurveSvg(losses, { title: "Pretraining the base model", heldOutBefore: before, heldOutAfter: after }),
);
