/**
 * One SHA-256 a stage over the bits of everything it computes: the same in every runtime. Bundled like the tests
 * (bundle.mjs), so the URLs below start in dist/matrix/<target>/.
 */
import { readFileSync } from "node:fs";
import {
  init,
  io,
  lora,
  manualSeed,
  models,
  nn,
  noGrad,
  ops,
  optim,
  peft,
  scope,
  tensor,
  zeros,
} from "../../dist/src/index.js";
import { familyCases, loadFamilyCase } from "../../dist/test/support/families.js";
import { askFused } from "../../dist/test/support/fused_engine.js";
import { COUNTS, dividedWork } from "../../dist/test/support/threads.js";
import { FUSED, THREADS, THREADS_FUSED } from "./report.mjs";

const STEPS = 50;

const values = (module) => [...module.namedParameters()].map(([, p]) => p.data.slice());
const gradients = (module) => [...module.namedParameters()].flatMap(([, p]) => (p.grad ? [p.grad.data.slice()] : []));
const normal = (shape, std = 1) => nn.normal_(zeros(shape), 0, std);
const ids = (count, vocabulary, shape = [count]) =>
  tensor(
    Int32Array.from({ length: count }, (_, i) => (i * 37 + 11) % vocabulary),
    shape,
  );

/** Every layer, plain and with LoRA; B is drawn too, so that it takes part in what follows. */
function layers() {
  const made = [
    [new nn.Linear(33, 17), [5, 33]],
    [new nn.LayerNorm(33), [5, 33]],
    [new nn.RMSNorm(33), [5, 33]],
    [new nn.Conv1d(6, 9, 3, { padding: 1, groups: 3 }), [2, 6, 19]],
    [new nn.Conv2d(4, 10, [3, 5], { stride: 2, padding: [1, 2] }), [2, 4, 13, 11]],
    [new nn.Conv3d(2, 5, 2, { dilation: 2 }), [2, 2, 5, 6, 7]],
    [new lora.Linear(33, 17, { r: 3, loraAlpha: 6 }), [5, 33]],
    [new lora.Linear(64, 96, { r: 8, loraAlpha: 16, fanInFanOut: true }), [40, 64]],
    [new lora.MergedLinear(33, 36, { r: 2, enableLora: [true, false, true] }), [5, 33]],
    [new lora.Conv1d(6, 9, 3, { r: 2 }), [2, 6, 19]],
    [new lora.Conv2d(4, 10, 3, { r: 2, padding: 1 }), [2, 4, 13, 11]],
    [new lora.Conv3d(2, 5, 2, { r: 1 }), [2, 2, 5, 6, 7]],
    [new nn.Embedding(23, 18), null],
    [new lora.Embedding(23, 18, { r: 4 }), null],
  ];
  for (const [layer] of made)
    for (const [key, p] of layer.namedParameters()) if (key.endsWith("lora_B")) nn.normal_(p, 0, 0.1);
  return made.map(([layer, shape]) => ({ layer, shape }));
}

const input = (shape) => {
  if (shape === null) return ids(12, 23, [3, 4]);
  const x = normal(shape);
  x.requiresGrad = true;
  return x;
};

/** A seeded loss: the output times drawn numbers, summed. */
const loss = (y) => ops.sum(ops.mul(y, normal(y.shape)));

const counted = (batch, steps) =>
  tensor(
    Int32Array.from({ length: batch * steps }, (_, i) => i % steps),
    [batch, steps],
  );
const causalAttention = (q, k, v) => {
  const [batch, queries] = q.shape;
  return ops.attention(q, k, v, { ranges: ops.attentionRanges({ batch, queries }) });
};

