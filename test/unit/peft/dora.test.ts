/**
 * DoRA: kernels by bits against loops of float32 steps, ops by central differences, and PEFT's formula, with its norm
 * held constant, against float64.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, manualSeed, ops, scope, ShapeError, tensor, Tensor, zeros } from "../../../src/index.js";
import { addProduct, draw, Frame } from "../../support/frame.js";
import { assertClose } from "../../support/golden.js";
import { gradcheck, gridTensor as grid } from "../../support/gradcheck.js";
import { Operand, transposed } from "../../support/kernels.js";
import { madd } from "../../support/madd.js";
import { product, transpose, type Real } from "../../support/float64.js";

const engine = await init();
const { kernels } = engine;
const f32 = Math.fround;

/** float64 sum of squares in the kernels' order: value i in lane i % 4. */
function fourLanes(values: Float32Array): number {
  const lanes = [0, 0, 0, 0];
  values.forEach((v, i) => {
    lanes[i % 4]! += v * v;
  });
  return lanes[0]! + lanes[1]! + (lanes[2]! + lanes[3]!);
}

test("doraNorm: both layouts, blocks of 32 rows, the bits of the documented order", () => {
  const scratch = new Operand(engine.memory, 1, kernels.sgemmScratchBytes() / 4);
  for (const fanInFanOut of [false, true])
    for (const height of [1, 2, 31, 32, 33, 65])
      for (const width of [1, 3, 4, 7, 16, 33])
        for (const r of [1, 2, 5, 8])
          for (const s of [1, f32(1.7), -1]) {
            const [k, d] = fanInFanOut ? [width, height] : [height, width];
            const A = draw(r * d);
            const B = draw(k * r);
            const W = draw(k * d);
            const ba = addProduct(new Float32Array(k * d), B, A, k, d, r);
            const v = (fanInFanOut ? transposed(W, d, k) : W).map((w, i) => madd()(w, s, ba[i]!));
            const norm = Float32Array.from({ length: k }, (_, j) => {
              const row = v.subarray(j * d, (j + 1) * d);
              return Math.sqrt(fanInFanOut ? row.reduce((sum, x) => sum + x * x, 0) : fourLanes(row));
            });
            const f = new Frame(engine, `doraNorm ${JSON.stringify({ k, d, r, s, fanInFanOut })}`);
            kernels.doraNorm({
              k,
              d,
              r,
              s,
              weight: f.input("W", W),
              fanInFanOut,
              format: 0,
              a: f.input("A", A),
              b: f.input("B", B),
              norm: f.output("norm", norm),
              rows: f.room("rows", kernels.mergeRowsBytes(width) / 4).address,
              sums: fanInFanOut ? f.room("sums", 2 * k).address : 0,
              scratch: scratch.address,
            });
            f.end();
          }
  scratch.assertGuards(() => "scratch");
  scratch.free();
});

test("channelScale: every tail, with and without bias, gradients wanted or not, in place", () => {
  for (const outer of [0, 1, 3])
    for (const channels of [1, 2, 4, 5, 9])
      for (const inner of [0, 1, 2, 4, 7])
        for (const biased of [false, true]) {
          const n = outer * channels * inner;
          const at = (i: number): number => Math.floor(i / inner) % channels;
          const x = draw(n);
          const g = draw(channels);
          const b = draw(channels);
          const dy = draw(n);
          const label = JSON.stringify({ outer, channels, inner, biased });
          const y = x.map((v, i) => (biased ? f32(v * g[at(i)]!) + b[at(i)]! : v * g[at(i)]!));
          const f = new Frame(engine, `forward ${label}`);
          const pg = f.input("g", g);
          const pb = biased ? f.input("bias", b) : 0;
          kernels.channelScaleForward(f.output("y", y), f.input("x", x), pg, pb, outer, channels, inner);
          const inPlace = f.output("y in place", y, x);
          kernels.channelScaleForward(inPlace, inPlace, pg, pb, outer, channels, inner);
          f.end();

          for (let wanted = 0; wanted < 8; wanted++) {
            const before = { dx: draw(n), dg: draw(channels), db: draw(channels) };
            const dg = before.dg.slice();
            const db = before.db.slice();
            dy.forEach((v, i) => {
              dg[at(i)] = dg[at(i)]! + f32(v * x[i]!);
              db[at(i)] = db[at(i)]! + v;
            });
            const back = new Frame(engine, `backward ${label} ${wanted}`);
            kernels.channelScaleBackward({
              dx:
                wanted & 1
                  ? back.output(
                      "dx",
                      before.dx.map((v, i) => v + f32(dy[i]! * g[at(i)]!)),
                      before.dx,
                    )
                  : 0,
              dg: wanted & 2 ? back.output("dg", dg, before.dg) : 0,
              dBias: wanted & 4 ? back.output("dBias", db, before.db) : 0,
              dy: back.input("dy", dy),
              x: back.input("x", x),
              g: back.input("g", g),
              outer,
              channels,
              inner,
            });
            back.end();
          }
        }
});

