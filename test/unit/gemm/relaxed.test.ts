/**
 * The relaxed build: how it is asked for, what runs where it does not, and its products. They keep the order of the
 * canonical sum, but a multiply-add may round once, so the oracles are a float64 reference with Higham's bound for
 * every edge of the kernels, and, for whole register tiles, the chain of multiply-adds that the machine has. Ends
 * engines.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, type Engine, init, StateError } from "../../../src/index.js";
import { assertSameBits, Operand, type Placement, transposed } from "../../support/kernels.js";
import { byOption, initRelaxed, runs } from "../../support/relaxed.js";
import { randomArray } from "../../support/random.js";

type Orientation = "NN" | "NT" | "TN";
const ORIENTATIONS: readonly Orientation[] = ["NN", "NT", "TN"];
interface Problem {
  m: number;
  n: number;
  k: number;
  a: Float32Array;
  b: Float32Array;
  c: Float32Array;
}
type Scale = readonly [alpha: number, beta: number];
interface Layout {
  a?: Placement;
  b?: Placement;
  c?: Placement;
}

const f32 = Math.fround;
const problem = (m: number, n: number, k: number): Problem => ({
  m,
  n,
  k,
  a: randomArray(m + 100 * k, m * k),
  b: randomArray(n + 200 * k, k * n),
  c: randomArray(m + 300 * n, m * n),
});

/** alpha op(A) op(B) + beta C, each operand between guards. */
function product(
  { kernels, memory, scratch }: Engine,
  orientation: Orientation,
  p: Problem,
  [alpha, beta]: Scale,
  layout: Layout = {},
): Float32Array {
  const { m, n, k } = p;
  const label = (): string => `sgemm${orientation} m ${m} n ${n} k ${k} ${JSON.stringify(layout)}`;
  const make = {
    a: () =>
      orientation === "TN"
        ? new Operand(memory, k, m, layout.a).fill(transposed(p.a, m, k))
        : new Operand(memory, m, k, layout.a).fill(p.a),
    b: () =>
      orientation === "NT"
        ? new Operand(memory, n, k, layout.b).fill(transposed(p.b, k, n))
        : new Operand(memory, k, n, layout.b).fill(p.b),
    c: () => new Operand(memory, m, n, layout.c).fill(p.c),
  };
  // An operand at the end of memory must be the last to be allocated.
  const names = (["a", "b", "c"] as const)
    .slice()
    .sort((x, y) => Number(layout[x]?.atEnd ?? false) - Number(layout[y]?.atEnd ?? false));
  const { a, b, c } = Object.fromEntries(names.map((name) => [name, make[name]()])) as Record<keyof Layout, Operand>;
  const kernel = { NN: kernels.sgemmNN, NT: kernels.sgemmNT, TN: kernels.sgemmTN }[orientation];
  kernel({ c: c.address, a: a.address, b: b.address, m, n, k, ldc: c.ld, lda: a.ld, ldb: b.ld, alpha, beta, scratch });
  a.assertUnchanged(label);
  b.assertUnchanged(label);
  c.assertGuards(label);
  const result = c.read();
  for (const operand of [a, b, c]) operand.free();
  return result;
}

/** A B with one accumulator an element, p ascending. */
function chain({ m, n, k, a, b }: Problem, madd: (c: number, a: number, b: number) => number): Float32Array {
  return new Float32Array(m * n).map((_, at) => {
    const i = Math.floor(at / n);
    const j = at % n;
    let sum = 0;
    for (let p = 0; p < k; p++) sum = madd(sum, a[i * k + p]!, b[p * n + j]!);
    return sum;
  });
}

const rounded = (c: number, a: number, b: number): number => f32(c + f32(a * b));

const double = new Float64Array(1);
const bits = new BigUint64Array(double.buffer);

/**
 * c + a b, rounded once. The product is exact in float64; the sum is rounded to odd there, from which rounding to
 * float32 is right (Boldo and Melquiond 2008).
 */