/** The ops that no layer above holds, as functions of drawn tensors. */
const OPS = [
  [ops.relu, [3, 37]],
  [ops.gelu, [3, 37]],
  [ops.geluTanh, [3, 37]],
  [ops.silu, [3, 37]],
  [ops.softmax, [3, 37]],
  [(x) => ops.scale(x, 0.3), [3, 37]],
  [(x) => ops.narrow(x, 1, 5, 21), [3, 37]],
  [ops.siluMul, [3, 37], [3, 37]],
  [ops.mul, [3, 37], [3, 37]],
  [ops.add, [3, 37], [3, 37]],
  [(x) => ops.rope(x, ops.ropeTable(9, ops.ropeFrequencies(8, 10000)), counted(2, 9)), [2, 9, 3, 8]],
  [causalAttention, [2, 35, 4, 8], [2, 35, 2, 8], [2, 35, 2, 8]],
  [(x) => ops.crossEntropy(x, ids(7, 29)), [7, 29]],
  [ops.mseLoss, [7, 29], [7, 29]],
];

function* initStage() {
  manualSeed(1);
  for (const { layer } of layers()) yield* values(layer);
  for (const draw of [nn.uniform_, nn.normal_, nn.kaimingUniform_])
    for (const n of [1, 15, 16, 1000]) yield draw(zeros([n, 3])).data;
}

function* forwardStage() {
  manualSeed(2);
  for (const { layer, shape } of layers()) {
    const x = input(shape);
    yield layer.forward(x).data;
    layer.eval(); // LoRA layers merge
    yield layer.forward(x).data;
    yield* values(layer);
  }
  for (const [op, ...shapes] of OPS) yield op(...shapes.map((shape) => normal(shape))).data;
}

function* backwardStage() {
  manualSeed(3);
  for (const { layer, shape } of layers()) {
    const x = input(shape);
    loss(layer.forward(x)).backward();
    if (x.grad) yield x.grad.data;
    yield* gradients(layer);
  }
  for (const [op, ...shapes] of OPS) {
    const xs = shapes.map(input);
    const y = op(...xs);
    (y.rank === 0 || y.size === 1 ? y : loss(y)).backward();
    for (const x of xs) if (x.grad) yield x.grad.data;
  }
}

class TwoLayers extends nn.Module {
  fc1 = new lora.Linear(24, 40, { r: 4, loraAlpha: 8, loraDropout: 0.1 });
  fc2 = new lora.Linear(40, 10, { r: 4, loraAlpha: 8 });
  forward(x) {
    return this.fc2.forward(ops.gelu(this.fc1.forward(x)));
  }
}

const OPTIMIZERS = [
  (_, params) => new optim.SGD(params, { lr: 0.02, momentum: 0.9, nesterov: true, weightDecay: 0.01 }),
  (_, params) => new optim.Adam(params, { lr: 0.01 }),
  (_, params) => new optim.AdamW(params, { lr: 0.01, betas: [0.9, 0.95], weightDecay: 0.1 }),
  (model) => new optim.AdamW(optim.loraPlusGroups(model, { lr: 0.01, loraplusLrRatio: 16 })),
  (model) => new optim.LoraFA(model, { lr: 0.01, scaling: 2 }),
];

function* optimizerStage() {
  for (const make of OPTIMIZERS) {
    manualSeed(4);
    const model = new TwoLayers();
    const x = normal([32, 24]);
    const target = ids(32, 10);
    lora.markOnlyLoraAsTrainable(model);
    const optimizer = make(
      model,
      model.parameters().filter((p) => p.requiresGrad),
    );
    const schedule = optim.cosineSchedule(STEPS, 5);
    const rates = optimizer.paramGroups.map((group) => group.lr);
    for (let step = 0; step < STEPS; step++) {
      yield scope(() => {
        const error = ops.crossEntropy(model.forward(x), target);
        error.backward();
        const norm = optim.clipGradNorm_(model.parameters(), 1);
        optimizer.paramGroups.forEach((group, i) => {
          group.lr = rates[i] * schedule(step);
        });
        optimizer.step();
        optimizer.zeroGrad();
        return Float64Array.of(error.item(), norm);
      });
    }
    yield* values(model);
  }
}

