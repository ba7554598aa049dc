/** The memory plan against runs of what it plans, each on an engine of its own. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  type data,
  init,
  lora,
  manualSeed,
  memoryStats,
  models,
  nn,
  noGrad,
  optim,
  peft,
  scope,
  ShapeError,
  StateError,
  tensor,
  train,
  WasmLoraError,
  zeros,
} from "../../../src/index.js";
import { createModel } from "../../../src/models/families.js";
import { newMask } from "../../../src/random/seed.js";
import { GradientSum } from "../../../src/train/shards.js";
import { assertBits } from "../../support/golden.js";
import { GPT2, LLAMA } from "../../support/language_models.js";
import { withMergedLinear } from "../../support/loralib.js";
import { layersOf } from "../../support/peft.js";
import { says } from "../../support/refuses.js";

type Optimizer = NonNullable<train.TrainingPlanOptions["optimizer"]>;
interface Case extends train.TrainingPlanOptions {
  model: models.ModelConfig | (() => models.CausalLM);
}

const BIG_LLAMA = {
  ...LLAMA,
  vocabSize: 300,
  hiddenSize: 64,
  headDim: 16,
  intermediateSize: 100,
  numHiddenLayers: 3,
  maxPositionEmbeddings: 64,
};
const BIG_GPT2 = {
  ...GPT2,
  vocabSize: 300,
  hiddenSize: 64,
  intermediateSize: 256,
  numHiddenLayers: 3,
  maxPositionEmbeddings: 64,
};
const trainable = (m: nn.Module): nn.Parameter[] => m.parameters().filter((p) => p.requiresGrad);
const sgd: Optimizer = (m) => new optim.SGD(trainable(m), { lr: 0.1 });
const momentum: Optimizer = (m) => new optim.SGD(trainable(m), { lr: 0.1, momentum: 0.9 });
const loraPlus: Optimizer = (m) =>
  new optim.AdamW(optim.loraPlusGroups(m, { lr: 0.01, loraplusLrRatio: 4 }).filter(({ params }) => params.length > 0));
const loraFa: Optimizer = (m) => new optim.LoraFA(m, { scaling: 2, lr: 1e-3 });
const loralib = (): models.CausalLM => {
  const model = withMergedLinear(new models.Gpt2(BIG_GPT2), { r: 4, loraAlpha: 8, loraDropout: 0.1 });
  lora.markOnlyLoraAsTrainable(model);
  return model;
};

const cases: Record<string, Case> = {};
for (const [name, model, few] of [
  ["Llama", BIG_LLAMA, ["q_proj", "v_proj"]],
  ["GPT-2", BIG_GPT2, ["c_attn"]],
] as const) {
  for (const gradientCheckpointing of [false, true]) {
    const add = (what: string, options: Partial<Case>): void => {
      cases[`${name}${gradientCheckpointing ? " with checkpoints" : ""}: ${what}`] = {
        model,
        batch: 3,
        seq: 20,
        gradientCheckpointing,
        ...options,
      };
    };
    const all = { r: 4, targetModules: "all-linear" } as const;
    add("all linear layers", { adapter: all });
    add("few targets", { adapter: { r: 8, targetModules: [...few] } });
    add("dropout", { adapter: { ...all, loraDropout: 0.1 } });
    add("few targets, dropout", { adapter: { r: 2, targetModules: [...few], loraDropout: 0.3 } });
    add("DoRA", { adapter: { ...all, useDora: true } });
    add("DoRA, dropout", { adapter: { r: 2, targetModules: [...few], useDora: true, loraDropout: 0.1 } });
    add("olora", { adapter: { ...all, initLoraWeights: "olora" } });
    add("biases", { adapter: { ...all, bias: "all" } });
    add("a trained copy of the head", {
      adapter: { ...all, modulesToSave: [name === "Llama" ? "embed_tokens" : "wte"] },
    });
    const every = Array.from({ length: 300 }, (_, i) => i);
    add("biases of factors", { adapter: { ...all, bias: "none", loraBias: true, initLoraWeights: false } });
    add("tokens of table and head, all that there are", { adapter: { ...all, trainableTokenIndices: every } });
    add("half, tokens of an untied table", {
      model: { ...model, dtype: "bfloat16", tieWordEmbeddings: false },
      adapter: { ...all, trainableTokenIndices: every },
    });
    if (name === "Llama")
      add("replicated layers", {
        adapter: {
          ...all,
          layerReplication: [
            [0, 2],
            [0, 2],
          ],
        },
      });
    add("an untied head", { model: { ...model, tieWordEmbeddings: false }, adapter: all });
    add("LoRA on an untied head", {
      model: { ...model, tieWordEmbeddings: false },
      adapter: { r: 4, targetModules: ["lm_head"] },
    });
    add("full fine-tuning", {});
    add("one long sequence, more rows than a chunk", { batch: 1, seq: 64, adapter: all });
    add("more rows than a chunk", { batch: 8, seq: 40, adapter: all });
    add("one token", { batch: 1, seq: 1, adapter: all });
    add("SGD", { adapter: all, optimizer: sgd });
    add("SGD with momentum", { adapter: all, optimizer: momentum });
    add("LoRA+", { adapter: all, optimizer: loraPlus });
    add("LoRA-FA", { adapter: all, optimizer: loraFa });
    add("two shards a step", { adapter: all, accumulation: 2 });
    add("five shards a step, dropout", { adapter: { ...all, loraDropout: 0.1 }, accumulation: 5 });
    if (name === "GPT-2") add("loralib's layers", { model: loralib });
    const half = { ...model, dtype: gradientCheckpointing ? ("float16" as const) : ("bfloat16" as const) };
    add("half", { model: half, adapter: all });
    add("half, few targets, dropout", {
      model: half,
      adapter: { r: 2, targetModules: [...few], loraDropout: 0.3 },
    });
    add("half, DoRA", { model: half, adapter: { ...all, useDora: true } });
    for (const initLoraWeights of ["olora", "pissa"] as const)
      add(`half, ${initLoraWeights}`, { model: half, adapter: { ...all, initLoraWeights } });
    add("half, a trained copy of the head", {
      model: half,
      adapter: { ...all, modulesToSave: [name === "Llama" ? "embed_tokens" : "wte"] },
    });
    add("half, an untied head", { model: { ...half, tieWordEmbeddings: false }, adapter: all });
    add("half, full fine-tuning", { model: half });
    add("half, full fine-tuning by SGD", { model: half, optimizer: sgd });
  }
}

/** What the plan stands for, with three steps. */
async function actual(options: Case): Promise<number> {
  const { model: source, batch, seq, accumulation = 1, adapter, optimizer, gradientCheckpointing } = options;
  (await init()).close();
  await init();
  const model = typeof source === "function" ? source() : createModel("actual", source);
  model.gradientCheckpointing = gradientCheckpointing!;
  // Of either kind, and of no special values.
  for (const p of model.parameters())
    if (p.dtype !== "float32") p.bytes.set(p.bytes.map((_, i) => (i % 2 === 0 ? (i * 37) & 0xff : 0x2c + (i & 0x80))));
  const trained = adapter ? peft.getLoraModel(model, adapter) : model;
  const updates = optimizer?.(trained) ?? new optim.AdamW(trainable(trained), { lr: 1e-3 });
  for (let step = 0; step < 3; step++) {
    const sum = new GradientSum();
    for (let shard = 0; shard < accumulation; shard++) {
      scope(() => {
        const ids = Int32Array.from({ length: batch * seq }, (_, i) => (i * 31 + step) % 300);
        model.loss(tensor(ids, [batch, seq]), tensor(ids, [batch, seq])).backward();
      });
      sum.take(trained.parameters());
    }
    sum.give();
    optim.clipGradNorm_(trained.parameters(), 1);
    updates.step();
    updates.zeroGrad();
  }
  return memoryStats().peakBytes;
}

