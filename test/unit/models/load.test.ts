/**
 * Folders that transformers loads load here, and mean the same; others are refused by name before anything is built.
 * What table and head are: transformers 5.17 on the same folders. Logits: float64, by hand.
 */
import assert from "node:assert/strict";
import { suite, test } from "uvu";
import {
  ArgumentError,
  FileError,
  FormatError,
  full,
  init,
  io,
  manualSeed,
  memoryStats,
  models,
  nn,
  noGrad,
  OutOfMemoryError,
  peft,
  scope,
  ShapeError,
  tensor,
  train,
  zeros as zeroTensor,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { type ErrorClass, says } from "../../support/refuses.js";

await init();
test.after(() => io.memoryFiles.clear());

const CONFIG = {
  model_type: "llama",
  vocab_size: 8,
  hidden_size: 4,
  intermediate_size: 2,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
};
type Tensors = Record<string, { shape: number[]; data: Float32Array }>;
const ramp = (size: number, start: number): Float32Array =>
  Float32Array.from({ length: size }, (_, i) => (((start + i * 7) % 11) - 5) / 8);
const zeros = (...shape: number[]) => ({ shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)) });
const ones = (size: number) => ({ shape: [size], data: new Float32Array(size).fill(1) });
const TABLE = { shape: [8, 4], data: ramp(32, 1) };
const OTHER = { shape: [8, 4], data: ramp(32, 4) };

/** A Llama whose layer adds nothing: its logits are head . rmsnorm(table[id]). */
const body = (prefix = "model."): Tensors => ({
  [`${prefix}norm.weight`]: ones(4),
  [`${prefix}layers.0.input_layernorm.weight`]: ones(4),
  [`${prefix}layers.0.post_attention_layernorm.weight`]: ones(4),
  [`${prefix}layers.0.self_attn.q_proj.weight`]: zeros(4, 4),
  [`${prefix}layers.0.self_attn.k_proj.weight`]: zeros(2, 4),
  [`${prefix}layers.0.self_attn.v_proj.weight`]: zeros(2, 4),
  [`${prefix}layers.0.self_attn.o_proj.weight`]: zeros(4, 4),
  [`${prefix}layers.0.mlp.gate_proj.weight`]: zeros(2, 4),
  [`${prefix}layers.0.mlp.up_proj.weight`]: zeros(2, 4),
  [`${prefix}layers.0.mlp.down_proj.weight`]: zeros(4, 2),
});
const logits = (table: Float32Array, head: Float32Array, id: number): number[] => {
  const x = [...table.subarray(4 * id, 4 * id + 4)];
  const root = Math.sqrt(x.reduce((s, v) => s + v * v, 0) / 4 + 1e-5);
  return Array.from({ length: 8 }, (_, k) => x.reduce((s, v, i) => s + (head[4 * k + i]! * v) / root, 0));
};

let folders = 0;
const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const bytesOf = (tensors: Tensors, metadata?: Record<string, string>): Uint8Array =>
  io.serializeSafetensors(
    Object.entries(tensors).map(([name, entry]) => ({ name, dtype: "F32", ...entry })),
    metadata,
  );
function folder(files: Record<string, Uint8Array>): string {
  const path = `memory:load-${folders++}`;
  for (const [name, bytes] of Object.entries(files)) io.memoryFiles.set(`${path}/${name}`, bytes);
  return path;
}
const whole = (config: object, tensors: Tensors, metadata?: Record<string, string>): string =>
  folder({ "config.json": json(config), "model.safetensors": bytesOf(tensors, metadata) });

/** Loads it and compares its logits. */
function means(path: string, table: { data: Float32Array }, head: { data: Float32Array }, tied: boolean): void {
  const { model, config } = models.loadModel(path) as models.LoadedModel<models.Llama, models.LlamaConfig>;
  const got = noGrad(() => scope(() => model.forward(tensor(new Int32Array([3]), [1, 1])).data.slice()));
  logits(table.data, head.data, 3).forEach((value, i) =>
    assert.ok(Math.abs(got[i]! - value) < 1e-6, `logit ${i}: ${got[i]}, expected ${value}`),
  );
  assert.equal(config.tieWordEmbeddings, tied);
  assert.equal(model.config.tieWordEmbeddings, tied);
  assert.equal(model.stateDict().has("lm_head.weight"), !tied);
  model.dispose();
}

