/**
 * Language models whose matrices are stored in blocks against the same as float32: logits, losses, the factors that
 * training makes, merged weights and generated text have the same bits. And what `quantize` makes of a folder.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import {
  ArgumentError,
  FormatError,
  init,
  io,
  manualSeed,
  memoryStats,
  models,
  type nn,
  noGrad,
  peft,
  scope,
  train,
} from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import type { BlockType } from "../../../src/tensor/blocks.js";
import { formatOf, storedBytes } from "../../../src/tensor/dtype.js";
import { BLOCK_TYPES, randomBlocks } from "../../support/blocks.js";
import { assertBits } from "../../support/golden.js";
import { LLAMA, threeSteps, twoTexts } from "../../support/language_models.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

await init();

const written = new Set<string>();
function put(path: string, bytes: Uint8Array): void {
  written.add(path);
  io.memoryFiles.set(path, bytes);
}
test.after(() => {
  for (const path of written) io.memoryFiles.delete(path);
});

const ids = twoTexts().keep();

const WIDE_LLAMA: models.LlamaConfig = {
  ...LLAMA,
  hiddenSize: 256,
  intermediateSize: 256,
  numHiddenLayers: 1,
  headDim: 64,
};

const matrices = (model: nn.Module): nn.Parameter[] => model.parameters().filter((p) => p.rank === 2);

/** Two models of the same values, the one in blocks. */
function pair(dtype: BlockType): [blocks: models.Llama, wide: models.Llama] {
  manualSeed(3);
  const [wide, blocks] = [new models.Llama(WIDE_LLAMA), new models.Llama(WIDE_LLAMA)];
  const others = new Map(wide.namedParameters());
  let seed = 1;
  for (const [key, p] of blocks.namedParameters()) {
    if (p.rank === 2) p.materialize(dtype).bytes.set(randomBlocks(p.size, dtype, seed++));
    else p.set(others.get(key)!.data);
    others.get(key)!.set(p.toFloat32());
  }
  return [blocks, wide];
}

function assertStates(label: string, actual: nn.StateDict, expected: nn.StateDict): void {
  assert.deepEqual([...actual.keys()], [...expected.keys()]);
  for (const [key, { data }] of expected) assertBits(`${label}: ${key}`, actual.get(key)!.data, data);
}

for (const dtype of BLOCK_TYPES)
  test(`a Llama of ${dtype}: every bit of float32, trained, generating and merged`, () => {
    const both = pair(dtype);
    const [blocks] = both;
    const logits = (): [Float32Array, Float32Array] =>
      both.map((model) => noGrad(() => scope(() => model.forward(ids).data.slice()))) as [Float32Array, Float32Array];
    assertBits("logits", ...logits());
    const texts = both.map((model) => [...models.generate(model, [1, 2, 3], { maxNewTokens: 8 })]);
    assert.deepEqual(texts[0], texts[1]);
    const [mine, theirs] = both.map((model) => threeSteps(model, { useDora: dtype === "q8_0" || dtype === "q4_k" }));
    assert.deepEqual(mine!.losses, theirs!.losses);
    assertStates(dtype, mine!.state, theirs!.state);
    assert.ok(matrices(blocks).every((p) => p.requiresGrad || p.dtype === dtype));
    for (const model of both) model.dispose();
  });

for (const dtype of ["q8_0", "nf4", "q6_k"] as const)
  test(`${dtype}: merged it is float32's, unmerged the blocks are back; pissa takes its product out`, () => {
    const both = pair(dtype);
    const base = both.map((model) => {
      manualSeed(1);
      return peft.getLoraModel(model, { r: 2, targetModules: "all-linear", initLoraWeights: false }).eval();
    });
    const outputs = (): Float32Array[] =>
      both.map((model) => noGrad(() => scope(() => model.forward(ids).data.slice())));
    const before = outputs()[0]!;
    const live = memoryStats().liveBytes;
    for (const adapted of base) adapted.mergeAdapter();
    const merged = outputs();
    assertBits("merged", merged[0]!, merged[1]!);
    assert.ok(matrices(both[0]).some((p) => p.dtype === "float32" && !p.requiresGrad));
    for (const adapted of base) adapted.unmergeAdapter();
    assert.equal(memoryStats().liveBytes, live);
    assert.ok(matrices(both[0]).every((p) => p.requiresGrad || p.dtype === dtype));
    assertBits("unmerged", outputs()[0]!, before);
    for (const adapted of base) adapted.mergeAndUnload();
    const unloaded = outputs();
    assertBits("for good", unloaded[0]!, unloaded[1]!);
    for (const model of both) model.dispose();
    const again = pair(dtype);
    const states = again.map((model) => {
      manualSeed(2);
      return peft.getLoraModel(model, { r: 2, targetModules: ["q_proj"], initLoraWeights: "pissa" }).stateDict();
    });
    assertStates("pissa", states[0]!, states[1]!);
    for (const model of again) model.dispose();
  });

