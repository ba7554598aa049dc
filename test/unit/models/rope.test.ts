/** Rotary embeddings: what config.json may say, and the angles of each kind against its formula in float64. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, FormatError, init, memoryStats, models, scope } from "../../../src/index.js";
import { configReader } from "../../../src/io/config_reader.js";
import { parseRope, RotaryEmbedding, type RopeOf, type RopeParameters } from "../../../src/models/parts/rope.js";
import { assertBits } from "../../support/golden.js";
import { refuses } from "../../support/refuses.js";

await init();

const MODEL = { headDim: 8, maxPositionEmbeddings: 64 };
const parse = (json: object, model: Partial<RopeOf> = {}): RopeParameters =>
  parseRope(configReader({ model_type: "llama", ...json }, "config.json", "llama"), { ...MODEL, ...model });

const old = { rope_theta: 500000 };
const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 16 };
const parsedLlama3 = {
  ropeType: "llama3",
  ropeTheta: 500000,
  factor: 8,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  originalMaxPositionEmbeddings: 16,
};
const short = [1, 1.1, 1.2, 1.3];
const long = [2, 3, 4, 5];

const READ: [name: string, json: object, expected: object, model?: Partial<RopeOf>][] = [
  ["nothing", {}, { ropeType: "default", ropeTheta: 10000 }],
  ["nothing, of a family with another theta", {}, { ropeType: "default", ropeTheta: 2e6 }, { theta: 2e6 }],
  ["rope_theta", old, { ropeType: "default", ropeTheta: 500000 }],
  ["rope_scaling null", { ...old, rope_scaling: null }, { ropeType: "default", ropeTheta: 500000 }],
  [
    "rope_parameters",
    { rope_parameters: { rope_type: "default", rope_theta: 7 } },
    { ropeType: "default", ropeTheta: 7 },
  ],
  [
    "a factor that scales nothing",
    { rope_scaling: { rope_type: "default", factor: 1 } },
    { ropeType: "default", ropeTheta: 10000 },
  ],
  [
    "a note of how the weights came about",
    { rope_scaling: { type: "linear", factor: 2, finetuned: true } },
    { ropeType: "linear", ropeTheta: 10000, factor: 2 },
  ],
  ["linear", { rope_scaling: { type: "linear", factor: 2 } }, { ropeType: "linear", ropeTheta: 10000, factor: 2 }],
  [
    "dynamic",
    { rope_parameters: { rope_type: "dynamic", factor: 2, rope_theta: 10000 } },
    { ropeType: "dynamic", ropeTheta: 10000, factor: 2 },
  ],
  ["llama3, as on the hub", { ...old, rope_scaling: { rope_type: "llama3", ...llama3 } }, parsedLlama3],
  ["llama3, as written today", { rope_parameters: { ...old, rope_type: "llama3", ...llama3 } }, parsedLlama3],
  [
    "yarn",
    { rope_scaling: { type: "yarn", factor: 4, original_max_position_embeddings: 16, beta_fast: 30, truncate: false } },
    {
      ropeType: "yarn",
      ropeTheta: 10000,
      factor: 4,
      originalMaxPositionEmbeddings: 16,
      betaFast: 30,
      truncate: false,
    },
  ],
  [
    "yarn without the length before",
    { rope_scaling: { rope_type: "yarn", factor: 4, mscale: 1, mscale_all_dim: 0.5, beta_slow: null } },
    { ropeType: "yarn", ropeTheta: 10000, factor: 4, originalMaxPositionEmbeddings: 64, mscale: 1, mscaleAllDim: 0.5 },
  ],
  [
    "longrope, as Phi-3 has it",
    {
      original_max_position_embeddings: 16,
      rope_scaling: { type: "su", short_factor: short, long_factor: long },
    },
    {
      ropeType: "longrope",
      ropeTheta: 10000,
      shortFactor: short,
      longFactor: long,
      originalMaxPositionEmbeddings: 16,
    },
  ],
  [
    "a part of the head",
    { partial_rotary_factor: 0.5 },
    { ropeType: "default", ropeTheta: 10000, partialRotaryFactor: 0.5 },
  ],
  [
    "a part of the head, GPT-NeoX",
    { rotary_pct: 0.25, rotary_emb_base: 5000 },
    { ropeType: "default", ropeTheta: 5000, partialRotaryFactor: 0.25 },
  ],
  [
    "by type of layer",
    { rope_parameters: { full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 }, sliding_attention: {} } },
    { ropeType: "linear", ropeTheta: 1e6, factor: 8 },
    { layerType: "full_attention" },
  ],
  [
    "Gemma 3 before, a full layer",
    { ...old, rope_local_base_freq: 10000, rope_scaling: { rope_type: "linear", factor: 8 } },
    { ropeType: "linear", ropeTheta: 500000, factor: 8 },
    { layerType: "full_attention" },
  ],
  [
    "Gemma 3 before, a sliding layer",
    { ...old, rope_local_base_freq: 20000, rope_scaling: { rope_type: "linear", factor: 8 } },
    { ropeType: "default", ropeTheta: 20000 },
    { layerType: "sliding_attention" },
  ],
  [
    "ModernBERT before",
    { global_rope_theta: 160000, local_rope_theta: 20000 },
    { ropeType: "default", ropeTheta: 20000 },
    { layerType: "sliding_attention" },
  ],
];
for (const [name, json, expected, model] of READ)
  test(`config.json: ${name}`, () => assert.deepEqual(parse(json, model), expected));

const REFUSED: [name: string, json: object, words: string[], model?: Partial<RopeOf>][] = [
  ["no object", { rope_scaling: 2 }, ["rope_scaling", "2", "object"]],
  ["an unknown kind", { rope_scaling: { type: "ntk", factor: 2 } }, ["rope_scaling", "rope_type", "ntk", "llama3"]],
  ["a kind of a prototype", { rope_scaling: { type: "constructor" } }, ["rope_type", "constructor"]],
  ["a key that is missing", { rope_parameters: { rope_type: "linear" } }, ["rope_parameters", "linear", "factor"]],
  ["a key of another kind", { rope_scaling: { rope_type: "default", beta_fast: 3 } }, ["beta_fast", "3", "default"]],
  ["an unknown key", { rope_scaling: { rope_type: "linear", factor: 2, mrope: [1] } }, ["mrope", "linear"]],
  ["a factor below 1", { rope_scaling: { rope_type: "linear", factor: 0.5 } }, ["rope_scaling.factor", "0.5"]],
  ["theta", { rope_theta: "10000" }, ["rope_theta", "10000", "number"]],
  ["theta below 1", { rope_parameters: { rope_theta: 0 } }, ["rope_parameters.rope_theta", "0"]],
  ["an odd part", { partial_rotary_factor: 0.4 }, ["partial_rotary_factor", "0.4", "8", "even"]],
  ["no part", { partial_rotary_factor: 0 }, ["partial_rotary_factor", "0"]],
  ["more than a head", { partial_rotary_factor: 1.5 }, ["partial_rotary_factor", "1.5"]],
  [
    "lists of another length",
    { rope_scaling: { type: "longrope", short_factor: [1], long_factor: long } },
    ["short_factor", "4 positive numbers"],
  ],
  ["truncate", { rope_scaling: { type: "yarn", factor: 2, truncate: 1 } }, ["truncate", "1", "true or false"]],
  [
    "bounds in the wrong order",
    { rope_scaling: { type: "llama3", ...llama3, high_freq_factor: 1 } },
    ["high_freq_factor", "low_freq_factor"],
  ],
  [
    "two kinds for one",
    { rope_parameters: { full_attention: {}, sliding_attention: {} } },
    ["rope_parameters", "type of layer"],
  ],
  [
    "a type of layer that is missing",
    { rope_parameters: { full_attention: {} } },
    ["rope_parameters.sliding_attention", "missing"],
    { layerType: "sliding_attention" },
  ],
];
for (const [name, json, words, model] of REFUSED)
  test(`refused: ${name}`, () =>
    assert.throws(
      () => parse(json, model),
      (e: unknown) => {
        assert(e instanceof FormatError, String(e));
        for (const word of ["config.json", ...words]) assert(e.message.includes(word), `"${e.message}": ${word}`);
        return true;
      },
    ));

/** Frequencies and attention factor in float64, from the kinds' papers as transformers has them. */
function expected(p: RopeParameters, pairs: number, maximum: number, length: number): [number[], number] {
  const dim = 2 * pairs;
  const each = (f: (j: number) => number): number[] => Array.from({ length: pairs }, (_, j) => f(j));
  const plain = (j: number, theta = p.ropeTheta): number => theta ** (-j / pairs);
  switch (p.ropeType) {
    case "default":
      return [each((j) => plain(j)), 1];
    case "linear":
      return [each((j) => plain(j) / p.factor), 1];
    case "dynamic": {
      const l = Math.max(length, maximum);
      const theta = p.ropeTheta * ((p.factor * l) / maximum - (p.factor - 1)) ** (dim / (dim - 2));
      return [each((j) => plain(j, theta)), 1];
    }
    case "llama3": {
      const l = p.originalMaxPositionEmbeddings;
      return [
        each((j) => {
          const turns = (l * plain(j)) / (2 * Math.PI);
          const s = Math.min(1, Math.max(0, (turns - p.lowFreqFactor) / (p.highFreqFactor - p.lowFreqFactor)));
          return ((1 - s) * plain(j)) / p.factor + s * plain(j);
        }),
        1,
      ];
    }
    case "yarn": {
      const at = (turns: number): number =>
        (dim * Math.log(p.originalMaxPositionEmbeddings / (turns * 2 * Math.PI))) / (2 * Math.log(p.ropeTheta));
      const whole = p.truncate ?? true;
      const low = Math.max(0, whole ? Math.floor(at(p.betaFast ?? 32)) : at(p.betaFast ?? 32));
      const high = Math.min(dim - 1, whole ? Math.ceil(at(p.betaSlow ?? 1)) : at(p.betaSlow ?? 1));
      const m = (x: number): number => 0.1 * x * Math.log(p.factor) + 1;
      return [
        each((j) => {
          const ramp = Math.min(1, Math.max(0, (j - low) / (high - low)));
          return (plain(j) / p.factor) * ramp + plain(j) * (1 - ramp);
        }),
        p.attentionFactor ?? (p.mscale && p.mscaleAllDim ? m(p.mscale) / m(p.mscaleAllDim) : m(1)),
      ];
    }
    case "longrope": {
      const l = p.originalMaxPositionEmbeddings;
      const factor = p.factor ?? maximum / l;
      return [
        each((j) => plain(j) / (length > l ? p.longFactor : p.shortFactor)[j]!),
        p.attentionFactor ?? Math.sqrt(1 + Math.log(factor) / Math.log(l)),
      ];
    }
  }
}