function refuses(run: () => unknown, kind: ErrorClass, ...words: string[]): void {
  const { liveBytes } = memoryStats();
  assert.throws(run, says(kind, ...words));
  assert.equal(memoryStats().liveBytes, liveBytes);
}

const tableAndHead = suite("table and head");

const table = { "model.embed_tokens.weight": TABLE };
const head = (entry: Tensors[string]): Tensors => ({ "lm_head.weight": entry });
const untied = { ...CONFIG, tie_word_embeddings: false };

tableAndHead("config says tied, no head is stored", () =>
  means(whole(CONFIG, { ...body(), ...table }), TABLE, TABLE, true),
);
tableAndHead("config says tied, an equal head is stored", () =>
  means(whole(CONFIG, { ...body(), ...table, ...head(TABLE) }), TABLE, TABLE, true),
);
tableAndHead("config says tied, another head is stored: that is the head", () =>
  means(whole(CONFIG, { ...body(), ...table, ...head(OTHER) }), TABLE, OTHER, false),
);
tableAndHead("config says tied, only the head is stored: it is both", () =>
  means(whole(CONFIG, { ...body(), ...head(OTHER) }), OTHER, OTHER, true),
);
tableAndHead("config says apart", () =>
  means(whole(untied, { ...body(), ...table, ...head(OTHER) }), TABLE, OTHER, false),
);
tableAndHead("config says apart, both are stored and equal", () =>
  means(whole(untied, { ...body(), ...table, ...head(TABLE) }), TABLE, TABLE, false),
);
tableAndHead("the file's metadata says that one name stands for both", () => {
  for (const config of [CONFIG, untied]) {
    means(
      whole(config, { ...body(), ...head(OTHER) }, { format: "pt", "model.embed_tokens.weight": "lm_head.weight" }),
      OTHER,
      OTHER,
      true,
    );
    means(
      whole(config, { ...body(), ...table }, { "lm_head.weight": "model.embed_tokens.weight" }),
      TABLE,
      TABLE,
      true,
    );
  }
});
tableAndHead("config says apart, one of them is not there", () => {
  refuses(
    () => models.loadModel(whole(untied, { ...body(), ...table })),
    FormatError,
    "lm_head.weight",
    "tie_word_embeddings",
  );
  refuses(
    () => models.loadModel(whole(untied, { ...body(), ...head(TABLE) })),
    FormatError,
    "model.embed_tokens.weight",
  );
});

const shards = (weightMap: Record<string, string>, extra: Tensors = {}, config: object = CONFIG): string => {
  const index = {
    weight_map: {
      ...Object.fromEntries(Object.keys(body()).map((name) => [name, "a.safetensors"])),
      "model.embed_tokens.weight": "b.safetensors",
      ...weightMap,
    },
  };
  return folder({
    "config.json": json(config),
    "model.safetensors.index.json": json(index),
    "a.safetensors": bytesOf(body()),
    "b.safetensors": bytesOf({ ...table, ...extra }),
  });
};
tableAndHead("shards, tied", () => means(shards({}), TABLE, TABLE, true));
tableAndHead("an index that lists a tied head which was left out", () =>
  means(shards({ "lm_head.weight": "b.safetensors" }), TABLE, TABLE, true),
);
tableAndHead("a shard with a head that the index does not list", () =>
  means(shards({}, head(OTHER)), TABLE, OTHER, false),
);
tableAndHead("without a tie such an index is refused", () => {
  refuses(
    () => models.loadModel(shards({ "lm_head.weight": "b.safetensors" }, {}, untied)),
    FormatError,
    "lm_head.weight",
    "missing",
  );
  refuses(() => models.loadModel(shards({}, head(OTHER), untied)), FormatError, "lm_head.weight", "does not list");
});
tableAndHead.run();

const complete = suite("folders that are complete");