const BASE = fileURLToPath(new URL("models/base", ROOT));
const baseFile = (name: string): Uint8Array => readFileSync(new URL(`models/base/${name}`, ROOT));

/** The base's folder in memory, its weights stored as float32 or float64. */
function baseAs(
  path: string,
  dtype: "F32" | "F64",
  change: (name: string, x: Float32Array) => void = () => {},
): string {
  const { tensors } = io.parseSafetensors(baseFile("model.safetensors"));
  const stored = [...tensors.values()].map((view) => {
    const values = io.toFloat32(view);
    change(view.name, values);
    const data = dtype === "F32" ? values : new Uint8Array(Float64Array.from(values).buffer);
    return { name: view.name, dtype, shape: view.shape, data };
  });
  put(`${path}/config.json`, baseFile("config.json"));
  put(`${path}/model.safetensors`, io.serializeSafetensors(stored as Parameters<typeof io.serializeSafetensors>[0]));
  return path;
}

/** What the kernel makes of a weight's values. */
function quantised(values: Float32Array, dtype: "q8_0" | "nf4"): Uint8Array {
  const { kernels, memory } = engine();
  const bytes = storedBytes(values.length, dtype);
  return memory.withBlocks([4 * values.length, bytes], (from, to) => {
    memory.f32(from, values.length).set(values);
    assert.ok(kernels.quantise(to, from, values.length, formatOf(dtype)));
    return memory.u8(to, bytes).slice();
  });
}

/** A model of the same values as float32. */
function asFloat32(loaded: { model: nn.Module; config: models.ModelConfig }): models.Llama {
  const wide = new models.Llama({ ...loaded.config, dtype: undefined } as models.LlamaConfig);
  const all = new Map(loaded.model.namedParameters());
  for (const [key, p] of wide.namedParameters()) p.set(all.get(key)!.toFloat32());
  return wide;
}

const tokens = Int32Array.from({ length: 600 }, (_, i) => (i * i + 3 * i) % 1024);

for (const quantize of ["q8_0", "nf4"] as const) {
  test(`the base as ${quantize}: as the kernel makes it, planned to the byte, trained to float32's bits`, () => {
    const start = memoryStats().liveBytes;
    const { model: plain, config } = models.loadModel(BASE);
    const live = memoryStats().liveBytes;
    const loaded = models.loadModel(BASE, { quantize });
    const saved = live - start - (memoryStats().liveBytes - live);
    assert.equal(loaded.config.dtype, quantize);
    const padded = (bytes: number): number => Math.ceil(bytes / 64) * 64;
    let expected = 0;
    const originals = new Map(plain.namedParameters());
    for (const [key, p] of loaded.model.namedParameters()) {
      assert.equal(p.dtype, p.rank === 2 ? quantize : "float32", key);
      if (p.rank === 2) expected += padded(2 * p.size) - padded(storedBytes(p.size, quantize));
      const own = originals.get(key)!.toFloat32();
      if (p.rank === 2) assert.deepEqual(p.bytes.slice(), quantised(own, quantize), key);
      else assertBits(key, p.data, own);
    }
    assert.equal(saved, expected);
    const options = { batch: 2, seq: 16, adapter: { r: 4, targetModules: "all-linear" } };
    const planned = (of: models.ModelConfig): number => train.planTraining(of, options).weights;
    assert.equal(planned(config) - planned(loaded.config), expected);
    const wide = asFloat32(loaded);
    const runs = [loaded.model as models.Llama, wide].map((model) => {
      const run = new train.Finetuning(model, tokens, { steps: 3, batch: 2, seq: 8, adapter: { r: 2 } });
      const before = run.evaluate();
      while (!run.isComplete) run.step();
      const numbers = Float64Array.of(before, ...run.losses, run.evaluate());
      run.dispose();
      return numbers;
    });
    assert.deepEqual(runs[0], runs[1]);
    for (const model of [plain, loaded.model, wide]) model.dispose();
  });

  test(`${quantize} of float32 and float64 files, and of a file in pieces of any length`, async () => {
    const path = baseAs("memory:base-f32", "F32");
    const double = baseAs("memory:base-f64", "F64");
    const files = ["config.json", "model.safetensors"].map(
      (name) => new File([io.memoryFiles.get(`${path}/${name}`)! as BlobPart], name),
    );
    const others = [
      models.loadModel(path, { quantize }),
      models.loadModel(double, { quantize }),
      await models.openModel(files, { quantize }),
    ];
    const expected = new Map(models.loadModel(BASE, { quantize }).model.namedParameters());
    for (const { model } of others) {
      for (const [key, p] of model.namedParameters())
        assert.deepEqual(p.bytes.slice(), expected.get(key)!.bytes.slice(), key);
      model.dispose();
    }
    for (const p of expected.values()) p.dispose();
  });
}