assert(Object.keys(cases).length >= 20);
for (const [name, { model, ...options }] of Object.entries(cases)) {
  test(name, async () => {
    const peak = await actual({ model, ...options });
    const plan = train.planTraining(model, options);
    assert.equal(plan.peak, peak);
    for (const [part, bytes] of Object.entries(plan))
      assert(Number.isSafeInteger(bytes) && bytes >= 0 && bytes <= plan.peak, part);
    assert(plan.weights + plan.adapters + plan.optimiser + plan.scratch + plan.activations <= plan.peak);
    assert(plan.gradients > 0);
  });
}

/** Rows of these lengths, of which some or all tokens are scored. */
const rowsOf = (lengths: readonly number[], first = (i: number): number => (i % 3 === 0 ? 1 : 2)): data.TrainingRow[] =>
  lengths.map((length, i) => {
    const ids = Int32Array.from({ length }, (_, j) => (j * 31 + i) % 60);
    return { ids, labels: ids.map((id, j) => (j < first(i) ? -100 : id)), where: `row ${i}` };
  });
const LENGTHS = [20, 3, 60, 17, 30, 44, 9, 12, 61, 25, 7];
const rowCases: Record<string, [lengths: readonly number[], settings: object, model?: object]> = {
  packed: [LENGTHS, {}],
  "packed, all scored": [LENGTHS, { all: true }],
  padded: [LENGTHS, { packing: false }],
  "padded, by length": [LENGTHS, { packing: false, groupByLength: true }],
  "one at a time": [LENGTHS, { batch: 1 }],
  "three shards": [LENGTHS, { accumulation: 3, batch: 1 }],
  "three shards of two, padded": [LENGTHS, { accumulation: 3, packing: false, groupByLength: true }],
  "one epoch, the longest first": [LENGTHS, { epochs: 1, groupByLength: true, packing: false, batch: 1 }],
  "one step": [LENGTHS, { steps: 1, batch: 1 }],
  "one row": [[20], {}],
  "dropout and LoRA+": [LENGTHS, { loraplusLrRatio: 4, adapter: { r: 4, loraDropout: 0.1 } }],
  DoRA: [LENGTHS, { adapter: { r: 4, useDora: true }, accumulation: 2 }],
  "longer than the first table of angles": [
    [2100, 30, 4200, 2300],
    { batch: 1, epochs: 1, evalEvery: 0 },
    { maxPositionEmbeddings: 6000, numHiddenLayers: 1 },
  ],
};

