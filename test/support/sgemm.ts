/** Matrix products between guards, against the canonical sum: see test/unit/gemm/sgemm.test.ts. */
import { test } from "uvu";
import { type Engine, init } from "../../src/runtime/engine.js";
import { assertSameBits, Operand, type Placement, transposed } from "./kernels.js";
import { madd } from "./madd.js";
import { randomArray } from "./random.js";

/** The engine that the tests of products compute with, there already or made. */
export let start: () => Promise<Engine> = init;
export function computeWith(made: () => Promise<Engine>): void {
  start = made;
}

type Orientation = "NN" | "NT" | "TN";
export const ORIENTATIONS: readonly Orientation[] = ["NN", "NT", "TN"];

/** op(A) [m, k], op(B) [k, n] and C [m, n], row by row. */
export interface Problem {
  m: number;
  n: number;
  k: number;
  a: Float32Array;
  b: Float32Array;
  c: Float32Array;
}
/** Where A, B and C lie. */
export interface Layout {
  a?: Placement;
  b?: Placement;
  c?: Placement;
}
export type Scale = readonly [alpha: number, beta: number];

/** All pairs of the usual values, and one whose products with B and C are rounded. */
export const SCALES: readonly Scale[] = [
  ...[1, 0, -0.5, 1.5].flatMap((alpha) => [0, 1, 0.5].map((beta): Scale => [alpha, beta])),
  [Math.fround(0.1), Math.fround(0.7)],
];

/** Enough to take each path from zero and from C, with and without a scaled B. */
export const STEPS: readonly Scale[] = [
  [1, 0],
  [1, 1],
  [-0.5, 1],
  [1.5, 0.5],
];

const f32 = Math.fround;

/** The contract: one accumulator an element, p ascending, each multiply-add in the arithmetic of the engine. */
export function reference({ m, n, k, a, b, c }: Problem, [alpha, beta]: Scale): Float32Array {
  const scaled = b.map((x) => alpha * x);
  const add = madd();
  const y = new Float32Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = beta === 0 ? 0 : f32(beta * c[i * n + j]!);
      for (let p = 0; p < k; p++) sum = add(sum, a[i * k + p]!, scaled[p * n + j]!);
      y[i * n + j] = sum;
    }
  }
  return y;
}

const pool = randomArray(1, 1 << 20);
let drawn = 0;

/** The next `length` values of a fixed random pool, from a place that moves on. */
export function draw(length: number): Float32Array {
  drawn = (drawn + 7919) % (pool.length - length);
  return pool.subarray(drawn, drawn + length);
}

export const problem = (m: number, n: number, k: number): Problem => ({
  m,
  n,
  k,
  a: draw(m * k),
  b: draw(k * n),
  c: draw(m * n),
});

/** One problem in linear memory, stored as an orientation wants it, between guards. */
export class Call {
  readonly #a: Operand;
  readonly #b: Operand;
  readonly #c: Operand;
  readonly #scratch: Operand;

  constructor(
    readonly engine: Engine,
    readonly orientation: Orientation,
    readonly p: Problem,
    readonly layout: Layout = {},
  ) {
    const { m, n, k, a, b } = p;
    const transA = orientation === "TN";
    const transB = orientation === "NT";
    const { memory } = engine;
    this.#scratch = scratchOf(engine);
    const makeA = (): Operand =>
      new Operand(memory, transA ? k : m, transA ? m : k, layout.a).fill(transA ? transposed(a, m, k) : a);
    const makeB = (): Operand =>
      new Operand(memory, transB ? n : k, transB ? k : n, layout.b).fill(transB ? transposed(b, k, n) : b);
    const makeC = (): Operand => new Operand(memory, m, n, layout.c);
    // An operand at the end of memory must be the last to be allocated.
    if (layout.a?.atEnd) {
      this.#b = makeB();
      this.#c = makeC();
      this.#a = makeA();
    } else if (layout.b?.atEnd) {
      this.#a = makeA();
      this.#c = makeC();
      this.#b = makeB();
    } else {
      this.#a = makeA();
      this.#b = makeB();
      this.#c = makeC();
    }
  }