test("rows that are not whole blocks stay as they were, and the configuration says what is what", () => {
  const path = "memory:odd-rows";
  const config = JSON.parse(new TextDecoder().decode(baseFile("config.json")));
  Object.assign(config, { hidden_size: 64, intermediate_size: 40, num_hidden_layers: 1, vocab_size: 8, head_dim: 16 });
  const shapes: Record<string, number[]> = {
    "model.embed_tokens.weight": [8, 64],
    "model.norm.weight": [64],
    "model.layers.0.input_layernorm.weight": [64],
    "model.layers.0.post_attention_layernorm.weight": [64],
    "model.layers.0.self_attn.q_proj.weight": [64, 64],
    "model.layers.0.self_attn.k_proj.weight": [32, 64],
    "model.layers.0.self_attn.v_proj.weight": [32, 64],
    "model.layers.0.self_attn.o_proj.weight": [64, 64],
    "model.layers.0.mlp.gate_proj.weight": [40, 64],
    "model.layers.0.mlp.up_proj.weight": [40, 64],
    "model.layers.0.mlp.down_proj.weight": [64, 40],
  };
  put(`${path}/config.json`, new TextEncoder().encode(JSON.stringify(config)));
  for (const [dtype, rest] of [
    ["BF16", "bfloat16"],
    ["F32", "float32"],
  ] as const) {
    const stored = Object.entries(shapes).map(([name, shape]) => {
      const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => ((i % 13) - 6) / 8);
      const bits = new Uint32Array(values.buffer);
      const data = dtype === "F32" ? values : new Uint8Array(Uint16Array.from(bits, (x) => x >>> 16).buffer);
      return { name, dtype, shape, data };
    });
    put(`${path}/model.safetensors`, io.serializeSafetensors(stored as Parameters<typeof io.serializeSafetensors>[0]));
    const { model, config: read } = models.loadModel(path, { quantize: "q8_0" });
    for (const [key, p] of model.namedParameters())
      assert.equal(p.dtype, p.rank === 1 ? "float32" : key.includes("down_proj") ? rest : "q8_0", key);
    if (dtype === "F32") assert.equal(read.dtype, "q8_0");
    else assert.equal((read.dtype as Record<string, string>)["model.layers.0.mlp.down_proj.weight"], "bfloat16");
    const options = { batch: 1, seq: 4, adapter: { r: 2 } };
    const planned = train.planTraining(read, options);
    const made = memoryStats().liveBytes;
    model.dispose();
    assert.equal(planned.weights, made - memoryStats().liveBytes);
  }
});

test("what quantize cannot be, and weights that cannot be quantised", () => {
  for (const quantize of ["q4_k", "float32", 8, null] as never[])
    assert.throws(
      () => models.loadModel(BASE, { quantize }),
      says(ArgumentError, "loadModel: quantize must be one of q8_0, nf4"),
    );
  const path = baseAs("memory:not-finite", "F32", (name, x) => {
    if (name === "model.layers.1.mlp.up_proj.weight") x[20000] = NaN;
  });
  const live = memoryStats().liveBytes;
  assert.throws(
    () => models.loadModel(path, { quantize: "nf4" }),
    says(FormatError, path, "model.layers.1.mlp.up_proj.weight", "0 to 32767", "not finite", "without quantize"),
  );
  assert.equal(memoryStats().liveBytes, live);
});

test.run();