const yarn = { ropeType: "yarn", ropeTheta: 10000, factor: 4, originalMaxPositionEmbeddings: 256 } as const;
const longrope = {
  ropeType: "longrope",
  ropeTheta: 10000,
  shortFactor: Array.from({ length: 16 }, (_, j) => 1 + j / 10),
  longFactor: Array.from({ length: 16 }, (_, j) => 2 + j / 3),
  originalMaxPositionEmbeddings: 64,
} as const;
const KINDS: Record<string, RopeParameters> = {
  default: { ropeType: "default", ropeTheta: 10000 },
  linear: { ropeType: "linear", ropeTheta: 10000, factor: 3 },
  dynamic: { ropeType: "dynamic", ropeTheta: 10000, factor: 3 },
  llama3: { ...parsedLlama3, originalMaxPositionEmbeddings: 256 } as RopeParameters,
  yarn,
  "yarn, its numbers given": { ...yarn, betaFast: 20, betaSlow: 2, truncate: false, attentionFactor: 1.25 },
  "yarn, mscale": { ...yarn, mscale: 1.5, mscaleAllDim: 0.7 },
  longrope,
  "longrope, its numbers given": { ...longrope, factor: 6 },
  "longrope, its factor given": { ...longrope, attentionFactor: 1.1 },
};
const MAXIMUM = 128;
for (const [name, p] of Object.entries(KINDS))
  test(`angles: ${name}`, () =>
    scope(() => {
      const rotary = new RotaryEmbedding(p, 32, MAXIMUM);
      for (const steps of [1, 64, 65, 128, 129, 300]) {
        const { cos, sin } = rotary.table(steps);
        assert(cos.shape[0]! >= steps && cos.shape[1] === 16);
        const [frequencies, factor] = expected(p, 16, MAXIMUM, steps);
        for (let t = 0; t < steps; t += 7)
          frequencies.forEach((f, j) => {
            const at = t * 16 + j;
            // Each of some steps to the frequency is rounded to float32, then the angle, then the result.
            const bound = factor * 2 ** -24 * (8 * t * f + 3);
            const off = Math.max(
              Math.abs(cos.data[at]! - factor * Math.cos(t * f)),
              Math.abs(sin.data[at]! - factor * Math.sin(t * f)),
            );
            assert(off <= bound, `${steps} steps, position ${t}, pair ${j}: off by ${off}, bound ${bound}`);
          });
      }
      rotary.dispose();
    }));

