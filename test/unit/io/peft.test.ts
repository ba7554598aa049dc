/**
 * src/io/peft/. The reference config is the file PEFT 0.20.0 writes for a plain LoRA, field by
 * field.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { type LoraConfig, parsePeftConfig, serializePeftConfig } from "../../../src/io/peft/config.js";
import { readPeftAdapter, writePeftAdapter } from "../../../src/io/peft/folder.js";
import { baseKey, magnitudeKey } from "../../../src/io/peft/keys.js";
import { peftEmbeddingKey, peftKey } from "../../support/peft_keys.js";
import { parseSafetensors, serializeSafetensors, type TensorToWrite } from "../../../src/io/safetensors.js";
import { ArgumentError, FileError, FormatError } from "../../../src/runtime/errors.js";
import { readGolden } from "../../support/golden.js";
import { says } from "../../support/refuses.js";

const folder = mkdtempSync(join(tmpdir(), "peft-"));
test.after(() => rmSync(folder, { recursive: true }));
let count = 0;
const newFolder = (): string => join(folder, String(count++));

const REFERENCE_CONFIG = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: "some/model",
  bias: "none",
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 16,
  lora_bias: false,
  lora_dropout: 0.05,
  lora_ga_config: null,
  kasa_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  modules_to_save: null,
  monteclora_config: null,
  peft_type: "LORA",
  peft_version: "0.21.0",
  qalora_group_size: 16,
  r: 2,
  rank_pattern: {},
  revision: null,
  target_modules: ["q_proj", "v_proj"],
  target_parameters: null,
  task_type: "CAUSAL_LM",
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

/** LoraConfig() in PEFT, but for target_modules. */
const DEFAULTS: LoraConfig = {
  r: 8,
  loraAlpha: 8,
  loraDropout: 0,
  targetModules: null,
  targetParameters: null,
  excludeModules: null,
  layersToTransform: null,
  layersPattern: null,
  rankPattern: {},
  alphaPattern: {},
  fanInFanOut: false,
  bias: "none",
  useRslora: false,
  useDora: false,
  loraBias: false,
  initLoraWeights: true,
  modulesToSave: null,
  trainableTokenIndices: null,
  layerReplication: null,
  ensureWeightTying: false,
  baseModelNameOrPath: null,
  taskType: null,
};

const Q = "base_model.model.model.layers.0.self_attn.q_proj";
type Factor = TensorToWrite & { data: Float32Array };
const zeros = (name: string, ...shape: number[]): Factor => ({
  name,
  dtype: "F32",
  shape,
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
});
const FACTORS = [zeros(`${Q}.lora_A.weight`, 2, 4), zeros(`${Q}.lora_B.weight`, 6, 2)];

/** A folder as PEFT would write it, with changes. */
function adapterWith(config: object, tensors: TensorToWrite[] = FACTORS): string {
  const directory = newFolder();
  writePeftAdapter(directory, {}, []);
  writeFileSync(join(directory, "adapter_config.json"), JSON.stringify({ ...REFERENCE_CONFIG, ...config }));
  writeFileSync(join(directory, "adapter_model.safetensors"), serializeSafetensors(tensors, { format: "pt" }));
  return directory;
}

function refuses(directory: string, ...words: string[]): void {
  assert.throws(() => readPeftAdapter(directory), says(FormatError, ...words));
}

test("keys are PEFT's", () => {
  assert.equal(peftKey("model.layers.0.self_attn.q_proj", "lora_A"), `${Q}.lora_A.weight`);
  assert.equal(peftKey("fc", "lora_B"), "base_model.model.fc.lora_B.weight");
  assert.equal(peftEmbeddingKey("wte", "lora_embedding_B"), "base_model.model.wte.lora_embedding_B");
});