function fused(c: number, a: number, b: number): number {
  const x = a * b;
  const sum = x + c;
  const part = sum - x;
  const rest = x - (sum - part) + (c - part);
  double[0] = sum;
  if (rest !== 0 && (bits[0]! & 1n) === 0n) bits[0]! += rest > 0 === sum > 0 ? 1n : -1n;
  return f32(double[0]);
}

test("the reference rounds once, also where float64 would make a tie of it", () => {
  assert.equal(fused(-1, f32(0.1), 10), 2 ** -26);
  assert.equal(rounded(-1, f32(0.1), 10), 0);
  assert.equal(fused(1 + 2 ** -23, 1 + 2 ** -23, (1 - 2 ** -23) * 2 ** -24), 1 + 2 ** -23);
});

/** What is written on the console while fn runs. */
async function warningsOf(fn: () => Promise<void>): Promise<string[]> {
  const { warn } = console;
  const warnings: string[] = [];
  console.warn = (...args: unknown[]) => {
    warnings.push(args.join(" "));
  };
  try {
    await fn();
  } finally {
    console.warn = warn;
  }
  return warnings;
}

test("without being asked for, the relaxed build does not run", async () => {
  for (const options of [undefined, {}, { relaxed: false }]) {
    const engine = await init(options);
    const p = problem(24, 48, 9);
    assert.equal(engine.relaxed, false);
    assertSameBits(product(engine, "NN", p, [1, 0]), chain(p, rounded), 48, () => "the default build");
    await assert.rejects(
      init({ relaxed: true }),
      (e: Error) => e instanceof StateError && e.message.includes("not the relaxed build"),
      "a later call changes nothing",
    );
    engine.close();
  }
});

test("asked for, it runs, or the default build does after one warning", async () => {
  let engine: Engine | undefined;
  const warnings = await warningsOf(async () => {
    const both = await Promise.all([init({ relaxed: true }), init({ relaxed: true })]);
    engine = both[0];
    assert.equal(both[1], engine);
    assert.equal(await init({ relaxed: true }), engine);
  });
  assert.equal(engine!.relaxed, byOption);
  if (byOption) {
    assert.deepEqual(warnings, []);
  } else {
    assert.equal(warnings.length, 1);
    assert.match(
      warnings[0]!,
      /^wasm-lora: the relaxed build does not run here, so the default one does: .* Reason: ./,
    );
    const p = problem(24, 48, 9);
    assertSameBits(product(engine!, "NN", p, [1, 0]), chain(p, rounded), 48, () => "after the warning");
  }
  engine!.close();
});

test("init refuses a relaxed that is no boolean, or beside a module", async () => {
  await assert.rejects(
    init({ relaxed: 1 as never }),
    (e: unknown) => e instanceof ArgumentError && e.message.includes("relaxed") && e.message.includes("number"),
  );
  await assert.rejects(
    init({ relaxed: true, module: {} as never }),
    (e: unknown) => e instanceof ArgumentError && e.message.includes("module"),
  );
});

/**
 * Within the bound of k sums and the roundings of a * b, alpha * b and beta * C in any place: gamma_{k+2} (Higham,
 * 3.1).
 */
function check(engine: Engine, p: Problem, scales: readonly Scale[], layouts: readonly Layout[]): void {
  const { m, n, k, a, b, c } = p;
  const unit = (k + 2) * 2 ** -24;
  const gamma = unit / (1 - unit);
  const sums = new Float64Array(m * n);
  const sizes = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let q = 0; q < k; q++) {
      for (let j = 0; j < n; j++) {
        const term = a[i * k + q]! * b[q * n + j]!;
        sums[i * n + j]! += term;
        sizes[i * n + j]! += Math.abs(term);
      }
    }
  }
  for (const orientation of ORIENTATIONS) {
    for (const layout of layouts) {
      for (const [alpha, beta] of scales)
        for (const big of [false, true]) {
          engine.kernels.useBigTile(big);
          product(engine, orientation, p, [alpha, beta], layout).forEach((value, at) => {
            const error = Math.abs(value - (alpha * sums[at]! + beta * c[at]!));
            const bound = gamma * (Math.abs(alpha) * sizes[at]! + Math.abs(beta * c[at]!));
            assert(
              error <= bound,
              `sgemm${orientation} ${m} ${n} ${k} alpha ${alpha} beta ${beta} [${Math.floor(at / n)}, ${at % n}]: ` +
                `error ${error} exceeds ${bound}`,
            );
          });
        }
    }
  }
}