test("divForward and divBackward: every tail", () => {
  for (let n = 0; n < 20; n++) {
    const a = draw(n);
    const b = draw(n).map((v) => v + 2);
    const dy = draw(n);
    const before = draw(n);
    const f = new Frame(engine, `div ${n}`);
    const pb = f.input("b", b);
    kernels.divForward(
      f.output(
        "y",
        a.map((v, i) => v / b[i]!),
      ),
      f.input("a", a),
      pb,
      n,
    );
    kernels.divBackward(
      f.output(
        "da",
        before.map((v, i) => v + f32(dy[i]! / b[i]!)),
        before,
      ),
      f.input("dy", dy),
      pb,
      n,
    );
    f.end();
  }
});

test("gradients of channelScale and doraScale; norm is a constant", () =>
  scope(() => {
    const x = grid([2, 5, 3], 1);
    const bias = grid([3], 3);
    const g = grid([3], 2);
    gradcheck("channels last", { x, g, bias }, () => ops.channelScale(x, g, bias));
    const middle = grid([5], 4);
    const b = grid([5], 5);
    const first = grid([2], 6);
    gradcheck("channels in the middle", { x, middle, b }, () => ops.channelScale(x, middle, b, 1));
    gradcheck("channels first, no bias", { x, first }, () => ops.channelScale(x, first, null, 0));
    x.requiresGrad = false;
    gradcheck("constant x", { x, g, bias }, () => ops.channelScale(x, g, bias));
    // A convolution's magnitude has PEFT's shape.
    const magnitude = grid([1, 5, 1, 1], 7);
    const norm = grid([5], 8, false, 0.5);
    gradcheck("doraScale", { magnitude, norm }, () => ops.doraScale(magnitude, norm));
    norm.requiresGrad = true;
    assert.equal(ops.doraScale(magnitude, norm).shape.join(), "5");
    ops.sum(ops.doraScale(magnitude, norm)).backward();
    assert.equal(norm.grad, null);
  }));

const N = 6;
const D = 7;
const K = 5;
const R = 3;
const S = 1.5;

interface Values {
  x: Real;
  a: Real;
  b: Real;
  m: Real;
}
/** x Wᵀ for x [n, d], W [k, d]. */
const times = (x: Real, w: Real, n: number, d: number, k: number): Float64Array =>
  product(x, transpose(w, k, d), n, d, k);

/** ||W + s B A|| per row of W [k, d]. */
function norms(w: Real, a: Real, b: Real, k: number, d: number, r: number, s: number): Float64Array {
  const ba = product(b, a, k, r, d);
  return Float64Array.from({ length: k }, (_, j) => {
    let squares = 0;
    for (let i = 0; i < d; i++) squares += (w[j * d + i]! + s * ba[j * d + i]!) ** 2;
    return Math.sqrt(squares);
  });
}

/** d f / d values[at], central differences in float64. */
function slope(f: (v: Values) => number, v: Values, name: keyof Values): Float64Array {
  const at = Float64Array.from(v[name]);
  const h = 1e-5;
  return at.map((value, i) => {
    const [above, below] = [h, -h].map((step) => {
      at[i] = value + step;
      return f({ ...v, [name]: at });
    });
    at[i] = value;
    return (above! - below!) / (2 * h);
  });
}

