/** PEFT's inits: its draws in its order, what B A is, and that a changed base plus the product is the old base. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, manualSeed, memoryStats, scope, ShapeError, tensor, Tensor } from "../../../src/index.js";
import type { LoraInit } from "../../../src/io/peft/config.js";
import { initLoraConv, initLoraEmbedding, initLoraWeights } from "../../../src/peft/init_lora_weights.js";
import { assertBits, assertClose, readGolden } from "../../support/golden.js";
import {
  assertNear,
  assertOrthonormal,
  compose,
  largest,
  orthonormal,
  product,
  transpose,
  uniform,
} from "../../support/float64.js";

await init();

const golden = readGolden("random_42");
/** torch.rand after manual_seed(42), and torch.randn. */
const rand = golden.tensors.get("rand_1000")!.data as Float32Array;
const seed = 42;
/** What torch's uniform_(-bound, bound) makes of its draws: one fused multiply-add. */
const drawn = (from: number, n: number, fanIn: number): Float32Array => {
  const bound = 1 / Math.sqrt(fanIn);
  const low = Math.fround(-bound);
  const range = Math.fround(Math.fround(bound) - low);
  return Float32Array.from({ length: n }, (_, i) => rand[from + i]! * range + low);
};

const r = 4;
const d = 16;
const k = 25;
const scaling = 2;

interface Layer {
  loraA: Tensor;
  loraB: Tensor;
  weight: Tensor;
  fanInFanOut: boolean;
}
function layer(fanInFanOut = false, values: ArrayLike<number> = uniform(1, k * d)): Layer {
  const w = Float32Array.from(fanInFanOut ? transpose(values, k, d) : values);
  return {
    loraA: new Tensor([r, d]),
    loraB: new Tensor([k, r]),
    weight: tensor(w, fanInFanOut ? [d, k] : [k, d]),
    fanInFanOut,
  };
}
function initialised(kind: LoraInit, l = layer(), s = scaling): Layer {
  manualSeed(seed);
  initLoraWeights(kind, "layer", l, l, s);
  return l;
}
const weightOf = (l: Layer): ArrayLike<number> =>
  l.fanInFanOut ? transpose(l.weight.data, d, k) : l.weight.data.slice();
const productOf = (l: Layer): Float64Array => product(l.loraB.data, l.loraA.data, k, r, d);

test("true, false, gaussian: torch's numbers after the two constructors' draws; the base stays", () =>
  scope(() => {
    const before = layer().weight.data.slice();
    const zeros = new Float32Array(k * r);
    const yes = initialised(true);
    assertBits("A", yes.loraA.data, drawn(r * d + k * r, r * d, d));
    assertBits("B", yes.loraB.data, zeros);
    const no = initialised(false);
    assertBits("A", no.loraA.data, drawn(0, r * d, d));
    assertBits("B", no.loraB.data, drawn(r * d, k * r, r));
    const gaussian = initialised("gaussian", {
      ...layer(),
      loraA: new Tensor([50, 200]),
      loraB: new Tensor([25, 50]),
      weight: tensor(new Float32Array(5000), [25, 200]),
    });
    const values = gaussian.loraA.data;
    const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length - mean * mean);
    assert(Math.abs(mean) < 5e-4 && Math.abs(deviation * 50 - 1) < 0.02, `mean ${mean}, deviation ${deviation}`);
    assert(gaussian.loraB.data.every((v) => v === 0));
    for (const l of [yes, no]) assertBits("weight", l.weight.data, before);
  }));

test("orthogonal: the rows of A are orthogonal to the columns of B, so B A = 0; the base stays", () =>
  scope(() => {
    const l = initialised("orthogonal");
    const before = layer().weight.data.slice();
    assert(largest(l.loraA.data) > 0.01 && largest(l.loraB.data) > 0.01);
    assertNear("B A", productOf(l), new Float64Array(k * d), 1e-8);
    assertBits("weight", l.weight.data, before);
  }));

/** W whose singular values and vectors are known; those of the first r are apart. */
const spectrum = Float64Array.from({ length: d }, (_, i) => (i < 6 ? 12 - 2 * i : 1 / (1 + i)));
const left = orthonormal(1, k, d);
const right = orthonormal(2, d, d);
const made = compose(left, spectrum, right, k, d);
const best = compose(
  left,
  spectrum.map((v, i) => (i < r ? v : 0)),
  right,
  k,
  d,
);

