/**
 * Softmax, norms, RoPE's table and cross-entropy against float64 formulas, and their backward kernels
 * against central differences of those formulas. Bounds: 1e-5 of the largest value plus 1e-6, or as
 * stated. A row has the same bits alone; gradients are added to buffers that hold
 * something; a gradient at address 0 is skipped; infinities and NaN stay where the formula puts them.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { type Engine, init } from "../../../src/runtime/engine.js";
import {
  draw,
  Frame,
  gradient,
  plus,
  type Reals,
  run,
  runWanted,
  same,
  softmax,
  weighted,
} from "../../support/frame.js";
import { assertClose } from "../../support/golden.js";

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const DIMS = [...range(1, 19), 33, 65];
const ROWS = [0, 1, 2, 5];

/** Applies a formula to each row of [rows, dim]. */
function byRow(x: Reals, dim: number, formula: (row: Reals) => Float64Array): Float64Array {
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += dim) y.set(formula(x.subarray(at, at + dim)), at);
  return y;
}

const mean = (x: Float64Array): number => x.reduce((sum, v) => sum + v, 0) / x.length;

const softmaxForward = (engine: Engine, x: Float32Array, dim: number): Float32Array =>
  run(engine, `softmaxForward dim ${dim}`, [x], [x.length], ([px], [py]) =>
    engine.kernels.softmaxForward(py!, px!, x.length / dim, dim),
  )[0]!;

const softmaxBackward = (
  engine: Engine,
  dx: Float32Array,
  dy: Float32Array,
  y: Float32Array,
  dim: number,
): Float32Array =>
  run(engine, `softmaxBackward dim ${dim}`, [dy, y], [dx], ([pdy, py], [pdx]) =>
    engine.kernels.softmaxBackward(pdx!, pdy!, py!, y.length / dim, dim),
  )[0]!;

test("softmax: formula, central differences, rows alone, in place", async () => {
  const engine = await init();
  for (const rows of ROWS)
    for (const dim of DIMS) {
      const size = rows * dim;
      const label = `softmax [${rows}, ${dim}]`;
      const x = draw(size).map((v) => 8 * v);
      const dy = draw(size);
      const before = draw(size);
      const y = softmaxForward(engine, x, dim);
      assertClose(label, y, byRow(x, dim, softmax), 1e-6, 0);
      const dx = softmaxBackward(engine, before, dy, y, dim);
      const slopes = byRow(Float64Array.from(x.keys()), dim, (indices) => {
        const at = indices[0]!;
        return gradient((row) => weighted(dy.subarray(at, at + dim), softmax(row)), x.subarray(at, at + dim));
      });
      assertClose(`${label} backward`, dx, plus(before, slopes));
      for (let at = 0; at < size; at += dim) {
        const row = (v: Float32Array): Float32Array => v.subarray(at, at + dim);
        same(`${label}, a row alone`, softmaxForward(engine, row(x), dim), row(y));
        same(`${label} backward, a row alone`, softmaxBackward(engine, row(before), row(dy), row(y), dim), row(dx));
      }
      same(
        `${label} in place`,
        run(engine, label, [], [x], (_, [both]) => engine.kernels.softmaxForward(both!, both!, rows, dim))[0]!,
        y,
      );
    }
});

test("softmax: -Infinity, large logits, NaN", async () => {
  const engine = await init();
  for (const dim of [2, 3, 4, 5, 9, 16, 19])
    for (const special of [0, dim - 1]) {
      const row = (fill: number, value: number): Float32Array =>
        new Float32Array(dim).fill(fill).map((v, i) => (i === special ? value : v));
      const usual = draw(dim);
      const alone = softmaxForward(engine, usual, dim);
      const x = [
        usual,
        row(0.5, -Infinity),
        row(-1e30, 1e30),
        row(1e30, 1e30),
        row(-Infinity, 3),
        row(1, NaN),
        row(-Infinity, -Infinity),
        usual,
      ];
      const y = softmaxForward(engine, Float32Array.from(x.flatMap((r) => [...r])), dim);
      const expected = [
        alone,
        row(Math.fround(1 / (dim - 1)), 0),
        row(0, 1),
        new Float32Array(dim).fill(1 / dim),
        row(0, 1),
        row(NaN, NaN),
        row(NaN, NaN),
        alone,
      ];
      expected.forEach((e, i) =>
        same(`softmax dim ${dim}, row ${i}, special at ${special}`, y.subarray(i * dim, (i + 1) * dim), e),
      );
      // Backward: NaN in one row of dy stays there.
      const dy = draw(2 * dim).slice();
      dy[special] = NaN;
      const both = Float32Array.from([...alone, ...alone]);
      const zero = new Float32Array(2 * dim);
      const dx = softmaxBackward(engine, zero, dy, both, dim);
      assert.ok(dx.subarray(0, dim).every(Number.isNaN) && !dx.subarray(dim).some(Number.isNaN));
    }
});

