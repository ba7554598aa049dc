/**
 * Options, configurations and plain arguments of the public functions and constructors: taken, or refused with a typed
 * error.
 */
import {
  gradientCheckpoint,
  clone,
  data,
  full,
  Generator,
  io,
  lora,
  manualSeed,
  models,
  nn,
  noGrad,
  ones,
  ops,
  optim,
  peft,
  scope,
  Tensor,
  tensor,
  train,
  zeros,
} from "../../../src/index.js";
import { serializePeftConfig } from "../../../src/io/peft/config.js";
import type { Random } from "../random.js";
import type { Target } from "../target.js";
import { built, changed, odd, t, type Value } from "../values.js";

const LORA = { r: 2, loraAlpha: 4, loraDropout: 0.1, mergeWeights: true };
const PEFT: { [key: string]: Value } = {
  ...LORA,
  targetModules: ["fc"],
  excludeModules: null,
  layersToTransform: null,
  layersPattern: null,
  rankPattern: { fc: 1 },
  alphaPattern: {},
  fanInFanOut: false,
  bias: "none",
  useRslora: false,
  useDora: false,
  initLoraWeights: true,
  modulesToSave: null,
  baseModelNameOrPath: null,
  taskType: null,
};
delete PEFT["mergeWeights"];
const LLAMA = {
  modelType: "llama" as const,
  hiddenSize: 4,
  intermediateSize: 6,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 2,
  vocabSize: 8,
  maxPositionEmbeddings: 8,
  rmsNormEps: 0.01,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
  tieWordEmbeddings: true,
  bosTokenId: 1,
  eosTokenId: 2,
};
const GPT2 = {
  modelType: "gpt2" as const,
  hiddenSize: 4,
  intermediateSize: 6,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  vocabSize: 8,
  maxPositionEmbeddings: 8,
  layerNormEpsilon: 0.01,
  tieWordEmbeddings: true,
  bosTokenId: 1,
  eosTokenId: 2,
};
const ADAM = { lr: 0.1, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0 };

class Net extends nn.Module {
  readonly fc: nn.Layer = new nn.Linear(2, 3);
  forward(x: ReturnType<typeof zeros>): ReturnType<typeof zeros> {
    return this.fc.forward(x);
  }
}

/** Runs with a small model, which goes away again. */
function withNet<T>(run: (net: Net) => T): T {
  const net = new Net();
  try {
    return run(net);
  } finally {
    net.dispose();
  }
}

type Call = [typical: Value[], call: (...args: any[]) => unknown];
const LORALIB = (): io.LoralibState =>
  new Map([
    ["fc.lora_A", { shape: [1, 6], data: new Float32Array(6) }],
    ["fc.lora_B", { shape: [6, 1], data: new Float32Array(6) }],
  ]);
const FILE = (): Uint8Array =>
  io.serializeSafetensors([{ name: "w", dtype: "F32", shape: [1], data: Float32Array.of(1) }]);

