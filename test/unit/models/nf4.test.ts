/**
 * Checkpoints in bitsandbytes' NF4, with and without double quantisation: what lies in memory is the codes and their
 * scales, and what they stand for is what the format's definition gives in float32.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { FormatError, init, io, memoryStats, models, noGrad, tensor, type nn } from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { randomArray } from "../../support/random.js";
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

const BASE = "models/base";
const baseFile = (name: string): Uint8Array => readFileSync(new URL(`${BASE}/${name}`, ROOT));
const TABLE = io.toFloat32(
  io.parseSafetensors(readFileSync(new URL("test/fixtures/ggml_blocks.safetensors", ROOT))).tensors.get("NF4.table")!,
);
const config = { ...JSON.parse(new TextDecoder().decode(baseFile("config.json"))) };
config.quantization_config = { quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: "nf4" };

type Change = (t: Stored) => Stored | Stored[] | null;
type Stored = { name: string; dtype: string; shape: number[]; data: Uint8Array | Float32Array };
const bytesOf = (x: Float32Array): Uint8Array => new Uint8Array(x.slice().buffer);

/** A weight's codes and what lies beside them, and what they stand for. */
function quantised(name: string, shape: number[], seed: number, isNested: boolean): [Stored[], Float32Array] {
  const size = shape[0]! * shape[1]!;
  const codes = Uint8Array.from(randomArray(seed, size), (x) => Math.floor((x + 1) * 8) & 15);
  const packed = Uint8Array.from({ length: size / 2 }, (_, i) => (codes[2 * i]! << 4) | codes[2 * i + 1]!);
  const blocks = size / 64;
  const state: Record<string, unknown> = { quant_type: "nf4", blocksize: 64, dtype: "bfloat16", shape };
  const stored: Stored[] = [
    { name, dtype: "U8", shape: [size / 2, 1], data: packed },
    { name: `${name}.quant_map`, dtype: "F32", shape: [16], data: TABLE },
  ];
  let absmax = Float32Array.from(randomArray(seed + 1, blocks), (x) => 0.05 + 0.02 * x);
  if (isNested) {
    const offset = Math.fround(0.05);
    const map = Float32Array.from({ length: 256 }, (_, i) => (i - 127.3) / 128);
    const scales = Float32Array.from({ length: Math.ceil(blocks / 256) }, (_, i) => 0.02 + i / 1000);
    const nested = Uint8Array.from(randomArray(seed + 2, blocks), (x) => Math.floor((x + 1) * 128) & 255);
    absmax = Float32Array.from(nested, (code, i) => Math.fround(map[code]! * scales[i >> 8]!) + offset);
    Object.assign(state, { nested_blocksize: 256, nested_dtype: "float32", nested_offset: offset });
    stored.push(
      { name: `${name}.absmax`, dtype: "U8", shape: [blocks], data: nested },
      { name: `${name}.nested_absmax`, dtype: "F32", shape: [scales.length], data: scales },
      { name: `${name}.nested_quant_map`, dtype: "F32", shape: [256], data: map },
    );
  } else stored.push({ name: `${name}.absmax`, dtype: "F32", shape: [blocks], data: absmax });
  const json = new TextEncoder().encode(JSON.stringify(state));
  stored.push({ name: `${name}.quant_state.bitsandbytes__nf4`, dtype: "U8", shape: [json.length], data: json });
  return [stored, Float32Array.from(codes, (code, i) => Math.fround(TABLE[code]! * absmax[i >> 6]!))];
}

/** The base with its projections in NF4; and the values of all weights. */
function write(path: string, isNested: boolean, change: Change = (t) => t): Map<string, Float32Array> {
  const values = new Map<string, Float32Array>();
  let seed = 1;
  const stored = [...io.parseSafetensors(baseFile("model.safetensors")).tensors.values()].flatMap((view): Stored[] => {
    if (view.name.includes("_proj")) {
      const [parts, floats] = quantised(view.name, [...view.shape], (seed += 3), isNested);
      values.set(view.name, floats);
      return parts.flatMap((t) => change(t) ?? []);
    }
    values.set(view.name, io.toFloat32(view));
    return [{ name: view.name, dtype: "BF16", shape: [...view.shape], data: view.bytes }];
  });
  put(`${path}/config.json`, new TextEncoder().encode(JSON.stringify(config)));
  put(
    `${path}/model.safetensors`,
    io.serializeSafetensors(
      stored.map((t) => ({ ...t, data: t.dtype === "F32" ? t.data : (t.data as Uint8Array) })) as Parameters<
        typeof io.serializeSafetensors
      >[0],
    ),
  );
  return values;
}

const logitsOf = (model: models.CausalLM): Float32Array =>
  noGrad(() => model.forward(tensor(Int32Array.of(5, 9, 200, 77), [1, 4])).data.slice());

