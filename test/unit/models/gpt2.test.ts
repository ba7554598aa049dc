/** GPT-2: its configuration, checkpoints as the hub has them, generation with a cache, and what LoRA makes of it. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import {
  FormatError,
  init,
  lora,
  memoryStats,
  models,
  nn,
  noGrad,
  scope,
  ShapeError,
  tensor,
} from "../../../src/index.js";
import { parseGpt2Config } from "../../../src/models/families/gpt2.js";
import { serializeSafetensors, type TensorToWrite } from "../../../src/io/safetensors.js";
import { assertBits, assertClose, f32, readGolden } from "../../support/golden.js";
import { greedy } from "../../support/language_models.js";
import { withMergedLinear } from "../../support/loralib.js";

await init();
const folder = mkdtempSync(join(tmpdir(), "gpt2-"));
test.after(() => rmSync(folder, { recursive: true }));

/** openai-community/gpt2, whole. */
const PUBLISHED = {
  activation_function: "gelu_new",
  architectures: ["GPT2LMHeadModel"],
  attn_pdrop: 0.1,
  bos_token_id: 50256,
  embd_pdrop: 0.1,
  eos_token_id: 50256,
  initializer_range: 0.02,
  layer_norm_epsilon: 1e-5,
  model_type: "gpt2",
  n_ctx: 1024,
  n_embd: 768,
  n_head: 12,
  n_layer: 12,
  n_positions: 1024,
  resid_pdrop: 0.1,
  summary_activation: null,
  summary_first_dropout: 0.1,
  summary_proj_to_labels: true,
  summary_type: "cls_index",
  summary_use_proj: true,
  task_specific_params: { "text-generation": { do_sample: true, max_length: 50 } },
  vocab_size: 50257,
};
const TINY = {
  model_type: "gpt2",
  n_embd: 32,
  n_layer: 2,
  n_head: 2,
  n_positions: 17,
  vocab_size: 61,
  bos_token_id: null,
  eos_token_id: null,
};

test("a published config, with transformers' defaults", () => {
  assert.deepEqual(parseGpt2Config(PUBLISHED, "config.json"), {
    modelType: "gpt2",
    hiddenSize: 768,
    intermediateSize: 3072,
    numHiddenLayers: 12,
    numAttentionHeads: 12,
    vocabSize: 50257,
    maxPositionEmbeddings: 1024,
    layerNormEpsilon: 1e-5,
    tieWordEmbeddings: true,
    bosTokenId: 50256,
    eosTokenId: 50256,
  });
  assert.equal(parseGpt2Config({ ...PUBLISHED, n_inner: 100 }, "config.json").intermediateSize, 100);
  assert.equal(
    parseGpt2Config({ ...PUBLISHED, n_inner: null, activation_function: null }, "config.json").intermediateSize,
    3072,
  );
});

const refused: [object, string][] = [
  [{ model_type: "llama" }, "model_type"],
  [{ activation_function: "gelu" }, "activation_function"],
  [{ activation_function: "relu" }, "activation_function"],
  [{ scale_attn_weights: false }, "scale_attn_weights"],
  [{ scale_attn_by_inverse_layer_idx: true }, "scale_attn_by_inverse_layer_idx"],
  [{ add_cross_attention: true }, "add_cross_attention"],
  [{ quantization_config: { bits: 8 } }, "quantization_config"],
  [{ n_embd: 30, n_head: 4 }, "multiple of n_head = 4"],
  [{ n_head: 0 }, "n_head"],
  [{ n_layer: 0 }, "n_layer"],
  [{ n_positions: 1.5 }, "n_positions"],
  [{ vocab_size: "61" }, "vocab_size"],
  [{ n_inner: -1 }, "n_inner"],
  [{ layer_norm_epsilon: 0 }, "layer_norm_epsilon"],
  [{ tie_word_embeddings: 1 }, "tie_word_embeddings"],
  [{ eos_token_id: -1 }, "eos_token_id"],
];
for (const [change, word] of refused) {
  test(`refused by name: ${JSON.stringify(change)}`, () =>
    assert.throws(
      () => parseGpt2Config({ ...TINY, ...change }, "config.json"),
      (error: unknown) =>
        error instanceof FormatError && error.message.startsWith("config.json: ") && error.message.includes(word),
    ));
}

