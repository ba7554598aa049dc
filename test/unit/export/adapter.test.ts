/**
 * Adapters for other systems: what each file says, computed with anew, against PEFT's adapters and what PEFT computes
 * with them. (test/interop has the systems themselves.)
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import {
  ArgumentError,
  exportAdapter,
  FormatError,
  init,
  io,
  models,
  noGrad,
  peft,
  tensor,
} from "../../../src/index.js";
import { readGgufHeader } from "../../../src/io/gguf/header.js";
import { familyPath } from "../../support/families.js";
import { assertClose, f32, ints, readGolden } from "../../support/golden.js";
import { says } from "../../support/refuses.js";
import { ROOT } from "../../support/root.js";

await init();
const ZOO = familyPath("zoo");
const BASE = `${ZOO}/base`;
const PREFIX = "base_model.model.";

/** A GGUF file's metadata, and its tensors as float32. */
function readGguf(bytes: Uint8Array) {
  const { metadata, tensors } = readGgufHeader({
    path: "adapter.gguf",
    size: bytes.length,
    read: (at, into) => into.set(bytes.subarray(at, at + into.length)),
    close: () => {},
  });
  const kinds = { float32: "F32", float16: "F16", bfloat16: "BF16" } as const;
  const values = (name: string): { shape: readonly number[]; data: Float32Array } => {
    const { begin, length, shape, dtype } = tensors.get(name)!;
    const kind = kinds[dtype as keyof typeof kinds];
    return { shape, data: io.toFloat32({ name, dtype: kind, shape: [], bytes: bytes.slice(begin, begin + length) }) };
  };
  return { metadata, names: [...tensors.keys()], values };
}

/** B A, by the formula. */
function product(b: Float32Array, a: Float32Array, outputs: number, r: number, inputs: number): Float64Array {
  const out = new Float64Array(outputs * inputs);
  for (let i = 0; i < outputs; i++)
    for (let p = 0; p < r; p++)
      for (let j = 0; j < inputs; j++) out[i * inputs + j]! += b[i * r + p]! * a[p * inputs + j]!;
  return out;
}

const GGUF_NAMES = { q_proj: "attn_q", k_proj: "attn_k", v_proj: "attn_v", o_proj: "attn_output" } as const;
const scalar = (metadata: ReadonlyMap<string, { value: unknown }>, key: string) => metadata.get(key)?.value;

for (const [name, architecture] of [
  ["llama_bias", "llama"],
  ["mistral", "llama"],
  ["qwen2", "qwen2"],
  ["qwen3", "qwen3"],
  ["gemma3", "gemma3"],
  ["smollm3", "smollm3"],
] as const)
  test(`${name} in GGUF: llama.cpp's metadata and names, q and k in its order of rows`, () => {
    const folder = familyPath(name);
    const { tensors } = peft.readPeftAdapter(`${folder}/adapter`);
    const { files, largestDifference, modules, folded } = exportAdapter(`${folder}/adapter`, {
      to: "gguf",
      base: folder,
    });
    assert.deepEqual([largestDifference, folded, modules], [0, 0, tensors.size / 2]);
    const { metadata, names, values } = readGguf(files.get("adapter.gguf")!);
    assert.deepEqual(
      ["general.architecture", "general.type", "adapter.type", "adapter.lora.alpha", "general.file_type"].map((key) =>
        scalar(metadata, key),
      ),
      [architecture, "adapter", "lora", 8, 0],
    );
    assert.equal(names.length, tensors.size);
    const { numAttentionHeads, numKeyValueHeads } = models.loadModel(folder).config as models.LlamaConfig;
    const isInterleaved = architecture === "llama" || architecture === "smollm3";
    let seen = 0;
    for (const [key, { shape, data }] of tensors) {
      const [, layer, part, factor] = /layers\.(\d+)\.self_attn\.(\w+)\.lora_([AB])\.weight$/.exec(key) ?? [];
      if (part === undefined) continue;
      seen++;
      const written = values(
        `blk.${layer}.${GGUF_NAMES[part as keyof typeof GGUF_NAMES]}.weight.lora_${factor!.toLowerCase()}`,
      );
      assert.deepEqual(written.shape, shape);
      const heads = part === "q_proj" ? numAttentionHeads : numKeyValueHeads;
      const [rows, columns] = shape as [number, number];
      const half = rows / heads / 2;
      const isMoved = isInterleaved && factor === "B" && (part === "q_proj" || part === "k_proj");
      for (let head = 0; head < (isMoved ? heads : 0); head++)
        for (let j = 0; j < 2; j++)
          for (let i = 0; i < half; i++) {
            const to = head * 2 * half + 2 * i + j;
            const from = head * 2 * half + j * half + i;
            assert.deepEqual(
              written.data.subarray(to * columns, (to + 1) * columns),
              data.subarray(from * columns, (from + 1) * columns),
            );
          }
      if (!isMoved) assert.deepEqual(written.data, data);
    }
    assert.ok(seen >= 16);
  });