test("the config: the text of Python's json.dumps(config, indent=2, sort_keys=True)", () => {
  const text = serializePeftConfig({
    r: 4,
    loraAlpha: 32,
    targetModules: ["q_proj", "v_proj"],
    rankPattern: { k_proj: 2, v_proj: 16 },
    baseModelNameOrPath: "modèle/😀",
    taskType: "CAUSAL_LM",
  });
  assert.equal(
    text,
    `{
  "alora_invocation_tokens": null,
  "alpha_pattern": {},
  "arrow_config": null,
  "auto_mapping": null,
  "base_model_name_or_path": "mod\\u00e8le/\\ud83d\\ude00",
  "bias": "none",
  "corda_config": null,
  "ensure_weight_tying": false,
  "eva_config": null,
  "exclude_modules": null,
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "kasa_config": null,
  "layer_replication": null,
  "layers_pattern": null,
  "layers_to_transform": null,
  "loftq_config": {},
  "lora_alpha": 32,
  "lora_bias": false,
  "lora_dropout": 0.0,
  "lora_ga_config": null,
  "megatron_config": null,
  "megatron_core": "megatron.core",
  "modules_to_save": null,
  "monteclora_config": null,
  "peft_type": "LORA",
  "peft_version": "0.21.0",
  "qalora_group_size": 16,
  "r": 4,
  "rank_pattern": {
    "k_proj": 2,
    "v_proj": 16
  },
  "revision": null,
  "target_modules": [
    "q_proj",
    "v_proj"
  ],
  "target_parameters": null,
  "task_type": "CAUSAL_LM",
  "trainable_token_indices": null,
  "use_bdlora": null,
  "use_dora": false,
  "use_qalora": false,
  "use_rslora": false,
  "velora_config": null
}`,
  );
});

test("the config: floats as Python's repr spells them, integers without a point", () => {
  const spelt: [number, string][] = [
    [0, "0.0"],
    [0.1, "0.1"],
    [0.05, "0.05"],
    [1e-4, "0.0001"],
    [1e-5, "1e-05"],
    [1.5e-7, "1.5e-07"],
    [2.5e-10, "2.5e-10"],
    [1e-300, "1e-300"],
  ];
  for (const [loraDropout, text] of spelt)
    assert.ok(serializePeftConfig({ loraDropout }).includes(`"lora_dropout": ${text},`), text);
  const alphas: [number, string][] = [
    [16, "16"],
    [-3, "-3"],
    [3.5, "3.5"],
    [1e15, "1000000000000000"],
    [123456789012345680, "1.2345678901234568e+17"],
    [1e22, "1e+22"],
    [5e-324, "5e-324"],
  ];
  for (const [loraAlpha, text] of alphas)
    assert.ok(serializePeftConfig({ loraAlpha }).includes(`"lora_alpha": ${text},`), text);
});

test("the config: patterns keep their order, since the first match counts", () => {
  const text = serializePeftConfig({ rankPattern: { "layers.1.q": 2, q: 4, "^a": 1 } });
  assert.ok(text.includes('"rank_pattern": {\n    "layers.1.q": 2,\n    "q": 4,\n    "^a": 1\n  }'), text);
  assert.deepEqual(Object.keys(parsePeftConfig(JSON.parse(text), "config").rankPattern), ["layers.1.q", "q", "^a"]);
});