const golden = readGolden("gpt2_tiny");
const baseKeys = [...golden.tensors.keys()].filter((key) => key.startsWith("transformer.") && !key.includes("lora_"));

let folders = 0;
/** A model folder with the golden's weights under changed names, beside other tensors. */
function modelFolder(
  rename: (key: string) => string | null,
  extra: TensorToWrite[] = [],
  config: object = TINY,
): string {
  const directory = join(folder, String(folders++));
  mkdirSync(directory);
  const tensors: TensorToWrite[] = baseKeys.flatMap((key) => {
    const name = rename(key);
    return name === null ? [] : [{ name, dtype: "F32" as const, ...f32(golden, key) }];
  });
  writeFileSync(join(directory, "model.safetensors"), serializeSafetensors([...tensors, ...extra]));
  writeFileSync(join(directory, "config.json"), JSON.stringify(config));
  return directory;
}
const whole = (key: string): string => key;
const bare = (key: string): string => key.replace("transformer.", "");
const ids = new Int32Array([5, 0, 60, 17, 5]);
const logitsOf = (model: models.CausalLM): Float32Array =>
  noGrad(() => scope(() => model.forward(tensor(ids, [1, 5])).data.slice()));

test("keys with and without the prefix, masks as F32 or U8, and a stored tied head give the same model", () => {
  const masks: TensorToWrite[] = [
    { name: "h.0.attn.bias", dtype: "F32", shape: [1, 1, 2, 2], data: Float32Array.of(1, 0, 1, 1) },
    { name: "h.0.attn.masked_bias", dtype: "F32", shape: [], data: Float32Array.of(-1e4) },
    { name: "h.1.attn.bias", dtype: "U8", shape: [1, 1, 2, 2], data: Uint8Array.of(1, 0, 1, 1) },
  ];
  const head: TensorToWrite = { name: "lm_head.weight", dtype: "F32", ...f32(golden, "transformer.wte.weight") };
  const prefixed = masks.map((t) => ({ ...t, name: `transformer.${t.name}` }));
  const expected = models.loadModel(modelFolder(whole)).model;
  const logits = logitsOf(expected);
  assert.deepEqual([...expected.stateDict().keys()].sort(), [...baseKeys].sort());
  for (const directory of [
    modelFolder(bare),
    modelFolder(bare, [...masks, head]),
    modelFolder(whole, [...prefixed, head]),
  ]) {
    const { model } = models.loadModel(directory);
    assertBits("logits", logitsOf(model), logits);
    model.dispose();
  }
  const { model } = models.loadModel(modelFolder(bare));
  assert(model instanceof models.Gpt2);
  assertBits("loadModel", logitsOf(model), logits);
  model.dispose();
  expected.dispose();
});

test("an untied head is a parameter of its own", () => {
  const head: TensorToWrite = {
    name: "lm_head.weight",
    dtype: "F32",
    shape: [61, 32],
    data: new Float32Array(61 * 32),
  };
  const config = { ...TINY, tie_word_embeddings: false };
  const { model } = models.loadModel(modelFolder(whole, [head], config));
  assert(logitsOf(model).every((v) => v === 0));
  model.dispose();
  assert.throws(
    () => models.loadModel(modelFolder(whole, [], config)),
    (e: unknown) => e instanceof FormatError && e.message.includes("missing lm_head.weight"),
  );
});

test("checkpoints that do not fit are refused and leave no memory behind", () => {
  const one: TensorToWrite = { name: "x", dtype: "F32", shape: [1], data: Float32Array.of(1) };
  const cases: [string, new (...args: never[]) => Error, string][] = [
    [
      modelFolder((key) => (key === "transformer.ln_f.bias" ? null : key)),
      FormatError,
      "missing transformer.ln_f.bias",
    ],
    [modelFolder(whole, [one]), FormatError, "unexpected transformer.x"],
    [modelFolder(whole, [{ ...one, name: "wte.weight" }]), FormatError, "transformer.wte.weight twice"],
    [
      modelFolder(whole, [], { ...TINY, n_positions: 18 }),
      FormatError,
      "n_positions is 18, but transformer.wpe.weight",
    ],
    [modelFolder(whole, [], { ...TINY, activation_function: "silu" }), FormatError, "activation_function"],
  ];
  const before = memoryStats().liveBytes;
  for (const [directory, error, word] of cases) {
    assert.throws(
      () => models.loadModel(directory),
      (e: unknown) => e instanceof error && e.message.includes(word),
      word,
    );
    assert.equal(memoryStats().liveBytes, before, `${word}: memory leaked`);
  }
  for (const type of ["bloom", undefined, 3]) {
    const directory = modelFolder(whole, [], { ...TINY, model_type: type });
    assert.throws(
      () => models.loadModel(directory),
      (e: unknown) => e instanceof FormatError && e.message.includes("model_type"),
    );
  }
});