function* dropoutStage() {
  for (const seed of [0, 7, 2 ** 53 - 1]) {
    manualSeed(seed);
    for (const p of [0.05, 0.5, 0.9]) {
      const x = normal([31, 33]);
      x.requiresGrad = true;
      const y = ops.dropout(x, p);
      yield y.data.slice();
      loss(y).backward();
      yield x.grad.data;
    }
  }
}

class Zoo extends nn.Module {
  tokens = new nn.Embedding(23, 16);
  linear = new nn.Linear(16, 12);
  conv = new nn.Conv2d(4, 6, 3, { padding: 1 });
}

const INITS = [true, false, "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora"];

/** PEFT's inits, DoRA, mixed adapters and merging. */
function* adapterStage() {
  manualSeed(5);
  for (const initLoraWeights of INITS) {
    const model = new Zoo();
    const adapted = peft.getLoraModel(model, { r: 4, targetModules: ["linear"], initLoraWeights });
    yield* values(adapted);
    yield model.linear.forward(normal([3, 16])).data;
  }
  const model = new Zoo();
  const adapted = peft.getLoraModel(model, {
    r: 4,
    targetModules: ["linear", "conv", "tokens"],
    useDora: true,
    initLoraWeights: false,
  });
  yield* values(adapted);
  const outputs = () => [
    model.tokens.forward(ids(6, 23)),
    model.linear.forward(normal([3, 16])),
    model.conv.forward(normal([2, 4, 5, 5])),
  ];
  for (const y of outputs()) loss(y).backward();
  yield* gradients(adapted);
  adapted.mergeAdapter();
  yield* outputs().map((y) => y.data);
  adapted.unmergeAdapter();
  for (const combinationType of ["linear", "cat", "svd"]) {
    const zoo = new Zoo();
    const several = peft.getLoraModel(zoo, { r: 3, targetModules: ["linear"], initLoraWeights: false }, "a");
    several.addAdapter("b", { r: 3, targetModules: ["linear"], initLoraWeights: false });
    several.addWeightedAdapter(["a", "b"], [0.7, 0.4], "mixed", { combinationType });
    yield* values(several);
  }
}

/** The base from memory, steps with dropout on all its linear layers, tokens drawn from it, the adapter's files. */
function* llamaStage(steps = 10) {
  for (const file of ["config.json", "model.safetensors"]) {
    io.memoryFiles.set(
      `memory:base/${file}`,
      new Uint8Array(readFileSync(new URL(`../../../models/base/${file}`, import.meta.url))),
    );
  }
  manualSeed(6);
  const { model, config } = models.loadModel("memory:base");
  const adapted = peft.getLoraModel(model, { r: 8, loraAlpha: 16, loraDropout: 0.05, targetModules: "all-linear" });
  const optimizer = new optim.AdamW(
    adapted.parameters().filter((p) => p.requiresGrad),
    { lr: 5e-3 },
  );
  for (let step = 0; step < steps; step++) {
    yield scope(() => {
      const error = model.loss(ids(4 * 48, config.vocabSize, [4, 48]), ids(4 * 48, config.vocabSize - 1, [4, 48]));
      error.backward();
      const norm = optim.clipGradNorm_(adapted.parameters(), 1);
      optimizer.step();
      optimizer.zeroGrad();
      return Float64Array.of(error.item(), norm);
    });
  }
  adapted.eval();
  yield noGrad(() => scope(() => model.forward(ids(20, config.vocabSize, [1, 20])).data.slice()));
  yield Int32Array.from(models.generate(model, [1, 2, 3], { maxNewTokens: 30, seed: 9 }));
  adapted.savePretrained("memory:adapter");
  yield io.memoryFiles.get("memory:adapter/adapter_config.json");
  // As PEFT writes them: without the digests, which say the same again.
  const { tensors } = io.parseSafetensors(io.memoryFiles.get("memory:adapter/adapter_model.safetensors"));
  yield io.serializeSafetensors(
    [...tensors.values()].map((t) => ({ name: t.name, dtype: t.dtype, shape: t.shape, data: t.bytes })),
    { format: "pt" },
  );
}

