/** What adapted layers compute, against PEFT's formulas in float64. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, manualSeed, ones, ops, peft, scope, type Tensor, tensor } from "../../../src/index.js";
import type { LoraLayer } from "../../../src/peft/layer.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { gradcheck, gridTensor as grid } from "../../support/gradcheck.js";
import { product, transpose, type Real } from "../../support/float64.js";
import { ALL, type Tiny, batch, layersOf, outputs, tiny, train } from "../../support/peft.js";

await init();

/**
 * The layers of Tiny: what goes in, and the base's output for a weight [outputs, inputs] in float64, without its bias.
 */
const LAYERS: Record<
  string,
  {
    input: () => Tensor;
    base: (w: Real, x: Tensor) => Float64Array;
    isTransposed: boolean;
    bias: (y: Float64Array, b: Real) => void;
  }
> = {
  embed: {
    input: () => batch(3),
    isTransposed: true,
    bias: () => {},
    base: (w, ids) =>
      Float64Array.from({ length: ids.size * 6 }, (_, i) => w[(i % 6) * 10 + ids.indices[Math.floor(i / 6)]!]!),
  },
  "body.fc": {
    input: () => grid([3, 4, 6], 1, false),
    isTransposed: false,
    base: (w, x) => product(x.data, transpose(w, 8, 6), 12, 6, 8),
    bias: addBias(1),
  },
  "body.proj": {
    input: () => grid([3, 4, 8], 2, false),
    isTransposed: true,
    base: (w, x) => product(x.data, transpose(w, 6, 8), 12, 8, 6),
    bias: addBias(1),
  },
  conv: { input: () => grid([3, 4, 2, 3], 3, false), isTransposed: false, base: conv, bias: addBias(6) },
  head: {
    input: () => grid([3, 24], 4, false),
    isTransposed: false,
    base: (w, x) => product(x.data, transpose(w, 5, 24), 3, 24, 5),
    bias: addBias(1),
  },
};

function addBias(inner: number): (y: Float64Array, b: Real) => void {
  return (y, b) =>
    y.forEach((_, i) => {
      y[i]! += b[Math.floor(i / inner) % b.length]!;
    });
}

/** [n, 4, 2, 3] with kernel [2, 3], padding 1 and stride [2, 1]: [n, 4, 2, 3] again. */
function conv(w: Real, x: Tensor): Float64Array {
  const n = x.shape[0]!;
  const y = new Float64Array(n * 24);
  const at = (i: number, c: number, row: number, column: number): number =>
    row < 0 || row > 1 || column < 0 || column > 2 ? 0 : x.data[((i * 4 + c) * 2 + row) * 3 + column]!;
  y.forEach((_, p) => {
    const column = p % 3;
    const row = Math.floor(p / 3) % 2;
    const out = Math.floor(p / 6) % 4;
    const i = Math.floor(p / 24);
    for (let c = 0; c < 4; c++)
      for (let a = 0; a < 2; a++)
        for (let b = 0; b < 3; b++) {
          y[p]! += w[((out * 4 + c) * 2 + a) * 3 + b]! * at(i, c, 2 * row + a - 1, column + b - 1);
        }
  });
  return y;
}

interface Term {
  a: Real;
  b: Real;
  r: number;
  s: number;
  m: Real | null;
}
interface Weight {
  w: Float64Array;
  outs: number;
  ins: number;
}

function weightOf(layer: LoraLayer, isTransposed: boolean): Weight {
  const { weight } = layer;
  const outs = isTransposed ? weight.shape[1]! : weight.shape[0]!;
  const ins = weight.size / outs;
  return { w: isTransposed ? transpose(weight.data, ins, outs) : Float64Array.from(weight.data), outs, ins };
}

/** By adapter, or by layer. */
type Scalings = Record<string, number>;

function termsOf(path: string, layer: LoraLayer, names: string[], scalings: Scalings): Term[] {
  return names.map((name) => {
    const { loraA, loraB, magnitude } = layer.adapters.get(name)!;
    return {
      a: loraA.data.slice(),
      b: loraB.data.slice(),
      r: loraA.shape[0]!,
      s: scalings[name] ?? scalings[path]!,
      m: magnitude?.data.slice() ?? null,
    };
  });
}

/** W, then in turn + s B A; with DoRA times g = m / || W + s B A || after that. */
function effective({ w, outs, ins }: Weight, terms: Term[]): Float64Array {
  const sum = w.slice();
  for (const { a, b, r, s, m } of terms) {
    const delta = product(b, a, outs, r, ins).map((v) => s * v);
    for (let j = 0; j < outs; j++) {
      const norm = Math.sqrt(
        delta
          .subarray(j * ins, (j + 1) * ins)
          .reduce((n, v, i) => n + (w[j * ins + i]! + v) * (w[j * ins + i]! + v), 0),
      );
      for (let i = j * ins; i < (j + 1) * ins; i++) sum[i] = (m ? m[j]! / norm : 1) * (sum[i]! + delta[i]!);
    }
  }
  return sum;
}