test("the config: invalid values are refused by name", () => {
  const cases: [Partial<Record<keyof LoraConfig, unknown>>, string][] = [
    [{ r: 0 }, "r is 0"],
    [{ r: 1.5 }, "r is 1.5"],
    [{ loraAlpha: NaN }, "loraAlpha is NaN"],
    [{ loraDropout: 1 }, "loraDropout is 1"],
    [{ loraDropout: -0.1 }, "loraDropout"],
    [{ bias: "some" }, 'bias is "some"'],
    [{ targetModules: {} }, "targetModules is {}"],
    [{ targetParameters: [] }, "targetParameters is []"],
    [{ loraBias: 1 }, "loraBias is 1"],
    [{ trainableTokenIndices: [-1] }, "trainableTokenIndices is [-1]"],
    [{ trainableTokenIndices: { wte: [] } }, 'trainableTokenIndices is {"wte":[]}'],
    [{ layerReplication: [[2, 1]] }, "layerReplication is [[2,1]]"],
    [{ targetModules: [1] }, "targetModules"],
    [{ targetModules: "(q" }, 'targetModules has "(q"'],
    [{ excludeModules: 1 }, "excludeModules is 1"],
    [{ excludeModules: "\\Aq" }, "excludeModules"],
    [{ layersToTransform: -1 }, "layersToTransform is -1"],
    [{ layersToTransform: [0.5] }, "layersToTransform is [0.5]"],
    [{ layersPattern: [1] }, "layersPattern is [1]"],
    [{ layersPattern: "h", layersToTransform: null }, "layersToTransform is null"],
    [{ layersPattern: "h", layersToTransform: 0 }, "[0]"],
    [{ layersPattern: ["h"], layersToTransform: [] }, "layersToTransform is []"],
    [{ layersPattern: "[", layersToTransform: 1 }, "layersPattern has"],
    [{ targetModules: "all-linear", layersToTransform: 1 }, "layersToTransform is 1 beside"],
    [{ targetModules: ".*", layersPattern: "" }, "layersPattern is"],
    [{ rankPattern: { q: 0 } }, "rankPattern"],
    [{ rankPattern: { "a)|(b": 1 } }, "rankPattern"],
    [{ rankPattern: [] }, "rankPattern is []"],
    [{ rankPattern: null }, "rankPattern is null"],
    [{ alphaPattern: { q: "4" } }, "alphaPattern"],
    [{ alphaPattern: { "(?i)q": 4 } }, "(?i"],
    [{ fanInFanOut: 1 }, "fanInFanOut is 1"],
    [{ useRslora: null }, "useRslora is null"],
    [{ useDora: "yes" }, 'useDora is "yes"'],
    [{ initLoraWeights: "pissa_niter_4" }, "initLoraWeights"],
    [{ initLoraWeights: "eva" }, "initLoraWeights"],
    [{ modulesToSave: "head" }, "modulesToSave"],
    [{ modulesToSave: [""] }, "modulesToSave"],
    [{ modulesToSave: ["a("] }, "modulesToSave has"],
    [{ baseModelNameOrPath: 7 }, "baseModelNameOrPath is 7"],
    [{ taskType: false }, "taskType is false"],
  ];
  for (const [config, message] of cases) {
    assert.throws(
      () => serializePeftConfig(config as Partial<LoraConfig>),
      (error: unknown) => error instanceof ArgumentError && error.message.includes(message),
      message,
    );
  }
});