const WHOLE = { ropeType: "longrope", ropeTheta: 10000, originalMaxPositionEmbeddings: 16 };
for (const [parameters, words] of [
  [undefined, "ropeType must be one of default, linear"],
  [{ ropeType: { odd: true }, ropeTheta: 10000 }, "ropeType must be one of"],
  [{ ropeType: "linear", ropeTheta: 10000 }, '"linear" needs factor'],
  [{ ropeType: "default" }, "needs ropeTheta"],
  [{ ropeType: "default", ropeTheta: 0 }, "ropeTheta must be a finite number at least 1"],
  [{ ropeType: "default", ropeTheta: 10000, factor: 2 }, 'no option "factor"'],
  [{ ropeType: "default", ropeTheta: 10000, partialRotaryFactor: 2 }, "partialRotaryFactor must be"],
  [{ ropeType: "yarn", ropeTheta: 10000, factor: 2 }, "needs originalMaxPositionEmbeddings"],
  [{ ...WHOLE, shortFactor: [1, 1], longFactor: [1, 1, 1, 1] }, "shortFactor must be a list of 4 numbers"],
  [{ ...WHOLE, shortFactor: [1, 1, 1, "1"], longFactor: [1, 1, 1, 1] }, "shortFactor[3] must be a finite number"],
] as const)
  refuses(`written by a program: ${words}`, ArgumentError, ["ropeParameters: ", words], () => {
    new RotaryEmbedding(parameters as never, 8, 64);
  });