/** The formula in float64. */
const logSoftmax = (x: Reals): Float64Array => {
  const most = Math.max(...x);
  const total = Math.log([...x].reduce((sum, v) => sum + Math.exp(v - most), 0));
  return Float64Array.from(x, (v) => v - most - total);
};

test("logSoftmax: formula, central differences, rows alone, what is not finite stays in its row", async () => {
  const engine = await init();
  const forward = (x: Float32Array, dim: number): Float32Array =>
    run(engine, `logSoftmaxForward dim ${dim}`, [x], [x.length], ([px], [py]) =>
      engine.kernels.logSoftmaxForward(py!, px!, x.length / dim, dim),
    )[0]!;
  const backward = (dx: Float32Array, dy: Float32Array, y: Float32Array, dim: number): Float32Array =>
    run(engine, `logSoftmaxBackward dim ${dim}`, [dy, y], [dx], ([pdy, py], [pdx]) =>
      engine.kernels.logSoftmaxBackward(pdx!, pdy!, py!, y.length / dim, dim),
    )[0]!;
  for (const rows of ROWS)
    for (const dim of DIMS) {
      const size = rows * dim;
      const label = `logSoftmax [${rows}, ${dim}]`;
      const x = draw(size).map((v) => 8 * v);
      const dy = draw(size);
      const before = draw(size);
      const y = forward(x, dim);
      assertClose(label, y, byRow(x, dim, logSoftmax), 1e-6, 1e-6);
      const dx = backward(before, dy, y, dim);
      const slopes = byRow(Float64Array.from(x.keys()), dim, (indices) => {
        const at = indices[0]!;
        return gradient((row) => weighted(dy.subarray(at, at + dim), logSoftmax(row)), x.subarray(at, at + dim));
      });
      assertClose(`${label} backward`, dx, plus(before, slopes));
      for (let at = 0; at < size; at += dim) {
        const row = (v: Float32Array): Float32Array => v.subarray(at, at + dim);
        same(`${label}, a row alone`, forward(row(x), dim), row(y));
        same(`${label} backward, a row alone`, backward(row(before), row(dy), row(y), dim), row(dx));
      }
    }
  const row = (fill: number, value: number): number[] => [fill, fill, value, fill, fill];
  const y = forward(
    Float32Array.from([...row(0, 0), ...row(1, NaN), ...row(-Infinity, 3), ...row(-Infinity, -Infinity), ...row(0, 0)]),
    5,
  );
  const even = row(-Math.log(5), -Math.log(5));
  assertClose("even", y.subarray(0, 5), even);
  same("a NaN", y.subarray(5, 10), Float32Array.from(row(NaN, NaN)));
  same("one of all", y.subarray(10, 15), Float32Array.from(row(-Infinity, 0)));
  same("none of all", y.subarray(15, 20), Float32Array.from(row(NaN, NaN)));
  assertClose("the row after it", y.subarray(20), even);
});

const EPS = Math.fround(1e-5);

/** A norm's kernels and formula; parameters: weight, and bias for LayerNorm; kept: rstd, or mean and rstd. */
interface Norm {
  name: string;
  parameters: number;
  formula: (row: Reals, parameters: readonly Reals[]) => Float64Array;
  statistics: (row: Reals) => number[];
  forward: (
    engine: Engine,
    x: Float32Array,
    parameters: readonly Float32Array[],
  ) => { y: Float32Array; kept: Float32Array[] };
  /** before: dx, then a gradient for each parameter; undefined: not wanted. */
  backward: (
    engine: Engine,
    before: readonly (Float32Array | undefined)[],
    dy: Float32Array,
    x: Float32Array,
    weight: Float32Array,
    kept: readonly Float32Array[],
  ) => (Float32Array | undefined)[];
}

const rmsRstd = (x: Reals): number => 1 / Math.sqrt(mean(Float64Array.from(x, (v) => v * v)) + EPS);
const layerMean = (x: Reals): number => mean(Float64Array.from(x));
const layerRstd = (x: Reals): number => {
  const m = layerMean(x);
  return 1 / Math.sqrt(mean(Float64Array.from(x, (v) => (v - m) ** 2)) + EPS);
};