const tensors = { ...body(), "model.embed_tokens.weight": TABLE };
complete("buffers of older transformers are left aside", () => {
  const inverse = { shape: [1], data: Float32Array.of(1) };
  means(
    whole(CONFIG, {
      ...tensors,
      "model.layers.0.self_attn.rotary_emb.inv_freq": inverse,
      "model.rotary_emb.inv_freq": inverse,
    }),
    TABLE,
    TABLE,
    true,
  );
});
complete("names of a model that was saved without its head's class", () => {
  means(whole(CONFIG, { ...body(""), "embed_tokens.weight": TABLE }), TABLE, TABLE, true);
  refuses(() => models.loadModel(whole(CONFIG, { ...tensors, "embed_tokens.weight": TABLE })), FormatError, "twice");
});
complete("rope that says that it is as ever", () => {
  for (const change of [
    { rope_scaling: { rope_type: "default" } },
    { rope_scaling: { type: "default" } },
    { rope_scaling: null },
    { rope_parameters: { rope_type: "default", rope_theta: 10000 }, dtype: "float32" },
  ]) {
    means(whole({ ...CONFIG, ...change }, tensors), TABLE, TABLE, true);
  }
});
complete("what is left out of config.json is transformers' default", () => {
  const { rms_norm_eps: _, max_position_embeddings: __, ...rest } = CONFIG;
  const config = models.loadModel(whole(rest, tensors)).config as models.LlamaConfig;
  assert.equal(config.rmsNormEps, 1e-6);
  assert.equal(config.maxPositionEmbeddings, 2048);
  refuses(
    () => models.loadModel(whole({ model_type: "llama" }, tensors)),
    FormatError,
    "num_hidden_layers is 32",
    "no model.layers.1.",
  );
});
complete("the tokenizer and the ends of texts are read when they are asked for", () => {
  const path = whole({ ...CONFIG, eos_token_id: [5, 6, 99] }, tensors);
  const loaded = models.loadModel(path);
  assert.equal(loaded.path, path);
  assert.deepEqual(loaded.eosTokenIds, [5, 6]);
  refuses(() => loaded.tokenizer, FileError, `${path}/tokenizer.json`);
  io.memoryFiles.set(`${path}/tokenizer.json`, json({ model: { type: "WordLevel", vocab: { a: 3 }, unk_token: "a" } }));
  assert.deepEqual(loaded.tokenizer.encode("a"), [3]);
  assert.equal(loaded.tokenizer, loaded.tokenizer);
});
complete.run();

const counts = suite("counts are compared before anything is built");

const cases: [object, string][] = [
  [{ num_hidden_layers: 1e9 }, "num_hidden_layers is 1000000000"],
  [{ num_hidden_layers: 2 }, "num_hidden_layers is 2"],
  [{ vocab_size: 2e8 }, "vocab_size is 200000000, but model.embed_tokens.weight has shape [8,4]"],
  [{ hidden_size: 2 ** 40 }, "hidden_size or num_attention_heads * head_dim is 1099511627776"],
  [{ intermediate_size: 5e7 }, "intermediate_size is 50000000, but model.layers.0.mlp.gate_proj.weight"],
  [
    { num_attention_heads: 4, head_dim: 2 },
    "num_attention_heads * head_dim is 8, but model.layers.0.self_attn.q_proj.weight",
  ],
  [{ num_key_value_heads: 2 }, "num_key_value_heads * head_dim is 4"],
  [{ head_dim: 2 ** 30 }, "head_dim"],
];
for (const [change, words] of cases) {
  counts(JSON.stringify(change), () => {
    const begin = performance.now();
    refuses(() => models.loadModel(whole({ ...CONFIG, ...change }, tensors)), FormatError, "config.json: ", words);
    assert.ok(performance.now() - begin < 1000);
  });
}
counts("positions beyond any text cost nothing until they are used", () => {
  const { liveBytes } = memoryStats();
  const { model } = models.loadModel(whole({ ...CONFIG, max_position_embeddings: 2e8 }, tensors));
  assert.ok(memoryStats().liveBytes - liveBytes < 100_000);
  const at = (steps: number): Float32Array =>
    noGrad(() => scope(() => model.forward(tensor(new Int32Array(steps), [1, steps])).data.slice(-8)));
  const few = at(3);
  assert.deepEqual(at(3000), few); // the layer adds nothing, whatever the position
  const short = models.loadModel(whole(CONFIG, tensors)).model;
  refuses(
    () => noGrad(() => scope(() => short.forward(tensor(new Int32Array(65), [1, 65])))),
    ShapeError,
    "maxPositionEmbeddings = 64",
  );
  model.dispose();
  short.dispose();
});

