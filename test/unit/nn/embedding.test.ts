/**
 * Embedding's options of torch: maxNorm and normType, scaleGradByFreq, paddingIdx from the end; and branches for parts
 * of a batch.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { init, lora, nn, noGrad, ops, scope, tensor } from "../../../src/index.js";
import { engine } from "../../../src/runtime/engine.js";
import { draw, Frame } from "../../support/frame.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { gradcheck, gridTensor as grid } from "../../support/gradcheck.js";

await init();

const f32 = Math.fround;
const vocab = 7;
const IDS = [6, 0, 2, 2, 6, 5];

/** torch.embedding_renorm_ in float64: scale = maxNorm / (norm + 1e-7), each id once. */
function renormed(rows: Float64Array[], ids: number[], maxNorm: number, p: number): Float64Array[] {
  return rows.map((row, id) => {
    const sizes = [...row].map(Math.abs);
    const norm = p === Infinity ? Math.max(...sizes) : sizes.reduce((sum, v) => sum + v ** p, 0) ** (1 / p);
    return ids.includes(id) && norm > maxNorm ? row.map((v) => (v * maxNorm) / (norm + 1e-7)) : row;
  });
}

for (const p of [0.5, 1, 2, 2.5, 3, Infinity]) {
  test(`renorm kernel, p = ${p}: rows and columns against float64, the others to the bit`, () => {
    for (const dim of [1, 3, 8, 17])
      for (const maxNorm of [0, 0.5, 1, 2])
        for (const asColumns of [false, true]) {
          const w = draw(vocab * dim);
          const at = (id: number, q: number): number => (asColumns ? q * vocab + id : id * dim + q);
          const rows = Array.from({ length: vocab }, (_, id) =>
            Float64Array.from({ length: dim }, (_, q) => w[at(id, q)]!),
          );
          const expected = renormed(rows, IDS, maxNorm, p);
          const frame = new Frame(engine(), `embeddingRenorm ${JSON.stringify({ dim, maxNorm, asColumns })}`);
          const operand = frame.room("W", w.length, w);
          const [rowStride, elementStride] = asColumns ? [1, vocab] : [dim, 1];
          engine().kernels.embeddingRenorm({
            n: IDS.length,
            dim,
            ids: frame.integers("ids", IDS),
            w: operand.address,
            rowStride,
            elementStride,
            maxNorm,
            p,
            seen: frame.room("seen", vocab).address,
          });
          const got = operand.read();
          frame.end();
          for (let id = 0; id < vocab; id++) {
            const row = Float32Array.from({ length: dim }, (_, q) => got[at(id, q)]!);
            if (expected[id] === rows[id]) assertBits(`row ${id}`, row, Float32Array.from(rows[id]!));
            else assertClose(`row ${id}`, row, expected[id]!, 3e-7, 1e-12);
          }
        }
  });
}

test("renorm: the bits of p = 1, 2 and Infinity, and what is not scaled", () =>
  scope(() => {
    const table = tensor([
      [3, 4],
      [0.6, 0.8],
      [0, 0],
      [NaN, 9],
      [-3, 4],
    ]);
    const ids = tensor(new Int32Array([0, 1, 2, 3, 0]));
    for (const [normType, norm] of [
      [2, 5],
      [1, 7],
      [Infinity, 4],
    ] as const) {
      const w = tensor(table.data.slice(), [5, 2]);
      ops.embedding(ids, w, { maxNorm: 1.5, normType });
      const s = f32(1.5 / (norm + 1e-7));
      assertBits(`p = ${normType}`, w.data.slice(0, 2), Float32Array.of(s * 3, s * 4));
      // Below the limit, zero, NaN as its norm, and not looked up.
      assertBits("others", w.data.slice(2), table.data.slice(2));
    }
  }));

test("maxNorm is applied before the look-up, in place, also under noGrad and in eval()", () =>
  scope(() => {
    const ids = tensor(new Int32Array([1, 1, 3]));
    for (const mode of ["train", "eval", "noGrad"]) {
      const layer = new nn.Embedding(5, 3, { maxNorm: 0.5 });
      layer.weight.data.fill(1);
      layer.train(mode === "train");
      const y = mode === "noGrad" ? noGrad(() => layer.forward(ids)) : layer.forward(ids);
      const s = f32(0.5 / (f32(Math.sqrt(3)) + 1e-7));
      for (let i = 0; i < 9; i++) assert.equal(y.data[i], s);
      for (let i = 0; i < 15; i++) assert.equal(layer.weight.data[i], [1, 3].includes(Math.floor(i / 3)) ? s : 1);
      layer.dispose();
    }
  }));

