/** LoRA+'s groups against PEFT's rules, LoRA-FA's steps against float64. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  init,
  lora,
  memoryStats,
  nn,
  optim,
  scope,
  ShapeError,
  tensor,
  zeros,
  type Tensor,
} from "../../../src/index.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { product, transpose, uniform } from "../../support/float64.js";

await init();

class Layer extends nn.Module {
  readonly qProj = new lora.Linear(6, 5, { r: 2 });
  readonly norm = new nn.LayerNorm(5);
  readonly rms = new nn.RMSNorm(5);
}
class Model extends nn.Module {
  readonly embed = new lora.Embedding(7, 6, { r: 2 });
  readonly layers = [new Layer()];
  readonly head = new nn.Linear(5, 3);
}

test("LoRA+: which parameter is in which group", () => {
  const model = new Model();
  const keys = new Map([...model.namedParameters()].map(([key, p]) => [p, key]));
  model.layers[0]!.rms.weight.requiresGrad = false;
  const groups = optim.loraPlusGroups(model, { lr: 0.5, loraplusLrRatio: 16, weightDecay: 0.1 });
  assert.deepEqual(
    groups.map(({ params, lr, weightDecay }) => ({ keys: params.map((p) => keys.get(p)), lr, weightDecay })),
    [
      { keys: ["layers.0.q_proj.lora_A", "head.weight"], lr: 0.5, weightDecay: 0.1 },
      { keys: ["embed.lora_A", "embed.lora_B"], lr: 1e-6, weightDecay: 0.1 },
      { keys: ["layers.0.q_proj.lora_B"], lr: 8, weightDecay: 0.1 },
      {
        keys: ["layers.0.q_proj.bias", "layers.0.norm.weight", "layers.0.norm.bias", "head.bias"],
        lr: 8,
        weightDecay: 0,
      },
    ],
  );
  lora.markOnlyLoraAsTrainable(model);
  const optimizer = new optim.AdamW(
    optim.loraPlusGroups(model, { lr: 1e-3, loraplusLrRatio: 4, loraplusLrEmbedding: 1e-2 }),
  );
  assert.deepEqual(
    optimizer.paramGroups.map((g) => [g.params.length, g.lr, g.weightDecay]),
    [
      [1, 1e-3, 0],
      [2, 1e-2, 0],
      [1, 4e-3, 0],
      [0, 4e-3, 0],
    ],
  );
  for (const p of model.parameters()) p.grad = zeros(p.shape);
  optimizer.step();
  optimizer.zeroGrad();
  optimizer.dispose();
  model.dispose();
});

test("LoRA+ refuses", () => {
  const model = new nn.Linear(2, 2);
  for (const bad of [{ lr: -1 }, { loraplusLrRatio: NaN }, { weightDecay: -1 }, { loraplusLrEmbedding: Infinity }]) {
    assert.throws(() => optim.loraPlusGroups(model, { lr: 1, loraplusLrRatio: 16, ...bad }), ArgumentError);
  }
  for (const p of model.parameters()) p.requiresGrad = false;
  assert.throws(
    () => optim.loraPlusGroups(model, { lr: 1, loraplusLrRatio: 16 }),
    /no parameter of the model is trainable/,
  );
  model.dispose();
});

/** The inverse by Gauss and Jordan, without pivoting: the matrices here are positive definite. */
function inverse(a: Float64Array, n: number): Float64Array {
  const left = a.slice();
  const right = Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));
  for (let p = 0; p < n; p++) {
    const pivot = left[p * n + p]!;
    for (let j = 0; j < n; j++) {
      left[p * n + j]! /= pivot;
      right[p * n + j]! /= pivot;
    }
    for (let i = 0; i < n; i++) {
      if (i === p) continue;
      const factor = left[i * n + p]!;
      for (let j = 0; j < n; j++) {
        left[i * n + j]! -= factor * left[p * n + j]!;
        right[i * n + j]! -= factor * right[p * n + j]!;
      }
    }
  }
  return right;
}

