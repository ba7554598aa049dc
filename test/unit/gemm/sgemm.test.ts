/**
 * sgemmNN, sgemmNT, sgemmTN against the formula in assembly/gemm/sgemm.ts, bit for bit: every
 * remainder of the register tiles (16/8/4 columns, 2/4/8 rows; both for 16 columns) and of their eight steps, the edges
 * of the k-blocks (1024), of the strips of packed panels (64 columns), of the rank-4 updates (up to 12 rows or 4 steps
 * of k, strips of 1024 columns), of the row blocks (96) and of TN's blocks (128 x 512), strides, misaligned operands,
 * alpha and beta. The method is XNNPACK's for its micro-kernels; the oracle is a sequential loop of multiply-adds.
 * Exact integers and the float64 error bound check the same results without it. test/slow/sgemm.test.ts has more alphas
 * and betas. fused.test.ts runs all of it in fused arithmetic.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { EngineError } from "../../../src/runtime/errors.js";
import { assertSameBits, Operand } from "../../support/kernels.js";
import { random } from "../../support/random.js";
import {
  blockEdges,
  Call,
  draw,
  type Layout,
  ORIENTATIONS,
  type Problem,
  problem,
  range,
  reference,
  remainders,
  type Scale,
  SCALES,
  start,
  STEPS,
  strided,
  sweep,
} from "../../support/sgemm.js";

remainders(STEPS);
blockEdges(STEPS);

test("edges of the strips of packed panels", async () => {
  const engine = await start();
  for (const n of [47, 48, 63, 64, 65, 68, 72, 79, 80, 127, 128, 129, 135, 145]) {
    for (const m of [13, 18, 19]) for (const k of [9, 13, 1024, 1029]) sweep(engine, problem(m, n, k), STEPS);
  }
});

test("edges of the rank-4 updates: few rows, a short k, strips of columns", async () => {
  const engine = await start();
  for (const n of [15, 16, 17, 20, 23, 31, 33, 50]) {
    for (const m of [11, 12, 13, 14, 31]) for (const k of range(1, 9)) sweep(engine, problem(m, n, k), STEPS);
  }
  for (const n of [1023, 1024, 1025, 1033, 2049]) {
    for (const [m, k] of [
      [1, 11],
      [2, 12],
      [5, 9],
      [12, 6],
      [13, 4],
      [13, 5],
      [20, 3],
      [20, 1],
    ] as const) {
      sweep(engine, problem(m, n, k), STEPS);
    }
  }
});

test("one row by the long rows of a transposed matrix: eight, and sixteen, side by side", async () => {
  const engine = await start();
  for (const k of [385, 386, 399, 448, 512, 771])
    for (const n of [7, 15, 16, 17, 24, 31, 33, 50]) sweep(engine, problem(1, n, k), STEPS, ["NT"]);
});

test("edges of the row blocks", async () => {
  const engine = await start();
  for (const m of [95, 96, 97, 191, 193])
    for (const n of [4, 8, 16, 17, 33, 70])
      for (const k of [9, 1025]) sweep(engine, problem(m, n, k), STEPS, ["NN", "NT"]);
});

test("edges of TN's row blocks", async () => {
  const engine = await start();
  for (const m of [127, 128, 129, 257]) {
    for (const n of [1, 16, 17, 33])
      for (const k of [1, 6, 512, 513, 1025]) sweep(engine, problem(m, n, k), STEPS, ["TN"]);
  }
});

test("the canonical sum stays within the float64 error bound", async () => {
  const engine = await start();
  for (const [m, n, k] of [
    [3, 5, 1],
    [7, 21, 40],
    [9, 18, 769],
    [5, 17, 3000],
  ] as const) {
    const p = problem(m, n, k);
    for (const orientation of ORIENTATIONS) {
      const call = new Call(engine, orientation, p);
      for (const [alpha, beta] of SCALES) {
        const actual = call.result([alpha, beta]);
        // k sums and the roundings of a * b, alpha * b and beta * C: gamma_{k+2} (Higham, 3.1).
        const roundings = (k + 2) * 2 ** -24;
        const gamma = roundings / (1 - roundings);
        for (let i = 0; i < m; i++) {
          for (let j = 0; j < n; j++) {
            let sum = beta === 0 ? 0 : beta * p.c[i * n + j]!;
            let size = Math.abs(sum);
            for (let q = 0; q < k; q++) {
              const term = alpha * p.a[i * k + q]! * p.b[q * n + j]!;
              sum += term;
              size += Math.abs(term);
            }
            const error = Math.abs(actual[i * n + j]! - sum);
            assert.ok(
              error <= gamma * size,
              `sgemm${orientation} ${m} ${n} ${k} alpha ${alpha} beta ${beta} [${i}, ${j}]: ` +
                `error ${error} exceeds ${gamma * size}`,
            );
          }
        }
      }
      call.end();
    }
  }
});

test("integers are exact", async () => {
  const engine = await start();
  const draws = random(2);
  const integers = (length: number, limit: number): Float32Array =>
    new Float32Array(length).map(() => Math.round(draws() * limit));
  for (const [m, n, k] of [
    [4, 19, 9],
    [9, 35, 385],
    [130, 17, 386],
  ] as const) {
    const p: Problem = { m, n, k, a: integers(m * k, 60), b: integers(k * n, 60), c: integers(m * n, 1000) };
    const expected = (alpha: number, beta: number): Float32Array =>
      new Float32Array(m * n).map((_, at) => {
        const i = Math.floor(at / n);
        const j = at % n;
        let sum = BigInt(beta) * BigInt(p.c[at]!);
        for (let q = 0; q < k; q++) sum += BigInt(alpha) * BigInt(p.a[i * k + q]!) * BigInt(p.b[q * n + j]!);
        assert.ok(sum < 2n ** 24n && sum > -(2n ** 24n));
        return Number(sum);
      });
    for (const [alpha, beta] of [
      [1, 0],
      [1, 1],
      [-3, 2],
    ] as const) {
      const exact = expected(alpha, beta);
      for (const orientation of ORIENTATIONS) {
        const call = new Call(engine, orientation, p);
        call.check([alpha, beta], exact);
        call.end();
      }
    }
  }
});

test("nothing is read or written beyond an operand's last element", async () => {
  const engine = await start();
  const scales: readonly Scale[] = [
    [1, 0],
    [1, 0.5],
    [1.5, 1],
  ];
  for (const k of [1, 2, 3, 4, 5, 7, 8, 385]) {
    for (const m of [1, 2, 3, 4, 5, 8, 9, 17]) {
      for (const n of [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 33]) {
        const p = problem(m, n, k);
        const expected = scales.map((scale) => reference(p, scale));
        for (const orientation of ORIENTATIONS) {
          for (const operand of ["a", "b", "c"] as const) {
            for (const base of [{}, strided(orientation, p)] as Layout[]) {
              const call = new Call(engine, orientation, p, { ...base, [operand]: { ...base[operand], atEnd: true } });
              scales.forEach((scale, s) => call.check(scale, expected[s]!));
              call.end();
            }
          }
        }
      }
    }
  }
  for (const m of [127, 128, 129, 131]) {
    const p = problem(m, 17, 6);
    for (const operand of ["a", "b", "c"] as const) {
      const call = new Call(engine, "TN", p, { [operand]: { atEnd: true } });
      call.check([1, 0], reference(p, [1, 0]));
      call.end();
    }
  }
});

test("a B of 3 MB and more is read ahead: the bits stay, and nothing beyond its last element is read", async () => {
  (await start()).close();
  const engine = await start();
  for (const k of [63, 64, 65, 130]) {
    for (const n of [17, 64, 70]) {
      const p = problem(14, n, k);
      const expected = STEPS.map((scale) => reference(p, scale));
      for (const orientation of ["NN", "TN"] as const) {
        const call = new Call(engine, orientation, p, { b: { ld: Math.ceil((3 << 18) / k), atEnd: true } });
        STEPS.forEach((scale, s) => call.check(scale, expected[s]!));
        call.end();
      }
    }
  }
});

test("an operand at the end of memory does trap when it is overrun", async () => {
  for (const operand of ["a", "b", "c"] as const) {
    const engine = await start();
    const p = problem(2, 4, 4);
    const { kernels, memory } = engine;
    const at = (name: string, rows: number, cols: number): number =>
      new Operand(memory, rows, cols, { atEnd: name === operand }).address;
    const [a, b, c] = [at("a", p.m, p.k), at("b", p.k, p.n), at("c", p.m, p.n)];
    assert.throws(
      () =>
        kernels.sgemmNN({
          m: p.m + 1,
          n: p.n + 1,
          k: p.k + 1,
          alpha: 1,
          a,
          lda: p.k,
          b,
          ldb: p.n,
          beta: 0,
          c,
          ldc: p.n,
          scratch: engine.scratch,
        }),
      EngineError,
    );
  }
});

/** One shape for each path: updates, packed, tiles of 16/8/4 columns, gemv, TN's blocks. */
const PATHS = [
  [1, 19, 7],
  [1, 3, 6],
  [3, 16, 5],
  [4, 33, 9],
  [5, 17, 6],
  [9, 7, 11],
  [17, 3, 4],
  [8, 21, 13],
  [6, 36, 386],
  [18, 37, 9],
  [19, 22, 7],
  [17, 16, 1026],
] as const;