test("rsLoRA in GGUF is another alpha, and factors stay as they are", () => {
  const { config, tensors } = peft.readPeftAdapter(`${ZOO}/rslora`);
  const { files, folded } = exportAdapter(`${ZOO}/rslora`, { to: "gguf", base: BASE });
  const { metadata, values } = readGguf(files.get("adapter.gguf")!);
  assert.ok(config.useRslora);
  assert.equal(scalar(metadata, "adapter.lora.alpha"), Math.fround(config.loraAlpha * Math.sqrt(config.r)));
  assert.equal(folded, 0);
  const a = tensors.get(`${PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight`)!;
  assert.deepEqual(values("blk.0.attn_q.weight.lora_a").data, a.data);
});

test("patterns in GGUF and in mlx: modules of another scaling have it in B", () => {
  const { config, tensors } = peft.readPeftAdapter(`${ZOO}/patterns`);
  assert.ok(Object.keys(config.rankPattern).length > 0 && Object.keys(config.alphaPattern).length > 0);
  const gguf = exportAdapter(`${ZOO}/patterns`, { to: "gguf", base: BASE });
  assert.ok(gguf.folded > 0 && gguf.folded < gguf.modules);
  assert.ok(gguf.largestDifference > 0 && gguf.largestDifference < 1e-7 * gguf.largestUpdate);
  const mlx = exportAdapter(`${ZOO}/patterns`, { to: "mlx", base: BASE });
  assert.ok(mlx.largestDifference < 1e-7 * mlx.largestUpdate);
  const text = (name: string): string => new TextDecoder().decode(mlx.files.get(name));
  const { fine_tune_type, num_layers, lora_parameters: parameters } = JSON.parse(text("adapter_config.json"));
  assert.deepEqual([fine_tune_type, num_layers], ["lora", 3]);
  const file = io.parseSafetensors(mlx.files.get("adapters.safetensors")!).tensors;
  const { metadata, values } = readGguf(gguf.files.get("adapter.gguf")!);
  const { model } = models.loadModel(BASE);
  const adapted = peft.LoraModel.fromPretrained(model, `${ZOO}/patterns`);
  for (const [path, layer] of adapted.model.namedModules()) {
    if (!(layer instanceof peft.LoraLinear) || !path.endsWith("v_proj")) continue;
    const { scaling } = layer.adapters.get("default")!;
    const [outputs, inputs] = layer.weight.shape as [number, number];
    const [a, b] = ["A", "B"].map((f) => tensors.get(`${PREFIX}${path}.lora_${f}.weight`)!);
    const expected = product(b!.data, a!.data, outputs, a!.shape[0]!, inputs).map((v) => scaling * v);
    // y += scale (x a) b, with a [in, r] and b [r, out]
    const [am, bm] = ["lora_a", "lora_b"].map((f) => file.get(`${path}.${f}`)!);
    assert.deepEqual(
      [am!.shape, bm!.shape],
      [
        [inputs, parameters.rank],
        [parameters.rank, outputs],
      ],
    );
    const turned = product(io.toFloat32(am!), io.toFloat32(bm!), inputs, parameters.rank, outputs);
    const ofMlx = new Float64Array(expected.length);
    for (let i = 0; i < outputs; i++)
      for (let j = 0; j < inputs; j++) ofMlx[i * inputs + j] = parameters.scale * turned[j * outputs + i]!;
    assertClose(path, ofMlx, expected, 1e-8);
    const name = `blk.${/\d+/.exec(path)![0]}.attn_v.weight`;
    const [ag, bg] = [values(`${name}.lora_a`), values(`${name}.lora_b`)];
    const rank = bg.shape[1]!;
    const alpha = scalar(metadata, "adapter.lora.alpha") as number;
    const ofGguf = product(bg.data, ag.data, outputs, rank, inputs).map((v) => (alpha / rank) * v);
    assertClose(path, ofGguf, expected, 1e-8);
  }
  model.dispose();
});