const NORMS: readonly Norm[] = [
  {
    name: "rmsNorm",
    parameters: 1,
    statistics: (x) => [rmsRstd(x)],
    formula: (x, [weight]) => {
      const rstd = rmsRstd(x);
      return Float64Array.from(x, (v, i) => v * rstd * weight![i]!);
    },
    forward: (engine, x, [weight]) => {
      const dim = weight!.length;
      const rows = x.length / dim;
      const [y, rstd] = run(
        engine,
        `rmsNormForward [${rows}, ${dim}]`,
        [x, weight!],
        [x.length, rows],
        ([px, pw], [py, ps]) => engine.kernels.rmsNormForward(py!, ps!, px!, pw!, rows, dim, EPS),
      );
      return { y: y!, kept: [rstd!] };
    },
    backward: (engine, before, dy, x, weight, [rstd]) => {
      const dim = weight.length;
      const rows = x.length / dim;
      return runWanted(
        engine,
        `rmsNormBackward [${rows}, ${dim}]`,
        [dy, x, weight, rstd!],
        before,
        ([pdy, px, pw, ps], [pdx, pdw]) => engine.kernels.rmsNormBackward(pdx!, pdw!, pdy!, px!, pw!, ps!, rows, dim),
      );
    },
  },
  {
    name: "layerNorm",
    parameters: 2,
    statistics: (x) => [layerMean(x), layerRstd(x)],
    formula: (x, [weight, bias]) => {
      const m = layerMean(x);
      const rstd = layerRstd(x);
      return Float64Array.from(x, (v, i) => (v - m) * rstd * weight![i]! + bias![i]!);
    },
    forward: (engine, x, [weight, bias]) => {
      const dim = weight!.length;
      const rows = x.length / dim;
      const [y, m, rstd] = run(
        engine,
        `layerNormForward [${rows}, ${dim}]`,
        [x, weight!, bias!],
        [x.length, rows, rows],
        ([px, pw, pb], [py, pm, ps]) =>
          engine.kernels.layerNormForward({
            y: py!,
            mean: pm!,
            rstd: ps!,
            x: px!,
            weight: pw!,
            bias: pb!,
            rows,
            dim,
            eps: EPS,
          }),
      );
      return { y: y!, kept: [m!, rstd!] };
    },
    backward: (engine, before, dy, x, weight, [m, rstd]) => {
      const dim = weight.length;
      const rows = x.length / dim;
      return runWanted(
        engine,
        `layerNormBackward [${rows}, ${dim}]`,
        [dy, x, weight, m!, rstd!],
        before,
        ([pdy, px, pw, pm, ps], [pdx, pdw, pdb]) =>
          engine.kernels.layerNormBackward({
            dx: pdx!,
            dWeight: pdw!,
            dBias: pdb!,
            dy: pdy!,
            x: px!,
            weight: pw!,
            mean: pm!,
            rstd: ps!,
            rows,
            dim,
          }),
      );
    },
  },
];