test("NaN, infinities, -0, subnormals and values near overflow go where the formula puts them", async () => {
  const engine = await start();
  const draws = random(3);
  const special = [NaN, Infinity, -Infinity, -0, 0, 1e-45, -1.1754942e-38, 3e38, -3e38];
  for (const [m, n, k] of PATHS) {
    for (const value of special) {
      for (const operand of ["a", "b", "c"] as const) {
        const p = problem(m, n, k);
        p[operand] = p[operand].slice();
        p[operand][Math.floor(((draws() + 1) / 2) * p[operand].length)] = value;
        sweep(engine, p, SCALES);
      }
    }
    // Several at once: infinities meet zeros and each other.
    const mixed = (x: Float32Array): Float32Array =>
      x.map((v) => (draws() > 0.9 ? special[Math.floor(((draws() + 1) / 2) * special.length)]! : v));
    const p = problem(m, n, k);
    sweep(engine, { ...p, a: mixed(p.a), b: mixed(p.b), c: mixed(p.c) }, SCALES);
  }
});

test("0 * Infinity is NaN, in its own row or column only", async () => {
  const engine = await start();
  for (const [m, n, k] of PATHS) {
    for (const orientation of ORIENTATIONS) {
      const a = new Float32Array(m * k);
      const b = new Float32Array(k * n);
      const row = m - 1;
      const column = n - 1;
      const c = new Float32Array(m * n);
      a[row * k + k - 1] = Infinity;
      const left = new Call(engine, orientation, { m, n, k, a, b, c });
      left.check(
        [1, 0],
        new Float32Array(m * n).map((_, i) => (Math.floor(i / n) === row ? NaN : 0)),
      );
      left.end();
      b[(k - 1) * n + column] = -Infinity;
      const right = new Call(engine, orientation, { m, n, k, a: new Float32Array(m * k), b, c });
      right.check(
        [1, 0],
        new Float32Array(m * n).map((_, i) => (i % n === column ? NaN : 0)),
      );
      right.end();
    }
  }
});