test("a folder written is the folder read, to the bit", () => {
  const directory = join(newFolder(), "created", "with parents");
  const config: LoraConfig = {
    ...DEFAULTS,
    r: 2,
    loraAlpha: 3.5,
    loraDropout: 0.25,
    targetModules: ["q_proj", "wte"],
    excludeModules: ".*\\.k_proj",
    layersToTransform: [0, 2],
    layersPattern: "h",
    rankPattern: { "^a.q_proj": 2, conv: 4 },
    alphaPattern: { wte: 0.5 },
    bias: "lora_only",
    fanInFanOut: true,
    useRslora: true,
    useDora: true,
    initLoraWeights: "gaussian",
    modulesToSave: ["score"],
    baseModelNameOrPath: "some/base",
    taskType: "SEQ_CLS",
  };
  const tensors = [
    { name: peftKey("a.q_proj", "lora_A"), shape: [2, 3], data: Float32Array.of(1, -0, -1e-45, 1e-45, 3e38, 0.1) },
    { name: peftKey("a.q_proj", "lora_B"), shape: [1, 2], data: Float32Array.of(5, 6) },
    { name: peftEmbeddingKey("wte", "lora_embedding_A"), shape: [2, 1], data: Float32Array.of(7, 8) },
    { name: peftEmbeddingKey("wte", "lora_embedding_B"), shape: [1, 2], data: Float32Array.of(9, 10) },
    { name: baseKey("a.q_proj.base_layer.bias"), shape: [1], data: Float32Array.of(11) },
    { name: magnitudeKey("a.q_proj"), shape: [1], data: Float32Array.of(12) },
    { name: magnitudeKey("wte"), shape: [1], data: Float32Array.of(13) },
    { name: peftKey("conv", "lora_A"), shape: [4, 1, 1, 2], data: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8) },
    { name: peftKey("conv", "lora_B"), shape: [2, 2, 1, 1], data: Float32Array.of(1, 2, 3, 4) },
    { name: magnitudeKey("conv"), shape: [1, 2, 1, 1], data: Float32Array.of(14, 15) },
    { name: baseKey("score.weight"), shape: [1, 2], data: Float32Array.of(16, 17) },
    { name: baseKey("score.bias"), shape: [1], data: Float32Array.of(18) },
  ];
  writePeftAdapter(directory, config, tensors);
  assert.deepEqual(readdirSync(directory).sort(), ["adapter_config.json", "adapter_model.safetensors"]);
  const back = readPeftAdapter(directory);
  assert.deepEqual(back.config, config);
  assert.deepEqual(
    back.tensors,
    new Map(
      [...tensors].sort((a, b) => (a.name < b.name ? -1 : 1)).map(({ name, shape, data }) => [name, { shape, data }]),
    ),
  );
  const bytes = readFileSync(join(directory, "adapter_model.safetensors"));
  const { metadata } = parseSafetensors(bytes);
  assert.deepEqual([metadata["format"], Object.keys(metadata).sort()], ["pt", ["config", "digest", "format"]]);
  writePeftAdapter(
    directory,
    back.config,
    [...back.tensors].map(([name, tensor]) => ({ name, ...tensor })),
  );
  assert.deepEqual(readFileSync(join(directory, "adapter_model.safetensors")), bytes);
});

test("an adapter that was computed in fused arithmetic says so, and is read as any other", () => {
  const directory = newFolder();
  const config = { r: 2, targetModules: ["q_proj"] };
  const tensors = ["lora_A", "lora_B"].map((factor, i) => ({
    name: `${Q}.${factor}.weight`,
    shape: [
      [2, 4],
      [4, 2],
    ][i]!,
    data: new Float32Array(8).fill(i),
  }));
  const metadata = (): Record<string, string> =>
    parseSafetensors(readFileSync(join(directory, "adapter_model.safetensors"))).metadata;
  writePeftAdapter(directory, config, tensors, "fused");
  assert.equal(metadata()["arithmetic"], "fused");
  assert.equal(readPeftAdapter(directory).tensors.size, 2);
  writePeftAdapter(directory, config, tensors);
  assert(!("arithmetic" in metadata()));
  assert.throws(
    () => writePeftAdapter(directory, config, tensors, "exact" as never),
    says(ArgumentError, 'arithmetic must be "separate" or "fused"', '"exact"'),
  );
});

test("PEFT's own config is read; BF16 factors become float32", () => {
  const halves = FACTORS.map(
    (tensor): TensorToWrite => ({ ...tensor, dtype: "BF16", data: tensor.data.slice().fill(0.5) }),
  );
  const { config, tensors } = readPeftAdapter(adapterWith({}, halves));
  assert.deepEqual(config, {
    ...DEFAULTS,
    r: 2,
    loraAlpha: 16,
    loraDropout: 0.05,
    targetModules: ["q_proj", "v_proj"],
    baseModelNameOrPath: "some/model",
    taskType: "CAUSAL_LM",
  });
  assert.deepEqual(tensors.get(`${Q}.lora_A.weight`), { shape: [2, 4], data: new Float32Array(8).fill(0.5) });
});

test("the documented minimum is read: r and alpha are 8", () => {
  const directory = adapterWith({}, [zeros(`${Q}.lora_A.weight`, 8, 4), zeros(`${Q}.lora_B.weight`, 6, 8)]);
  writeFileSync(join(directory, "adapter_config.json"), '{"target_modules": ["q_proj"], "peft_type": "LORA"}');
  assert.deepEqual(readPeftAdapter(directory).config, { ...DEFAULTS, targetModules: ["q_proj"] });
});