test("tables grow, those before stay for what awaits backward, and dispose frees them", () => {
  const before = memoryStats().liveBytes;
  const rotary = new RotaryEmbedding({ ropeType: "default", ropeTheta: 10000 }, 4, 10_000);
  scope(() => {
    const first = rotary.table(2048);
    assert.equal(first.cos.shape[0], 2048);
    assert.equal(rotary.table(5), first);
    const values = first.cos.data.slice();
    const second = rotary.table(2049);
    assert.equal(second.cos.shape[0], 4096);
    assertBits("the same angles", second.cos.data.slice(0, values.length), values);
    assert.equal(rotary.table(9000).cos.shape[0], 9000);
    assert(!first.cos.disposed);
  });
  assert(!rotary.table(1).cos.disposed);
  rotary.dispose();
  assert.equal(memoryStats().liveBytes, before);
});

test("a long text of the dynamic kind has a table of its own, which its scope frees", () => {
  const rotary = new RotaryEmbedding({ ropeType: "dynamic", ropeTheta: 10000, factor: 2 }, 8, 16);
  const before = memoryStats().liveBytes;
  for (const steps of [17, 18, 40]) scope(() => assert.equal(rotary.table(steps).cos.shape[0], steps));
  assert.equal(memoryStats().liveBytes, before);
  rotary.dispose();
});

const LLAMA = {
  vocabSize: 8,
  hiddenSize: 4,
  intermediateSize: 6,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  numKeyValueHeads: 1,
  headDim: 2,
  maxPositionEmbeddings: 8,
  rmsNormEps: 1e-6,
  ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenId: null,
};
test("ropeTheta stands for angles of the kind default, and not beside ropeParameters", () => {
  const { ropeParameters, ...sizes } = LLAMA;
  const byTheta = new models.Llama({ ...sizes, ropeTheta: 10000 });
  assert.deepEqual(byTheta.config.ropeParameters, { ropeType: "default", ropeTheta: 10000 });
  assert.throws(() => new models.Llama({ ...sizes, ropeParameters, ropeTheta: 1 } as never), /give one of them/);
  // Undefined is as left out.
  const given = [
    { ropeTheta: 10000, ropeParameters: undefined },
    { ropeTheta: undefined, ropeParameters },
  ].map((angles) => new models.Llama({ ...sizes, ...angles } as never));
  for (const model of [byTheta, ...given]) {
    assert.deepEqual(model.config, byTheta.config);
    model.dispose();
  }
});

test.run();
