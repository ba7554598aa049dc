/**
 * Inputs that were thought of, one by one: small files that ask for much, large ones that are slow to read, names that
 * lead elsewhere. The process's resident memory is watched while they run.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { data, io, models, nn, noGrad, peft, scope, tensor, train } from "../../../src/index.js";
import { readCheckpoint } from "../../../src/cli/checkpoint.js";
import { readJson } from "../../../src/io/files.js";
import { joined } from "../json_tree.js";
import { Finding, must, refusal, type Files, type Target } from "../target.js";
import { encode, FOLDER, weightsOf, withFiles, type Weight } from "../weights.js";

/** What must come of an input; "either" where only time, memory and the kind of error count. */
type Verdict = "taken" | "refused" | "either";
interface Case {
  name: string;
  expected: Verdict;
  files(): Files;
  run(): unknown;
}
const CASES: Case[] = [];
function add(name: string, expected: Verdict, files: () => Files, run: () => unknown): void {
  CASES.push({ name, expected, files, run });
}

const MB = 1_000_000;
const json = (value: unknown): Uint8Array => encode(JSON.stringify(value));
const many = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));
const objectText = (n: number, member: (i: number) => string): string => `{${many(n, member).join(",")}}`;
const nested = (n: number): string => `${"[".repeat(n)}${"]".repeat(n)}`;

/* Safetensors */
function headed(header: string, data = 0, length = -1): Uint8Array {
  const text = encode(header);
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(length < 0 ? text.length : length), true);
  return joined(size, text, new Uint8Array(data));
}
const EMPTY = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';
function safetensors(name: string, expected: Verdict, file: () => Uint8Array): void {
  add(
    `safetensors: ${name}`,
    expected,
    () => ({ "x.safetensors": file() }),
    () => io.parseSafetensors(io.memoryFiles.get(`${FOLDER}/x.safetensors`)!),
  );
}
safetensors("10 MB of metadata keys", "taken", () =>
  headed(`{"__metadata__":${objectText(700_000, (i) => `"k${i.toString(36)}":""`)}}`),
);
safetensors("10 MB of tensors without bytes", "taken", () =>
  headed(objectText(190_000, (i) => `"${i.toString(36)}":${EMPTY}`)),
);
safetensors("a shape of 5,000,000 ones", "either", () =>
  headed(`{"a":{"dtype":"U8","shape":[${"1,".repeat(5 * MB)}0],"data_offsets":[0,0]}}`),
);
safetensors("a name of 10 MB", "taken", () => headed(`{"${"n".repeat(10 * MB)}":${EMPTY}}`));
safetensors("a name of 10 MB of escapes", "taken", () => headed(`{"${"\\u0061".repeat(1.7 * MB)}":${EMPTY}}`));
safetensors("an unknown field 1,000,000 levels deep", "refused", () =>
  headed(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":${nested(MB)}}}`),
);
safetensors("brackets that never close", "refused", () => headed("[".repeat(MB)));
safetensors("metadata a million levels deep", "refused", () =>
  headed(`{"__metadata__":${'{"a":'.repeat(MB)}0${"}".repeat(MB)}}`),
);
safetensors("a number of 5,000,000 digits", "refused", () =>
  headed(`{"a":{"dtype":"U8","shape":[${"9".repeat(5 * MB)}],"data_offsets":[0,0]}}`),
);
safetensors("10 MB of white space", "taken", () => headed(`{${" \t\n\r".repeat(2.5 * MB)}}`));
safetensors("a name 200,000 times", "refused", () => headed(objectText(200_000, () => `"a":${EMPTY}`)));
safetensors("an unended string of backslashes", "refused", () => headed(`{"${"\\\\".repeat(2.5 * MB)}`));
safetensors("a header of 2^63 bytes", "refused", () => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 128, 123, 125));
safetensors("a header of 99,999,999 bytes that are not there", "refused", () => headed("{}", 0, 99_999_999));
safetensors("100,000 tensors in reverse order", "taken", () =>
  headed(
    objectText(100_000, (i) => `"${i}":{"dtype":"U8","shape":[1],"data_offsets":[${99_999 - i},${100_000 - i}]}`),
    100_000,
  ),
);
safetensors("__proto__ and constructor as names", "taken", () =>
  headed(`{"__metadata__":{"__proto__":"x","constructor":"y"},"__proto__":${EMPTY},"constructor":${EMPTY}}`),
);
safetensors("a lone surrogate", "refused", () => headed(`{"\\ud800":${EMPTY}}`));
add(
  "loralib: 100,000 factors without a partner",
  "either",
  () => ({
    "x.safetensors": headed(
      objectText(100_000, (i) => `"l${i}.lora_A":{"dtype":"F32","shape":[1,1],"data_offsets":[${4 * i},${4 * i + 4}]}`),
      400_000,
    ),
  }),
  () => peft.loralibToPeft(io.loadLoralib(`${FOLDER}/x.safetensors`), {}),
);