test("lora.Embedding scales the columns of A that it looks up, too; train() takes it back if merged", () =>
  scope(() => {
    const layer = new lora.Embedding(5, 3, { r: 2, loraAlpha: 2, maxNorm: 1, normType: 1 });
    layer.weight.data.fill(0.25);
    layer.loraA!.data.fill(2);
    const ids = tensor(new Int32Array([4, 0]));
    layer.forward(ids);
    const s = f32(1 / (4 + 1e-7));
    for (let q = 0; q < 2; q++)
      for (let id = 0; id < 5; id++) assert.equal(layer.loraA!.data[q * 5 + id], id % 4 === 0 ? 2 * s : 2);
    const weight = layer.weight.data.slice();
    assert(
      weight.every((v) => v === 0.25),
      "its norm 0.75 is within the limit",
    );
    layer.eval();
    layer.forward(tensor(new Int32Array([1])));
    const merged = layer.weight.data.slice(3, 6);
    assert(merged.reduce((sum, v) => sum + Math.abs(v), 0) < 1 + 1e-6, "the merged row is scaled");
    layer.train();
    assertBits("weight", layer.weight.data, weight);
    layer.dispose();
  }));

test("scaleGradByFreq divides by the count in the call: W and A, not B", () =>
  scope(() => {
    const ids = tensor(new Int32Array(IDS), [2, 3]);
    const dim = 5;
    const r = 3;
    const weight = grid([vocab, dim], 1);
    const loraA = grid([r, vocab], 2);
    const loraB = grid([dim, r], 3);
    const dy = grid([2, 3, dim], 4, false);
    const grads = (scaleGradByFreq: boolean): Float32Array[] => {
      ops
        .sum(
          ops.mul(ops.embedding(ids, weight, { scaleGradByFreq, paddingIdx: 5 }, [{ loraA, loraB, scaling: 2 }]), dy),
        )
        .backward();
      return [weight, loraA, loraB].map((t) => {
        const data = t.grad!.data.slice();
        t.grad!.dispose();
        t.grad = null;
        return data;
      });
    };
    const [w, a, b] = grads(false) as [Float32Array, Float32Array, Float32Array];
    const [ws, as, bs] = grads(true) as [Float32Array, Float32Array, Float32Array];
    const count = (id: number): number => Math.max(1, IDS.filter((other) => other === id).length);
    // Counts are 1 and 2: halves are exact.
    assertBits(
      "dW",
      ws,
      w.map((v, i) => v / count(Math.floor(i / dim))),
    );
    assertBits(
      "dA",
      as,
      a.map((v, i) => v / count(i % vocab)),
    );
    assertBits("dB", bs, b);
    assert(
      a.every((v, i) => (v === 0) === [1, 3, 4, 5].includes(i % vocab)),
      "the padding column has no gradient",
    );
  }));

test("a negative paddingIdx counts from the end, as in torch", () =>
  scope(() => {
    const layer = new nn.Embedding(vocab, 3, { paddingIdx: -2 });
    assert.equal(layer.paddingIdx, 5);
    assert.deepEqual([...layer.weight.data.slice(15, 18)], [0, 0, 0]);
    ops.sum(layer.forward(tensor(new Int32Array(IDS)))).backward();
    assert.deepEqual(
      [...layer.weight.grad!.data].filter((_, i) => i % 3 === 0),
      [1, 0, 2, 0, 0, 0, 2],
    );
    layer.dispose();
  }));

test("branches are added in order, each to its part of the batch", () =>
  scope(() => {
    const ids = tensor(new Int32Array([...IDS, 1, 2, 3]), [3, 3]);
    const dim = 5;
    const weight = grid([vocab, dim], 1, false);
    const one = { loraA: grid([3, vocab], 2), loraB: grid([dim, 3], 3), scaling: 2 };
    const two = { loraA: grid([2, vocab], 4), loraB: grid([dim, 2], 5), scaling: -0.5 };
    const whole = ops.embedding(ids, weight, {}, [one, { ...two, from: 1, to: 2 }]).data.slice();
    const only = (row: number): Int32Array => ids.indices.slice(3 * row, 3 * row + 3);
    for (const row of [0, 1, 2]) {
      const alone = ops.embedding(tensor(only(row)), weight, {}, row === 1 ? [one, two] : [one]).data;
      assertBits(`row ${row}`, whole.slice(15 * row, 15 * row + 15), alone.slice());
    }
    gradcheck("ranges", { loraA: one.loraA, loraB: one.loraB, a2: two.loraA, b2: two.loraB }, () =>
      ops.embedding(ids, weight, {}, [
        { ...one, to: 2 },
        { ...two, from: 1 },
      ]),
    );
    gradcheck("empty range", { loraA: one.loraA, loraB: one.loraB }, () =>
      ops.embedding(ids, weight, {}, [one, { ...two, from: 2, to: 2 }]),
    );
  }));

test("gradients where no norm is above maxNorm", () =>
  scope(() => {
    const weight = grid([vocab, 5], 1);
    const loraA = grid([3, vocab], 2);
    const loraB = grid([5, 3], 3);
    gradcheck("maxNorm", { weight, loraA, loraB }, () =>
      ops.embedding(tensor(new Int32Array(IDS)), weight, { maxNorm: 100, normType: 3 }, [{ loraA, loraB, scaling: 2 }]),
    );
  }));

test.run();
