/**
 * A small CNN learns MNIST's digits; then LoRA adapts it to digits that lie on their side, with every
 * weight of the CNN frozen. Prints what was right before and after, and writes runs/: result.json,
 * digits.svg and adapter/, a PEFT folder.
 *
 *   npm --prefix examples/mnist ci && npm --prefix examples/mnist start
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { SingleBar } from "cli-progress";
import { init, manualSeed, memoryStats, nn, noGrad, ops, optim, peft, scope, tensor } from "wasm-lora";
import { loadDigits, rotate, SIDE } from "./digits.mjs";
import { picture } from "./picture.mjs";

const SEED = 1;
const BATCH = 64;
const RANK = 4;
const PRETRAINING = { epochs: 3, lr: 2e-3 };
const ADAPTATION = { epochs: 4, lr: 4e-3 };

/** 1 x 28 x 28 -> 32 x 14 x 14 -> 64 x 7 x 7 -> 64 x 4 x 4 -> 10 scores. */
class Cnn extends nn.Module {
  constructor() {
    super();
    const half = { stride: 2, padding: 1 };
    this.conv1 = new nn.Conv2d(1, 32, 3, half);
    this.conv2 = new nn.Conv2d(32, 64, 3, half);
    this.conv3 = new nn.Conv2d(64, 64, 3, half);
    this.head = new nn.Linear(64 * 4 * 4, 10);
  }

  forward(x) {
    let h = ops.relu(this.conv1.forward(x));
    h = ops.relu(this.conv2.forward(h));
    h = ops.relu(this.conv3.forward(h));
    return this.head.forward(ops.reshape(h, [x.shape[0], 64 * 4 * 4]));
  }
}

/** Images `indices` of the data and their labels, as tensors. */
function batchOf({ images, labels }, indices) {
  const pixels = new Float32Array(indices.length * SIDE * SIDE);
  for (const [i, at] of indices.entries())
    pixels.set(images.subarray(at * SIDE * SIDE, (at + 1) * SIDE * SIDE), i * SIDE * SIDE);
  return [
    tensor(pixels, [indices.length, 1, SIDE, SIDE]),
    tensor(
      Int32Array.from(indices, (at) => labels[at]),
      [indices.length],
    ),
  ];
}

/** 0 .. count - 1 in random order: sorted by uniform keys from the seeded stream. */
function shuffled(count) {
  return scope(() => {
    const keys = nn.uniform_(tensor(new Float32Array(count))).data.slice();
    return Array.from({ length: count }, (_, i) => i).sort((a, b) => keys[a] - keys[b]);
  });
}

/** Trains these parameters on the CNN's loss; returns each step's. */
async function train(label, parameters, data, { epochs, lr }) {
  const optimizer = new optim.AdamW(parameters, { lr, weightDecay: 0 });
  const stepsPerEpoch = Math.floor(data.labels.length / BATCH);
  const total = epochs * stepsPerEpoch;
  const schedule = optim.cosineSchedule(total, 20);
  const losses = [];
  const bar = new SingleBar({
    format: `${label} {bar} {value}/{total} | loss {loss} | {eta_formatted} left`,
    barsize: 24,
    hideCursor: true,
    noTTYOutput: true,
    notTTYSchedule: 5000,
    formatTime: duration,
  });
  bar.start(total, 0, { loss: "-" });
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = shuffled(data.labels.length);
    for (let step = 0; step < stepsPerEpoch; step++) {
      for (const group of optimizer.paramGroups) group.lr = lr * schedule(losses.length);
      losses.push(
        scope(() => {
          const [x, targets] = batchOf(data, order.slice(step * BATCH, (step + 1) * BATCH));
          const loss = ops.crossEntropy(cnn.forward(x), targets);
          loss.backward();
          optimizer.step();
          optimizer.zeroGrad();
          return loss.item();
        }),
      );
      bar.update(losses.length, { loss: losses.at(-1).toFixed(4) });
      await setImmediate(); // lets the bar draw itself, in a log too
    }
  }
  bar.stop();
  optimizer.dispose();
  return losses;
}