/* JSON */
function jsonFile(name: string, expected: Verdict, text: () => string): void {
  add(
    `json: ${name}`,
    expected,
    () => ({ "x.json": encode(text()) }),
    () => readJson(`${FOLDER}/x.json`),
  );
}
jsonFile("1,000,000 levels", "either", () => nested(MB));
jsonFile("1,000,000 levels, not closed", "refused", () => "[".repeat(MB));
jsonFile("1,000,000 objects, not closed", "refused", () => '{"a":'.repeat(MB));
jsonFile("10 MB of white space and a fault", "refused", () => `${" \n".repeat(5 * MB)}x`);
jsonFile("a string of 10 MB that does not end", "refused", () => `"${"a".repeat(10 * MB)}`);
jsonFile("a key 500,000 times", "either", () => objectText(500_000, () => '"a":1'));

/* Adapters */
class Net extends nn.Module {
  readonly layers: nn.Layer[] = [new nn.Linear(4, 4), new nn.Linear(4, 4)];
  readonly norm: nn.Layer = new nn.LayerNorm(4);
  forward(x: ReturnType<typeof tensor>): ReturnType<typeof tensor> {
    return this.layers.reduce((y, layer) => layer.forward(y), x);
  }
}
const factor = (path: string, of: "A" | "B", shape: number[]): Weight => ({
  name: `base_model.model.${path}.lora_${of}.weight`,
  dtype: "F32",
  shape,
  data: new Float32Array(shape[0]! * shape[1]!),
});
const FACTORS = [0, 1].flatMap((i) => [factor(`layers.${i}`, "A", [2, 4]), factor(`layers.${i}`, "B", [4, 2])]);
let net: Net;
function adapter(
  name: string,
  expected: Verdict,
  config: () => string | object,
  weights: () => Weight[] = () => FACTORS,
): void {
  add(
    `adapter: ${name}`,
    expected,
    () => {
      const given = config();
      const text =
        typeof given === "string"
          ? given
          : JSON.stringify({ peft_type: "LORA", r: 2, lora_alpha: 4, target_modules: ["0", "1"], ...given });
      return {
        "adapter_config.json": encode(text),
        "adapter_model.safetensors": io.serializeSafetensors(weights(), { format: "pt" }),
      };
    },
    () => {
      peft.LoraModel.fromPretrained(net, FOLDER).unload();
    },
  );
}
const raw = (members: string): string =>
  `{"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["0","1"],${members}}`;