const gpt2 = { model_type: "gpt2", vocab_size: 8, n_embd: 4, n_layer: 1, n_head: 2, n_positions: 6 };
const gpt2Tensors = (prefix: string): Tensors =>
  Object.fromEntries(
    Object.entries({
      "wte.weight": TABLE,
      "wpe.weight": zeros(6, 4),
      "ln_f.weight": ones(4),
      "ln_f.bias": zeros(4),
      "h.0.ln_1.weight": ones(4),
      "h.0.ln_1.bias": zeros(4),
      "h.0.ln_2.weight": ones(4),
      "h.0.ln_2.bias": zeros(4),
      "h.0.attn.c_attn.weight": zeros(4, 12),
      "h.0.attn.c_attn.bias": zeros(12),
      "h.0.attn.c_proj.weight": zeros(4, 4),
      "h.0.attn.c_proj.bias": zeros(4),
      "h.0.mlp.c_fc.weight": zeros(4, 16),
      "h.0.mlp.c_fc.bias": zeros(16),
      "h.0.mlp.c_proj.weight": zeros(16, 4),
      "h.0.mlp.c_proj.bias": zeros(4),
    }).map(([name, entry]) => [prefix + name, entry]),
  );
for (const prefix of ["", "transformer."]) {
  counts(`a GPT-2 with names that begin with "${prefix}"`, () => {
    const load = (change: object, extra: Tensors = {}) =>
      models.loadModel(whole({ ...gpt2, ...change }, { ...gpt2Tensors(prefix), ...extra }));
    assert.equal(load({}).config.tieWordEmbeddings, true);
    assert.equal(load({}, { "lm_head.weight": TABLE }).config.tieWordEmbeddings, true);
    assert.equal(load({}, { "lm_head.weight": OTHER }).config.tieWordEmbeddings, false);
    load({}, { [`${prefix}h.0.attn.bias`]: ones(1), [`${prefix}h.0.attn.masked_bias`]: ones(1) });
    const { [`${prefix}wte.weight`]: _, ...headless } = gpt2Tensors(prefix);
    const byHead = models.loadModel(whole(gpt2, { ...headless, "lm_head.weight": OTHER }));
    assert.equal(byHead.config.tieWordEmbeddings, true);
    for (const [change, words] of [
      [{ n_layer: 1e9 }, "n_layer is 1000000000"],
      [{ n_positions: 1e9 }, "n_positions is 1000000000, but transformer.wpe.weight"],
      [{ n_inner: 8 }, "n_inner"],
      [{ n_embd: 8 }, "n_embd or vocab_size is 8"],
      [{ vocab_size: 9 }, "vocab_size is 9"],
    ] as const) {
      refuses(() => load(change), FormatError, words);
    }
  });
}
counts.run();

test("what is no folder is told apart", () => {
  refuses(() => models.loadModel("https://example.org/model"), ArgumentError, "fetchModel");
  refuses(() => models.loadModel(5 as never), ArgumentError, "directory");
  refuses(
    () => models.loadModel(whole({ model_type: "bloom" }, {})),
    FormatError,
    '"bloom"',
    'supported are "llama", ',
  );
  refuses(
    () => models.loadModel(whole({ error: "Repository not found" }, {})),
    FormatError,
    "a server's answer",
    "Repository not found",
  );
  refuses(() => models.loadModel(whole([], {})), FormatError, "no JSON object");
  refuses(
    () => models.loadModel(folder({ "adapter_config.json": json({}) })),
    FileError,
    "PEFT adapter",
    "fromPretrained",
  );
  refuses(
    () => models.loadModel(folder({ "config.json": new TextEncoder().encode("<!doctype html>") })),
    FormatError,
    "web page",
  );
  refuses(
    () =>
      models.loadModel(
        folder({
          "config.json": json(CONFIG),
          "model.safetensors": new TextEncoder().encode("version https://git-lfs.github.com/spec/v1\n"),
        }),
      ),
    FormatError,
    "git-lfs",
  );
});

