/**
 * src/io/loralib/to_peft.ts. What the converted factors add to the weight is PEFT's formula B' A' (get_delta_weight),
 * computed here; it is held against loralib's formula on its own factors to the bit, and against loralib's merged
 * weights.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import fc from "fast-check";
import type { LoralibState } from "../../../src/io/loralib/state.js";
import {
  conv2dToPeft,
  type LayerOf,
  linearToPeft,
  type LoralibLayer,
  loralibToPeft,
  mergedLinearToPeft,
  type PeftFactors,
} from "../../../src/io/loralib/to_peft.js";
import { readPeftAdapter, writePeftAdapter } from "../../../src/io/peft/folder.js";
import type { StateEntry } from "../../../src/runtime/state_entry.js";
import { ArgumentError, ShapeError } from "../../../src/runtime/errors.js";
import { assertBits, assertClose, f32, goldenNames, readGolden, type Golden } from "../../support/golden.js";
import { scalingOf, targets } from "../../support/peft_rules.js";
import { says } from "../../support/refuses.js";

const folder = mkdtempSync(join(tmpdir(), "convert-"));
test.after(() => rmSync(folder, { recursive: true }));

/** Values that tell their place. */
const counting = (...shape: number[]): StateEntry => ({
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) =>
    Math.fround((((i * 37 + shape[0]! * 11) % 101) - 50) / 7),
  ),
});

/** One entry of a product: sum over t of b(t) a(t), rounded after every step. */
function dot(length: number, b: (t: number) => number, a: (t: number) => number): number {
  let c = 0;
  for (let t = 0; t < length; t++) c = Math.fround(c + Math.fround(b(t) * a(t)));
  return c;
}

/** B' A' [out, rest]. */
function peftDelta({ loraA, loraB, r }: PeftFactors): Float32Array {
  const out = loraB.shape[0]!;
  const rest = loraA.data.length / r;
  return Float32Array.from({ length: out * rest }, (_, i) =>
    dot(
      r,
      (t) => loraB.data[Math.floor(i / rest) * r + t]!,
      (t) => loraA.data[t * rest + (i % rest)]!,
    ),
  );
}

/** loralib's merge_AB: the grouped convolution of A with B, then zero_pad by lora_ind. */
function mergedLinearDelta(
  a: StateEntry,
  b: StateEntry,
  { r, enableLora, outFeatures }: LayerOf<"MergedLinear">,
): Float32Array {
  const inFeatures = a.shape[1]!;
  const delta = new Float32Array(outFeatures * inFeatures);
  const rows = outFeatures / enableLora.length;
  let used = 0;
  for (let row = 0; row < outFeatures; row++) {
    if (!enableLora[Math.floor(row / rows)]) continue;
    const from = used++;
    const group = Math.floor(from / rows);
    for (let i = 0; i < inFeatures; i++)
      delta[row * inFeatures + i] = dot(
        r,
        (t) => b.data[from * r + t]!,
        (t) => a.data[(group * r + t) * inFeatures + i]!,
      );
  }
  return delta;
}

/** loralib's (lora_B @ lora_A).view(weight.shape). */
function convDelta(a: StateEntry, b: StateEntry): Float32Array {
  const [inner, columns] = a.shape as [number, number];
  return Float32Array.from({ length: b.shape[0]! * columns }, (_, i) =>
    dot(
      inner,
      (t) => b.data[Math.floor(i / columns) * inner + t]!,
      (t) => a.data[t * columns + (i % columns)]!,
    ),
  );
}

/** W + alpha' / r' B' A', W possibly stored (in, out). */
function merged(g: Golden, factors: PeftFactors): Float32Array {
  const { data } = f32(g, "weight");
  const delta = peftDelta(factors);
  const s = factors.loraAlpha / factors.r;
  const out = factors.loraB.shape[0]!;
  const rest = delta.length / out;
  const isTransposed = g.metadata["fan_in_fan_out"] === "true";
  return data.map((w, i) => w + s * delta[isTransposed ? (i % out) * rest + Math.floor(i / out) : i]!);
}

for (const name of goldenNames("merged_linear_")) {
  test(`${name}: converted, it merges to loralib's weight`, () => {
    const g = readGolden(name);
    const m = g.metadata;
    const layer = {
      r: Number(m["r"]),
      loraAlpha: Number(m["lora_alpha"]),
      enableLora: JSON.parse(m["enable_lora"]!) as boolean[],
      outFeatures: Number(m["out_features"]),
    };
    const factors = mergedLinearToPeft("mergedLinearToPeft", f32(g, "lora_A"), f32(g, "lora_B"), layer);
    assertBits("delta", peftDelta(factors), mergedLinearDelta(f32(g, "lora_A"), f32(g, "lora_B"), layer));
    assertClose("weight", merged(g, factors), f32(g, "weight_merged").data);
  });
}