adapter("as it should be", "taken", () => ({}));
adapter("100,000 names in target_modules", "either", () => ({
  target_modules: [...many(100_000, (i) => `m${i}`), "0", "1"],
}));
adapter("100,000 names in exclude_modules", "either", () => ({ exclude_modules: many(100_000, (i) => `m${i}`) }));
adapter("1,000,000 layers to transform", "either", () => ({ layers_to_transform: many(MB, (i) => i) }));
adapter("layer 2^53 - 1 and layer -0", "either", () => ({ layers_to_transform: [0, 1, 2 ** 53 - 1] }));
adapter("100,000 patterns for layers", "either", () => ({
  layers_to_transform: [0, 1],
  layers_pattern: many(100_000, (i) => `l${i}`),
}));
adapter("a key of 1 MB in rank_pattern", "either", () => ({ rank_pattern: { ["a".repeat(MB)]: 2 } }));
adapter("a key of 200 kB of stars in alpha_pattern", "either", () => ({
  alpha_pattern: { ["a*".repeat(MB / 10)]: 2 },
}));
adapter("a key of 1 MB of brackets in alpha_pattern", "either", () => ({
  alpha_pattern: { ["(".repeat(MB / 2) + ")".repeat(MB / 2)]: 2 },
}));
adapter("20,000 counted keys in alpha_pattern", "either", () => ({
  alpha_pattern: Object.fromEntries(many(20_000, (i) => [`x{1,${i + 1}}y`, 2])),
}));
adapter("100,000 keys in rank_pattern", "either", () => ({
  rank_pattern: Object.fromEntries(many(100_000, (i) => [`m${i}`, 2])),
}));
adapter("100,000 names in modules_to_save", "either", () => ({ modules_to_save: many(100_000, (i) => `m${i}`) }));
adapter(
  "16,000 dots beside 16,000 names to save",
  "either",
  () => ({ modules_to_save: many(16_000, (i) => `m${i}`) }),
  () => [...FACTORS, { ...factor("x", "A", [1, 1]), name: `base_model.model.${"a.".repeat(16_000)}weight` }],
);
adapter(
  "100,000 tensors that are nobody's",
  "refused",
  () => ({}),
  () => [...FACTORS, ...many(100_000, (i) => factor(`z${i}`, i % 2 ? "A" : "B", [1, 1]))],
);
adapter(
  "4,000 patterns beside 4,000 modules",
  "either",
  () => ({ rank_pattern: Object.fromEntries(many(4000, (i) => [`.*m${i}`, 2])) }),
  () => [...FACTORS, ...many(2000, (i) => [factor(`z${i}`, "A", [2, 1]), factor(`z${i}`, "B", [1, 2])]).flat()],
);
adapter(
  "a tensor's name of 1 MB beside patterns",
  "refused",
  () => ({ rank_pattern: { ".*.*.*x": 3, "(a|b|ab)*c": 3 } }),
  () => [...FACTORS, factor("ab".repeat(MB / 2), "A", [2, 1]), factor("ab".repeat(MB / 2), "B", [1, 2])],
);
adapter(
  "a rank of 10^9 for a module without tensors",
  "refused",
  () => ({ rank_pattern: { 1: 1e9 } }),
  () => FACTORS.slice(0, 2),
);
adapter("a rank of 2^53 - 1", "refused", () => ({ r: 2 ** 53 - 1 }));
adapter("alpha of 1e308", "either", () => ({ lora_alpha: 1e308 }));
adapter("alpha of 1e400", "refused", () => raw('"lora_alpha":1e400'));
adapter("100,000 unknown keys that are off", "either", () => raw(many(100_000, (i) => `"k${i}":null`).join(",")));
adapter("100,000 unknown keys", "refused", () => raw(many(100_000, (i) => `"k${i}":1`).join(",")));
adapter("an unknown key 1,000,000 levels deep", "refused", () => raw(`"k":${nested(MB)}`));
adapter("auto_mapping 1,000,000 levels deep", "either", () => raw(`"auto_mapping":${nested(MB)}`));
adapter("target_modules 1,000,000 levels deep", "refused", () => `{"peft_type":"LORA","target_modules":${nested(MB)}}`);
adapter("a base's name of 10 MB", "either", () => ({ base_model_name_or_path: "x".repeat(10 * MB) }));
adapter("peft_type of 10 MB", "refused", () => ({ peft_type: "x".repeat(10 * MB) }));
adapter("__proto__ as a key everywhere", "either", () =>
  raw('"rank_pattern":{"__proto__":2},"alpha_pattern":{"__proto__":{"polluted":1}},"__proto__":{"r":9}'),
);
adapter("r 500,000 times", "either", () => raw(many(500_000, () => '"r":2').join(",")));
adapter("lone surrogates in names", "either", () => raw('"modules_to_save":["\\ud800"],"exclude_modules":["\\udfff"]'));
for (const pattern of [
  "(a+)+x",
  "(.*)*x",
  "(\\w+\\.?)+x",
  ".*.*.*.*.*.*x",
  "((a{99}){99}){99}",
  "(a{0,999}){0,999}x",
  "a{999999999}",
  "(?=(.*)*x)y",
  "(a?){5000}",
]) {
  for (const field of [
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_pattern",
  ]) {
    adapter(
      `${pattern} in ${field}`,
      "either",
      () => ({
        [field]:
          field.endsWith("_pattern") && field !== "layers_pattern"
            ? { [pattern]: 2 }
            : field === "modules_to_save"
              ? [pattern]
              : pattern,
        ...(field === "layers_pattern" ? { layers_to_transform: [0, 1] } : {}),
      }),
      () => [...FACTORS, factor("a".repeat(30_000), "A", [2, 1]), factor("a".repeat(30_000), "B", [1, 2])],
    );
  }
}