for (const [base, config] of [
  ["Llama", BIG_LLAMA],
  ["GPT-2", BIG_GPT2],
] as const)
  for (const [name, [lengths, { all = false, ...given }, change]] of Object.entries(rowCases) as any)
    test(`rows, ${base}: ${name}`, async () => {
      const model = { ...config, ...change };
      const rows = {
        train: rowsOf(lengths, all ? () => 1 : undefined),
        test: lengths.length === 1 ? [] : rowsOf(base === "Llama" ? [40, 5, 6] : [lengths[1], 63, 8]),
      };
      const settings = { adapter: { r: 4 }, batch: 2, evalEvery: lengths.length === 1 ? 0 : 3, ...given };
      for (const gradientCheckpointing of change ? [false] : [false, true]) {
        (await init()).close();
        await init();
        const make = (): models.CausalLM => (base === "Llama" ? new models.Llama(model) : new models.Gpt2(model));
        const made = make();
        made.gradientCheckpointing = gradientCheckpointing;
        const run = new train.Finetuning<models.CausalLM>(made, rows, settings);
        if (run.evaluationBatches > 0) run.evaluate();
        while (!run.isComplete) {
          run.step();
          if (run.isEvaluationDue) run.evaluate();
        }
        const { peakBytes } = memoryStats();
        assert.equal(train.planRows(model, rows, settings, { gradientCheckpointing }).peak, peakBytes);
        if (name === "packed")
          assert.equal(train.planRows(make, rows, settings, { gradientCheckpointing }).peak, peakBytes);
      }
    });