test("products underflow gradually and overflow to infinity", async () => {
  const engine = await start();
  for (const [m, n, k] of PATHS) {
    const { a, b, c } = problem(m, n, k);
    for (const [size, expected] of [
      [2 ** -70, "subnormal"],
      [2 ** 70, "not finite"],
    ] as const) {
      const p: Problem = {
        m,
        n,
        k,
        a: a.map((x) => x * size),
        b: b.map((x) => x * size),
        c: c.map((x) => x * size * size),
      };
      const y = reference(p, [1, 0]);
      assert.ok(y.some((x) => (expected === "subnormal" ? x !== 0 && Math.abs(x) < 2 ** -126 : !Number.isFinite(x))));
      sweep(engine, p, SCALES);
    }
  }
});

test("a -0 in C survives beta = 1 and k = 0; beta = -0 does not read C", async () => {
  const engine = await start();
  const c = Float32Array.of(-0, 1, -2);
  const none = new Float32Array(0);
  for (const orientation of ORIENTATIONS) {
    const kept = new Call(engine, orientation, { m: 1, n: 3, k: 0, a: none, b: none, c });
    kept.check([1, 1], c);
    kept.end();
    const p = { ...problem(3, 19, 5), c: new Float32Array(57).fill(NaN) };
    const overwritten = new Call(engine, orientation, p);
    overwritten.check([1, -0], reference(p, [1, 0]));
    overwritten.end();
  }
});