/* Models */
const LLAMA = {
  model_type: "llama",
  vocab_size: 8,
  hidden_size: 4,
  intermediate_size: 6,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 2,
  max_position_embeddings: 8,
  hidden_act: "silu",
  rms_norm_eps: 0.01,
  tie_word_embeddings: true,
  bos_token_id: 1,
  eos_token_id: 2,
};
const GPT2 = {
  model_type: "gpt2",
  vocab_size: 8,
  n_embd: 4,
  n_head: 2,
  n_layer: 1,
  n_positions: 8,
  bos_token_id: 1,
  eos_token_id: 2,
};
const SHARED = {
  vocabSize: 8,
  hiddenSize: 4,
  intermediateSize: 6,
  numHiddenLayers: 1,
  numAttentionHeads: 2,
  maxPositionEmbeddings: 8,
  tieWordEmbeddings: true,
  bosTokenId: 1,
  eosTokenId: 2,
};
let llama: Weight[];
let gpt2: Weight[];
const written = (weights: Weight[]): Uint8Array => io.serializeSafetensors(weights, { format: "pt" });
function use(): void {
  const { model, config } = models.loadModel(FOLDER);
  try {
    noGrad(() =>
      scope(() => {
        model.forward(tensor(Int32Array.of(1, 0), [1, 2]));
      }),
    );
    must(
      [...models.generate(model, [1], { maxNewTokens: 1, temperature: 0 })].length <= 1 && config.vocabSize > 0,
      () => "more than one token",
    );
  } finally {
    model.dispose();
  }
}
function model(name: string, expected: Verdict, files: () => Files, config: object | string = LLAMA): void {
  add(
    `model: ${name}`,
    expected,
    () => ({
      "config.json": typeof config === "string" ? encode(config) : json(config),
      "model.safetensors": written(typeof config === "object" && "n_layer" in config ? gpt2 : llama),
      ...files(),
    }),
    use,
  );
}
const none = (): Files => ({});
model("as it should be", "taken", none);
model("a GPT-2 as it should be", "taken", none, GPT2);
for (const [key, value] of Object.entries({
  num_hidden_layers: 1e9,
  vocab_size: 2e8,
  intermediate_size: 5e7,
  hidden_size: 1e9,
  num_attention_heads: 1e9,
  num_key_value_heads: 1e9,
  head_dim: 1e9,
}))
  model(`${key} = ${value}`, "refused", none, { ...LLAMA, [key]: value });
model("num_hidden_layers = 300,000", "refused", none, { ...LLAMA, num_hidden_layers: 3e5 });
model("num_hidden_layers = 2^53 - 1", "refused", none, { ...LLAMA, num_hidden_layers: 2 ** 53 - 1 });
model("max_position_embeddings = 2e8", "either", none, { ...LLAMA, max_position_embeddings: 2e8 });
model("max_position_embeddings = 2^53 - 1", "either", none, { ...LLAMA, max_position_embeddings: 2 ** 53 - 1 });
for (const [key, value] of Object.entries({
  n_layer: 1e9,
  vocab_size: 1e9,
  n_positions: 1e9,
  n_embd: 1e9,
  n_inner: 1e9,
  n_head: 1e9,
})) {
  model(`GPT-2 with ${key} = ${value}`, "refused", none, { ...GPT2, [key]: value });
}
model(
  "numbers at the edge",
  "refused",
  none,
  JSON.stringify(LLAMA).replace('"rms_norm_eps":0.01', '"rms_norm_eps":1e-400'),
);
model("rope_theta of 1e308", "either", none, { ...LLAMA, rope_theta: 1e308 });
model("config.json 1,000,000 levels deep", "refused", () => ({ "config.json": encode(nested(MB)) }));
model("an unknown key 1,000,000 levels deep", "either", () => ({
  "config.json": encode(JSON.stringify(LLAMA).replace("{", `{"x":${nested(MB)},`)),
}));
model("a rope_scaling 1,000,000 levels deep", "refused", () => ({
  "config.json": encode(JSON.stringify(LLAMA).replace("{", `{"rope_scaling":${nested(MB)},`)),
}));
model("100,000 keys in rope_parameters", "refused", none, {
  ...LLAMA,
  rope_parameters: Object.fromEntries(many(100_000, (i) => [`k${i}`, 1])),
});
model("model_type of 10 MB", "refused", none, { ...LLAMA, model_type: "x".repeat(10 * MB) });
model("a list of 1,000,000 eos ids", "either", none, { ...LLAMA, eos_token_id: many(MB, (i) => i % 8) });
model("__proto__ in config.json", "either", () => ({
  "config.json": encode(JSON.stringify(LLAMA).replace("{", '{"__proto__":{"vocab_size":9},"constructor":1,')),
}));
model("generation_config.json 1,000,000 levels deep", "either", () => ({
  "generation_config.json": encode(nested(MB)),
}));
model("generation_config.json of 500,000 keys", "either", () => ({
  "generation_config.json": encode(objectText(500_000, (i) => `"k${i}":1`)),
}));
model("generation_config.json with eos of strings", "either", () => ({
  "generation_config.json": json({ eos_token_id: many(100_000, (i) => `x${i}`) }),
}));
model("100,000 tensors that are nobody's", "refused", () => ({
  "model.safetensors": written([
    ...llama,
    ...many(100_000, (i) => ({ name: `z${i}`, dtype: "F32" as const, shape: [0], data: new Float32Array(0) })),
  ]),
}));
model("a tensor's name of 10 MB", "refused", () => ({
  "model.safetensors": written([
    ...llama,
    { name: "n".repeat(10 * MB), dtype: "F32", shape: [0], data: new Float32Array(0) },
  ]),
}));
model(
  "10,000 layers of one tensor each",
  "refused",
  () => ({
    "model.safetensors": written(
      many(10_000, (i) => ({
        name: `model.layers.${i}.input_layernorm.weight`,
        dtype: "F32" as const,
        shape: [4],
        data: new Float32Array(4),
      })),
    ),
  }),
  { ...LLAMA, num_hidden_layers: 10_000 },
);