for (const name of ["rslora", "patterns", "regex", "all_linear", "some_layers", "half"])
  test(`${name} as a portable PEFT folder: one alpha / r, and PEFT's own logits`, () => {
    const { files } = exportAdapter(`${ZOO}/${name}`, { to: "peft", base: BASE });
    for (const [file, bytes] of files) io.memoryFiles.set(`memory:portable-${name}/${file}`, bytes);
    const { config } = peft.readPeftAdapter(`memory:portable-${name}`);
    assert.deepEqual([config.useRslora, config.rankPattern, config.alphaPattern], [false, {}, {}]);
    assert.ok(Number.isInteger(config.loraAlpha));
    const { model } = models.loadModel(BASE);
    const adapted = peft.LoraModel.fromPretrained(model, `memory:portable-${name}`);
    const reference = readGolden("families/zoo/reference");
    const { shape, data } = ints(reference, "in.input_ids");
    const logits = noGrad(() => adapted.forward(tensor(data, shape)));
    assertClose(name, logits.data, f32(reference, name).data, 2e-5);
    logits.dispose();
    model.dispose();
  });

test("16 bits: half the bytes, and a difference that is told", () => {
  const sizes = (["float32", "float16", "bfloat16"] as const).map((dtype) => {
    const { files, largestDifference, largestUpdate } = exportAdapter(`${ZOO}/plain`, {
      to: "gguf",
      base: BASE,
      dtype,
    });
    return [files.get("adapter.gguf")!.length, largestDifference / largestUpdate] as const;
  });
  assert.equal(sizes[0]![1], 0);
  assert.ok(sizes[1]![0] < 0.6 * sizes[0]![0] && sizes[2]![0] === sizes[1]![0]);
  // 11 and 8 bits of significand, twice.
  assert.ok(sizes[1]![1] > 1e-5 && sizes[1]![1] < 2 * 2 ** -11);
  assert.ok(sizes[2]![1] > 1e-4 && sizes[2]![1] < 2 * 2 ** -8);
});

test("a model's adapter needs no folder, also one that took something out of its base", () => {
  const { model } = models.loadModel(BASE);
  const adapted = peft.getLoraModel(model, { r: 2, loraAlpha: 6, initLoraWeights: "pissa", targetModules: ["q_proj"] });
  const layer = [...adapted.model.namedModules()].find(([path]) => path.endsWith("layers.0.self_attn.q_proj"))![1];
  (layer as peft.LoraLinear).adapters.get("default")!.loraB.data[0]! += 1;
  const { files, modules } = exportAdapter(adapted, { to: "gguf" });
  const { metadata, values } = readGguf(files.get("adapter.gguf")!);
  assert.equal(modules, 3);
  assert.deepEqual(values("blk.0.attn_q.weight.lora_a").shape.length, 2);
  assert.equal(values("blk.0.attn_q.weight.lora_a").shape[0], 4);
  assert.equal(scalar(metadata, "adapter.lora.alpha"), 12);
  assert.throws(() => exportAdapter(adapted, { to: "gguf", adapterName: "other" }), says(ArgumentError, "other"));
  adapted.dispose();
});

test("an adapter makes the same files from its model and from its folder", () => {
  const { model } = models.loadModel(BASE);
  const adapted = peft.LoraModel.fromPretrained(model, `${ZOO}/all_linear`);
  for (const to of ["gguf", "mlx", "peft"] as const)
    assert.deepEqual(
      exportAdapter(adapted, { to }).files,
      exportAdapter(`${ZOO}/all_linear`, { to, base: BASE }).files,
    );
  adapted.dispose();
});

test("of a GGUF base the config is enough; its tokenizer, which may be no known one, is for Ollama", () => {
  const folder = familyPath("qwen2");
  const base = "memory:exported/qwen2.gguf";
  io.memoryFiles.set(base, new Uint8Array(readFileSync(new URL("test/fixtures/gguf/qwen2.gguf", ROOT))));
  for (const to of ["gguf", "mlx", "peft"] as const)
    assert.deepEqual(
      exportAdapter(`${folder}/adapter`, { to, base }).files,
      exportAdapter(`${folder}/adapter`, { to, base: folder }).files,
    );
  assert.throws(() => exportAdapter(`${folder}/adapter`, { to: "ollama", base }), says(FormatError, '"none"'));
  io.memoryFiles.delete(base);
});