test("llama_tiny's adapter, in PEFT's names, goes through a folder unchanged", () => {
  const golden = readGolden("llama_tiny");
  const factors = [...golden.tensors]
    .filter(([name]) => /^base_model\.model\..*lora_[AB]\.weight$/.test(name))
    .map(([name, { shape, data }]) => ({ name, shape, data: data as Float32Array }));
  assert.ok(factors.length > 0);
  const directory = newFolder();
  writePeftAdapter(
    directory,
    { r: factors.find(({ name }) => name.includes("lora_A"))!.shape[0]!, targetModules: ["q_proj", "v_proj"] },
    factors,
  );
  const { tensors } = readPeftAdapter(directory);
  assert.equal(tensors.size, factors.length);
  for (const { name, shape, data } of factors) assert.deepEqual(tensors.get(name), { shape, data });
});

test("unknown keys: off values are accepted, others refused by name", () => {
  for (const value of [null, false, "", [], {}]) readPeftAdapter(adapterWith({ future_feature: value }));
  for (const value of [true, 0, 1, "x", [0], { a: null }])
    refuses(adapterWith({ future_feature: value }), "future_feature");
  readPeftAdapter(
    adapterWith({
      auto_mapping: { base_model_class: "M" },
      revision: "main",
      runtime_config: { ephemeral_gpu_offload: false },
    }),
  );
});

const unsupported: Record<string, unknown> = {
  alora_invocation_tokens: [1],
  alpha_pattern: { q_proj: "4" },
  arrow_config: { top_k: 1 },
  bias: "other",
  ensure_weight_tying: 1,
  exclude_modules: 1,
  fan_in_fan_out: null,
  init_lora_weights: "corda",
  kasa_config: { a: 1 },
  layer_replication: [[1, 1]],
  layers_pattern: "h",
  layers_to_transform: ["0"],
  lora_alpha: "16",
  lora_bias: "no",
  lora_dropout: 2,
  megatron_config: { a: 1 },
  modules_to_save: [1],
  monteclora_config: { a: 1 },
  peft_type: "LOHA",
  r: 0,
  rank_pattern: { q_proj: 0.5 },
  target_modules: 1,
  target_parameters: "w",
  trainable_token_indices: [1, 1],
  use_bdlora: { a: 1 },
  use_dora: "true",
  use_qalora: true,
  use_rslora: 1,
  velora_config: { a: 1 },
};
for (const [key, value] of Object.entries(unsupported)) {
  test(`refused by name: ${key} = ${JSON.stringify(value)}`, () =>
    refuses(adapterWith({ [key]: value }), "adapter_config.json", key));
}

test("inits that changed the base by what the folder lacks are refused, the others are not", () => {
  for (const init of ["pissa_niter_16", "corda", "loftq", "lora_ga", "new", null, 1]) {
    refuses(adapterWith({ init_lora_weights: init }), "init_lora_weights");
  }
  for (const init of [true, false, "gaussian", "orthogonal", "pissa", "olora"]) {
    assert.equal(readPeftAdapter(adapterWith({ init_lora_weights: init })).config.initLoraWeights, init);
  }
  // The base is as it was, and a trained adapter needs no init any more.
  for (const init of ["eva", "mica"])
    assert.equal(readPeftAdapter(adapterWith({ init_lora_weights: init })).config.initLoraWeights, true);
});

test("what says nothing about the result is taken", () => {
  const told = { model_type: "llama", merge_weights: false, enable_lora: null, corda_config: { a: 1 } };
  const before = { loftq_config: { loftq_bits: 4 }, lora_ga_config: { a: 1 }, eva_config: { rho: 2 } };
  assert.equal(readPeftAdapter(adapterWith({ ...told, ...before })).config.r, 2);
  for (const key of ["target_modules", "target_parameters", "layer_replication", "trainable_token_indices"])
    assert.equal(readPeftAdapter(adapterWith({ [key]: null })).config.r, 2);
});