test("a row has the same bits alone, in any split of the batch and in the whole", async () => {
  const engine = await start();
  const n = 37;
  for (const k of [5, 400]) {
    for (const orientation of ORIENTATIONS) {
      const whole = problem(37, n, k);
      for (const scale of [
        [1, 0],
        [1, 1],
        [1.5, 0.5],
      ] as const) {
        const all = new Call(engine, orientation, whole);
        const expected = all.result(scale);
        all.end();
        for (const split of [
          [1, 36],
          [2, 35],
          [3, 34],
          [4, 33],
          [16, 21],
          [17, 20],
          [7, 8, 4, 18],
          [1, 1, 2, 3, 5, 7, 18],
          new Array<number>(37).fill(1),
        ]) {
          let row = 0;
          for (const m of split) {
            const part = new Call(engine, orientation, {
              m,
              n,
              k,
              b: whole.b,
              a: whole.a.subarray(row * k, (row + m) * k),
              c: whole.c.subarray(row * n, (row + m) * n),
            });
            part.check(scale, expected.subarray(row * n, (row + m) * n));
            part.end();
            row += m;
          }
        }
      }
    }
  }
});

test("a sum over k in several accumulating calls has the bits of one (gradient accumulation)", async () => {
  const engine = await start();
  const k = 1300;
  for (const [m, n] of [
    [1, 19],
    [3, 40],
    [9, 8],
    [21, 35],
    [130, 17],
  ] as const) {
    const whole = problem(m, n, k);
    const columns = (from: number, to: number): Float32Array => {
      const part = new Float32Array(m * (to - from));
      for (let i = 0; i < m; i++) part.set(whole.a.subarray(i * k + from, i * k + to), i * (to - from));
      return part;
    };
    for (const orientation of ORIENTATIONS) {
      for (const alpha of [1, 1.5]) {
        const all = new Call(engine, orientation, whole);
        const expected = all.result([alpha, 0]);
        all.end();
        for (const cuts of [
          [1, k],
          [3, k],
          [512, k],
          [1025, k],
          [100, 512, 600, 1299, k],
          [400, 400, k],
        ]) {
          let c: Float32Array = new Float32Array(m * n);
          let from = 0;
          for (const to of cuts) {
            const p: Problem = { m, n, k: to - from, a: columns(from, to), b: whole.b.subarray(from * n, to * n), c };
            const part = new Call(engine, orientation, p);
            c = part.result([alpha, from === 0 ? 0 : 1]);
            part.end();
            from = to;
          }
          assertSameBits(c, expected, n, () => `sgemm${orientation} m ${m} n ${n} k cut at ${cuts.join(", ")}`);
        }
      }
    }
  }
});

test("a bias in C is added exactly once, whatever the number of k-blocks", async () => {
  const engine = await start();
  for (const k of [1, 385, 769, 1153]) {
    for (const [m, n] of [
      [1, 17],
      [3, 16],
      [9, 7],
      [5, 35],
      [129, 18],
    ] as const) {
      const bias = draw(n);
      const c = new Float32Array(m * n).map((_, i) => bias[i % n]!);
      const zero: Problem = { m, n, k, a: new Float32Array(m * k), b: draw(k * n), c };
      const ones: Problem = {
        m,
        n,
        k,
        a: new Float32Array(m * k).fill(1),
        b: new Float32Array(k * n).fill(2),
        c: new Float32Array(m * n).fill(1024),
      };
      for (const orientation of ORIENTATIONS) {
        const untouched = new Call(engine, orientation, zero);
        untouched.check([1, 1], c);
        untouched.end();
        const counted = new Call(engine, orientation, ones);
        counted.check([1, 1], new Float32Array(m * n).fill(1024 + 2 * k));
        counted.end();
      }
    }
  }
});

test.run();