/** PEFT's step in float64. */
class Reference {
  #t = 0;
  readonly #m: Float64Array;
  readonly #v: Float64Array;
  constructor(
    readonly p: Float64Array,
    readonly lr: number,
    readonly decay: number,
    readonly eps: number,
  ) {
    this.#m = new Float64Array(p.length);
    this.#v = new Float64Array(p.length);
  }
  step(g: ArrayLike<number>): void {
    this.#t++;
    const size = (this.lr * Math.sqrt(1 - 0.999 ** this.#t)) / (1 - 0.9 ** this.#t);
    this.p.forEach((_, i, p) => {
      this.#m[i] = 0.9 * this.#m[i]! + 0.1 * g[i]!;
      this.#v[i] = 0.999 * this.#v[i]! + 0.001 * g[i]! ** 2;
      p[i]! -= (size * this.#m[i]!) / (Math.sqrt(this.#v[i]!) + this.eps);
      p[i]! -= this.lr * this.decay * p[i]!;
    });
  }
}

const setGrad = (p: { grad: Tensor | null; shape: readonly number[] }, values: Float64Array): void => {
  p.grad?.dispose();
  p.grad = tensor(Float32Array.from(values), p.shape).keep();
};

for (const weightDecay of [0, 0.1]) {
  test(`LoRA-FA: ten steps of B and of a bias, weightDecay ${weightDecay}`, () => {
    const r = 4;
    const d = 9;
    const k = 6;
    const s = 2;
    const layer = new lora.Linear(d, k, { r, loraAlpha: s * r });
    const optimizer = new optim.LoraFA(layer, { scaling: s, lr: 0.02, weightDecay });
    assert(!layer.loraA!.requiresGrad && layer.loraB!.requiresGrad);
    const a = layer.loraA!.data.slice();
    const gram = product(a, transpose(a, r, d), r, d, r);
    for (let i = 0; i < r; i++) gram[i * r + i]! += 1e-8;
    const projection = inverse(gram, r);
    const b = new Reference(Float64Array.from(layer.loraB!.data), 0.02, weightDecay, 1e-6);
    const bias = new Reference(Float64Array.from(layer.bias!.data), 0.02, weightDecay, 1e-6);
    for (let step = 0; step < 10; step++) {
      const gB = uniform(10 + step, k * r);
      const gBias = uniform(100 + step, k);
      setGrad(layer.loraB!, gB);
      setGrad(layer.bias!, gBias);
      optimizer.step();
      b.step(product(Float32Array.from(gB), projection, k, r, r).map((v) => v / (s * s)));
      bias.step(Float32Array.from(gBias));
      assertClose(`B after ${step + 1}`, layer.loraB!.data, b.p);
      assertClose(`bias after ${step + 1}`, layer.bias!.data, bias.p);
    }
    assertBits("A", layer.loraA!.data, a);
    optimizer.zeroGrad();
    optimizer.dispose();
    layer.dispose();
  });
}

test("LoRA-FA: with equal rows in A the pseudo-inverse shares the gradient, as torch.linalg.pinv does", () => {
  const layer = new lora.Linear(3, 2, { r: 2, bias: false });
  layer.loraA!.set([1, 2, 2, 1, 2, 2]);
  const optimizer = new optim.LoraFA(layer, { scaling: 1, lr: 1, eps: 1e9 });
  setGrad(layer.loraB!, Float64Array.of(36, 36, -36, -36));
  optimizer.step();
  // A Aᵀ = 9 [1 1; 1 1], whose pseudo-inverse is [1 1; 1 1] / 36, so g = 2 and -2. Under an eps this large the first
  // step is lr √(1 - β2) / (1 - β1) * (1 - β1) g / eps.
  assertClose(
    "B",
    layer.loraB!.data.map((v) => (v * 1e9) / Math.sqrt(0.001)),
    [-2, -2, 2, 2],
    1e-5,
    0,
  );
  optimizer.zeroGrad();
  optimizer.dispose();
  layer.dispose();
});

test("LoRA-FA: linear memory may grow in the middle of a step", () => {
  const layer = new lora.Linear(1024, 8, { r: 64, bias: false });
  const optimizer = new optim.LoraFA(layer, { scaling: 1 });
  setGrad(layer.loraB!, uniform(1, 8 * 64));
  const before = memoryStats().reservedBytes;
  optimizer.step();
  assert(memoryStats().reservedBytes > before && layer.loraB!.data.every((v) => v !== 0));
  optimizer.zeroGrad();
  optimizer.dispose();
  layer.dispose();
});

test("LoRA-FA: resumes to the same bits, keeps no memory, refuses what does not fit", () =>
  scope(() => {
    const make = (): [lora.Linear, optim.LoraFA] => {
      const layer = new lora.Linear(9, 6, { r: 3, bias: false });
      layer.loraA!.set(uniform(1, 27));
      return [layer, new optim.LoraFA(layer, { scaling: 0.5, lr: 0.1 })];
    };
    const step = ([layer, optimizer]: [lora.Linear, optim.LoraFA], seed: number): void => {
      setGrad(layer.loraB!, uniform(seed, 18));
      optimizer.step();
    };
    const first = make();
    const second = make();
    for (const seed of [1, 2, 3]) step(first, seed);
    second[1].loadStateDict(first[1].stateDict(), 3);
    second[0].loadStateDict(first[0].stateDict());
    const before = memoryStats().liveBytes;
    step(first, 4);
    assert.equal(memoryStats().liveBytes, before);
    step(second, 4);
    assertBits("B", second[0].loraB!.data, first[0].loraB!.data);

    const fresh = new lora.Linear(9, 6, { r: 3 });
    assert.throws(() => new optim.LoraFA(fresh, { scaling: 1, lr: -1 }), ArgumentError);
    assert(fresh.loraA!.requiresGrad, "a refusal must freeze nothing");
    fresh.dispose();
    for (const bad of [{ scaling: 0 }, { scaling: 1, lr: -1 }, { scaling: 1, betas: [0.9, 1] as const }]) {
      assert.throws(() => new optim.LoraFA(first[0], bad), ArgumentError);
    }
    class Odd extends nn.Module {
      readonly loraA = new nn.Parameter([4, 3]);
      readonly loraB = new nn.Parameter([5, 2]);
    }
    assert.throws(() => new optim.LoraFA(new Odd(), { scaling: 1 }), ShapeError);
    for (const [layer, optimizer] of [first, second]) {
      optimizer.zeroGrad();
      optimizer.dispose();
      layer.dispose();
    }
  }));

test.run();