test("a plan of rows refuses what a run refuses, and tells of a text that is generated", async () => {
  await init();
  const rows = { train: rowsOf([9, 8]), test: [] };
  assert.throws(
    () => train.planRows(LLAMA, rows, { seq: 8 } as never),
    says(ArgumentError, "planRows: seq is for a text"),
  );
  assert.throws(() => train.planRows(LLAMA, { train: [] }), says(ArgumentError, "planRows: there are no rows"));
  assert.throws(() => train.planRows(LLAMA, { train: rowsOf([400]) }), says(ArgumentError, "row 0 has 400 tokens"));
  assert.throws(() => train.planRows(LLAMA, rows, {}, { batch: 1 } as never), says(ArgumentError, "planRows", "batch"));
  assert.throws(() => train.planRows(3 as never, rows), says(ArgumentError, "planRows: model must be"));
  // More steps than are looked at: a bound, in no more time.
  const many = { train: rowsOf([9, 30, 31, 8]), test: [] };
  const bound = train.planRows(LLAMA, many, { steps: 4e9, batch: 2 }).peak;
  assert(bound > train.planRows(LLAMA, many, { steps: 20, batch: 2 }).peak);
  assert(bound < 1.5 * train.planRows(LLAMA, many, { steps: 20, batch: 2 }).peak);
  const generation = { prompt: 3, maxNewTokens: 30 };
  assert(train.planRows(LLAMA, rows, {}, { generation }).peak >= train.planRows(LLAMA, rows).peak);
});

test("the parts are sizes of what they name", async () => {
  await init();
  const block = (elements: number): number => Math.ceil(elements / 16) * 64 + 64;
  const model = new models.Llama(LLAMA);
  const table = 2 * block(40 * 3);
  const sum = (list: readonly { size: number }[]): number => list.reduce((n, { size }) => n + block(size), 0);
  const base = sum(model.parameters());
  const adapter = { r: 3, targetModules: ["q_proj"] };
  const adapted: peft.LoraModel = peft.getLoraModel(model, adapter);
  const factors = sum(
    layersOf(adapted).flatMap(({ layer }) =>
      [...layer.adapters.values()].flatMap(({ loraA, loraB }) => [loraA, loraB]),
    ),
  );
  const plan = train.planTraining(LLAMA, { batch: 1, seq: 2, adapter });
  assert.equal(plan.weights, base + table);
  assert.deepEqual([plan.adapters, plan.gradients, plan.optimiser], [factors, factors, 2 * factors]);
  adapted.dispose();
});

test("a plan leaves engine, streams and mode as they are, and needs no memory to tell of much", async () => {
  await init();
  manualSeed(4);
  const first = nn.uniform_(zeros([8])).data.slice();
  manualSeed(4);
  const before = memoryStats();
  const masks = newMask(0.5).stream;
  const config = {
    ...LLAMA,
    vocabSize: 32000,
    hiddenSize: 4096,
    headDim: 128,
    numAttentionHeads: 32,
    numKeyValueHeads: 32,
    intermediateSize: 11008,
    numHiddenLayers: 32,
  };
  const plan = noGrad(() =>
    train.planTraining(config, { batch: 1, seq: 40, adapter: { targetModules: ["q_proj"], loraDropout: 0.1 } }),
  );
  train.planRows(() => new models.Llama(LLAMA), { train: rowsOf([9, 8]), test: [] });
  // 32 layers of 4 projections and 3 of the MLP, and the table.
  assert(plan.weights / 4 > 32 * (4 * 4096 ** 2 + 3 * 4096 * 11008) + 32000 * 4096);
  assert.deepEqual(memoryStats(), before);
  assert.equal(newMask(0.5).stream, masks + 1);
  assertBits("the stream", nn.uniform_(zeros([8])).data, first);
});

/** Once a text is longer than 16 its keys are made anew. */
const LONGROPE = {
  ...BIG_LLAMA,
  ropeParameters: {
    ropeType: "longrope" as const,
    ropeTheta: 10000,
    originalMaxPositionEmbeddings: 16,
    shortFactor: Array<number>(8).fill(1),
    longFactor: Array<number>(8).fill(2),
    attentionFactor: 1,
  },
};