function layerAt(adapted: peft.LoraModel, path: string): LoraLayer {
  return layersOf(adapted).find((l) => l.path === path)!.layer;
}

function checkLayers(label: string, adapted: peft.LoraModel, names: string[], scalings: Scalings): void {
  for (const [path, { input, base, bias, isTransposed }] of Object.entries(LAYERS)) {
    scope(() => {
      const layer = layerAt(adapted, path);
      const x = input();
      const expected = base(effective(weightOf(layer, isTransposed), termsOf(path, layer, names, scalings)), x);
      if (layer.baseLayer.bias) bias(expected, layer.baseLayer.bias.data.slice());
      assertClose(`${label}: ${path}`, layer.forward(x).data, expected);
    });
  }
}

/** Adapters of all of Tiny's layers, as after training. */
function adapt(configs: Record<string, Parameters<peft.LoraModel["addAdapter"]>[1]>): peft.LoraModel<Tiny> {
  const adapted = new peft.LoraModel(tiny());
  for (const [i, [name, config]] of Object.entries(configs).entries()) {
    adapted.addAdapter(name, { targetModules: ALL, ...config });
    train(adapted, name, i + 2);
  }
  adapted.setAdapter(Object.keys(configs));
  return adapted;
}

test("every kind of layer, with one adapter and with two", () => {
  const adapted = adapt({ a: { r: 2, loraAlpha: 3 }, b: { r: 3, loraAlpha: 2 } });
  checkLayers("both", adapted, ["a", "b"], { a: 1.5, b: 2 / 3 });
  for (const name of ["a", "b"]) {
    adapted.setAdapter(name);
    checkLayers(name, adapted, [name], { a: 1.5, b: 2 / 3 });
  }
  adapted.dispose();
});

test("DoRA: alone, beside a plain adapter in either order, and two of them", () => {
  const scalings = { dora: 1.5, plain: 2 / 3, second: 0.5 };
  const adapted = adapt({
    dora: { r: 2, loraAlpha: 3, useDora: true },
    plain: { r: 3, loraAlpha: 2 },
    second: { r: 2, loraAlpha: 1, useDora: true },
  });
  for (const names of [
    ["dora"],
    ["dora", "plain"],
    ["plain", "dora"],
    ["dora", "second"],
    ["second", "plain", "dora"],
  ]) {
    adapted.setAdapter(names);
    checkLayers(names.join(" and "), adapted, names, scalings);
  }
  adapted.dispose();
});

test("a new adapter changes nothing; a new DoRA only by rounding", () => {
  const plain = tiny();
  const before = outputs(plain);
  const adapted = peft.getLoraModel(plain, { r: 2, targetModules: ALL });
  assertBits("plain", outputs(plain), before);
  adapted.addAdapter("dora", { r: 2, useDora: true, targetModules: ALL });
  adapted.setAdapter("dora");
  assertClose("dora", outputs(plain), before);
  adapted.dispose();
});

test("rsLoRA, rank patterns and alpha patterns: the first key that matches a path's end counts", () => {
  const config = {
    r: 4,
    loraAlpha: 6,
    targetModules: ALL,
    rankPattern: { "^body.fc": 2, "body\\.proj": 3 },
    alphaPattern: { proj: 9, "body.*": 8, conv: 1 },
  };
  for (const useRslora of [false, true]) {
    const adapted = peft.getLoraModel(tiny(), { ...config, useRslora });
    const scaled = (alpha: number, r: number): number => alpha / (useRslora ? Math.sqrt(r) : r);
    const got = Object.fromEntries(
      layersOf(adapted).map(({ path, layer }) => [
        path,
        [layer.adapters.get("default")!.r, layer.adapters.get("default")!.scaling],
      ]),
    );
    assert.deepEqual(got, {
      embed: [4, scaled(6, 4)],
      "body.fc": [2, scaled(8, 2)],
      "body.proj": [3, scaled(9, 3)],
      conv: [4, scaled(1, 4)],
      head: [4, scaled(6, 4)],
    });
    train(adapted, "default", 5);
    checkLayers(
      "patterns",
      adapted,
      ["default"],
      Object.fromEntries(Object.entries(got).map(([path, [, s]]) => [path, s!])),
    );
    adapted.dispose();
  }
});

/** The factors 0 or 1 / (1 - p) that the next `masks` draws give elements of this shape, after manualSeed(seed). */
function dropped(seed: number, p: number, shape: readonly number[], masks: number): Float64Array[] {
  manualSeed(seed);
  return Array.from({ length: masks }, () => scope(() => Float64Array.from(ops.dropout(ones(shape), p).data)));
}