/* Shards */
const SHARD = "model-00001-of-00001.safetensors";
function index(name: string, expected: Verdict, text: () => string, files: () => Files = none): void {
  add(
    `index: ${name}`,
    expected,
    () => ({
      "config.json": json(LLAMA),
      [SHARD]: written(llama),
      "model.safetensors.index.json": encode(text()),
      ...files(),
    }),
    use,
  );
}
const map = (entries: Record<string, string>): string =>
  JSON.stringify({ weight_map: { ...Object.fromEntries(llama.map(({ name }) => [name, SHARD])), ...entries } });
index("as it should be", "taken", () => map({}));
index(
  "1,000,000 names that are not there",
  "refused",
  () => `{"weight_map":${objectText(MB, (i) => `"z${i}":"s.safetensors"`)}}`,
);
index("100,000 shards that are not there", "refused", () =>
  map(Object.fromEntries(many(100_000, (i) => [`z${i}`, `s${i}.safetensors`]))),
);
index("1,000,000 levels", "refused", () => nested(MB));
index("__proto__ for its weight_map", "refused", () => '{"__proto__":{"weight_map":{}},"constructor":{}}');
index("__proto__ as a tensor", "refused", () =>
  map({}).replace('{"weight_map":{', `{"weight_map":{"__proto__":"${SHARD}",`),
);
for (const path of [
  "../outside.safetensors",
  "/outside.safetensors",
  "a/../../outside.safetensors",
  "C:\\outside.safetensors",
  "C:outside.safetensors",
  "..\\outside.safetensors",
  "\\\\host\\share.safetensors",
  `${SHARD}\0.safetensors`,
  "outside.safetensors\0",
  "memory:outside.safetensors",
  "file:///outside.safetensors",
  "~/outside.safetensors",
  "%2e%2e%2foutside.safetensors",
  "a/b.safetensors",
  ".safetensors",
  "..safetensors",
  `${"n".repeat(MB)}.safetensors`,
  "config.json",
  "",
  ".",
  "..",
  "\u202ex.safetensors",
  "x.safetensors ",
  "x.safetensors\n",
  "con.safetensors\u0000",
]) {
  index(`a shard called ${JSON.stringify(path).slice(0, 60)}`, "refused", () => map({ "model.norm.weight": path }));
}

