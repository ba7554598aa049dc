/**
 * exp, log, tanh, erf, sin, cos against float64: the largest error in units in the last place (ulp)
 * over every 4001st float32 bit pattern and over an even grid, special values, symmetry and tails.
 * Each test reports the largest error it found.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { erf } from "../../support/erf.js";
import { assertSameBits, Operand } from "../../support/kernels.js";
import { loadProbes, type Probe, type Probes } from "../../support/probes.js";

interface Case {
  kernel: Probe;
  reference: (x: number) => number;
  /** Interval of the bit patterns, and of the grid where most results are neither constant nor trivial. */
  domain: readonly [number, number];
  grid: readonly [number, number];
  special: readonly (readonly [x: number, y: number])[];
  odd?: boolean;
  bounded?: boolean;
}

const ULP_LIMIT = 2;
/** A prime, so that all low bits occur. */
const STRIDE = 4001;
const GRID = 200_000;
/** From here on, float64 rounds to an infinite float32. */
const OVERFLOW = 2 ** 128 - 2 ** 103;

const CASES: readonly Case[] = [
  {
    kernel: "exp",
    reference: Math.exp,
    domain: [-Infinity, Infinity],
    grid: [-104, 89],
    special: [
      [0, 1],
      [-0, 1],
      [Infinity, Infinity],
      [-Infinity, 0],
      [NaN, NaN],
      [89, Infinity],
      [3e38, Infinity],
      [-104, 0],
      [-3e38, 0],
      [1e-45, 1],
      [-103.97, 2 ** -149],
    ],
  },
  {
    kernel: "log",
    reference: Math.log,
    domain: [2 ** -149, Infinity],
    grid: [2 ** -20, 4],
    special: [
      [1, 0],
      [0, -Infinity],
      [-0, -Infinity],
      [Infinity, Infinity],
      [-Infinity, NaN],
      [-1, NaN],
      [-1e-45, NaN],
      [-3e38, NaN],
      [NaN, NaN],
    ],
  },
  {
    kernel: "tanh",
    reference: Math.tanh,
    domain: [-Infinity, Infinity],
    grid: [-10, 10],
    odd: true,
    bounded: true,
    special: [
      [0, 0],
      [-0, -0],
      [Infinity, 1],
      [-Infinity, -1],
      [NaN, NaN],
      [3e38, 1],
      [2 ** -149, 2 ** -149],
    ],
  },
  {
    kernel: "erf",
    reference: erf,
    domain: [-Infinity, Infinity],
    grid: [-4.5, 4.5],
    odd: true,
    bounded: true,
    special: [
      [0, 0],
      [-0, -0],
      [Infinity, 1],
      [-Infinity, -1],
      [NaN, NaN],
      [3e38, 1],
      [2 ** -149, 2 ** -149],
    ],
  },
  {
    kernel: "sin",
    reference: Math.sin,
    domain: [-(2 ** 24), 2 ** 24],
    grid: [-(2 ** 20), 2 ** 20],
    odd: true,
    bounded: true,
    special: [
      [0, 0],
      [-0, -0],
      [Infinity, NaN],
      [-Infinity, NaN],
      [NaN, NaN],
      [2 ** 24 + 2, NaN],
      [2 ** -149, 2 ** -149],
    ],
  },
  {
    kernel: "cos",
    reference: Math.cos,
    domain: [-(2 ** 24), 2 ** 24],
    grid: [-(2 ** 20), 2 ** 20],
    bounded: true,
    special: [
      [0, 1],
      [-0, 1],
      [Infinity, NaN],
      [-Infinity, NaN],
      [NaN, NaN],
      [2 ** 24 + 2, NaN],
    ],
  },
];

/** Distance between neighbouring float32 at r. */
function ulp(r: number): number {
  const f = new Float32Array([r]);
  const exponent = (new Uint32Array(f.buffer)[0]! >>> 23) & 255;
  // The float32 nearest to r may be the next power of two: then r itself is in the binade below.
  const below = Math.abs(f[0]!) > Math.abs(r) && (new Uint32Array(f.buffer)[0]! & 0x7fffff) === 0 ? 1 : 0;
  return 2 ** (Math.max(exponent - below, 1) - 150);
}