for (const fanInFanOut of [false, true])
  for (const p of [0, 0.4]) {
    test(`PEFT's DoRA linear and its gradients (fanInFanOut = ${fanInFanOut}, dropout ${p})`, () =>
      scope(() => {
        const x = grid([N, D], 1);
        const w = grid([K, D], 2, false);
        const bias = grid([K], 3, false);
        const loraA = grid([R, D], 4);
        const loraB = grid([K, R], 5);
        const magnitude = grid([K], 6, true, 0.25);
        const weights = grid([N, K], 9, false);
        const weight = fanInFanOut ? tensor(transposed(w.data, K, D), [D, K]) : w;
        manualSeed(7);
        const mask = p
          ? ops.dropout(tensor(new Float32Array(N * D).fill(1), [N, D]), p).data.slice()
          : new Float32Array(N * D).fill(1);
        const c = norms(w.data, loraA.data, loraB.data, K, D, R, S);

        const formula = ({ x, a, b, m }: Values): Float64Array => {
          const dropped = Float64Array.from(x, (v, i) => v * mask[i]!);
          const base = times(x, w.data, N, D, K);
          const again = times(dropped, w.data, N, D, K);
          const branch = times(times(dropped, a, N, D, R), b, N, R, K);
          return base.map((v, i) => {
            const g = m[i % K]! / c[i % K]!;
            return v + bias.data[i % K]! + (g - 1) * again[i]! + g * S * branch[i]!;
          });
        };
        const loss = (v: Values): number => formula(v).reduce((sum, y, i) => sum + y * weights.data[i]!, 0);
        const values: Values = {
          x: x.data.slice(),
          a: loraA.data.slice(),
          b: loraB.data.slice(),
          m: magnitude.data.slice(),
        };

        const norm = ops.doraNorm(weight, loraA, loraB, S, fanInFanOut);
        assertClose("c", norm.data, c);
        assert(!norm.requiresGrad && norm.isLeaf);
        const g = ops.doraScale(magnitude, norm);
        const branches = [{ loraA, loraB, scaling: S, mask: null }];
        manualSeed(7);
        const dropped = p ? ops.dropout(x, p) : x;
        const y =
          p === 0
            ? ops.channelScale(ops.linear(x, weight, null, branches, fanInFanOut), g, bias)
            : ops.add(
                ops.linear(ops.add(x, ops.scale(dropped, -1)), weight, bias, [], fanInFanOut),
                ops.channelScale(ops.linear(dropped, weight, null, branches, fanInFanOut), g),
              );
        assertClose("y", y.data, formula(values));
        ops.sum(ops.mul(y, weights)).backward();
        assertClose("dx", x.grad!.data, slope(loss, values, "x"));
        assertClose("dA", loraA.grad!.data, slope(loss, values, "a"));
        assertClose("dB", loraB.grad!.data, slope(loss, values, "b"));
        assertClose("dm", magnitude.grad!.data, slope(loss, values, "m"));
      }));
  }

test("with the norm as magnitude a layer starts as plain LoRA; an embedding's and a convolution's norms", () =>
  scope(() => {
    const x = grid([N, D], 1);
    const weight = grid([K, D], 2, false);
    const loraA = grid([R, D], 4);
    const loraB = zeros([K, R]);
    const c = ops.doraNorm(weight, loraA, loraB, S);
    const y = ops.channelScale(
      ops.linear(x, weight, null, [{ loraA, loraB, scaling: S, mask: null }]),
      ops.doraScale(c, c),
    );
    assert.deepEqual(y.data, ops.linear(x, weight).data);

    // PEFT: the norm of (table + s (B A)ᵀ)ᵀ over the vocabulary, one for each dimension.
    const vocab = 41;
    const dim = 6;
    const table = grid([vocab, dim], 1);
    const A = grid([R, vocab], 2);
    const B = grid([dim, R], 3);
    assertClose(
      "embedding",
      ops.doraNorm(table, A, B, S, true).data,
      norms(transpose(table.data, vocab, dim), A.data, B.data, dim, vocab, R, S),
    );
    const conv = grid([8, 3, 2, 2], 1);
    const convA = grid([R, 3, 2, 2], 2);
    const convB = grid([8, R, 1, 1], 3);
    assertClose(
      "convolution",
      ops.doraNorm(conv, convA, convB, S).data,
      norms(conv.data, convA.data, convB.data, 8, 12, R, S),
    );
  }));

test("what is refused", () =>
  scope(() => {
    const w = grid([K, D], 1);
    const a = grid([R, D], 2);
    const b = grid([K, R], 3);
    assert.throws(() => ops.doraNorm(grid([K], 1), a, b, 1), /doraNorm: weight has shape \[5\]; expected at least 2/);
    assert.throws(() => ops.doraNorm(w, a, b, 1, true), ShapeError);
    assert.throws(() => ops.doraNorm(w, b, a, 1), ShapeError);
    assert.throws(() => ops.doraNorm(w, a, b, NaN), ArgumentError);
    // A grouped convolution: PEFT's A sees all channels, its weight only a group's.
    assert.throws(
      () => ops.doraNorm(new Tensor([8, 3, 2]), new Tensor([4, 6, 2]), new Tensor([8, 2, 1]), 1),
      ShapeError,
    );
    assert.throws(() => ops.doraScale(grid([4], 1), grid([5], 2)), ShapeError);
    assert.throws(() => ops.channelScale(w, grid([K], 1)), ShapeError);
    assert.throws(() => ops.channelScale(w, grid([D], 1), grid([K], 1)), ShapeError);
    assert.throws(() => ops.channelScale(w, grid([D], 1), null, 2), ArgumentError);
  }));

test.run();
