/**
 * Activations against PyTorch's goldens, against their formulas in float64 and, for the backward
 * kernels, against central differences of those formulas; accumulation, tails and extreme values.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import type { Kernels } from "../../../src/runtime/abi.js";
import { init } from "../../../src/runtime/engine.js";
import { erf } from "../../support/erf.js";
import { assertClose, f32, readGolden } from "../../support/golden.js";
import { assertSameBits, Operand } from "../../support/kernels.js";
import { randomArray } from "../../support/random.js";

interface Activation {
  name: string;
  forward: "siluForward" | "geluErfForward" | "geluTanhForward" | "reluForward";
  backward: "siluBackward" | "geluErfBackward" | "geluTanhBackward" | "reluBackward";
  formula: (x: number) => number;
}

const silu = (x: number): number => x / (1 + Math.exp(-x));

const ACTIVATIONS: readonly Activation[] = [
  { name: "silu", forward: "siluForward", backward: "siluBackward", formula: silu },
  {
    name: "gelu_erf",
    forward: "geluErfForward",
    backward: "geluErfBackward",
    formula: (x) => (x * (1 + erf(x * Math.SQRT1_2))) / 2,
  },
  {
    name: "gelu_tanh",
    forward: "geluTanhForward",
    backward: "geluTanhBackward",
    formula: (x) => (x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))) / 2,
  },
  { name: "relu", forward: "reluForward", backward: "reluBackward", formula: (x) => Math.max(x, 0) },
];

const LENGTHS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
const H = 1e-5;
const slope = (f: (x: number) => number, x: number): number => (f(x + H) - f(x - H)) / (2 * H);

/** Values in [-range, range), none within 2^-11 of zero, where relu's central difference is not its derivative. */
function inputs(seed: number, n: number, range: number): Float32Array {
  return randomArray(seed, n).map((v) => (Math.abs(v * range) < 2 ** -11 ? 0.5 : v * range));
}

/** |a - b| <= relative * max |b| + absolute, element by element; returns the largest difference. */
function close(
  label: string,
  actual: Float32Array,
  expected: ArrayLike<number>,
  relative: number,
  absolute: number,
): number {
  assertClose(label, actual, expected, relative, absolute);
  return actual.reduce((largest, v, i) => Math.max(largest, Math.abs(v - expected[i]!)), 0);
}

/** Runs `call` on operands of n floats (outputs as filled: backward adds to them) and returns the outputs. */
async function run(
  call: (kernels: Kernels, outputs: number[], inputs: number[], n: number) => void,
  outputs: Float32Array[],
  inputs: Float32Array[],
  label: () => string,
  offset = 0,
): Promise<Float32Array[]> {
  const { memory, kernels } = await init();
  const place = (values: Float32Array, i: number): Operand =>
    new Operand(memory, 1, values.length, { offset: (offset + i) & 3 }).fill(values);
  const out = outputs.map(place);
  const into = inputs.map(place);
  call(
    kernels,
    out.map((o) => o.address),
    into.map((o) => o.address),
    inputs[0]!.length,
  );
  const results = out.map((o) => o.read());
  for (const o of out) o.assertGuards(label);
  for (const o of into) o.assertUnchanged(label);
  for (const o of [...out, ...into]) o.free();
  return results;
}

const forwardOf = async (name: Activation["forward"], x: Float32Array, offset = 0): Promise<Float32Array> =>
  (
    await run(
      (k, [y], [px], n) => k[name](y!, px!, n),
      [new Float32Array(x.length).fill(NaN)],
      [x],
      () => name,
      offset,
    )
  )[0]!;

const backwardOf = async (
  name: Activation["backward"],
  dx: Float32Array,
  dy: Float32Array,
  x: Float32Array,
  offset = 0,
): Promise<Float32Array> =>
  (
    await run(
      (k, [pdx], [pdy, px], n) => k[name](pdx!, pdy!, px!, n),
      [dx],
      [dy, x],
      () => name,
      offset,
    )
  )[0]!;