test("fields that PEFT has no adapter for together are refused by both names", () => {
  const pairs: [object, string, string][] = [
    [{ lora_bias: true, use_dora: true }, "lora_bias", "use_dora"],
    [{ lora_bias: true, init_lora_weights: "olora" }, "lora_bias", "init_lora_weights"],
    [{ target_parameters: ["w"], use_dora: true }, "target_parameters", "use_dora"],
    [{ target_parameters: ["w"], lora_bias: true, lora_dropout: 0 }, "target_parameters", "lora_bias"],
    [{ target_parameters: ["w"], lora_dropout: 0.1 }, "target_parameters", "lora_dropout"],
    [{ target_parameters: ["w"], fan_in_fan_out: true, lora_dropout: 0 }, "target_parameters", "fan_in_fan_out"],
  ];
  for (const [config, one, other] of pairs) refuses(adapterWith(config), one, other, "PEFT has no such adapter");
});

test("every feature of ours in PEFT's spelling is read", () => {
  const { config } = readPeftAdapter(
    adapterWith({
      target_modules: ["q_proj", "v_proj"],
      exclude_modules: ["layers.1.q_proj"],
      layers_to_transform: [0, 1],
      layers_pattern: ["layers"],
      rank_pattern: { "^model.layers.0.self_attn.q_proj": 2, v_proj: 4 },
      alpha_pattern: { v_proj: 2 },
      use_rslora: true,
      modules_to_save: ["score"],
      r: 16,
      fan_in_fan_out: true,
      bias: "all",
    }),
  );
  assert.deepEqual(config, {
    ...DEFAULTS,
    targetModules: ["q_proj", "v_proj"],
    excludeModules: ["layers.1.q_proj"],
    layersToTransform: [0, 1],
    layersPattern: ["layers"],
    rankPattern: { "^model.layers.0.self_attn.q_proj": 2, v_proj: 4 },
    alphaPattern: { v_proj: 2 },
    useRslora: true,
    modulesToSave: ["score"],
    r: 16,
    loraAlpha: 16,
    loraDropout: 0.05,
    fanInFanOut: true,
    bias: "all",
    baseModelNameOrPath: "some/model",
    taskType: "CAUSAL_LM",
  });
  assert.equal(
    readPeftAdapter(adapterWith({ target_modules: ".*\\.(q|v)_proj" })).config.targetModules,
    ".*\\.(q|v)_proj",
  );
  assert.equal(readPeftAdapter(adapterWith({ target_modules: "all-linear" })).config.targetModules, "all-linear");
});

const M = `${Q}.lora_magnitude_vector`;
const WTE = ["lora_embedding_A", "lora_embedding_B"].map((factor, i) =>
  zeros(
    `base_model.model.wte.${factor}`,
    ...[
      [2, 5],
      [6, 2],
    ][i]!,
  ),
);
const CONV = [zeros(`${Q}.lora_A.weight`, 2, 4, 3, 3), zeros(`${Q}.lora_B.weight`, 6, 1, 1, 1)];

const rightTensors: Record<string, [object, Factor[]]> = {
  "a linear layer's magnitude": [{ use_dora: true }, [...FACTORS, zeros(M, 6)]],
  "an embedding's magnitude": [{ use_dora: true }, [...WTE, zeros("base_model.model.wte.lora_magnitude_vector", 6)]],
  "a convolution's magnitude": [{ use_dora: true }, [...CONV, zeros(M, 1, 6, 1, 1)]],
  "a rank of its own": [{ r: 8, rank_pattern: { k_proj: 3, "layers.\\d.self_attn.q_proj": 2 } }, FACTORS],
  "a bias of the LoRA layer": [{ bias: "lora_only" }, [...FACTORS, zeros(`${Q}.base_layer.bias`, 6)]],
  "the same in a wrapper's name": [{ bias: "lora_only" }, [...FACTORS, zeros(`${Q}.bias`, 6)]],
  "all biases, by loralib's rule on names": [
    { bias: "all" },
    [
      ...FACTORS,
      zeros("base_model.model.norm.bias", 6),
      zeros("base_model.model.relative_attention_bias.weight", 6, 2),
    ],
  ],
  "modules saved whole": [
    { modules_to_save: ["score", "classifier"] },
    [...FACTORS, zeros("base_model.model.score.dense.weight", 2, 2), zeros("base_model.model.score.dense.bias", 2)],
  ],
  "modules saved whole, named by the end of a word": [
    { modules_to_save: ["head"] },
    [...FACTORS, zeros("base_model.model.lm_head.weight", 2, 2)],
  ],
};
for (const [what, [config, tensors]] of Object.entries(rightTensors)) {
  test(`accepted tensors: ${what}`, () => {
    assert.equal(readPeftAdapter(adapterWith(config, tensors)).tensors.size, tensors.length);
  });
}