for (const name of goldenNames("conv2d_")) {
  const g = readGolden(name);
  const m = g.metadata;
  const layer: LayerOf<"Conv2d"> = {
    r: Number(m["r"]),
    loraAlpha: Number(m["lora_alpha"]),
    kernelSize: Number(m["kernel_size"]),
    groups: Number(m["groups"]),
  };
  if (layer.groups === 1) {
    test(`${name}: converted, it merges to loralib's weight`, () => {
      const factors = conv2dToPeft("conv2dToPeft", f32(g, "lora_A"), f32(g, "lora_B"), layer);
      const { shape } = f32(g, "weight");
      assert.deepEqual(factors.loraA.shape, [factors.r, ...shape.slice(1)]);
      assert.deepEqual(factors.loraB.shape, [shape[0], factors.r, 1, 1]);
      assertBits("delta", peftDelta(factors), convDelta(f32(g, "lora_A"), f32(g, "lora_B")));
      assertClose("weight", merged(g, factors), f32(g, "weight_merged").data);
    });
  } else {
    test(`${name}: a grouped convolution is refused`, () => {
      assert.throws(
        () => conv2dToPeft("conv2dToPeft", f32(g, "lora_A"), f32(g, "lora_B"), layer),
        (error: unknown) => error instanceof ArgumentError && error.message.includes("groups is 2"),
      );
    });
  }
}

test("GPT-2's q and v: the sizes of the whole layer", () => {
  const factors = mergedLinearToPeft("mergedLinearToPeft", counting(16, 768), counting(1536, 8), {
    r: 8,
    loraAlpha: 16,
    enableLora: [true, false, true],
    outFeatures: 2304,
  });
  assert.deepEqual(
    [factors.loraA.shape, factors.loraB.shape, factors.r, factors.loraAlpha],
    [[16, 768], [2304, 16], 16, 32],
  );
  assert.equal(factors.loraAlpha / factors.r, 16 / 8);
});

test("property: placement changes no bit of the delta, and alpha / r stays", () => {
  const size = fc.integer({ min: 1, max: 4 });
  fc.assert(
    fc.property(
      fc.array(fc.boolean(), { minLength: 1, maxLength: 4 }).filter((on) => on.includes(true)),
      size,
      size,
      size,
      fc.integer({ min: 1, max: 64 }),
      (enableLora, rows, inFeatures, r, loraAlpha) => {
        const g = enableLora.filter((on) => on).length;
        const layer = { r, loraAlpha, enableLora, outFeatures: rows * enableLora.length };
        const a = counting(r * g, inFeatures);
        const b = counting(rows * g, r);
        const factors = mergedLinearToPeft("mergedLinearToPeft", a, b, layer);
        assertBits("delta", peftDelta(factors), mergedLinearDelta(a, b, layer));
        assert.equal(factors.loraAlpha / factors.r, loraAlpha / r);
      },
    ),
    { numRuns: 200 },
  );
  fc.assert(
    fc.property(size, size, size, size, fc.integer({ min: 1, max: 64 }), (r, k, inChannels, outChannels, loraAlpha) => {
      const a = counting(r * k, inChannels * k);
      const b = counting(outChannels * k, r * k);
      const factors = conv2dToPeft("conv2dToPeft", a, b, { r, loraAlpha, kernelSize: k });
      assert.deepEqual(factors.loraA.shape, [r * k * k, inChannels, k, k]);
      assertBits("delta", peftDelta(factors), convDelta(a, b));
      assert.equal(factors.loraAlpha / factors.r, loraAlpha / r);
    }),
    { numRuns: 200 },
  );
});

test("Linear and Embedding keep their factors, as copies", () => {
  const a = counting(2, 3);
  const b = counting(4, 2);
  const factors = linearToPeft("linearToPeft", a, b, { r: 2, loraAlpha: 3 });
  assert.deepEqual(factors, { loraA: a, loraB: b, r: 2, loraAlpha: 3 });
  assert.notEqual(factors.loraA.data, a.data);
  assert.notEqual(factors.loraB.data, b.data);
});