for (const { name, forward, backward, formula } of ACTIVATIONS) {
  test(`${name}: PyTorch's golden`, async () => {
    const golden = readGolden(`op_${name}`);
    const [x, y, dy, dx] = ["x", "y", "dy", "d_x"].map((key) => f32(golden, key).data) as [
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    const differenceY = close(`${name} y`, await forwardOf(forward, x), y, 1e-5, 1e-6);
    const differenceDx = close(
      `${name} dx`,
      await backwardOf(backward, new Float32Array(x.length), dy, x),
      dx,
      1e-5,
      1e-6,
    );
    console.log(`${name}: largest difference y ${differenceY.toExponential(2)}, dx ${differenceDx.toExponential(2)}`);
  });

  test(`${name}: formula and central differences in float64`, async () => {
    const x = inputs(1, 4001, 12);
    const dy = randomArray(2, x.length);
    const before = randomArray(3, x.length);
    const y = await forwardOf(forward, x);
    let largest = 0;
    for (let i = 0; i < x.length; i++) largest = Math.max(largest, Math.abs(y[i]! - formula(x[i]!)) / Math.abs(x[i]!));
    console.log(`${name}: |error of y| at most ${largest.toExponential(2)} |x|`);
    // Three roundings of a factor in [0, 1] and of its product with x.
    assert.ok(largest <= 3 * 2 ** -24);

    const dx = await backwardOf(backward, before, dy, x);
    const expected = Array.from(x, (v, i) => before[i]! + dy[i]! * slope(formula, v));
    console.log(`${name}: dx differs by at most ${close(`${name} dx`, dx, expected, 0, 1e-6).toExponential(2)}`);
  });

  test(`${name}: tails of 0 to 9 values, within bounds, same bits as in a long buffer`, async () => {
    const x = inputs(4, 12, 4);
    const dy = randomArray(5, 12);
    const before = randomArray(6, 12);
    const y = await forwardOf(forward, x);
    const dx = await backwardOf(backward, before, dy, x);
    for (const n of LENGTHS) {
      const cut = (v: Float32Array): Float32Array => v.slice(0, n);
      assertSameBits(await forwardOf(forward, cut(x), n), cut(y), n, () => `${forward}, n = ${n}`);
      assertSameBits(
        await backwardOf(backward, cut(before), cut(dy), cut(x), n),
        cut(dx),
        n,
        () => `${backward}, n = ${n}`,
      );
    }
  });

  test(`${name}: forward in place`, async () => {
    const { memory, kernels } = await init();
    const x = inputs(7, 11, 4);
    const expected = await forwardOf(forward, x);
    const both = new Operand(memory, 1, x.length).fill(x);
    kernels[forward](both.address, both.address, x.length);
    assertSameBits(both.read(), expected, x.length, () => forward);
    both.free();
  });

  test(`${name}: large and special inputs`, async () => {
    const x = new Float32Array([-1e18, -1000, -90, 0, 90, 1000, 1e18, NaN]);
    const last = x.length - 1;
    const y = await forwardOf(forward, x);
    const dx = await backwardOf(backward, new Float32Array(x.length), new Float32Array(x.length).fill(1), x);
    for (let i = 0; i < last; i++) {
      assert.ok(Math.abs(y[i]! - Math.max(x[i]!, 0)) < 1e-30, `${name}(${x[i]}) = ${y[i]}`);
      if (x[i] !== 0) assert.ok(Math.abs(dx[i]! - (x[i]! > 0 ? 1 : 0)) < 1e-30, `${name}'(${x[i]}) = ${dx[i]}`);
    }
    assert.ok(Number.isNaN(y[last]));
    // torch's threshold_backward lets dy through where x is NaN; the smooth functions have no slope there.
    if (name === "relu") assert.equal(dx[last], 1);
    else assert.ok(Number.isNaN(dx[last]));
  });
}

test("relu: the slope at 0 and -0 is 0", async () => {
  const dx = await backwardOf(
    "reluBackward",
    new Float32Array([2, 2]),
    new Float32Array([5, 5]),
    new Float32Array([0, -0]),
  );
  assert.deepEqual([...dx], [2, 2]);
});

const siluMulOf = async (gate: Float32Array, up: Float32Array, offset = 0): Promise<Float32Array> =>
  (
    await run(
      (k, [y], [g, u], n) => k.siluMulForward(y!, g!, u!, n),
      [new Float32Array(gate.length).fill(NaN)],
      [gate, up],
      () => "siluMulForward",
      offset,
    )
  )[0]!;

/** Gradients that are not wanted get the address 0. */
const siluMulBackwardOf = async (
  dgate: Float32Array,
  dup: Float32Array,
  dy: Float32Array,
  gate: Float32Array,
  up: Float32Array,
  wanted: readonly [gate: boolean, up: boolean] = [true, true],
  offset = 0,
): Promise<Float32Array[]> =>
  run(
    (k, [pg, pu], [d, g, u], n) => k.siluMulBackward(wanted[0] ? pg! : 0, wanted[1] ? pu! : 0, d!, g!, u!, n),
    [dgate, dup],
    [dy, gate, up],
    () => "siluMulBackward",
    offset,
  );

test("siluMul: formula and central differences in float64", async () => {
  const n = 4001;
  const gate = inputs(11, n, 12);
  const up = randomArray(12, n);
  const dy = randomArray(13, n);
  const startGate = randomArray(14, n);
  const startUp = randomArray(15, n);
  const y = await siluMulOf(gate, up);
  const differenceY = close(
    "siluMul y",
    y,
    Array.from(gate, (g, i) => silu(g) * up[i]!),
    2 ** -22,
    0,
  );
  const [dgate, dup] = await siluMulBackwardOf(startGate, startUp, dy, gate, up);
  const differenceGate = close(
    "dgate",
    dgate!,
    Array.from(gate, (g, i) => startGate[i]! + dy[i]! * up[i]! * slope(silu, g)),
    0,
    1e-6,
  );
  const differenceUp = close(
    "dup",
    dup!,
    Array.from(gate, (g, i) => startUp[i]! + dy[i]! * silu(g)),
    2 ** -22,
    0,
  );
  console.log(
    `siluMul: largest difference y ${differenceY.toExponential(2)}, dgate ${differenceGate.toExponential(2)}, ` +
      `dup ${differenceUp.toExponential(2)}`,
  );
});

test("siluMul: silu of the gate, bit for bit, times up", async () => {
  const gate = inputs(16, 103, 8);
  const up = randomArray(17, 103);
  const activated = await forwardOf("siluForward", gate);
  assertSameBits(
    await siluMulOf(gate, up),
    activated.map((v, i) => v * up[i]!),
    gate.length,
    () => "siluMulForward",
  );
});

test("siluMul: tails of 0 to 9 values; a gradient at address 0 is skipped, the other keeps its bits", async () => {
  const [gate, up, dy, startGate, startUp] = [21, 22, 23, 24, 25].map((seed) => randomArray(seed, 12)) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const { memory } = await init();
  const y = await siluMulOf(gate, up);
  const [dgate, dup] = (await siluMulBackwardOf(startGate, startUp, dy, gate, up)) as [Float32Array, Float32Array];
  const firstBytes = memory.u8(0, 64).slice();
  for (const n of LENGTHS) {
    const cut = (v: Float32Array): Float32Array => v.slice(0, n);
    assertSameBits(await siluMulOf(cut(gate), cut(up), n), cut(y), n, () => `siluMulForward, n = ${n}`);
    for (const wanted of [
      [true, true],
      [true, false],
      [false, true],
      [false, false],
    ] as const) {
      const label = (): string => `siluMulBackward, n = ${n}, wanted ${wanted}`;
      const [g, u] = await siluMulBackwardOf(cut(startGate), cut(startUp), cut(dy), cut(gate), cut(up), wanted, n);
      assertSameBits(g!, cut(wanted[0] ? dgate : startGate), n, label);
      assertSameBits(u!, cut(wanted[1] ? dup : startUp), n, label);
    }
  }
  assert.deepEqual(memory.u8(0, 64), firstBytes);
});

/* Functions whose slope is one of their output, or a kernel of elementwise.ts. */

type Function = "expForward" | "logForward" | "tanhForward" | "sigmoidForward";
const mapOf = async (name: Function, x: Float32Array, offset = 0): Promise<Float32Array> =>
  (
    await run(
      (k, [y], [px], n) => k[name](y!, px!, n),
      [new Float32Array(x.length).fill(NaN)],
      [x],
      () => name,
      offset,
    )
  )[0]!;

const FUNCTIONS: readonly [
  name: Function,
  formula: (x: number) => number,
  special: readonly (readonly [number, number])[],
][] = [
  [
    "expForward",
    Math.exp,
    [
      [0, 1],
      [-Infinity, 0],
      [Infinity, Infinity],
      [89, Infinity],
      [NaN, NaN],
    ],
  ],
  [
    "logForward",
    Math.log,
    [
      [1, 0],
      [0, -Infinity],
      [-0, -Infinity],
      [Infinity, Infinity],
      [-1, NaN],
      [NaN, NaN],
    ],
  ],
  [
    "tanhForward",
    Math.tanh,
    [
      [0, 0],
      [-0, -0],
      [Infinity, 1],
      [-Infinity, -1],
      [NaN, NaN],
    ],
  ],
  [
    "sigmoidForward",
    (x) => 1 / (1 + Math.exp(-x)),
    [
      [0, 0.5],
      [Infinity, 1],
      [-Infinity, 0],
      [1e30, 1],
      [-1e30, 0],
      [NaN, NaN],
    ],
  ],
];

for (const [name, formula, special] of FUNCTIONS) {
  test(`${name}: formula, tails of 0 to 9 values, in place, special values`, async () => {
    const x = inputs(1, 4001, 20).map((v) => (name === "logForward" ? Math.abs(v) : v));
    const y = await mapOf(name, x);
    for (let i = 0; i < x.length; i++) {
      const expected = formula(x[i]!);
      // Of a quotient by 1 + exp(-x): an ulp of exp, and two roundings.
      assert.ok(
        Math.abs(y[i]! - expected) <= 4 * 2 ** -24 * Math.abs(expected),
        `${name}(${x[i]}) = ${y[i]}, expected ${expected}`,
      );
    }
    for (const n of LENGTHS)
      assertSameBits(await mapOf(name, x.slice(0, n), n), y.slice(0, n), n, () => `${name}, n = ${n}`);
    const { memory, kernels } = await init();
    const both = new Operand(memory, 1, 11).fill(x.slice(0, 11));
    kernels[name](both.address, both.address, 11);
    assertSameBits(both.read(), y.slice(0, 11), 11, () => `${name} in place`);
    both.free();
    const ends = await mapOf(
      name,
      Float32Array.from(special, ([v]) => v),
    );
    special.forEach(([v, expected], i) => assert.ok(Object.is(ends[i], expected), `${name}(${v}) = ${ends[i]}`));
  });
}

test("sigmoidBackward and tanhBackward: sequential rounding, tails of 0 to 9 values", async () => {
  const f32 = Math.fround;
  for (const [name, c] of [
    ["sigmoidBackward", 0],
    ["tanhBackward", 1],
  ] as const)
    for (const n of [...LENGTHS, 103]) {
      const before = randomArray(31, n);
      const dy = randomArray(32, n);
      const y = randomArray(33, n);
      const expected = before.map((d, i) => f32(d + f32(dy[i]! * f32(f32(1 - y[i]!) * f32(y[i]! + c)))));
      const [dx] = await run(
        (k, [pdx], [pdy, py], count) => k[name](pdx!, pdy!, py!, count),
        [before],
        [dy, y],
        () => name,
        n,
      );
      assertSameBits(dx!, expected, n, () => `${name}, n = ${n}`);
    }
});

test("bceForward and bceBackward: formulas in float64, tails of 0 to 9 values with the same bits", async () => {
  const n = 103;
  const x = inputs(41, n, 8);
  const p = x.map((v) => 1 / (1 + Math.exp(-v)));
  const t = randomArray(42, n).map(Math.abs);
  const before = randomArray(43, n);
  const scale = Math.fround(0.3);
  const losses = async (
    values: Float32Array,
    target: Float32Array,
    logits: boolean,
    offset = 0,
  ): Promise<Float32Array> =>
    (
      await run(
        (k, [l], [px, pt], count) => k.bceForward(l!, px!, pt!, count, logits),
        [new Float32Array(values.length).fill(NaN)],
        [values, target],
        () => "bceForward",
        offset,
      )
    )[0]!;
  const slopes = async (count: number, offset = 0): Promise<Float32Array> =>
    (
      await run(
        (k, [dx], [px, pt]) => k.bceBackward(dx!, px!, pt!, count, scale),
        [before.slice(0, count)],
        [p.slice(0, count), t.slice(0, count)],
        () => "bceBackward",
        offset,
      )
    )[0]!;
  const ofLogits = await losses(x, t, true);
  const ofProbabilities = await losses(p, t, false);
  const dx = await slopes(n);
  close(
    "logits",
    ofLogits,
    Array.from(x, (v, i) => Math.max(v, 0) - v * t[i]! + Math.log1p(Math.exp(-Math.abs(v)))),
    1e-6,
    0,
  );
  close(
    "probabilities",
    ofProbabilities,
    Array.from(p, (v, i) => -t[i]! * Math.log(v) - (1 - t[i]!) * Math.log1p(-v)),
    1e-6,
    0,
  );
  close(
    "slopes",
    dx,
    Array.from(p, (v, i) => before[i]! + (scale * (v - t[i]!)) / (v * (1 - v))),
    1e-6,
    0,
  );
  for (const count of LENGTHS) {
    const cut = (v: Float32Array): Float32Array => v.slice(0, count);
    assertSameBits(await losses(cut(x), cut(t), true, count), cut(ofLogits), count, () => `logits, n = ${count}`);
    assertSameBits(
      await losses(cut(p), cut(t), false, count),
      cut(ofProbabilities),
      count,
      () => `probabilities, n = ${count}`,
    );
    assertSameBits(await slopes(count, count), cut(dx), count, () => `slopes, n = ${count}`);
  }
});

test.run();