/** The digit read in each image. */
function read(data) {
  const digits = [];
  for (let from = 0; from < data.labels.length; from += 200) {
    const indices = Array.from({ length: Math.min(200, data.labels.length - from) }, (_, i) => from + i);
    const scores = noGrad(() => scope(() => cnn.forward(batchOf(data, indices)[0]).data.slice()));
    for (let i = 0; i < indices.length; i++) {
      const row = scores.subarray(10 * i, 10 * i + 10);
      digits.push(row.indexOf(Math.max(...row)));
    }
  }
  return digits;
}

/** 59.6 -> "1 min 0 s": rounded before it is cut into minutes. */
function duration(seconds) {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

const share = (digits, labels) => digits.filter((d, i) => d === labels[i]).length / labels.length;
const percent = (x) => `${(100 * x).toFixed(1)} %`;

console.log("A CNN learns upright digits, then LoRA adapts it to digits on their side: about 20 seconds on one core.");
await init();
const started = performance.now();
const upright = loadDigits();
const sideways = { train: rotate(upright.train), heldOut: rotate(upright.heldOut) };
console.log(`${upright.train.labels.length} digits to train on, ${upright.heldOut.labels.length} held out`);

manualSeed(SEED);
const cnn = new Cnn();
const baseLosses = await train("pretraining", cnn.parameters(), upright.train, PRETRAINING);
const uprightBefore = read(upright.heldOut);
const sidewaysBefore = read(sideways.heldOut);

const adapted = peft.getLoraModel(cnn, { r: RANK, loraAlpha: 2 * RANK, targetModules: ["conv2", "conv3", "head"] });
const [trainable, all] = adapted.getNbTrainableParameters();
const frozen = all - trainable;
adapted.printTrainableParameters();
const loraLosses = await train("adaptation ", adapted.parameters(), sideways.train, ADAPTATION);
const sidewaysAfter = read(sideways.heldOut);
const uprightOff = adapted.disableAdapter(() => read(upright.heldOut));

const result = {
  seed: SEED,
  batch: BATCH,
  rank: RANK,
  pretraining: PRETRAINING,
  adaptation: ADAPTATION,
  frozenParameters: frozen,
  trainableParameters: trainable,
  accuracy: {
    upright: {
      before: share(uprightBefore, upright.heldOut.labels),
      adapterOff: share(uprightOff, upright.heldOut.labels),
    },
    sideways: {
      before: share(sidewaysBefore, sideways.heldOut.labels),
      after: share(sidewaysAfter, sideways.heldOut.labels),
    },
  },
  losses: { pretraining: baseLosses, adaptation: loraLosses },
};
const out = new URL("runs/", import.meta.url);
mkdirSync(out, { recursive: true });
writeFileSync(new URL("result.json", out), JSON.stringify(result, null, 2));
const samples = sidewaysBefore.slice(0, 20).map((before, i) => ({
  pixels: sideways.heldOut.images.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE),
  label: sideways.heldOut.labels[i],
  before,
  after: sidewaysAfter[i],
}));
const {
  upright: { adapterOff },
  sideways: { before, after },
} = result.accuracy;
writeFileSync(
  new URL("digits.svg", out),
  picture(
    `Digits on their side, held out: ${percent(before)} right before, ${percent(after)} after LoRA of rank ${RANK}`,
    samples,
    [
      { name: `pretraining, ${frozen} weights`, colour: "#1d4ed8", losses: baseLosses },
      { name: `adaptation, ${trainable} weights`, colour: "#ea580c", losses: loraLosses },
    ],
  ),
);
adapted.savePretrained(fileURLToPath(new URL("adapter", out)));

console.log(
  `
held-out digits read right          before      after
  on their side (adapted to)     ${percent(before).padStart(9)}  ${percent(after).padStart(9)}
  upright, adapter off           ${percent(result.accuracy.upright.before).padStart(9)}  ` +
    `${percent(adapterOff).padStart(9)}
trained ${trainable} numbers beside ${frozen} frozen ones; ${((performance.now() - started) / 1000).toFixed(0)} s, ` +
    `peak ${(memoryStats().peakBytes / 2 ** 20).toFixed(0)} MB
written to examples/mnist/runs: result.json, digits.svg, adapter (PEFT)`,
);