const MODEL: Record<string, LoralibLayer> = {
  "h.0.attn.c_attn": { kind: "MergedLinear", r: 2, loraAlpha: 4, enableLora: [true, false, true], outFeatures: 12 },
  "h.0.mlp.c_fc": { kind: "Linear", r: 4, loraAlpha: 8 },
  "x.h.0.mlp.c_fc": { kind: "Linear", r: 4, loraAlpha: 4 },
  wte: { kind: "Embedding", r: 3, loraAlpha: 1 },
  conv: { kind: "Conv2d", r: 1, loraAlpha: 2, kernelSize: 2, groups: 1 },
};
const STATE: LoralibState = new Map(
  Object.entries({
    "h.0.attn.c_attn.lora_A": counting(4, 5),
    "h.0.attn.c_attn.lora_B": counting(8, 2),
    "h.0.attn.c_attn.bias": counting(12),
    "h.0.mlp.c_fc.lora_A": counting(4, 5),
    "h.0.mlp.c_fc.lora_B": counting(6, 4),
    "x.h.0.mlp.c_fc.lora_A": counting(4, 5),
    "x.h.0.mlp.c_fc.lora_B": counting(6, 4),
    "wte.lora_A": counting(3, 7),
    "wte.lora_B": counting(5, 3),
    "conv.lora_A": counting(2, 6),
    "conv.lora_B": counting(8, 2),
    "conv.bias": counting(4),
    "conv.conv.bias": counting(4),
  }),
);

test("a checkpoint of all kinds becomes a folder, which says the same of every module", () => {
  const { config, tensors } = loralibToPeft(STATE, MODEL);
  const directory = join(folder, "all");
  writePeftAdapter(directory, { ...config, baseModelNameOrPath: "gpt2" }, tensors);
  const back = readPeftAdapter(directory);
  assert.equal(back.config.bias, "lora_only");
  assert.deepEqual(
    [...back.tensors.keys()].sort(),
    [
      "conv.base_layer.bias",
      "conv.lora_A.weight",
      "conv.lora_B.weight",
      "h.0.attn.c_attn.base_layer.bias",
      "h.0.attn.c_attn.lora_A.weight",
      "h.0.attn.c_attn.lora_B.weight",
      "h.0.mlp.c_fc.lora_A.weight",
      "h.0.mlp.c_fc.lora_B.weight",
      "wte.lora_embedding_A",
      "wte.lora_embedding_B",
      "x.h.0.mlp.c_fc.lora_A.weight",
      "x.h.0.mlp.c_fc.lora_B.weight",
    ].map((key) => `base_model.model.${key}`),
  );
  for (const [path, { r, loraAlpha }] of Object.entries(MODEL)) {
    assert.equal(scalingOf(back.config, path), loraAlpha / r, path);
    assert.ok(targets(back.config, path, true, false), path);
  }
  assert.equal(scalingOf(back.config, "other.conv"), 2, "the config's own, since the patterns hold for whole paths");
  assert.deepEqual(back.tensors.get("base_model.model.wte.lora_embedding_A"), STATE.get("wte.lora_A"));
  assert.deepEqual(back.tensors.get("base_model.model.conv.base_layer.bias"), STATE.get("conv.bias"));
});

test('other biases make it bias "all"; none make it "none"; fan_in_fan_out is the layers\'', () => {
  const pair: [string, StateEntry][] = [
    ["c.lora_A", counting(2, 3)],
    ["c.lora_B", counting(4, 2)],
  ];
  const layers: Record<string, LoralibLayer> = { c: { kind: "Linear", r: 2, loraAlpha: 2, fanInFanOut: true } };
  const plain = loralibToPeft(new Map(pair), layers);
  assert.deepEqual(
    [plain.config.bias, plain.config.fanInFanOut, plain.config.rankPattern, plain.config.alphaPattern],
    ["none", true, {}, {}],
  );
  const all = loralibToPeft(new Map([...pair, ["norm.bias", counting(3)], ["c.bias", counting(4)]]), layers);
  assert.equal(all.config.bias, "all");
  assert.deepEqual(all.tensors.map(({ name }) => name).slice(2), [
    "base_model.model.norm.bias",
    "base_model.model.c.base_layer.bias",
  ]);
});

test("a path beyond 16 bits has its own rank and scaling", () => {
  const odd = "h.\u{1f999}(1)";
  const state = new Map([
    ["fc.lora_A", counting(2, 3)],
    ["fc.lora_B", counting(4, 2)],
    [`${odd}.lora_A`, counting(4, 3)],
    [`${odd}.lora_B`, counting(4, 4)],
  ]);
  const { config, tensors } = loralibToPeft(state, {
    fc: { kind: "Linear", r: 2, loraAlpha: 2 },
    [odd]: { kind: "Linear", r: 4, loraAlpha: 12 },
  });
  assert.deepEqual(config.rankPattern, { "^h\\.\\\u{1f999}\\(1\\)": 4 });
  const directory = join(folder, "odd");
  writePeftAdapter(directory, config, tensors);
  assert.equal(scalingOf(readPeftAdapter(directory).config, odd), 3);
});