for (const [name, config] of [
  ["Llama", BIG_LLAMA],
  ["Llama with longrope", LONGROPE],
  ["GPT-2", BIG_GPT2],
] as const) {
  test(`${name}: what a run does besides training, held-out windows and a text, is in the plan`, async () => {
    for (const [evaluation, generation] of [
      [{ batch: 5, seq: 64 }, undefined],
      [undefined, { prompt: 60, maxNewTokens: 1 }],
      [undefined, { prompt: 3, maxNewTokens: 57 }],
      [undefined, { prompt: 60, maxNewTokens: 100 }],
      [
        { batch: 1, seq: 2 },
        { prompt: 1, maxNewTokens: 0 },
      ],
    ] as const) {
      (await init()).close();
      await init();
      const model = createModel("actual", config);
      const options = { batch: 1, seq: 2, adapter: { r: 2, targetModules: "all-linear" as const, loraDropout: 0.1 } };
      const adapted = peft.getLoraModel(model, options.adapter);
      const optimizer = new optim.AdamW(trainable(adapted), { lr: 1e-3 });
      const ids = (batch: number, seq: number) => tensor(new Int32Array(batch * seq).fill(7), [batch, seq]);
      for (let step = 0; step < 2; step++)
        scope(() => {
          model.loss(ids(1, 2), ids(1, 2)).backward();
          optimizer.step();
          optimizer.zeroGrad();
        });
      adapted.eval();
      if (evaluation)
        noGrad(() =>
          scope(() => {
            model.loss(ids(evaluation.batch, evaluation.seq), ids(evaluation.batch, evaluation.seq));
          }),
        );
      if (generation)
        for (const _ of models.generate(model, new Array<number>(generation.prompt).fill(7), {
          maxNewTokens: generation.maxNewTokens,
        }))
          void _;
      const { peakBytes } = memoryStats();
      const plan = train.planTraining(config, { ...options, evaluation, generation });
      assert.equal(
        plan.peak,
        generation?.maxNewTokens === 0 ? train.planTraining(config, options).peak : peakBytes,
        JSON.stringify([evaluation, generation]),
      );
    }
  });
}