test("a float64 weight beyond float32 is refused by name", () => {
  const path = whole(CONFIG, { ...body(), "model.embed_tokens.weight": TABLE });
  const tensors = [...io.parseSafetensors(io.memoryFiles.get(`${path}/model.safetensors`)!).tensors.values()].map(
    ({ name, dtype, shape, bytes }) =>
      name === "model.norm.weight"
        ? { name, dtype: "F64" as const, shape, data: new Uint8Array(Float64Array.of(1, 1, 1e300, 1).buffer) }
        : { name, dtype, shape, data: bytes },
  );
  io.memoryFiles.set(`${path}/model.safetensors`, io.serializeSafetensors(tensors));
  refuses(() => models.loadModel(path), FormatError, path, "model.norm.weight", "element 2");
  io.memoryFiles.set(
    `${path}/model.safetensors`,
    io.serializeSafetensors(
      tensors.map((one) =>
        one.name === "model.norm.weight" ? { ...one, dtype: "I8" as const, data: new Uint8Array(4) } : one,
      ),
    ),
  );
  refuses(() => models.loadModel(path), FormatError, path, "model.norm.weight", "I8", "quantised");
});

/** The weights of `body`, of any widths, not of zeros. */
const wide = (vocab: number, hidden = 4): Tensors =>
  Object.fromEntries(
    Object.entries({ ...body(), "model.embed_tokens.weight": TABLE }).map(([name, { shape }], i) => {
      const sizes = shape.map((size) => (size === 4 ? hidden : size === 8 ? vocab : size));
      return [
        name,
        {
          shape: sizes,
          data: ramp(
            sizes.reduce((a, b) => a * b, 1),
            i,
          ),
        },
      ];
    }),
  );

/** Bytes of values of `ramp`, which all formats hold exactly. */
function encoded(dtype: "F32" | "F64" | "F16" | "BF16", values: Float32Array): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.slice().buffer);
  if (dtype === "F64") return new Uint8Array(Float64Array.from(values).buffer);
  const bits = new Uint32Array(values.slice().buffer);
  const half = (x: number): number =>
    x === 0 ? 0 : ((x >>> 16) & 0x8000) | ((((x >>> 23) & 0xff) - 112) << 10) | ((x >>> 13) & 0x3ff);
  return new Uint8Array(Uint16Array.from(bits, (x) => (dtype === "BF16" ? x >>> 16 : half(x))).buffer);
}

test("a load writes every weight once, of each format, wherever its bytes begin, over whatever memory held", () => {
  const tensors = wide(8);
  for (const dtype of ["F32", "F64", "F16", "BF16"] as const) {
    const bytes = io.serializeSafetensors(
      Object.entries(tensors).map(([name, { shape, data }]) => ({ name, dtype, shape, data: encoded(dtype, data) })),
    );
    for (const offset of [0, 1, 2, 5]) {
      const moved = new Uint8Array(bytes.length + offset).subarray(offset);
      moved.set(bytes);
      const path = folder({ "config.json": json(CONFIG), "model.safetensors": moved });
      // What memory holds is not a number, so that a value left as it was shows.
      const poison = Array.from({ length: 20 }, (_, i) => full([1 + 7 * i], NaN));
      for (const t of poison) t.dispose();
      const { model } = models.loadModel(path);
      const state = model.stateDict();
      assert.deepEqual([...state.keys()].sort(), Object.keys(tensors).sort());
      for (const [name, { data }] of state) assert.deepEqual(data, tensors[name]!.data, `${dtype} ${offset} ${name}`);
      model.dispose();
    }
  }
});