for (const fanInFanOut of [false, true]) {
  for (const kind of ["pissa", "pissa_niter_16"] as const) {
    test(`${kind}: s B A is the best approximation of rank r, the base the rest (fanInFanOut = ${fanInFanOut})`, () =>
      scope(() => {
        const l = initialised(kind, layer(fanInFanOut, made));
        const ours = productOf(l).map((v) => scaling * v);
        assertNear("s B A", ours, best, 3e-6);
        assertNear(
          "base",
          weightOf(l),
          made.map((v, i) => v - best[i]!),
          3e-6,
        );
        assertNear(
          "base + s B A",
          ours.map((v, i) => v + weightOf(l)[i]!),
          made,
          2e-6,
        );
        // A and B share each singular value evenly.
        for (let i = 0; i < r; i++) {
          const row = l.loraA.data.subarray(i * d, (i + 1) * d);
          assertNear(`|A[${i}]|²`, [row.reduce((sum, v) => sum + v * v, 0)], [spectrum[i]! / scaling], 1e-5);
        }
      }));
  }

  test(`olora: orthonormal B, A the top of R, the base what is left (fanInFanOut = ${fanInFanOut})`, () =>
    scope(() => {
      const l = initialised("olora", layer(fanInFanOut));
      const w = uniform(1, k * d);
      assertOrthonormal("B", l.loraB.data, k, r, 1e-6);
      // The first r columns of Q span those of W, and R is upper triangular with LAPACK's sign: r_00 < 0 for
      // w_00 > 0.
      const all = productOf(l);
      for (let i = 0; i < k; i++) for (let j = 0; j < r; j++) assert(Math.abs(all[i * d + j]! - w[i * d + j]!) < 1e-6);
      for (let i = 0; i < r; i++) for (let j = 0; j < i; j++) assert.equal(l.loraA.data[i * d + j], 0);
      assert.equal(Math.sign(l.loraA.data[0]!), -Math.sign(w[0]!));
      assertNear(
        "base + s B A",
        all.map((v, i) => scaling * v + weightOf(l)[i]!),
        w,
        1e-6,
      );
    }));
}

test("pissa on a zero weight and on one of lower rank than r", () =>
  scope(() => {
    for (const values of [
      new Float64Array(k * d),
      compose(
        left,
        [3, 2],
        right.filter((_, i) => i % d < 2),
        k,
        d,
      ),
    ]) {
      const l = initialised("pissa", layer(false, values));
      assertNear("base", l.weight.data, new Float64Array(k * d), 1e-6);
    }
  }));

test("embedding: A zeros, B the normals after two constructors' draws; false keeps those", () =>
  scope(() => {
    // torch draws fewer than 16 normals one pair at a time, so a stream of small draws is one sequence.
    const normals = golden.tensors.get("randn_14")!.data as Float32Array;
    const loraA = new Tensor([2, 3]);
    const loraB = new Tensor([1, 2]);
    manualSeed(seed);
    initLoraEmbedding(false, "table", { loraA, loraB });
    assertClose("A", loraA.data, normals.subarray(0, 6), 0, 2e-6);
    assertClose("B", loraB.data, normals.subarray(6, 8), 0, 2e-6);
    manualSeed(seed);
    initLoraEmbedding("pissa", "table", { loraA, loraB });
    assertBits("A", loraA.data, new Float32Array(6));
    assertClose("B", loraB.data, normals.subarray(8, 10), 0, 2e-6);
  }));

test("convolution: fan-in is channels times kernel; groups; other kinds are refused", () =>
  scope(() => {
    const loraA = new Tensor([4, 3, 3, 2]);
    const loraB = new Tensor([6, 2, 1, 1]);
    manualSeed(seed);
    initLoraConv(true, "conv", { loraA, loraB });
    assertBits("A", loraA.data, drawn(72 + 12, 72, 18));
    assert(loraB.data.every((v) => v === 0));
    manualSeed(seed);
    initLoraConv(false, "conv", { loraA, loraB });
    assertBits("B", loraB.data, drawn(72, 12, 2));
    initLoraConv("gaussian", "conv", { loraA, loraB });
    assert(largest(loraA.data) < 5 / 4 && loraB.data.every((v) => v === 0));
    assert.throws(
      () => initLoraConv("pissa", "conv", { loraA, loraB }),
      /conv: initLoraWeights must be true, false or "gaussian".*"pissa"/,
    );
    assert.throws(() => initLoraConv(true, "conv", { loraA, loraB: new Tensor([6, 3, 1, 1]) }), ShapeError);
  }));

test("what is refused changes nothing", () =>
  scope(() => {
    const l = layer();
    const odd = { loraA: new Tensor([3, d]), loraB: new Tensor([k, 3]) };
    const wide = { loraA: new Tensor([17, d]), loraB: new Tensor([k, 17]) };
    const before = l.weight.data.slice();
    const run =
      (kind: unknown, f: { loraA: Tensor; loraB: Tensor } = l, s = scaling) =>
      () =>
        initLoraWeights(kind as LoraInit, "q_proj", f, l, s);
    for (const kind of ["PiSSA", "pissa_niter_", "pissa_niter_x", "loftq", 1, null, undefined])
      assert.throws(run(kind), /q_proj: initLoraWeights must be/);
    assert.throws(run("orthogonal", odd), /even r; got 3/);
    for (const kind of ["pissa", "olora", "pissa_niter_2"]) assert.throws(run(kind, wide), ArgumentError);
    for (const s of [0, -1, NaN]) assert.throws(run("pissa", l, s), ArgumentError);
    assert.throws(run(true, { loraA: l.loraA, loraB: odd.loraB }), ShapeError);
    assert.throws(() => initLoraWeights(true, "q_proj", l, { weight: l.weight, fanInFanOut: true }, 1), ShapeError);
    assertBits("weight", l.weight.data, before);
    l.weight.data[7] = NaN;
    assert.throws(run("olora"), /weight holds NaN at 7/);
  }));

test("inits leave nothing in linear memory", () =>
  scope(() => {
    const l = layer();
    manualSeed(seed);
    initLoraWeights(true, "layer", l, l, 1);
    const before = memoryStats().liveBytes;
    for (const kind of ["pissa", "pissa_niter_2", "olora", "orthogonal", "gaussian"] as const)
      initLoraWeights(kind, "layer", l, l, 1);
    assert.equal(memoryStats().liveBytes, before);
  }));

test.run();