const SCALES: readonly Scale[] = [
  [1, 0],
  [-1.5, 0.5],
];
/** As they come, and rows further apart and off alignment. */
const layoutsOf = (n: number): Layout[] => [
  {},
  { a: { offset: 1 }, b: { offset: n & 3 }, c: { ld: n + 5, offset: 3 } },
];

test("products are within the error bound on every edge of tiles, k-blocks, strips and row blocks", async () => {
  const engine = await initRelaxed();
  assert.equal(engine.relaxed, runs);
  for (const k of [0, 1, 3, 4, 5, 9, 512, 513]) {
    for (const m of [1, 2, 3, 5, 6, 7, 8, 11, 12, 13, 17]) {
      for (const n of [1, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 33])
        check(engine, problem(m, n, k), SCALES, layoutsOf(n));
    }
  }
  for (const m of [17, 18, 19, 23])
    for (const n of [63, 64, 65, 79, 129])
      for (const k of [9, 517]) check(engine, problem(m, n, k), SCALES, layoutsOf(n));
  for (const [m, n, k] of [
    [1, 1025, 11],
    [5, 1033, 9],
    [16, 1024, 6],
    [17, 1025, 8],
    [127, 17, 6],
    [128, 33, 513],
    [257, 16, 9],
    [3, 9, 3000],
  ] as const) {
    check(engine, problem(m, n, k), SCALES, layoutsOf(n));
  }
});

test("nothing is read or written beyond an operand's last element", async () => {
  const engine = await initRelaxed();
  for (const k of [1, 3, 4, 5, 8, 385]) {
    for (const m of [1, 2, 5, 6, 7, 8, 13, 17]) {
      for (const n of [1, 3, 4, 7, 8, 9, 16, 17, 25]) {
        check(
          engine,
          problem(m, n, k),
          [[1, 0.5]],
          (["a", "b", "c"] as const).map((operand) => ({ [operand]: { atEnd: true } })),
        );
      }
    }
  }
});

test("whole tiles are the machine's multiply-adds in the canonical order, bit for bit", async () => {
  const engine = await initRelaxed();
  // -1 + (1 + 2^-12)^2 = 2^-11 + 2^-24, of which rounding the square loses the end.
  const end: Problem = {
    m: 24,
    n: 48,
    k: 2,
    a: new Float32Array(48).map((_, i) => (i % 2 === 0 ? 1 : 1 + 2 ** -12)),
    b: new Float32Array(96).map((_, i) => (i < 48 ? -1 : 1 + 2 ** -12)),
    c: new Float32Array(24 * 48),
  };
  const fuses = product(engine, "NN", end, [1, 0])[0] === 2 ** -11 + 2 ** -24;
  console.log(fuses ? "fused" : "not fused");
  assert(runs || !fuses);
  for (const p of [end, problem(24, 48, 9), problem(48, 96, 600)]) {
    const expected = chain(p, fuses ? fused : rounded);
    for (const orientation of ORIENTATIONS)
      for (const big of [false, true]) {
        engine.kernels.useBigTile(big);
        assertSameBits(
          product(engine, orientation, p, [1, 0]),
          expected,
          p.n,
          () => `sgemm${orientation} k ${p.k}, ${fuses ? "fused" : "not fused"}`,
        );
      }
  }
  engine.close();
});

test.run();