for (const { name, parameters, formula, statistics, forward, backward } of NORMS) {
  test(`${name}: formula, central differences, rows alone, null gradients`, async () => {
    const engine = await init();
    for (const rows of ROWS)
      for (const dim of DIMS) {
        const size = rows * dim;
        const label = `${name} [${rows}, ${dim}]`;
        const x = draw(size);
        const dy = draw(size);
        const weights = range(1, parameters).map(() => draw(dim));
        const { y, kept } = forward(engine, x, weights);
        assertClose(
          label,
          y,
          byRow(x, dim, (row) => formula(row, weights)),
        );
        const rowOf = (v: Float32Array, i: number): Float32Array => v.subarray(i * dim, (i + 1) * dim);
        for (let i = 0; i < rows; i++) {
          statistics(rowOf(x, i)).forEach((s, j) =>
            assertClose(`${label} statistics`, [kept[j]![i]!], [s], 1e-6, 1e-7),
          );
        }

        const before = [draw(size), ...weights.map(() => draw(dim))];
        const results = backward(engine, before, dy, x, weights[0]!, kept) as Float32Array[];
        const loss = (x: Reals, weights: readonly Reals[]): number =>
          weighted(
            dy,
            byRow(x, dim, (row) => formula(row, weights)),
          );
        // Central differences cost two whole formulas for each element.
        if (size <= 100) {
          assertClose(
            `${label} dx`,
            results[0]!,
            plus(
              before[0]!,
              gradient((at) => loss(at, weights), x),
            ),
          );
          weights.forEach((w, p) =>
            assertClose(
              `${label} d parameter ${p}`,
              results[p + 1]!,
              plus(
                before[p + 1]!,
                gradient(
                  (at) =>
                    loss(
                      x,
                      weights.map((v, q) => (q === p ? at : v)),
                    ),
                  w,
                ),
              ),
            ),
          );
        }

        // Row by row into the same parameter gradients: the bits of the batch.
        let sums = before.slice(1);
        for (let i = 0; i < rows; i++) {
          const alone = forward(engine, rowOf(x, i), weights);
          same(`${label}, a row alone`, alone.y, rowOf(y, i));
          const [dx, ...rest] = backward(
            engine,
            [rowOf(before[0]!, i), ...sums],
            rowOf(dy, i),
            rowOf(x, i),
            weights[0]!,
            alone.kept,
          ) as Float32Array[];
          same(`${label} dx, a row alone`, dx!, rowOf(results[0]!, i));
          sums = rest;
        }
        sums.forEach((sum, p) => same(`${label} d parameter ${p}, row by row`, sum, results[p + 1]!));

        for (const mask of range(0, 2 ** before.length - 1)) {
          const wanted = before.map((b, j) => ((mask >> j) & 1 ? b : undefined));
          backward(engine, wanted, dy, x, weights[0]!, kept).forEach((r, j) => {
            if (r !== undefined) same(`${label} output ${j}, wanted ${mask.toString(2)}`, r, results[j]!);
          });
        }
      }
  });

  test(`${name}: a constant row, NaN and infinity stay in their row`, async () => {
    const engine = await init();
    for (const dim of [1, 3, 4, 8, 17]) {
      const weights = range(1, parameters).map(() => draw(dim));
      const zeros = forward(engine, new Float32Array(dim), weights);
      assertClose(`${name} of zeros`, zeros.y, formula(new Float32Array(dim), weights), 0, 0);
      const usual = draw(dim);
      const { y } = forward(engine, usual, weights);
      for (const value of [NaN, Infinity]) {
        const x = Float32Array.from([...usual, ...usual, ...usual]);
        x[2 * dim - 1] = value;
        const out = forward(engine, x, weights).y;
        assert.ok(Number.isNaN(out[2 * dim - 1]));
        for (const at of [0, 2 * dim]) same(`${name} beside ${value}`, out.subarray(at, at + dim), y);
      }
    }
  });
}

test("layerNorm: a mean far larger than the deviation does not cancel", async () => {
  const engine = await init();
  for (const dim of [4, 17, 64]) {
    const x = draw(dim).map((v) => 1e4 + v);
    const ones = new Float32Array(dim).fill(1);
    const none = new Float32Array(dim);
    const {
      y,
      kept: [m, rstd],
    } = NORMS[1]!.forward(engine, x, [ones, none]);
    assertClose("mean", m!, [layerMean(x)], 2 ** -24, 0);
    assertClose("rstd", rstd!, [layerRstd(x)], 1e-6, 0);
    // The mean is rounded to float32 before it is subtracted.
    assertClose("y", y, NORMS[1]!.formula(x, [ones, none]), 1e-6, 1e4 * 2 ** -24 * layerRstd(x));
  }
});

test("ropeTable: cosines and sines of position * theta^(-j / half)", async () => {
  const engine = await init();
  for (const theta of [10000, 500000])
    for (const half of [1, 2, 4, 5, 16])
      for (const positions of [0, 1, 2, 300]) {
        const [cos, sin] = run(
          engine,
          `ropeTable ${positions} ${half} ${theta}`,
          [Float32Array.from({ length: half }, (_, j) => 1 / Math.fround(theta ** (j / half)))],
          [positions * half, positions * half],
          ([frequencies], [c, s]) => engine.kernels.ropeTable(c!, s!, frequencies!, positions, half, 1),
        );
        for (let t = 0, at = 0; t < positions; t++)
          for (let j = 0; j < half; j++, at++) {
            // theta^(j / half), its inverse and the angle are rounded, then the result.
            const angle = t * theta ** (-j / half);
            const bound = 2 ** -24 * (3.1 * angle + 1);
            assert.ok(
              Math.abs(cos![at]! - Math.cos(angle)) <= bound && Math.abs(sin![at]! - Math.sin(angle)) <= bound,
              `position ${t}, pair ${j} of ${half}, theta ${theta}`,
            );
          }
      }
});

const IGNORE = -100;