test("LoRA: c_attn alone trains, the start is the base's bits, and merging keeps the logits", () => {
  const directory = modelFolder(bare);
  const load = (): models.Gpt2 => models.loadModel(directory).model as models.Gpt2;
  const base = load();
  const model = withMergedLinear(load(), { r: 4, loraAlpha: 8, loraDropout: 0.1 });
  assertBits("start", logitsOf(model), logitsOf(base));
  lora.markOnlyLoraAsTrainable(model);
  const trained = [...model.namedParameters()].filter(([, p]) => p.requiresGrad).map(([key]) => key);
  assert.deepEqual(
    trained,
    [0, 1].flatMap((i) => ["A", "B"].map((f) => `transformer.h.${i}.attn.c_attn.lora_${f}`)),
  );
  const { cAttn } = model.transformer.h[0]!.attn;
  assert(cAttn instanceof lora.MergedLinear && base.transformer.h[0]!.attn.cAttn instanceof nn.Linear);
  assert.deepEqual(cAttn.enableLora, [true, false, true]);
  for (const block of model.transformer.h) (block.attn.cAttn as lora.MergedLinear).loraB!.data.fill(0.01);
  model.train();
  for (const block of model.transformer.h) block.attn.cAttn.training = false; // no dropout, not merged
  const adapted = logitsOf(model);
  assert(adapted.some((v, i) => v !== logitsOf(base)[i]));
  model.eval();
  assert(cAttn.merged);
  assertClose("merged", logitsOf(model), adapted);
  model.dispose();
  base.dispose();
});

test("generation with the cache gives the tokens of whole passes without it", () => {
  const { model } = models.loadModel(modelFolder(bare));
  model.eval();
  const prompt = [...ids];
  const expected = greedy(model, prompt, 12);
  const drawn = [...models.generate(model, prompt, { maxNewTokens: 50, temperature: 0 })];
  assert.deepEqual(drawn, expected, "17 positions: 5 of the prompt, 12 drawn");
  // A step at a time, cached logits have the bits of the whole pass.
  const cache = model.newCache();
  const all = logitsOf(model);
  for (let t = 0; t < ids.length; t++) {
    const step = noGrad(() => scope(() => model.forward(tensor(ids.slice(t, t + 1), [1, 1]), { cache }).data.slice()));
    assertBits(`step ${t}`, step, all.slice(61 * t, 61 * (t + 1)));
  }
  cache.dispose();
  assert.throws(
    () => scope(() => model.forward(tensor(new Int32Array(18), [1, 18]))),
    (e: unknown) => e instanceof ShapeError && e.message.includes("maxPositionEmbeddings = 17"),
  );
  model.dispose();
});

test("fresh weights have Hugging Face's spread: 0.02, into the residual stream less", () => {
  const config = parseGpt2Config({ ...TINY, n_embd: 64, n_layer: 8 }, "config.json");
  const model = new models.Gpt2(config);
  for (const [key, p] of model.namedParameters()) {
    const values = p.data;
    const mean = values.reduce((a, b) => a + b, 0) / p.size;
    const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / p.size);
    if (p.rank === 1)
      assert(
        values.every((v) => v === (key.endsWith("bias") ? 0 : 1)),
        key,
      );
    else assert(Math.abs(deviation / (key.endsWith("c_proj.weight") ? 0.005 : 0.02) - 1) < 0.1, `${key}: ${deviation}`);
  }
  model.dispose();
});

test.run();