function bitPatterns([low, high]: readonly [number, number]): Float32Array {
  const bits = new Uint32Array(Math.ceil(2 ** 32 / STRIDE)).map((_, i) => i * STRIDE);
  return new Float32Array(bits.buffer).filter((x) => x >= low && x <= high);
}

function evenGrid([low, high]: readonly [number, number]): Float32Array {
  return new Float32Array(GRID + 1).map((_, i) => low + (high - low) * (i / GRID));
}

function run({ memory, kernels }: Probes, kernel: Probe, x: Float32Array): Float32Array {
  const input = memory.alloc(x.byteLength);
  const output = memory.alloc(x.byteLength);
  memory.f32(input, x.length).set(x);
  kernels[kernel](output, input, x.length);
  const y = memory.f32(output, x.length).slice();
  memory.free(input);
  memory.free(output);
  return y;
}

for (const { kernel, reference, domain, grid, special, odd = false, bounded = false } of CASES) {
  test(`${kernel}: at most ${ULP_LIMIT} ulp from float64`, async () => {
    const probes = await loadProbes();
    const patterns = bitPatterns(domain);
    assert.ok(patterns.length >= 200_000);
    for (const [label, x] of [
      ["bit patterns", patterns],
      ["grid", evenGrid(grid)],
    ] as const) {
      const y = run(probes, kernel, x);
      let largest = 0;
      let at = NaN;
      for (let i = 0; i < x.length; i++) {
        const expected = reference(x[i]!);
        if (Math.abs(expected) >= OVERFLOW) {
          assert.equal(y[i], expected < 0 ? -Infinity : Infinity, `${kernel}(${x[i]})`);
          continue;
        }
        const error = Math.abs(y[i]! - expected) / ulp(expected);
        if (!(error <= largest)) {
          largest = error;
          at = x[i]!;
        }
        if (bounded) assert.ok(Math.abs(y[i]!) <= 1, `${kernel}(${x[i]}) = ${y[i]}`);
      }
      console.log(`${kernel}: ${x.length} ${label}, at most ${largest.toFixed(3)} ulp, at x = ${at}`);
      assert.ok(largest <= ULP_LIMIT, `${kernel}(${at}): ${largest} ulp`);
    }
  });

  test(`${kernel}: special values`, async () => {
    const y = run(await loadProbes(), kernel, new Float32Array(special.map(([x]) => x)));
    special.forEach(([x, expected], i) =>
      assert.ok(Object.is(y[i], expected), `${kernel}(${x}) = ${y[i]}, expected ${expected}`),
    );
  });

  if (odd) {
    test(`${kernel}: odd, bit for bit`, async () => {
      const probes = await loadProbes();
      const x = bitPatterns([0, domain[1]]);
      const mirrored = run(
        probes,
        kernel,
        x.map((v) => -v),
      );
      assertSameBits(
        mirrored,
        run(probes, kernel, x).map((v) => -v),
        x.length,
        () => kernel,
      );
    });
  }

  test(`${kernel}: tails of 0 to 9 values, within bounds, same bits as in a long buffer, in place`, async () => {
    const probes = await loadProbes();
    const { memory, kernels } = probes;
    const long = new Float32Array(12).map((_, i) => 0.37 * i + 0.11);
    const expected = run(probes, kernel, long);
    for (let n = 0; n <= 9; n++) {
      for (const offset of [0, 1]) {
        const label = (): string => `${kernel}, n = ${n}, offset ${offset}`;
        const x = new Operand(memory, 1, n, { offset }).fill(long.subarray(0, n));
        const y = new Operand(memory, 1, n, { offset: 1 - offset });
        const end = new Operand(memory, 1, n, { atEnd: true }).fill(long.subarray(0, n));
        kernels[kernel](y.address, x.address, n);
        assertSameBits(y.read(), expected.subarray(0, n), n, label);
        y.assertGuards(label);
        x.assertUnchanged(label);
        kernels[kernel](end.address, end.address, n);
        assertSameBits(end.read(), expected.subarray(0, n), n, label);
        end.assertGuards(label);
        x.free();
        y.free();
      }
    }
  });
}

test.run();