/** Sum over the rows that count of logsumexp(x) - x[target]. */
function crossEntropy(x: Reals, targets: readonly number[], classes: number): number {
  let total = 0;
  targets.forEach((target, i) => {
    if (target === IGNORE) return;
    const row = x.subarray(i * classes, (i + 1) * classes);
    const most = Math.max(...row);
    total +=
      most + Math.log(Float64Array.from(row, (v) => Math.exp(v - most)).reduce((sum, v) => sum + v)) - row[target]!;
  });
  return total;
}

/** lse of ignored rows is not written: it is poison, and NaN here. */
function crossEntropyOf(
  engine: Engine,
  x: Float32Array,
  targets: readonly number[],
  classes: number,
  before: Float32Array,
  scale: number,
) {
  const rows = targets.length;
  const f = new Frame(engine, `crossEntropy [${rows}, ${classes}] targets ${targets.join()}`);
  const px = f.input("x", x);
  const pt = f.integers("targets", targets);
  const lse = f.room("lse", rows);
  const dx = f.room("dx", x.length, before);
  const loss = engine.kernels.crossEntropyForward(lse.address, px, pt, rows, classes, IGNORE);
  engine.kernels.crossEntropyBackward(dx.address, lse.address, px, pt, rows, classes, IGNORE, scale);
  const result = { loss, lse: lse.read(), dx: dx.read() };
  f.end();
  return result;
}

test("cross-entropy: formula, central differences, ignored rows, rows alone", async () => {
  const engine = await init();
  for (const rows of ROWS)
    for (const classes of [...range(1, 10), 16, 17, 33])
      for (const ignored of [[], [0], [1, rows - 1]]) {
        const size = rows * classes;
        const label = `crossEntropy [${rows}, ${classes}] without ${ignored.join()}`;
        const targets = range(0, rows - 1).map((i) =>
          ignored.includes(i) ? IGNORE : [classes - 1, 0, classes >> 1][i % 3]!,
        );
        const x = draw(size).map((v) => 6 * v);
        const before = draw(size);
        const g = Math.fround(0.7);
        const { loss, lse, dx } = crossEntropyOf(engine, x, targets, classes, before, g);
        assertClose(label, [loss], [crossEntropy(x, targets, classes)]);
        assertClose(
          `${label} dx`,
          dx,
          plus(
            before,
            gradient((at) => g * crossEntropy(at, targets, classes), x),
          ),
        );
        targets.forEach((target, i) => {
          const row = (v: Float32Array): Float32Array => v.subarray(i * classes, (i + 1) * classes);
          if (target === IGNORE) {
            same(`${label}, an ignored row`, row(dx), row(before));
            return;
          }
          const alone = crossEntropyOf(engine, row(x), [target], classes, row(before), g);
          same(`${label} lse, a row alone`, alone.lse, lse.subarray(i, i + 1));
          same(`${label} dx, a row alone`, alone.dx, row(dx));
        });
      }
});

test("cross-entropy: large logits, -Infinity, NaN in one row", async () => {
  const engine = await init();
  for (const classes of [2, 4, 5, 19]) {
    const row = (fill: number, value: number): Float32Array =>
      new Float32Array(classes).fill(fill).map((v, i) => (i === classes - 1 ? value : v));
    const none = new Float32Array(classes);
    const sure = crossEntropyOf(engine, row(0, 1e30), [classes - 1], classes, none, 1);
    assert.equal(sure.loss, 0);
    same("a certain answer has no gradient", sure.dx, none);
    const wrong = crossEntropyOf(engine, row(0, 1e30), [0], classes, none, 1);
    assert.equal(wrong.loss, Math.fround(1e30));
    same(
      "a wrong answer",
      wrong.dx,
      none.map((_, i) => (i === 0 ? -1 : i === classes - 1 ? 1 : 0)),
    );
    const masked = crossEntropyOf(engine, row(-Infinity, 2), [classes - 1], classes, none, 1);
    assert.equal(masked.loss, 0);
    same("masked classes", masked.dx, none);
    assert.equal(crossEntropyOf(engine, row(-Infinity, 2), [0], classes, none, 1).loss, Infinity);

    const usual = draw(classes);
    const before = draw(2 * classes);
    const mixed = crossEntropyOf(engine, Float32Array.from([...usual, ...row(1, NaN)]), [0, 0], classes, before, 1);
    assert.ok(Number.isNaN(mixed.loss));
    same(
      "beside a NaN row",
      mixed.dx.subarray(0, classes),
      crossEntropyOf(engine, usual, [0], classes, before.subarray(0, classes), 1).dx,
    );
    assert.ok(mixed.dx.subarray(classes).every(Number.isNaN));
  }
});

test.run();