const wrongTensors: Record<string, [object, Factor[], string]> = {
  "a key without the prefix": [
    {},
    [zeros("q_proj.lora_A.weight", 2, 4), zeros("q_proj.lora_B.weight", 6, 2)],
    "q_proj.lora_A.weight",
  ],
  "a magnitude without use_dora": [{}, [...FACTORS, zeros(M, 6)], "use_dora is false"],
  "use_dora without a magnitude": [{ use_dora: true }, FACTORS, "use_dora is true"],
  "a magnitude without factors": [
    { use_dora: true },
    [...FACTORS, zeros(M, 6), zeros("base_model.model.x.lora_magnitude_vector", 6)],
    "x.lora_magnitude_vector",
  ],
  "a magnitude of another width": [{ use_dora: true }, [...FACTORS, zeros(M, 4)], "expected [6]"],
  "a linear layer's magnitude for a convolution": [{ use_dora: true }, [...CONV, zeros(M, 6)], "expected [1,6,1,1]"],
  "a magnitude with .weight": [
    { use_dora: true },
    [...FACTORS, zeros(M, 6), zeros(`${M}.weight`, 6)],
    "lora_magnitude_vector.weight",
  ],
  "a bias on B": [{ bias: "all" }, [...FACTORS, zeros(`${Q}.lora_B.bias`, 6)], "lora_bias"],
  "a bias of no B": [{ lora_bias: true }, [zeros(`${Q}.lora_B.bias`, 6)], "no factors beside it"],
  "a bias on B of another size": [{ lora_bias: true }, [...FACTORS, zeros(`${Q}.lora_B.bias`, 5)], "expected [6]"],
  "no bias on B": [{ lora_bias: true }, FACTORS, "lora_B.bias"],
  "too few rows of tokens": [
    { trainable_token_indices: [1, 2] },
    [...FACTORS, zeros("base_model.model.wte.token_adapter.trainable_tokens_delta", 1, 6)],
    "expected [2, dim]",
  ],
  "rows of tokens of a module that is not named": [
    { trainable_token_indices: { embed_tokens: [1] } },
    [...FACTORS, zeros("base_model.model.wte.token_adapter.trainable_tokens_delta", 1, 6)],
    "no module that trainable_token_indices names",
  ],
  "single tokens": [
    { bias: "all" },
    [...FACTORS, zeros("base_model.model.wte.token_adapter.trainable_tokens_delta", 1, 6)],
    "trainable_token_indices",
  ],
  "a bias beside no factor": [{ bias: "lora_only" }, [...FACTORS, zeros("base_model.model.norm.bias", 6)], "norm.bias"],
  "a weight that is no bias": [{ bias: "all" }, [...FACTORS, zeros("base_model.model.norm.weight", 6)], "norm.weight"],
  "a module that is not announced": [
    { modules_to_save: ["score"] },
    [...FACTORS, zeros("base_model.model.scores.weight", 6)],
    "scores.weight",
  ],
  "a pattern's rank": [{ rank_pattern: { q_proj: 3 } }, FACTORS, "r = 3"],
  "a rank that a convolution's groups cannot divide": [
    {},
    [CONV[0]!, zeros(`${Q}.lora_B.weight`, 6, 3, 1, 1)],
    "[6,3,1,1]",
  ],
  "a convolution's B with a kernel": [{}, [CONV[0]!, zeros(`${Q}.lora_B.weight`, 6, 2, 3, 3)], "[6,2,3,3]"],
  "a convolution's A beside a linear layer's B": [{}, [CONV[0]!, FACTORS[1]!], "[2,4,3,3]"],
  "a bias that the config denies": [{}, [...FACTORS, zeros(`${Q}.base_layer.bias`, 6)], "base_layer.bias"],
  "a base's weight beside no factor": [
    { bias: "all" },
    [...FACTORS, zeros("base_model.model.wte.base_layer.weight", 6, 4)],
    "wte.base_layer.weight",
  ],
  "A without B": [{}, FACTORS.slice(0, 1), "lora_B.weight"],
  "B without A": [{}, FACTORS.slice(1), "lora_A.weight"],
  "an adapter's name in the key": [
    {},
    [zeros(`${Q}.lora_A.default.weight`, 2, 4), zeros(`${Q}.lora_B.default.weight`, 6, 2)],
    "lora_A.default.weight",
  ],
  "A of another rank": [{}, [zeros(`${Q}.lora_A.weight`, 3, 4), FACTORS[1]!], "[3,4]"],
  "B of another rank": [{}, [FACTORS[0]!, zeros(`${Q}.lora_B.weight`, 6, 3)], "[6,3]"],
  "a transposed A": [{}, [zeros(`${Q}.lora_A.weight`, 4, 2), FACTORS[1]!], "[4,2]"],
  "A of one dimension": [{}, [zeros(`${Q}.lora_A.weight`, 2), FACTORS[1]!], "[2]"],
  "an embedding of three dimensions": [
    {},
    [zeros("base_model.model.wte.lora_embedding_A", 2, 4, 1), zeros("base_model.model.wte.lora_embedding_B", 6, 2)],
    "[2,4,1]",
  ],
};
for (const [what, [config, tensors, word]] of Object.entries(wrongTensors)) {
  test(`refused tensors: ${what}`, () => {
    refuses(adapterWith(config, tensors), "adapter_model.safetensors", word);
    const directory = newFolder();
    const written = parsePeftConfig({ ...REFERENCE_CONFIG, ...config }, "config");
    assert.throws(
      () => writePeftAdapter(directory, written, tensors),
      (error: unknown) => error instanceof ArgumentError && error.message.includes(word),
    );
    assert.throws(() => readdirSync(directory), "nothing was written");
  });
}