for (const isNested of [false, true])
  test(`a checkpoint in NF4${isNested ? " with double quantisation" : ""}`, async () => {
    const path = `memory:nf4-${isNested}`;
    const values = write(path, isNested);
    const files = ["config.json", "model.safetensors"].map(
      (name) => new File([io.memoryFiles.get(`${path}/${name}`)! as BlobPart], name),
    );
    for (const { model, config: read } of [models.loadModel(path), await models.openModel(files)]) {
      for (const [key, p] of (model as nn.Module).namedParameters()) {
        assert.equal(p.dtype, p.rank === 1 ? "float32" : key.includes("_proj") ? "nf4" : "bfloat16", key);
        assertBits(key, p.toFloat32(), values.get(key)!);
      }
      assert.equal((read.dtype as Record<string, string>)["model.embed_tokens.weight"], "bfloat16");
      const wide = new models.Llama({ ...read, dtype: undefined } as models.LlamaConfig);
      for (const [key, p] of wide.namedParameters()) p.set(values.get(key)!);
      assertBits("logits", logitsOf(model), logitsOf(wide));
      for (const one of [model, wide]) one.dispose();
    }
  });

test("codes of one dimension are a matrix's too", () => {
  const path = "memory:nf4-flat";
  const values = write(path, true, (t) => (t.shape.length === 2 ? { ...t, shape: [t.data.length] } : t));
  const { model } = models.loadModel(path);
  for (const [key, p] of (model as nn.Module).namedParameters()) {
    if (key.includes("_proj")) assert.equal(p.dtype, "nf4", key);
    assertBits(key, p.toFloat32(), values.get(key)!);
  }
  model.dispose();
});

test("a head of the table's codes with other scales is another matrix", () => {
  const path = "memory:nf4-twins";
  write(path, false);
  const stored = [...io.parseSafetensors(io.memoryFiles.get(`${path}/model.safetensors`)!).tensors.values()];
  const [table, head] = ["model.embed_tokens.weight", "lm_head.weight"];
  const shape = [...stored.find(({ name }) => name === table)!.shape];
  const [ofTable, values] = quantised(table, shape, 900, false);
  const ofHead = ofTable.map((t) => ({
    ...t,
    name: t.name.replace(table, head),
    data: t.name.endsWith(".absmax") ? (t.data as Float32Array).map((x) => 2 * x) : t.data,
  }));
  const others = stored.flatMap(({ name, dtype, shape, bytes }) =>
    name === table ? [] : [{ name, dtype, shape, data: bytes }],
  );
  const all = [...others, ...ofTable, ...ofHead] as Parameters<typeof io.serializeSafetensors>[0];
  put(`${path}/model.safetensors`, io.serializeSafetensors(all));
  const { model, config: read } = models.loadModel(path);
  assert.equal(read.tieWordEmbeddings, false);
  const parameters = new Map((model as nn.Module).namedParameters());
  assertBits(table, parameters.get(table)!.toFloat32(), values);
  assertBits(
    head,
    parameters.get(head)!.toFloat32(),
    values.map((x) => 2 * x),
  );
  model.dispose();
});

test("what does not fit is refused by name, before anything is loaded", () => {
  const live = memoryStats().liveBytes;
  const refused = (change: Change, isNested: boolean, ...words: string[]): void => {
    write("memory:nf4-bad", isNested, change);
    assert.throws(() => models.loadModel("memory:nf4-bad"), says(FormatError, "NF4", ...words));
    assert.equal(memoryStats().liveBytes, live);
  };
  const at = (end: string, other: Change) => (t: Stored) =>
    t.name === `model.layers.2.mlp.up_proj.weight${end}` ? other(t) : t;
  const asJson =
    (change: object) =>
    (t: Stored): Stored => {
      const json = JSON.stringify({ ...JSON.parse(new TextDecoder().decode(t.data as Uint8Array)), ...change });
      const data = new TextEncoder().encode(json);
      return { ...t, shape: [data.length], data };
    };
  const STATE = ".quant_state.bitsandbytes__nf4";
  refused(
    at(".absmax", () => null),
    false,
    "up_proj",
    "nothing in .absmax",
  );
  refused(
    at(".nested_quant_map", () => null),
    true,
    "nothing in .nested_quant_map",
  );
  refused(at(STATE, asJson({ blocksize: 128 })), false, "blocksize", "128", "only 64");
  refused(at(STATE, asJson({ quant_type: "fp4" })), false, "quant_type", "fp4");
  refused(at(STATE, asJson({ shape: [128, 384] })), false, "shape");
  refused(at(STATE, asJson({ nested_offset: null })), true, "nested_offset");
  refused(at(STATE, asJson({ nested_offset: 1e39 })), true, "nested_offset", "float32");
  refused(
    at(".quant_map", (t) => [t, { ...t, name: t.name.replace(".quant_map", ".nested_quant_map") }]),
    false,
    ".nested_quant_map",
    "no .nested_absmax",
  );
  refused(
    at(".quant_map", (t) => ({ ...t, data: bytesOf((t.data as Float32Array).map((x) => x / 2)) })),
    false,
    "another table",
  );
  write("memory:nf4-bad", false, (t) =>
    [t, { ...t, name: "a\nb" }].slice(0, t.name.endsWith("2.mlp.up_proj.weight") ? 2 : 1),
  );
  assert.throws(() => models.loadModel("memory:nf4-bad"), says(FormatError, "unexpected model.a\\nb."));
  config.quantization_config = { load_in_8bit: true };
  write("memory:nf4-bad", false);
  assert.throws(() => models.loadModel("memory:nf4-bad"), says(FormatError, "quantization_config", "nf4"));
});

test.run();