/* On disk */
function onDisk(name: string, expected: Verdict, prepare: (folder: string) => void): void {
  add(`disk: ${name}`, expected, none, () => {
    const folder = mkdtempSync(join(tmpdir(), "fuzz-"));
    try {
      writeFileSync(join(folder, "config.json"), json(LLAMA));
      prepare(folder);
      models.loadModel(folder).model.dispose();
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}
onDisk("a model of 10^12 bytes, none of them written", "refused", (folder) => {
  writeFileSync(join(folder, "model.safetensors"), "");
  truncateSync(join(folder, "model.safetensors"), 1e12);
});
onDisk("a folder for a file", "refused", (folder) => {
  mkdirSync(join(folder, "model.safetensors"));
});
if (process.platform !== "win32") {
  onDisk("a link to /dev/zero", "refused", (folder) => {
    symlinkSync("/dev/zero", join(folder, "model.safetensors"));
  });
  onDisk("a link to itself", "refused", (folder) => {
    symlinkSync("model.safetensors", join(folder, "model.safetensors"));
  });
  onDisk("a named pipe", "refused", (folder) => {
    execFileSync("mkfifo", [join(folder, "model.safetensors")]);
  });
  onDisk("a named pipe for config.json", "refused", (folder) => {
    rmSync(join(folder, "config.json"));
    execFileSync("mkfifo", [join(folder, "config.json")]);
  });
  add("disk: links beside the file that is written", "either", none, () => {
    const folder = mkdtempSync(join(tmpdir(), "fuzz-"));
    const victim = join(folder, "victim");
    try {
      writeFileSync(victim, "whole");
      mkdirSync(join(folder, "out"));
      for (const file of ["adapter_model.safetensors", "adapter_config.json"]) {
        symlinkSync(victim, join(folder, "out", `${file}.${process.pid}.tmp`));
        symlinkSync(victim, join(folder, "out", `${file}.tmp`));
      }
      const adapted = peft.getLoraModel(net, { r: 1, targetModules: ["0"] });
      try {
        adapted.savePretrained(join(folder, "out"));
      } finally {
        adapted.unload();
      }
      must(readdirSync(join(folder, "out")).includes("adapter_config.json"), () => "nothing was written");
      must(execFileSync("cat", [victim], { encoding: "utf8" }) === "whole", () => "a link was written through");
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

/* Tokenizers */
function tokenizer(name: string, expected: Verdict, value: () => object | string, text = "the cats sat"): void {
  add(
    `tokenizer: ${name}`,
    expected,
    () => {
      const given = value();
      return { "tokenizer.json": encode(typeof given === "string" ? given : JSON.stringify(given)) };
    },
    () => {
      const codec = data.loadTokenizer(FOLDER);
      const ids = codec.encode(text);
      must(
        ids.every((id) => Number.isSafeInteger(id) && id >= 0),
        () => "an id is no number",
      );
      codec.decode(ids);
    },
  );
}
const bpe = (more: object = {}, vocab: object = { a: 0, b: 1, ab: 2 }, merges: unknown[] = ["a b"]): object => ({
  added_tokens: [],
  model: { type: "BPE", vocab, merges },
  ...more,
});
const token = (id: number, content: string): object => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});
tokenizer(
  "a vocabulary of 1,000,000",
  "either",
  () => `{"model":{"type":"BPE","merges":[],"vocab":${objectText(MB, (i) => `"t${i}":${i}`)}}}`,
);
tokenizer("1,000,000 merges", "either", () =>
  bpe(
    {},
    { a: 0 },
    many(MB, (i) => `a${i} b${i}`),
  ),
);
tokenizer("100,000 added tokens", "either", () => bpe({ added_tokens: many(100_000, (i) => token(i, `<${i}>`)) }));
tokenizer(
  "added tokens that begin each other",
  "either",
  () => bpe({ added_tokens: many(2000, (i) => token(i, "a".repeat(i + 1))) }),
  "a".repeat(20_000),
);
tokenizer("a Unigram of 500,000", "either", () => ({
  added_tokens: [],
  model: { type: "Unigram", unk_id: 0, vocab: many(500_000, (i) => [`t${i}`, -i]) },
}));
tokenizer("a decoder 100,000 levels deep", "either", () =>
  JSON.stringify(bpe()).replace(
    "{",
    `{"decoder":${'{"type":"Sequence","decoders":['.repeat(100_000)}${"]}".repeat(100_000)},`,
  ),
);
tokenizer("JSON 1,000,000 levels deep", "either", () =>
  JSON.stringify(bpe()).replace("{", `{"normalizer":${nested(MB)},`),
);
tokenizer(
  "__proto__ in the vocabulary",
  "either",
  () =>
    '{"added_tokens":[],"model":{"type":"BPE","vocab":{"__proto__":{"polluted":1},"a":0},"merges":[]},"__proto__":{}}',
  "__proto__ a",
);
tokenizer("no object", "refused", () => "[]");
tokenizer("ids beyond 2^53", "either", () => bpe({}, { a: 2 ** 60, t: -1, h: 0.5, e: "x" }));

/* Checkpoints */
interface Run {
  [key: string]: unknown;
}
const SETTINGS = {
  model: "models/base",
  data: "x.txt",
  r: 2,
  alpha: 4,
  dropout: 0,
  targetModules: ["q_proj"],
  steps: 3,
  batch: 2,
  seq: 8,
  lr: 0.01,
  seed: 0,
  prompt: "a",
  checkpointEvery: 50,
};
const RUN: Run = {
  settings: SETTINGS,
  inputs: "0",
  step: 2,
  evaluations: [],
  hasBest: false,
  heldOutBefore: 1,
  sampleBefore: "a",
};
function checkpoint(name: string, expected: Verdict, run: () => string | Run, steps = 2): void {
  add(
    `checkpoint: ${name}`,
    expected,
    () => {
      const given = run();
      const metrics = { name: "metrics", dtype: "F64" as const, shape: [steps, 7], data: new Uint8Array(steps * 56) };
      const metadata = { format: "wasm-lora-run", run: typeof given === "string" ? given : JSON.stringify(given) };
      const digest = io.digestOfTensors([{ ...metrics, bytes: metrics.data }], metadata);
      return { "c.safetensors": io.serializeSafetensors([metrics], { ...metadata, digest }) };
    },
    () => readCheckpoint(`${FOLDER}/c.safetensors`),
  );
}
checkpoint("1,000,000 levels in its run", "refused", () => nested(MB));
checkpoint("settings 1,000,000 levels deep", "either", () =>
  JSON.stringify({ ...RUN, settings: 0 }).replace('"settings":0', `"settings":{"x":${nested(MB)}}`),
);
checkpoint("step 10^15", "refused", () => ({ ...RUN, step: 1e15 }));
checkpoint("1,000,000 steps", "either", () => ({ ...RUN, step: 1e6 }), 1e6);
checkpoint("__proto__ in its run", "either", () => JSON.stringify(RUN).replace("{", '{"__proto__":{"polluted":1},'));

/* Plans */
for (const [name, options] of Object.entries({
  "2^24 sequences of 128": { batch: 2 ** 24, seq: 128 },
  "10^9 sequences": { batch: 1e9, seq: 128 },
  "8,000,000 tokens": { batch: 8192, seq: 1024 },
})) {
  add(`plan: ${name}`, "either", none, () =>
    train.planTraining(
      {
        ...SHARED,
        numKeyValueHeads: 1,
        headDim: 2,
        modelType: "llama",
        rmsNormEps: 0.01,
        ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
        maxPositionEmbeddings: 1024,
      },
      { ...options, adapter: { r: 2, targetModules: "all-linear" } },
    ),
  );
}

interface Input {
  case: number;
  files: Files;
}

async function run({ case: at, files }: Input): Promise<string | undefined> {
  const { expected, run: use } = CASES[at]!;
  let verdict: string | undefined;
  try {
    await withFiles(files, use);
  } catch (error) {
    if (error instanceof Finding) throw error;
    verdict = refusal(error);
  }
  must(
    expected === "either" || (expected === "taken") === (verdict === undefined),
    () => `${expected} was expected; it was ${verdict === undefined ? "taken" : `refused as ${verdict}`}`,
  );
  return verdict;
}

export const hostile: Target<Input> = {
  // Resident memory grows by what the engine has not collected yet, too.
  allowance: 64e6,
  name: "hostile",
  inputs: CASES.length,
  names: CASES.map(({ name }) => name),
  prepare() {
    net = new Net();
    llama = weightsOf(
      new models.Llama({
        ...SHARED,
        numKeyValueHeads: 1,
        headDim: 2,
        modelType: "llama",
        rmsNormEps: 0.01,
        ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
      }),
    );
    gpt2 = weightsOf(new models.Gpt2({ ...SHARED, intermediateSize: 16, modelType: "gpt2", layerNormEpsilon: 0.01 }));
    io.memoryFiles.set("memory:outside.safetensors", written(llama));
  },
  generate: (_, index) => ({ case: index, files: CASES[index]!.files() }),
  run,
};
