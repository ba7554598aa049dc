/** exp, log, tanh, erf, sin, cos of assembly/math beside float64: where they are defined, and how far they may be. */
import assert from "node:assert/strict";
import { erf } from "./erf.js";
import type { Probe, Probes } from "./probes.js";

export interface Case {
  kernel: Probe;
  reference: (x: number) => number;
  /** Interval of the bit patterns, and of the grid where most results are neither constant nor trivial. */
  domain: readonly [number, number];
  grid: readonly [number, number];
  special: readonly (readonly [x: number, y: number])[];
  odd?: boolean;
  bounded?: boolean;
}

export const ULP_LIMIT = 2;
/** From here on, float64 rounds to an infinite float32. */
const OVERFLOW = 2 ** 128 - 2 ** 103;

export const CASES: readonly Case[] = [
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

/** Every stride-th of all float32 values, by their bits, that lie between the two. */
export function bitPatterns([low, high]: readonly [number, number], stride: number): Float32Array {
  const bits = new Uint32Array(Math.ceil(2 ** 32 / stride)).map((_, i) => i * stride);
  return new Float32Array(bits.buffer).filter((x) => x >= low && x <= high);
}

function evenGrid([low, high]: readonly [number, number], count: number): Float32Array {
  return new Float32Array(count + 1).map((_, i) => low + (high - low) * (i / count));
}

export function run({ memory, kernels }: Probes, kernel: Probe, x: Float32Array): Float32Array {
  const input = memory.alloc(x.byteLength);
  const output = memory.alloc(x.byteLength);
  memory.f32(input, x.length).set(x);
  kernels[kernel](output, input, x.length);
  const y = memory.f32(output, x.length).slice();
  memory.free(input);
  memory.free(output);
  return y;
}

/**
 * The largest error in ulp over every stride-th bit pattern, and over `count` steps of the grid; it is printed. A prime
 * stride meets all low bits.
 */
export function checkUlp(
  probes: Probes,
  { kernel, reference, domain, grid, bounded = false }: Case,
  stride: number,
  count: number,
): void {
  const patterns = bitPatterns(domain, stride);
  assert.ok(patterns.length >= 2 ** 32 / stride / 5, `${patterns.length} bit patterns`);
  for (const [label, x] of [
    ["bit patterns", patterns],
    ["grid", evenGrid(grid, count)],
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
}