test("what does not fit is refused by name", () => {
  const a = counting(4, 5);
  const b = counting(8, 2);
  const layer = { r: 2, loraAlpha: 4, enableLora: [true, false, true], outFeatures: 12 };
  const change = (other: Partial<LayerOf<"MergedLinear">>) => () =>
    mergedLinearToPeft("mergedLinearToPeft", a, b, { ...layer, ...other });
  assert.throws(change({ r: 0 }), says(ArgumentError, "mergedLinearToPeft", "r is 0"));
  assert.throws(change({ loraAlpha: NaN }), says(ArgumentError, "loraAlpha is NaN"));
  assert.throws(change({ enableLora: [false, false] }), says(ArgumentError, "enableLora"));
  assert.throws(change({ enableLora: [] }), says(ArgumentError, "enableLora is []"));
  assert.throws(change({ outFeatures: 13 }), says(ArgumentError, "outFeatures is 13", "multiple of 3"));
  assert.throws(change({ outFeatures: 15 }), says(ShapeError, "loraB", "[8,2]", "[10, 2]"));
  assert.throws(change({ enableLora: [true, true, true] }), says(ShapeError, "loraA", "[4,5]", "[6, any]"));
  assert.throws(
    () => mergedLinearToPeft("mergedLinearToPeft", { shape: [4, 5], data: new Float32Array(19) }, b, layer),
    says(ShapeError, "loraA has 19 values"),
  );
  assert.throws(
    () => linearToPeft("linearToPeft", counting(2, 3), counting(4, 3), { r: 2, loraAlpha: 1 }),
    says(ShapeError, "linearToPeft", "loraB", "[any, 2]"),
  );
  assert.throws(
    () => linearToPeft("linearToPeft", counting(2, 3, 1), counting(4, 2), { r: 2, loraAlpha: 1 }),
    says(ShapeError, "loraA", "[2,3,1]"),
  );
  assert.throws(
    () => conv2dToPeft("conv2dToPeft", counting(4, 7), counting(8, 4), { r: 2, loraAlpha: 1, kernelSize: 2 }),
    says(ShapeError, "loraA", "a multiple of 2"),
  );
  assert.throws(
    () => conv2dToPeft("conv2dToPeft", counting(4, 6), counting(9, 4), { r: 2, loraAlpha: 1, kernelSize: 2 }),
    says(ShapeError, "loraB", "a multiple of 2"),
  );
  assert.throws(
    () => conv2dToPeft("conv2dToPeft", counting(4, 6), counting(8, 4), { r: 2, loraAlpha: 1, kernelSize: 0.5 }),
    says(ArgumentError, "kernelSize is 0.5"),
  );
});

test("a checkpoint and layers that do not fit are refused by the module's name", () => {
  const convert =
    (layers: Record<string, unknown>, state = STATE) =>
    () =>
      loralibToPeft(state, layers as Record<string, LoralibLayer>);
  const { conv, ...others } = MODEL;
  assert.throws(convert(others), says(ArgumentError, "conv.lora_A", 'does not describe "conv"'));
  assert.throws(convert({ ...MODEL, missing: MODEL["wte"] }), says(ArgumentError, '"missing"', "missing.lora_A"));
  assert.throws(convert({}), says(ArgumentError, "layers is empty"));
  assert.throws(
    convert(
      { "": MODEL["wte"] },
      new Map([
        ["lora_A", counting(3, 7)],
        ["lora_B", counting(5, 3)],
      ]),
    ),
    says(ArgumentError, "the model itself"),
  );
  assert.throws(convert({ ...others, conv: { ...conv, groups: 2 } }), says(ArgumentError, '"conv"', "groups is 2"));
  assert.throws(convert({ ...others, conv: { ...conv, kernelSize: 3 } }), says(ShapeError, '"conv"', "loraA"));
  assert.throws(convert({ ...others, conv: { ...conv, kind: "Conv4d" } }), says(ArgumentError, '"conv"', "Conv4d"));
  assert.throws(
    convert({ ...MODEL, "h.0.mlp.c_fc": { ...MODEL["h.0.mlp.c_fc"], fanInFanOut: true } }),
    says(ArgumentError, "fanInFanOut"),
  );
  assert.throws(
    convert(MODEL, new Map([...STATE, ["q.lora_A.weight", counting(2, 2)]])),
    says(ArgumentError, "readPeftAdapter"),
  );
});

test.run();