/** Every reference case of a family: its logits, a batch's texts, and an adapter's losses and gradients in training. */
function* familiesStage() {
  for (const name of familyCases()) {
    const { path, model, logits, loss } = loadFamilyCase(name);
    yield noGrad(() => scope(() => logits().data.slice()));
    if ("newCache" in model) {
      const options = { maxNewTokens: 12, topK: 30, topP: 0.95, minP: 0.01, repetitionPenalty: 1.1 };
      const texts = models.generateBatch(model, [[3, 1, 17], [7], [9, 2, 30, 11, 5]], options);
      yield Int32Array.from([...texts].flatMap(({ row, token }) => [row, token]));
    }
    const adapted = peft.LoraModel.fromPretrained(model, `${path}/adapter`, { isTrainable: true });
    const optimizer = new optim.AdamW(
      adapted.parameters().filter((p) => p.requiresGrad),
      { lr: 2e-3 },
    );
    for (let step = 0; step < 3; step++) {
      yield scope(() => {
        const error = loss();
        error.backward();
        return Float64Array.of(error.item());
      });
      yield* gradients(adapted);
      optimizer.step();
      optimizer.zeroGrad();
    }
    optimizer.dispose();
    adapted.dispose();
  }
}

export const STAGES = {
  init: initStage,
  forward: forwardStage,
  backward: backwardStage,
  [`${STEPS} optimiser steps`]: optimizerStage,
  dropout: dropoutStage,
  adapters: adapterStage,
  Llama: llamaStage,
  families: familiesStage,
};

/** All of these that hold a product, on an engine that fuses. */
function* fusedStage() {
  for (const stage of [forwardStage, backwardStage, optimizerStage, adapterStage, llamaStage, familiesStage])
    yield* stage();
}

/** What is large enough to be divided among threads. */
function* threadsStage() {
  yield* dividedWork();
  yield* llamaStage(2);
}

/**
 * The digest that one thread and several have alike, and why there were no several, if so.
 * @param ask gives an engine of so many threads
 */
async function digestOfThreads(ask) {
  const { warn } = console;
  let refused;
  console.warn = (text) => {
    refused = text;
  };
  try {
    const digests = new Map();
    for (const threads of [1, ...COUNTS]) {
      const engine = await ask(threads);
      if (engine.threads !== threads) refused ??= `${engine.threads} threads instead of ${threads}`;
      digests.set(await digestOf(threadsStage), threads);
      engine.close();
      if (refused) break;
    }
    if (digests.size > 1) throw new Error(`${[...digests.values()].join(" and ")} threads have not the same bits`);
    return { digest: [...digests.keys()][0], refused };
  } finally {
    console.warn = warn;
  }
}

/** A stage's numbers as one run of bytes, each array after its length; NaN, whose bits are open, must not occur. */
function bytesOf(stage) {
  const parts = [];
  let size = 0;
  scope(() => {
    for (const view of stage()) {
      const data = view.slice();
      if (data.length === 0 || data.some(Number.isNaN)) throw new Error("a stage gave nothing or NaN");
      for (const part of [Uint32Array.of(data.length), data]) {
        parts.push(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
        size += part.byteLength;
      }
    }
  });
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

async function digestOf(stage) {
  const hash = await crypto.subtle.digest("SHA-256", bytesOf(stage));
  return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A digest of each stage, and why there is none of what the runtime refuses. */
export async function digest() {
  const engine = await init();
  const digests = {};
  const refused = {};
  for (const [name, stage] of Object.entries(STAGES)) digests[name] = await digestOf(stage);
  engine.close();
  const add = (stage, { digest, refused: why }) => {
    digests[stage] = digest;
    if (why) refused[stage] = why;
  };
  add(THREADS, await digestOfThreads((threads) => init({ threads })));
  try {
    const fused = await askFused();
    digests[FUSED] = await digestOf(fusedStage);
    fused.close();
    add(THREADS_FUSED, await digestOfThreads(askFused));
  } catch (error) {
    if (error.name !== "EngineError") throw error;
    refused[FUSED] = refused[THREADS_FUSED] = error.message;
  }
  return { digests, refused };
}