test("a grouped convolution's B has r / groups in its second dimension", () => {
  assert.equal(readPeftAdapter(adapterWith({}, CONV)).tensors.size, 2);
});

test("integer factors are refused by name", () => {
  refuses(
    adapterWith({}, [{ ...FACTORS[0]!, dtype: "I32", data: new Int32Array(8) }, FACTORS[1]!]),
    "lora_A.weight",
    "I32",
  );
});

test("missing and damaged files", () => {
  assert.throws(
    () => readPeftAdapter(newFolder()),
    (error: unknown) => error instanceof FileError && error.message.includes("adapter_config.json"),
  );
  const directory = adapterWith({});
  writeFileSync(join(directory, "adapter_model.safetensors"), "x");
  refuses(directory, "adapter_model.safetensors");
  rmSync(join(directory, "adapter_model.safetensors"));
  assert.throws(
    () => readPeftAdapter(directory),
    (error: unknown) => error instanceof FileError && error.message.includes("adapter_model.safetensors"),
  );
  writeFileSync(join(directory, "adapter_model.bin"), "x");
  assert.throws(
    () => readPeftAdapter(directory),
    (error: unknown) => error instanceof FileError && error.message.includes("pickled"),
  );
  writeFileSync(join(directory, "adapter_config.json"), "[]");
  refuses(directory, "no JSON object");
  writeFileSync(join(directory, "adapter_config.json"), "{");
  refuses(directory, "line 1");
});

test("one tensor twice is refused before anything is written", () => {
  const directory = newFolder();
  const [a, b] = FACTORS;
  assert.throws(() => writePeftAdapter(directory, { r: 2 }, [a!, b!, a!]), ArgumentError);
  assert.throws(() => readdirSync(directory));
});

test.run();