test("a load draws nothing: what follows depends on the seed alone, not on the base's size", () => {
  const after = (load: () => nn.Module | undefined): number[] => {
    manualSeed(3);
    const model = load();
    const drawn = [...nn.normal_(zeroTensor([5])).data];
    model?.dispose();
    return drawn;
  };
  const expected = after(() => undefined);
  for (const vocab of [8, 50]) {
    const path = whole({ ...CONFIG, vocab_size: vocab }, wide(vocab));
    assert.deepEqual(
      after(() => models.loadModel(path).model),
      expected,
    );
  }
  const factors = [8, 50].map((vocab) => {
    manualSeed(3);
    const { model } = models.loadModel(whole({ ...CONFIG, vocab_size: vocab }, wide(vocab)));
    const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["q_proj", "down_proj"] });
    const values = [...adapted.namedParameters()].filter(([key]) => key.includes("lora_")).map(([, p]) => [...p.data]);
    adapted.dispose();
    return values;
  });
  assert.deepEqual(factors[0], factors[1]);
  manualSeed(3);
  const first = new nn.Linear(2, 2).weight.data[0];
  manualSeed(3);
  assert.throws(() => models.loadModel(whole({ ...CONFIG, vocab_size: 9 }, wide(8))), FormatError);
  assert.equal(new nn.Linear(2, 2).weight.data[0], first, "a layer after a load that failed");
});

test("a load is planned as its configuration is", () => {
  const path = whole(CONFIG, wide(8));
  const step = { batch: 1, seq: 4, adapter: { r: 2, targetModules: "all-linear" as const } };
  const { model, config } = models.loadModel(path);
  model.dispose();
  const plan = train.planTraining(() => models.loadModel(path).model, step);
  assert.deepEqual(plan, train.planTraining(config, step));
});

test("a load that runs out of memory at any allocation leaves nothing behind, and layers made then are drawn", () => {
  const path = whole(CONFIG, wide(8));
  const { memory } = engine();
  const alloc = memory.alloc.bind(memory);
  const failing = (at: number): number => {
    let calls = 0;
    memory.alloc = (bytes) => {
      if (calls++ === at) throw new OutOfMemoryError(bytes, memoryStats().liveBytes, memory.limit);
      return alloc(bytes);
    };
    try {
      models.loadModel(path).model.dispose();
    } finally {
      memory.alloc = alloc;
    }
    return calls;
  };
  const total = failing(-1);
  assert.ok(total > 11);
  for (let i = 0; i < total; i++) refuses(() => failing(i), OutOfMemoryError);
  const layer = new nn.LayerNorm(3);
  assert.deepEqual([...layer.weight.data, ...layer.bias!.data], [1, 1, 1, 0, 0, 0]);
  layer.dispose();
});

test("a configuration of one's own: what is missing, unknown or out of range is refused by name", () => {
  const LLAMA = {
    modelType: "llama" as const,
    vocabSize: 8,
    hiddenSize: 4,
    intermediateSize: 2,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 2,
    maxPositionEmbeddings: 64,
    rmsNormEps: 1e-5,
    ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
    tieWordEmbeddings: true,
    bosTokenId: null,
    eosTokenId: [1, 2],
  };
  new models.Llama(LLAMA).dispose();
  const { modelType: _, ...unsaid } = LLAMA;
  const plain = new models.Llama(unsaid);
  assert.equal(plain.config.modelType, "llama");
  plain.dispose();
  for (const [change, word] of [
    [{ modelType: "gpt2" }, 'got "gpt2"'],
    [{ numLayers: 2 }, "numLayers"],
    [{ numHiddenLayers: undefined }, "numHiddenLayers"],
    [{ vocabSize: "8" }, "vocabSize"],
    [{ rmsNormEps: NaN }, "rmsNormEps"],
    [{ tieWordEmbeddings: undefined }, "tieWordEmbeddings"],
  ] as const) {
    refuses(() => new models.Llama({ ...LLAMA, ...change } as never), ArgumentError, "Llama", word);
  }
  for (const config of [undefined, null, 5, []])
    for (const Model of [models.Llama, models.Gpt2]) refuses(() => new Model(config as never), ArgumentError);
  const GPT2 = {
    modelType: "gpt2" as const,
    vocabSize: 8,
    hiddenSize: 4,
    intermediateSize: 16,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    maxPositionEmbeddings: 6,
    layerNormEpsilon: 1e-5,
    tieWordEmbeddings: true,
    bosTokenId: null,
    eosTokenId: null,
  };
  refuses(() => new models.Gpt2({ ...GPT2, nLayer: 2 } as never), ArgumentError, "nLayer");
});

test.run();
