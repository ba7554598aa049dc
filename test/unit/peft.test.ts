/** src/io/peft.ts. The reference config is the file PEFT 0.19.1 writes for a plain LoRA, field by field. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { peftEmbeddingKey, peftKey, readPeftAdapter, serializePeftConfig, writePeftAdapter, type PeftConfig } from "../../src/io/peft.js";
import { parseSafetensors, serializeSafetensors, type TensorToWrite } from "../../src/io/safetensors.js";
import { ArgumentError, FileError, FormatError } from "../../src/runtime/errors.js";
import { readGolden } from "../support/golden.js";

const folder = mkdtempSync(join(tmpdir(), "peft-"));
after(() => rmSync(folder, { recursive: true }));
let count = 0;
const newFolder = (): string => join(folder, String(count++));

const REFERENCE_CONFIG = {
  alora_invocation_tokens: null, alpha_pattern: {}, arrow_config: null, auto_mapping: null,
  base_model_name_or_path: "some/model", bias: "none", corda_config: null, ensure_weight_tying: false,
  eva_config: null, exclude_modules: null, fan_in_fan_out: false, inference_mode: true, init_lora_weights: true,
  layer_replication: null, layers_pattern: null, layers_to_transform: null, loftq_config: {}, lora_alpha: 16,
  lora_bias: false, lora_dropout: 0.05, lora_ga_config: null, megatron_config: null, megatron_core: "megatron.core",
  modules_to_save: null, peft_type: "LORA", peft_version: "0.19.1", qalora_group_size: 16, r: 2, rank_pattern: {},
  revision: null, target_modules: ["q_proj", "v_proj"], target_parameters: null, task_type: "CAUSAL_LM",
  trainable_token_indices: null, use_bdlora: null, use_dora: false, use_qalora: false, use_rslora: false,
};

const Q = "base_model.model.model.layers.0.self_attn.q_proj";
type Factor = TensorToWrite & { data: Float32Array };
const zeros = (name: string, ...shape: number[]): Factor =>
  ({ name, dtype: "F32", shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)) });
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
  assert.throws(() => readPeftAdapter(directory), (error: unknown) => {
    assert.ok(error instanceof FormatError, String(error));
    for (const word of words) assert.ok(error.message.includes(word), `${error.message} does not name ${word}`);
    return true;
  });
}

test("keys are PEFT's", () => {
  assert.equal(peftKey("model.layers.0.self_attn.q_proj", "lora_A"), `${Q}.lora_A.weight`);
  assert.equal(peftKey("fc", "lora_B"), "base_model.model.fc.lora_B.weight");
  assert.equal(peftEmbeddingKey("wte", "lora_embedding_B"), "base_model.model.wte.lora_embedding_B");
});

test("the config: sorted keys, indent 2, ASCII, every value as PEFT reads it", () => {
  const text = serializePeftConfig({ r: 4, loraAlpha: 32, loraDropout: 0.1, targetModules: ["q_proj", "v_proj"], baseModelNameOrPath: "modèle/😀", taskType: "CAUSAL_LM" });
  assert.equal(text, `{
  "alpha_pattern": {},
  "base_model_name_or_path": "mod\\u00e8le/\\ud83d\\ude00",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "lora_alpha": 32,
  "lora_bias": false,
  "lora_dropout": 0.1,
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 4,
  "rank_pattern": {},
  "target_modules": [
    "q_proj",
    "v_proj"
  ],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": false
}`);
});

test("the config: invalid values are refused by name", () => {
  const cases: [Partial<Record<keyof PeftConfig, unknown>>, string][] = [
    [{ r: 0 }, "r is 0"], [{ r: 1.5 }, "r is 1.5"], [{ r: undefined }, "r is undefined"], [{ loraAlpha: NaN }, "lora_alpha is NaN"],
    [{ loraDropout: 1 }, "lora_dropout is 1"], [{ loraDropout: -0.1 }, "lora_dropout"], [{ bias: "some" }, 'bias is "some"'],
    [{ targetModules: "all-linear" }, "target_modules"], [{ targetModules: [1] }, "target_modules"], [{ fanInFanOut: 1 }, "fan_in_fan_out is 1"],
    [{ baseModelNameOrPath: 7 }, "base_model_name_or_path is 7"], [{ taskType: false }, "task_type is false"],
  ];
  for (const [config, message] of cases) {
    assert.throws(() => serializePeftConfig(config as Partial<PeftConfig>),
      (error: unknown) => error instanceof ArgumentError && error.message.includes(message), message);
  }
});

test("a folder written is the folder read, to the bit", () => {
  const directory = join(newFolder(), "created", "with parents");
  const config: PeftConfig = {
    r: 2, loraAlpha: 3.5, loraDropout: 0.25, targetModules: ["q_proj", "wte"], bias: "lora_only", fanInFanOut: true,
    baseModelNameOrPath: null, taskType: null,
  };
  const tensors = [
    { name: peftKey("a.q_proj", "lora_A"), shape: [2, 3], data: Float32Array.of(1, -0, NaN, 1e-45, 3e38, 0.1) },
    { name: peftKey("a.q_proj", "lora_B"), shape: [1, 2], data: Float32Array.of(5, 6) },
    { name: peftEmbeddingKey("wte", "lora_embedding_A"), shape: [2, 1], data: Float32Array.of(7, 8) },
    { name: peftEmbeddingKey("wte", "lora_embedding_B"), shape: [1, 2], data: Float32Array.of(9, 10) },
    { name: "base_model.model.a.q_proj.base_layer.bias", shape: [1], data: Float32Array.of(11) },
  ];
  writePeftAdapter(directory, config, tensors);
  assert.deepEqual(readdirSync(directory).sort(), ["adapter_config.json", "adapter_model.safetensors"]);
  const back = readPeftAdapter(directory);
  assert.deepEqual(back.config, config);
  assert.deepEqual(back.tensors, new Map([...tensors].sort((a, b) => a.name < b.name ? -1 : 1).map(({ name, shape, data }) => [name, { shape, data }])));
  const bytes = readFileSync(join(directory, "adapter_model.safetensors"));
  assert.deepEqual({ ...parseSafetensors(bytes).metadata }, { format: "pt" });
  writePeftAdapter(directory, back.config, [...back.tensors].map(([name, tensor]) => ({ name, ...tensor })));
  assert.deepEqual(readFileSync(join(directory, "adapter_model.safetensors")), bytes);
});

test("PEFT's own config is read; BF16 factors become float32", () => {
  const halves = FACTORS.map((tensor): TensorToWrite => ({ ...tensor, dtype: "BF16", data: tensor.data.slice().fill(0.5) }));
  const { config, tensors } = readPeftAdapter(adapterWith({}, halves));
  assert.deepEqual(config, {
    r: 2, loraAlpha: 16, loraDropout: 0.05, targetModules: ["q_proj", "v_proj"], bias: "none", fanInFanOut: false,
    baseModelNameOrPath: "some/model", taskType: "CAUSAL_LM",
  });
  assert.deepEqual(tensors.get(`${Q}.lora_A.weight`), { shape: [2, 4], data: new Float32Array(8).fill(0.5) });
});

test("the documented minimum is read: r and alpha are 8", () => {
  const directory = adapterWith({}, [zeros(`${Q}.lora_A.weight`, 8, 4), zeros(`${Q}.lora_B.weight`, 6, 8)]);
  writeFileSync(join(directory, "adapter_config.json"), '{"target_modules": ["q_proj"], "peft_type": "LORA"}');
  assert.deepEqual(readPeftAdapter(directory).config, {
    r: 8, loraAlpha: 8, loraDropout: 0, targetModules: ["q_proj"], bias: "none", fanInFanOut: false, baseModelNameOrPath: null, taskType: null,
  });
});

test("llama_tiny's adapter, in PEFT's names, goes through a folder unchanged", () => {
  const golden = readGolden("llama_tiny");
  const factors = [...golden.tensors].filter(([name]) => /^base_model\.model\..*lora_[AB]\.weight$/.test(name))
    .map(([name, { shape, data }]) => ({ name, shape, data: data as Float32Array }));
  assert.ok(factors.length > 0);
  const directory = newFolder();
  writePeftAdapter(directory, { r: factors.find(({ name }) => name.includes("lora_A"))!.shape[0]!, targetModules: ["q_proj", "v_proj"] }, factors);
  const { tensors } = readPeftAdapter(directory);
  assert.equal(tensors.size, factors.length);
  for (const { name, shape, data } of factors) assert.deepEqual(tensors.get(name), { shape, data });
});

test("unknown keys: off values are accepted, others refused by name", () => {
  for (const value of [null, false, "", [], {}]) readPeftAdapter(adapterWith({ future_feature: value }));
  for (const value of [true, 0, 1, "x", [0], { a: null }]) refuses(adapterWith({ future_feature: value }), "future_feature");
  readPeftAdapter(adapterWith({ auto_mapping: { base_model_class: "M" }, revision: "main", runtime_config: { ephemeral_gpu_offload: false } }));
});

const unsupported: Record<string, unknown> = {
  alora_invocation_tokens: [1], alpha_pattern: { q_proj: 4 }, arrow_config: { top_k: 1 }, bias: "other", corda_config: { a: 1 },
  ensure_weight_tying: true, exclude_modules: ["k"], fan_in_fan_out: null, init_lora_weights: "pissa", kasa_config: { a: 1 },
  layer_replication: [[0, 1]], layers_pattern: "h", layers_to_transform: [0], loftq_config: { loftq_bits: 4 }, lora_alpha: "16",
  lora_bias: true, lora_dropout: 2, lora_ga_config: { a: 1 }, megatron_config: { a: 1 }, modules_to_save: ["classifier"],
  monteclora_config: { a: 1 }, peft_type: "LOHA", r: 0, rank_pattern: { q_proj: 4 }, target_modules: ".*q_proj", target_parameters: ["w"],
  trainable_token_indices: [1], use_bdlora: { a: 1 }, use_dora: true, use_qalora: true, use_rslora: true, velora_config: { a: 1 },
};
for (const [key, value] of Object.entries(unsupported)) {
  test(`refused by name: ${key} = ${JSON.stringify(value)}`, () => refuses(adapterWith({ [key]: value }), "adapter_config.json", key));
}

test("inits that changed the base weights are refused, the others are not", () => {
  for (const init of ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "new", null, 1]) {
    refuses(adapterWith({ init_lora_weights: init }), "init_lora_weights");
  }
  for (const init of [true, false, "gaussian", "orthogonal"]) readPeftAdapter(adapterWith({ init_lora_weights: init }));
});

const wrongTensors: Record<string, [object, Factor[], string]> = {
  "a key without the prefix": [{}, [zeros("q_proj.lora_A.weight", 2, 4), zeros("q_proj.lora_B.weight", 6, 2)], "q_proj.lora_A.weight"],
  "a DoRA magnitude": [{}, [...FACTORS, zeros(`${Q}.lora_magnitude_vector`, 6)], "lora_magnitude_vector"],
  "a bias on B": [{ bias: "all" }, [...FACTORS, zeros(`${Q}.lora_B.bias`, 6)], "lora_B.bias"],
  "a bias that the config denies": [{}, [...FACTORS, zeros(`${Q}.base_layer.bias`, 6)], "base_layer.bias"],
  "a full weight": [{ bias: "all" }, [...FACTORS, zeros(`${Q}.base_layer.weight`, 6, 4)], "base_layer.weight"],
  "A without B": [{}, FACTORS.slice(0, 1), "lora_B.weight"],
  "B without A": [{}, FACTORS.slice(1), "lora_A.weight"],
  "an adapter's name in the key": [{}, [zeros(`${Q}.lora_A.default.weight`, 2, 4), zeros(`${Q}.lora_B.default.weight`, 6, 2)], "lora_A.default.weight"],
  "A of another rank": [{}, [zeros(`${Q}.lora_A.weight`, 3, 4), FACTORS[1]!], "[3,4]"],
  "B of another rank": [{}, [FACTORS[0]!, zeros(`${Q}.lora_B.weight`, 6, 3)], "[6,3]"],
  "a transposed A": [{}, [zeros(`${Q}.lora_A.weight`, 4, 2), FACTORS[1]!], "[4,2]"],
  "A of one dimension": [{}, [zeros(`${Q}.lora_A.weight`, 2), FACTORS[1]!], "[2]"],
  "an embedding of three dimensions": [{}, [zeros("base_model.model.wte.lora_embedding_A", 2, 4, 1), zeros("base_model.model.wte.lora_embedding_B", 6, 2)], "[2,4,1]"],
};
for (const [what, [config, tensors, word]] of Object.entries(wrongTensors)) {
  test(`refused tensors: ${what}`, () => {
    refuses(adapterWith(config, tensors), "adapter_model.safetensors", word);
    const directory = newFolder();
    assert.throws(() => writePeftAdapter(directory, { r: 2, ...config }, tensors), ArgumentError);
    assert.throws(() => readdirSync(directory), "nothing was written");
  });
}

test("a grouped convolution's B has r / groups in its second dimension", () => {
  const conv = [zeros(`${Q}.lora_A.weight`, 2, 4, 3, 3), zeros(`${Q}.lora_B.weight`, 6, 1, 1, 1)];
  assert.equal(readPeftAdapter(adapterWith({}, conv)).tensors.size, 2);
});

test("integer factors are refused by name", () => {
  refuses(adapterWith({}, [{ ...FACTORS[0]!, dtype: "I32", data: new Int32Array(8) }, FACTORS[1]!]), "lora_A.weight", "I32");
});

test("missing and damaged files", () => {
  assert.throws(() => readPeftAdapter(newFolder()), (error: unknown) => error instanceof FileError && error.message.includes("adapter_config.json"));
  const directory = adapterWith({});
  writeFileSync(join(directory, "adapter_model.safetensors"), "x");
  refuses(directory, "adapter_model.safetensors");
  rmSync(join(directory, "adapter_model.safetensors"));
  assert.throws(() => readPeftAdapter(directory), (error: unknown) => error instanceof FileError && error.message.includes("adapter_model.safetensors"));
  writeFileSync(join(directory, "adapter_model.bin"), "x");
  assert.throws(() => readPeftAdapter(directory), (error: unknown) => error instanceof FileError && error.message.includes("pickled"));
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