  /** C after one call. With beta = 0, C is poison before it: nothing of it may leak, nothing may stay. */
  result([alpha, beta]: Scale): Float32Array {
    const { m, n, k, c } = this.p;
    if (beta === 0) this.#c.poison();
    else this.#c.fill(c);
    try {
      this.engine.kernels[`sgemm${this.orientation}`]({
        m,
        n,
        k,
        alpha,
        a: this.#a.address,
        lda: this.#a.ld,
        b: this.#b.address,
        ldb: this.#b.ld,
        beta,
        c: this.#c.address,
        ldc: this.#c.ld,
        scratch: this.#scratch.address,
      });
    } catch (cause) {
      throw new Error(`${this.#label([alpha, beta])}: ${(cause as Error).message}`, { cause });
    }
    this.#c.assertGuards(() => this.#label([alpha, beta]));
    return this.#c.read();
  }

  /** With both tiles for 16 columns. */
  check(scale: Scale, expected: Float32Array): void {
    for (const big of [false, true]) {
      this.engine.kernels.useBigTile(big);
      assertSameBits(this.result(scale), expected, this.p.n, () => `${this.#label(scale)}${big ? " big tile" : ""}`);
    }
  }

  /** Inputs and surroundings are as they were. */
  end(): void {
    this.#a.assertUnchanged(() => `${this.#label()} A`);
    this.#b.assertUnchanged(() => `${this.#label()} B`);
    for (const operand of [this.#a, this.#b, this.#c]) operand.free();
  }

  #label(scale?: Scale): string {
    const { m, n, k } = this.p;
    return (
      `sgemm${this.orientation} m ${m} n ${n} k ${k}` +
      (scale ? ` alpha ${scale[0]} beta ${scale[1]}` : "") +
      ` layout ${JSON.stringify(this.layout)}`
    );
  }
}

/** One working space an engine, exactly as large as asked for, between guards and full of poison at first. */
const scratches = new WeakMap<Engine, Operand>();
function scratchOf(engine: Engine): Operand {
  let scratch = scratches.get(engine);
  if (scratch === undefined) {
    scratch = new Operand(engine.memory, 1, engine.kernels.sgemmScratchBytes() / 4);
    scratches.set(engine, scratch);
  }
  return scratch;
}

function nextPrime(n: number): number {
  for (let p = n + 1; ; p++) {
    let d = 2;
    while (d * d <= p && p % d !== 0) d++;
    if (p > 1 && d * d > p) return p;
  }
}

let placed = 0;

/** Rows a prime number of elements apart; misaligned by 0 to 3 floats, another combination each time. */
export function strided(orientation: Orientation, { m, n, k }: Problem): Layout {
  const at = placed++;
  return {
    a: { ld: nextPrime(orientation === "TN" ? m : k), offset: at & 3 },
    b: { ld: nextPrime(orientation === "NT" ? k : n), offset: (at >> 2) & 3 },
    c: { ld: nextPrime(n), offset: (at >> 4) & 3 },
  };
}

/** Every orientation, contiguous and strided, against the reference. */
export function sweep(engine: Engine, p: Problem, scales: readonly Scale[], orientations = ORIENTATIONS): void {
  const expected = scales.map((scale) => reference(p, scale));
  for (const orientation of orientations) {
    for (const layout of [{}, strided(orientation, p)]) {
      const call = new Call(engine, orientation, p, layout);
      scales.forEach((scale, s) => call.check(scale, expected[s]!));
      call.end();
    }
  }
  scratchOf(engine).assertGuards(() => `scratch of m ${p.m} n ${p.n} k ${p.k}`);
}

export const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** Tests of every remainder of the tiles. */
export function remainders(scales: readonly Scale[]): void {
  for (const ks of [
    [0, 1, 2, 3, 4],
    [5, 6, 7, 8, 9],
    [10, 15, 16, 17],
  ]) {
    test(`every remainder: m 0..17, n 0..33, k ${ks.join(" ")}`, async () => {
      const engine = await start();
      for (const k of ks)
        for (const m of range(0, 17)) for (const n of range(0, 33)) sweep(engine, problem(m, n, k), scales);
    });
  }
}

/** A test of the edges of the k-blocks. */
export function blockEdges(scales: readonly Scale[]): void {
  test("edges of the k-blocks", async () => {
    const engine = await start();
    for (const k of [1023, 1024, 1025, 2049]) {
      for (const m of [1, 2, 3, 4, 5, 9])
        for (const n of [1, 4, 5, 8, 9, 16, 17, 33]) sweep(engine, problem(m, n, k), scales);
    }
  });
}