test("dropout acts on an adapter's input alone, in training only; an embedding has none", () => {
  const p = 0.4;
  const adapted = adapt({ a: { r: 2, loraAlpha: 3, loraDropout: p }, b: { r: 3, loraAlpha: 2, loraDropout: p } });
  for (const path of ["body.fc", "body.proj", "conv", "head"]) {
    const { input, base, bias, isTransposed } = LAYERS[path]!;
    scope(() => {
      const layer = layerAt(adapted, path);
      const x = input();
      const masks = dropped(7, p, x.shape, 2);
      const { w, outs, ins } = weightOf(layer, isTransposed);
      const y = base(w, x);
      termsOf(path, layer, ["a", "b"], { a: 1.5, b: 2 / 3 }).forEach(({ a, b, r, s }, t) => {
        const part = base(
          product(b, a, outs, r, ins).map((v) => s * v),
          tensor(
            x.data.map((v, i) => v * masks[t]![i]!),
            x.shape,
          ),
        );
        part.forEach((v, i) => {
          y[i]! += v;
        });
      });
      bias(y, layer.baseLayer.bias!.data.slice());
      manualSeed(7);
      assertClose(path, layer.forward(x).data, y);
    });
  }
  scope(() => {
    const ids = batch(3);
    const layer = layerAt(adapted, "embed");
    const y = layer.forward(ids).data.slice();
    adapted.eval();
    assertBits("embed", layer.forward(ids).data, y);
  });
  checkLayers("eval", adapted, ["a", "b"], { a: 1.5, b: 2 / 3 });
  adapted.dispose();
});

test("DoRA with dropout: W x + (g - 1) W D(x) + g s B A D(x), alone and beside a plain adapter", () => {
  const p = 0.4;
  const adapted = adapt({ dora: { r: 2, loraAlpha: 3, loraDropout: p, useDora: true }, plain: { r: 3, loraAlpha: 2 } });
  for (const names of [["dora"], ["plain", "dora"]]) {
    adapted.setAdapter(names);
    for (const path of ["body.fc", "body.proj", "conv", "head"]) {
      const { input, base, bias, isTransposed } = LAYERS[path]!;
      scope(() => {
        const layer = layerAt(adapted, path);
        const x = input();
        const [mask] = dropped(9, p, x.shape, 1);
        const weight = weightOf(layer, isTransposed);
        const terms = (wanted: boolean): Term[] =>
          termsOf(path, layer, names, { dora: 1.5, plain: 2 / 3 }).filter(({ m }) => (m !== null) === wanted);
        const y = base(effective(weight, terms(false)), x);
        const directed = base(
          effective(weight, terms(true)).map((v, i) => v - weight.w[i]!),
          tensor(
            x.data.map((v, i) => v * mask![i]!),
            x.shape,
          ),
        );
        directed.forEach((v, i) => {
          y[i]! += v;
        });
        bias(y, layer.baseLayer.bias!.data.slice());
        manualSeed(9);
        assertClose(`${names.join(" and ")}: ${path}`, layer.forward(x).data, y);
      });
    }
  }
  adapted.eval();
  checkLayers("eval", adapted, ["plain", "dora"], { dora: 1.5, plain: 2 / 3 });
  adapted.dispose();
});

test("gradients of two adapters in one layer, with dropout, and with a magnitude", () => {
  for (const useDora of [false, true]) {
    const model = tiny();
    const adapted = peft.getLoraModel(model, { r: 2, loraDropout: 0.3, targetModules: ["fc"], useDora });
    adapted.addAdapter("b", { r: 1, loraDropout: 0.3, targetModules: ["fc"] });
    adapted.setAdapter(["default", "b"]);
    const layer = layerAt(adapted, "body.fc");
    const inputs: Record<string, Tensor> = { x: grid([2, 6], 1), weight: layer.weight };
    let seed = 20;
    for (const p of adapted.parameters()) p.set(grid(p.shape, ++seed, false).data);
    for (const [name, { loraA, loraB, magnitude }] of layer.adapters) {
      Object.assign(inputs, { [`${name} A`]: loraA, [`${name} B`]: loraB });
      if (magnitude) inputs["magnitude"] = magnitude;
    }
    if (useDora) {
      // The norm counts as a constant, which differences do not know: only what it does not hold.
      for (const t of Object.values(inputs))
        if (t !== inputs["magnitude"] && t !== inputs["x"] && t !== inputs["b A"] && t !== inputs["b B"])
          t.requiresGrad = false;
    }
    gradcheck(`useDora ${useDora}`, inputs, () => {
      manualSeed(3);
      return layer.forward(inputs["x"]!);
    });
    adapted.dispose();
  }
});

test("layers take the mode of what they wrap", () => {
  const model = tiny();
  model.eval();
  const adapted = peft.getLoraModel(model, { r: 2, loraDropout: 0.5, targetModules: ALL, modulesToSave: ["norm"] });
  for (const [path, module] of adapted.namedModules()) assert.equal(module.training, false, path);
  train(adapted, "default", 1);
  assertBits("no dropout", outputs(model), outputs(model));
  adapted.train();
  adapted.unload();
  for (const [path, module] of model.namedModules()) assert.equal(module.training, true, path);
  model.dispose();
});

test.run();