const WORDS = { "<s>": 0, a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7 };
const TOKENIZER = new data.Tokenizer({ model: { type: "WordLevel", vocab: WORDS, unk_token: "<s>" } });
const CALLS: Record<string, Call> = {
  "nn.Linear": [[2, 3, { bias: true, fanInFanOut: false }], (...a: [number, number]) => new nn.Linear(...a)],
  "nn.Embedding": [
    [5, 2, { paddingIdx: 1, maxNorm: 1, normType: 2, scaleGradByFreq: false }],
    (...a: [number, number]) => new nn.Embedding(...a),
  ],
  "nn.Conv1d": [
    [2, 2, 3, { stride: 1, padding: 1, dilation: 1, groups: 1, bias: true }],
    (...a: [number, number, number]) => new nn.Conv1d(...a),
  ],
  "nn.Conv2d": [
    [2, 2, [1, 3], { stride: [1, 2], padding: 1, dilation: 1, groups: 2, bias: false }],
    (...a: [number, number, number]) => new nn.Conv2d(...a),
  ],
  "nn.LayerNorm": [[3, 1e-5], (...a: [number]) => new nn.LayerNorm(...a)],
  "nn.RMSNorm": [[3, 1e-5], (...a: [number]) => new nn.RMSNorm(...a)],
  "nn.Parameter": [[[2, 3], true], (...a: [number[]]) => new nn.Parameter(...a)],
  "lora.Linear": [
    [2, 3, { ...LORA, bias: true, fanInFanOut: false }],
    (...a: [number, number]) => new lora.Linear(...a),
  ],
  "lora.MergedLinear": [
    [2, 4, { ...LORA, enableLora: [true, false] }],
    (...a: [number, number]) => new lora.MergedLinear(...a),
  ],
  "lora.Embedding": [
    [5, 2, { r: 2, loraAlpha: 4, mergeWeights: true }],
    (...a: [number, number]) => new lora.Embedding(...a),
  ],
  "lora.Conv2d": [[2, 2, 3, LORA], (...a: [number, number, number]) => new lora.Conv2d(...a)],
  "lora.markOnlyLoraAsTrainable": [
    ["none"],
    (bias) =>
      withNet((net) => {
        lora.markOnlyLoraAsTrainable(net, bias);
      }),
  ],
  "lora.loraStateDict": [["all"], (bias) => withNet((net) => lora.loraStateDict(net, bias))],
  "optim.SGD": [
    [{ lr: 0.1, momentum: 0.9, weightDecay: 0, nesterov: true }],
    (o) =>
      withNet((net) => {
        new optim.SGD(net.parameters(), o);
      }),
  ],
  "optim.Adam": [
    [ADAM],
    (o) =>
      withNet((net) => {
        new optim.Adam(net.parameters(), o);
      }),
  ],
  "optim.AdamW": [
    [ADAM],
    (o) =>
      withNet((net) => {
        new optim.AdamW(net.parameters(), o);
      }),
  ],
  "optim.AdamW params": [
    [[t([2])], ADAM],
    (params, o) => {
      new optim.AdamW(params, o);
    },
  ],
  "optim.AdamW groups": [
    [{ lr: 0.5, weightDecay: 0.1 }],
    (group) =>
      withNet((net) => {
        new optim.AdamW([{ params: net.parameters(), ...group }]);
      }),
  ],
  "optim.LoraFA": [
    [{ ...ADAM, scaling: 2 }],
    (o) =>
      withNet((net) => {
        new optim.LoraFA(net, o);
      }),
  ],
  "optim.loraPlusGroups": [
    [{ lr: 0.1, loraplusLrRatio: 4, loraplusLrEmbedding: 1e-6, weightDecay: 0 }],
    (o) =>
      withNet((net) => {
        optim.loraPlusGroups(net, o);
      }),
  ],
  "optim.clipGradNorm_": [[1], (norm) => withNet((net) => optim.clipGradNorm_(net.parameters(), norm))],
  "optim.cosineSchedule": [[10, 2, 0.1, 3], (a, b, c, step) => optim.cosineSchedule(a, b, c)(step)],
  "optim.linearSchedule": [[10, 2, 3], (a, b, step) => optim.linearSchedule(a, b)(step)],
  "peft.getLoraModel": [
    [PEFT, "default"],
    (...a: [object]) =>
      withNet((net) => {
        peft.getLoraModel(net, ...a).unload();
      }),
  ],
  "peft.LoraModel": [
    ["default", { safeMerge: true }],
    (name, o) =>
      withNet((net) => {
        const adapted = peft.getLoraModel(net, { r: 1, targetModules: ["fc"] });
        try {
          adapted.mergeAdapter([name], o);
        } finally {
          adapted.unload();
        }
      }),
  ],
  "models.Llama": [[LLAMA], (config) => new models.Llama(config)],
  "models.Gpt2": [[GPT2], (config) => new models.Gpt2(config)],
  "models.generate": [
    [
      [1, 2],
      {
        maxNewTokens: 2,
        temperature: 0.5,
        topK: 5,
        topP: 0.9,
        minP: 0.01,
        repetitionPenalty: 1.1,
        seed: 1,
        stopToken: 3,
      },
    ],
    (prompt, o) => {
      const llama = new models.Llama(LLAMA);
      try {
        return [...models.generate(llama, prompt, o)];
      } finally {
        llama.dispose();
      }
    },
  ],
  "models.generateBatch": [
    [[[1, 2], [3]], { maxNewTokens: 2, topK: 5, seed: [1, 2], stopToken: [3] }],
    (prompts, o) => {
      const llama = new models.Llama(LLAMA);
      try {
        return [...models.generateBatch(llama, prompts, o)];
      } finally {
        llama.dispose();
      }
    },
  ],
  "data.randomWindows": [
    [0, { batch: 2, seq: 3, seed: 1 }],
    (step, o) => {
      data.randomWindows(new Int32Array(50), step, o);
    },
  ],
  "data.evenWindows": [
    [3, 2],
    (seq, most) => {
      data.evenWindows(new Int32Array(50), seq, most);
    },
  ],
  "data.previewRow": [
    [{ ids: [5, 6, 0], labels: [-100, 6, 0], where: "row 1" }],
    (row) => data.previewRow(rowOf(row), TOKENIZER),
  ],
  "data.summarize": [
    [{ rows: [{ ids: [5, 6, 0], labels: [-100, 6, 0], where: "row 1" }], truncated: 0, skipped: [], split: 0 }],
    (o) => data.summarize(Array.isArray(o?.rows) ? { ...o, rows: o.rows.map(rowOf) } : o),
  ],
  "data.answersOf": [
    [[{ ids: [5, 6, 0], labels: [-100, 6, 0], where: "row 1" }], [0]],
    (rows, ids) => data.answersOf(Array.isArray(rows) ? rows.map(rowOf) : rows, ids),
  ],
  "data.endOfTurnIds": [
    [[0], { date: "2024-07-26", kwargs: { word: 1 } }],
    (ids, o) => data.endOfTurnIds(TOKENIZER, ids, o),
  ],
  "train.evaluateRows": [
    [[{ ids: [5, 6, 0], labels: [-100, 6, 0], where: "row 1" }], { batch: 1 }],
    (rows, o) => {
      const llama = new models.Llama(LLAMA);
      try {
        train.evaluateRows(llama, Array.isArray(rows) ? rows.map(rowOf) : rows, o);
      } finally {
        llama.dispose();
      }
    },
  ],
  "train.exactMatch": [
    [[{ prompt: [5, 6], reference: [7], where: "row 1" }], { eosTokenIds: [0], batch: 2 }],
    (answers, o) => {
      const llama = new models.Llama(LLAMA);
      try {
        train.exactMatch(llama, Array.isArray(answers) ? answers.map(rowOf) : answers, o);
      } finally {
        llama.dispose();
      }
    },
  ],
  "train.planTraining": [
    [LLAMA, { batch: 2, seq: 3, adapter: { r: 1, targetModules: ["q_proj"] }, gradientCheckpointing: false }],
    (...a: [any, any]) => train.planTraining(...a),
  ],
  "train.Finetuning": [
    [
      [1, 2, 3, 4, 5, 6, 7, 1, 2, 3],
      { adapter: { r: 1, targetModules: ["q_proj"] }, steps: 2, batch: 1, seq: 3, lr: 0.1, seed: 1, testSize: 0.5 },
    ],
    (tokens, settings) => {
      const llama = new models.Llama(LLAMA);
      let run: train.Finetuning | undefined;
      try {
        run = new train.Finetuning<models.CausalLM>(llama, tokens, settings);
        run.step();
        run.evaluate();
        run.restore(run.state());
      } finally {
        run?.dispose();
        llama.dispose();
      }
    },
  ],
  "train.Finetuning of rows": [
    [
      [
        [1, 2, 3, 4],
        [5, 6, 7],
        [3, 2],
      ],
      [[4, 4, 4]],
      {
        adapter: { r: 1, targetModules: ["q_proj"] },
        epochs: 1,
        batch: 1,
        accumulation: 2,
        lr: 0.1,
        schedule: "linear",
        warmupRatio: 0.5,
        weightDecay: 0.1,
        maxGradNorm: 0.5,
        loraplusLrRatio: 2,
        evalEvery: 1,
        patience: 1,
        minDelta: 0.1,
        seed: 1,
        packing: false,
        groupByLength: true,
      },
    ],
    (rows, held, settings) => {
      const rowsOf = (lists: any): any =>
        Array.isArray(lists)
          ? lists.map((list: any, i) => {
              const ids = Array.isArray(list) && list.every(Number.isInteger) ? Int32Array.from(list) : list;
              return { ids, labels: ids, where: `row ${i}` };
            })
          : lists;
      const given = { train: rowsOf(rows), test: rowsOf(held) };
      const llama = new models.Llama(LLAMA);
      let run: train.Finetuning | undefined;
      try {
        run = new train.Finetuning<models.CausalLM>(llama, given, settings);
        run.applyShards(Array.from({ length: run.shardCount }, (_, i) => run!.computeShard(i)));
        if (run.isEvaluationDue) run.evaluate();
        run.restore(run.state());
        train.planRows(LLAMA, given, settings);
      } finally {
        run?.dispose();
        llama.dispose();
      }
    },
  ],
  "train.encodeCheckpoint": [
    [{ sample: "a", settings: { steps: 1 } }],
    (notes) => {
      const none = { metrics: [], evaluations: [], factors: new Map(), bestFactors: null, optimizer: new Map() };
      train.decodeCheckpoint(train.encodeCheckpoint({ arithmetic: "separate", ...none }, notes));
    },
  ],
  "io.parseSafetensors": [[{ name: "w" }], (o) => io.parseSafetensors(FILE(), o)],
  "io.serializeSafetensors": [
    [[{ name: "w", dtype: "F32", shape: [6], data: { $array: "Float32Array" } }], { format: "pt" }],
    (...a: [any]) => {
      io.serializeSafetensors(...a);
    },
  ],
  serializePeftConfig: [
    [PEFT],
    (config) => {
      serializePeftConfig(config);
    },
  ],
  "peft.loralibToPeft": [
    [{ fc: { kind: "Linear", r: 1, loraAlpha: 2, fanInFanOut: false } }],
    (layers) => peft.loralibToPeft(LORALIB(), layers),
  ],
  manualSeed: [
    [1],
    (seed) => {
      manualSeed(seed);
    },
  ],
  Generator: [[1], (seed) => new Generator(seed)],
  tensor: [
    [
      [
        [1, 2],
        [3, 4],
      ],
      [4],
      "float32",
    ],
    (...a: [any]) => tensor(...a),
  ],
  zeros: [[[2, 3], "int32"], (...a: [any]) => zeros(...a)],
  ones: [[[2]], (shape) => ones(shape)],
  full: [[[2, 3], 1.5, "float32"], (...a: [any, any]) => full(...a)],
  clone: [[t([2])], (x) => clone(x)],
  "Tensor.set": [
    [t([2]), [1, 2]],
    (x, values) => {
      if (x instanceof Tensor) x.set(values);
    },
  ],
  scope: [[{ $function: true }], (fn) => scope(fn)],
  noGrad: [[{ $function: true }], (fn) => noGrad(fn)],
  gradientCheckpoint: [[{ $function: true }, t([2])], (fn, x) => gradientCheckpoint(fn, x)],
  "ops.conv": [
    [{ stride: [1], padding: [0], dilation: [1], groups: 1 }],
    (o) => {
      ops.conv(zeros([1, 1, 3]), zeros([1, 1, 1]), null, o);
    },
  ],
  "ops.embedding": [
    [{ paddingIdx: null, maxNorm: null, normType: 2, scaleGradByFreq: false }],
    (o) => {
      ops.embedding(zeros([2], "int32"), zeros([3, 2]), o);
    },
  ],
};
const NAMES = Object.keys(CALLS);

/** Its lists of integers as Int32Arrays, as rows and answers have them. */
function rowOf(row: any): any {
  if (typeof row !== "object" || row === null || Array.isArray(row)) return row;
  return Object.fromEntries(
    Object.entries(row).map(([key, list]) => [
      key,
      Array.isArray(list) && list.every(Number.isInteger) ? Int32Array.from(list) : list,
    ]),
  );
}

interface Input {
  call: string;
  args: Value[];
}

function generate(random: Random): Input {
  const call = random.pick(NAMES);
  let args = structuredClone(CALLS[call]![0]);
  for (let i = random.few(4); i > 0; i--) {
    const at = random.below(args.length);
    args = args.map((arg, j) => (j === at ? changed(arg, random) : arg));
  }
  if (random.once(20)) args.pop();
  if (random.once(20)) args.push(odd(random));
  return { call, args };
}

function run({ call, args }: Input): void {
  scope(() => {
    const result = CALLS[call]![1](...args.map(built)) as { dispose?(): void } | undefined;
    if (result instanceof nn.Module || result instanceof nn.Parameter || result instanceof Generator) result.dispose();
  });
}

export const options: Target<Input> = { name: "options", inputs: 10_000, generate, run };