test("a plan takes no time and no memory, whatever it tells", async () => {
  await init();
  const big = {
    ...LLAMA,
    vocabSize: 128256,
    hiddenSize: 4096,
    headDim: 128,
    numAttentionHeads: 32,
    numKeyValueHeads: 8,
    intermediateSize: 14336,
    numHiddenLayers: 32,
    maxPositionEmbeddings: 2 ** 20,
  };
  const gpt2 = {
    ...GPT2,
    vocabSize: 50257,
    hiddenSize: 6400,
    numAttentionHeads: 64,
    intermediateSize: 25600,
    numHiddenLayers: 24,
    maxPositionEmbeddings: 1e9,
  };
  const cases: [string, models.LlamaConfig | models.Gpt2Config, train.TrainingPlanOptions][] = [
    ["long", big, { batch: 1, seq: 2 ** 20, adapter: { r: 64, targetModules: "all-linear" } }],
    [
      "wide",
      { ...big, numHiddenLayers: 2 },
      { batch: 1e7, seq: 128, adapter: { r: 8, targetModules: "all-linear", loraDropout: 0.1 } },
    ],
    ["everything", big, { batch: 2 ** 16, seq: 2048 }],
    [
      "DoRA and copies",
      big,
      {
        batch: 64,
        seq: 2048,
        adapter: { targetModules: "all-linear", useDora: true, modulesToSave: ["embed_tokens"] },
      },
    ],
    [
      "checkpoints",
      big,
      { batch: 4096, seq: 2048, adapter: { targetModules: ["q_proj"] }, gradientCheckpointing: true },
    ],
    ["LoRA-FA", big, { batch: 8, seq: 2048, adapter: { r: 32, targetModules: "all-linear" }, optimizer: loraFa }],
    [
      "a text",
      big,
      {
        batch: 1,
        seq: 8,
        adapter: { targetModules: ["q_proj"] },
        generation: { prompt: 1e5, maxNewTokens: 1e6 },
        evaluation: { batch: 4096, seq: 8192 },
      },
    ],
    ["GPT-2, transposed", gpt2, { batch: 2 ** 12, seq: 1024, adapter: { r: 8, targetModules: "all-linear" } }],
  ];
  train.planTraining(LLAMA, { batch: 1, seq: 2 });
  const memory = memoryStats();
  for (const [name, config, options] of cases) {
    const start = performance.now();
    const plan = train.planTraining(config, options);
    const took = performance.now() - start;
    assert(plan.peak > 2 ** 31 && Number.isSafeInteger(plan.peak), `${name}: ${plan.peak}`);
    // Milliseconds; on a machine that does much else, too.
    assert(took < 3000, `${name}: ${took} ms`);
  }
  assert.deepEqual(memoryStats(), memory);
  for (const [config, options] of [
    [LLAMA, { batch: Number.MAX_SAFE_INTEGER, seq: 1 }],
    [LLAMA, { batch: 2 ** 40, seq: 2 ** 5 }],
    [big, { batch: 1e9, seq: 128 }],
    [
      { ...big, numHiddenLayers: 1e9 },
      { batch: 1, seq: 1 },
    ],
    [
      { ...gpt2, numHiddenLayers: 1e6 },
      { batch: 1, seq: 1 },
    ],
  ] as const) {
    const start = performance.now();
    assert.throws(
      () => train.planTraining(config, options),
      (e: Error) => e instanceof WasmLoraError,
    );
    assert(performance.now() - start < 10_000);
  }
  assert.deepEqual(memoryStats(), memory);
});

test("refusals", async () => {
  await init();
  const before = memoryStats();
  for (const [options, word] of [
    [undefined, "batch"],
    [null, "null"],
    [{ batchSize: 1, seq: 2 }, "Did you mean batch"],
    [{ batch: 1, seq: 2, evaluation: { batch: 1 } }, "evaluation.seq"],
    [{ batch: 1, seq: 2, generation: { prompt: 0, maxNewTokens: 1 } }, "generation.prompt"],
    [{ batch: 1, seq: 2, generation: { prompt: 1, tokens: 1 } }, "tokens"],
    [{ batch: 1, seq: 2, optimizer: 3 }, "optimizer"],
    [{ batch: 0, seq: 2 }, "batch"],
    [{ batch: 1, seq: 1.5 }, "seq"],
    [{ batch: 1, seq: 2, adapter: { targetModules: ["nothing"] } }, "nothing"],
  ] as const) {
    assert.throws(
      () => train.planTraining(LLAMA, options as unknown as train.TrainingPlanOptions),
      (e: unknown) => e instanceof ArgumentError && e.message.includes(word),
    );
  }
  for (const made of [1, null, { forward: 1 }]) {
    assert.throws(
      () => train.planTraining((() => made) as never, { batch: 1, seq: 2 }),
      (e: unknown) => e instanceof ArgumentError && e.message.includes("expected a language model"),
    );
  }
  assert.throws(
    () => train.planTraining({ ...LLAMA, modelType: "bloom" as never }, { batch: 1, seq: 2 }),
    (e: unknown) => e instanceof ArgumentError && e.message.includes('"bloom"; supported are "llama", "mistral"'),
  );
  assert.throws(() => train.planTraining(LLAMA, { batch: 1, seq: 41 }), ShapeError);
  for (const model of [undefined, null, "models/base"])
    assert.throws(
      () => train.planTraining(model as unknown as models.LlamaConfig, { batch: 1, seq: 2 }),
      ArgumentError,
    );
  assert.throws(
    () => train.planTraining(LLAMA, { batch: 1, seq: 2, optimizer: (async () => new optim.SGD([])) as never }),
    StateError,
  );
  assert.deepEqual(memoryStats(), before);
});

test.run();