test("Workers AI: two files, the model_type, and limits that are checked", () => {
  const folder = familyPath("mistral");
  const { files, notes } = exportAdapter(`${folder}/adapter`, { to: "workers-ai", base: folder });
  assert.deepEqual([...files.keys()].sort(), ["adapter_config.json", "adapter_model.safetensors"]);
  const config = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json")));
  assert.deepEqual([config.model_type, config.r, config.lora_alpha, config.peft_type], ["mistral", 4, 8, "LORA"]);
  assert.ok(notes[0]!.includes("wrangler ai finetune create"));
  const qwen = familyPath("qwen2");
  assert.throws(
    () => exportAdapter(`${qwen}/adapter`, { to: "workers-ai", base: qwen }),
    says(ArgumentError, "qwen2", "model_type", '"llama"'),
  );
  const { model } = models.loadModel(BASE);
  const adapted = peft.getLoraModel(model, { r: 33, targetModules: ["q_proj"] });
  assert.throws(() => exportAdapter(adapted, { to: "workers-ai" }), says(ArgumentError, "rank", "33", "at most 32"));
  adapted.dispose();
});

test("what targets cannot be told is refused by name, with the way out", () => {
  for (const [name, word] of [
    ["dora", "useDora"],
    ["rslora_dora", "useDora"],
    ["save_head", "modulesToSave"],
    ["tied_save", "modulesToSave"],
    ["tokens", "trainableTokenIndices"],
    ["replication", "layerReplication"],
    ["bias_lora_only", "bias"],
    ["lora_bias", "loraBias"],
    ["embed", "model.embed_tokens"],
    ["pissa", "initLoraWeights"],
    ["olora", "initLoraWeights"],
  ] as const)
    for (const to of ["gguf", "mlx", "workers-ai", "ollama", "peft"] as const)
      assert.throws(
        () => exportAdapter(`${ZOO}/${name}`, { to, base: BASE }),
        says(ArgumentError, "exportAdapter", word, "wasm-lora merge"),
        `${name} ${to}`,
      );
  const gpt2 = familyPath("gpt2");
  assert.throws(
    () => exportAdapter(`${gpt2}/adapter`, { to: "mlx", base: gpt2 }),
    says(ArgumentError, "transformer.h.0", "mlx-lm"),
  );
});

test("a head that is the table, or what has no name in GGUF, is refused by name", () => {
  const folder = familyPath("qwen3");
  const { model } = models.loadModel(folder);
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["lm_head"] });
  assert.throws(() => exportAdapter(adapted, { to: "gguf" }), says(ArgumentError, "lm_head", "embedding table"));
  assert.throws(() => exportAdapter(adapted, { to: "mlx" }), says(ArgumentError, "lm_head", "model.layers"));
  adapted.dispose();
});

test("options are checked", () => {
  const path = `${ZOO}/plain`;
  const f = (options: object) => () => exportAdapter(path, options as never);
  assert.throws(f({ to: "onnx" }), says(ArgumentError, "to must be one of gguf, ollama", '"onnx"'));
  assert.throws(f({ to: "gguf", type: "f16" }), says(ArgumentError, "type"));
  assert.throws(f({ to: "gguf", base: BASE, dtype: "f16" }), says(ArgumentError, "dtype", "float16"));
  assert.throws(f({ to: "gguf" }), says(ArgumentError, "base"));
  assert.throws(f({ to: "gguf", base: BASE, from: "llama3.2" }), says(ArgumentError, "from", "Ollama"));
  assert.throws(f({ to: "ollama", base: BASE, from: "a\nSYSTEM b" }), says(ArgumentError, "from", "one line"));
  assert.throws(() => exportAdapter(3 as never, { to: "peft" }), says(ArgumentError, "adapter", "3"));
});

test("a factor that 16 bits cannot hold is refused", () => {
  const { model } = models.loadModel(BASE);
  const adapted = peft.getLoraModel(model, { r: 2, targetModules: ["q_proj"] });
  const layer = [...adapted.model.namedModules()].find(([path]) => path.endsWith("q_proj"))![1] as peft.LoraLinear;
  layer.adapters.get("default")!.loraB.data[0] = 1e6;
  assert.throws(
    () => exportAdapter(adapted, { to: "gguf", dtype: "float16" }),
    says(ArgumentError, "float16", "float32"),
  );
  assert.ok(exportAdapter(adapted, { to: "gguf", dtype: "bfloat16" }).largestDifference > 0);
  adapted.dispose();
});

test.run();
