/**
 * The operands of one kernel call: each between guards, 0 to 3 elements off a 64-byte boundary by
 * turns, checked and freed together. And the arithmetic that references are made of: float32 steps for
 * kernels whose bits are given by a formula, float64 and central differences for the others.
 */
import assert from "node:assert/strict";
import type { Engine } from "../../src/runtime/engine.js";
import { assertSameBits, Operand } from "./kernels.js";
import { madd } from "./madd.js";
import { randomArray } from "./random.js";

interface Expectation {
  operand: Operand;
  name: string;
  expected: Float32Array | undefined;
}

/** Elements between a 64-byte boundary and operand `index` of a frame. */
export type Offset = (index: number) => number;

let placed = 0;
/** Combinations that change from frame to frame. */
const byTurns = (): Offset => {
  const at = Math.imul(++placed, 0x9e3779b1) >>> 0;
  return (index) => (at >>> ((index * 2) % 32)) & 3;
};

export class Frame {
  readonly #operands: Expectation[] = [];
  readonly #inputs: { operand: Operand; name: string }[] = [];

  constructor(
    readonly engine: Engine,
    readonly label: string,
    readonly offset: Offset = byTurns(),
  ) {}

  /** The address of values that the kernel may only read. */
  input(name: string, values: Float32Array): number {
    const operand = this.#place(values.length).fill(values);
    this.#inputs.push({ operand, name });
    return operand.address;
  }

  integers(name: string, values: readonly number[]): number {
    return this.input(name, new Float32Array(Int32Array.from(values).buffer));
  }

  /** The address of an output: full of `before`, or of poison, when the kernel is called; `expected` after it. */
  output(name: string, expected: Float32Array, before?: Float32Array): number {
    const operand = this.room(name, expected.length, before);
    this.#operands.at(-1)!.expected = expected;
    return operand.address;
  }

  /** An output that the test itself reads, or working space. */
  room(name: string, length: number, before?: Float32Array): Operand {
    const operand = this.#place(length);
    if (before !== undefined) operand.fill(before);
    this.#operands.push({ operand, name, expected: undefined });
    return operand;
  }

  /** Outputs are as expected, inputs as they were, and nothing else was written: not at address 0 either. */
  end(): void {
    const low = new Uint32Array(this.engine.memory.wasm.buffer, 0, 16);
    const untouched = low.every((word) => word === 0);
    low.fill(0);
    assert.ok(untouched, `${this.label}: wrote to address 0`);
    for (const { operand, name, expected } of this.#operands) {
      const label = (): string => `${this.label}: ${name}`;
      operand.assertGuards(label);
      if (expected !== undefined) assertSameBits(operand.read(), expected, expected.length, label);
      operand.free();
    }
    for (const { operand, name } of this.#inputs) {
      operand.assertUnchanged(() => `${this.label}: ${name}`);
      operand.free();
    }
  }

  #place(length: number): Operand {
    return new Operand(this.engine.memory, 1, length, {
      offset: this.offset(this.#inputs.length + this.#operands.length),
    });
  }
}

const pool = randomArray(1, 1 << 18);
let drawn = 0;

/** The next `length` values in [-1, 1) of a fixed random pool, from a place that moves on. */
export function draw(length: number): Float32Array {
  drawn = (drawn + 7919) % (pool.length - length);
  return pool.subarray(drawn, drawn + length);
}

/**
 * c += a b in sgemm's canonical order. a: [m, p], b: [p, n], c: [m, n]; returns c.
 */
export function addProduct(
  c: Float32Array,
  a: Float32Array,
  b: Float32Array,
  m: number,
  n: number,
  p: number,
): Float32Array {
  const add = madd();
  for (let i = 0; i < m; i++) {
    for (let q = 0; q < p; q++) {
      const x = a[i * p + q]!;
      for (let j = 0, at = i * n, bt = q * n; j < n; j++, at++) c[at] = add(c[at]!, x, b[bt + j]!);
    }
  }
  return c;
}

/** d loss / d x by central differences, in float64: good to about 1e-9 for smooth losses of order 1. */
export function gradient(loss: (x: Float64Array) => number, x: ArrayLike<number>): Float64Array {
  const at = Float64Array.from(x);
  const h = 1e-5;
  return at.map((value, i) => {
    at[i] = value + h;
    const above = loss(at);
    at[i] = value - h;
    const below = loss(at);
    at[i] = value;
    return (above - below) / (2 * h);
  });
}

/** sum of dy * y: the loss whose gradient by y is dy. */
export function weighted(dy: ArrayLike<number>, y: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < y.length; i++) sum += dy[i]! * y[i]!;
  return sum;
}

export const scaled = (x: Float32Array, s: number): Float32Array => x.map((v) => s * v);

export const plus = (x: ArrayLike<number>, y: ArrayLike<number>): Float64Array =>
  Float64Array.from(x, (v, i) => v + y[i]!);

export type Reals = Float32Array | Float64Array;

/** The formula in float64, shared by softmax and attention. */
export const softmax = (x: Reals): Float64Array => {
  const most = Math.max(...x);
  const e = Float64Array.from(x, (v) => Math.exp(v - most));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((v) => v / sum);
};

export const same = (label: string, actual: Float32Array, expected: Float32Array): void =>
  assertSameBits(actual, expected, expected.length, () => label);

/** One call; an output holds its values, or as many floats of poison, before it. Returns the outputs. */
export function run(
  engine: Engine,
  label: string,
  inputs: readonly Float32Array[],
  outputs: readonly (Float32Array | number)[],
  call: (inputs: number[], outputs: number[]) => void,
): Float32Array[] {
  const f = new Frame(engine, label);
  const into = inputs.map((values, i) => f.input(`input ${i}`, values));
  const out = outputs.map((o, i) =>
    typeof o === "number" ? f.room(`output ${i}`, o) : f.room(`output ${i}`, o.length, o),
  );
  call(
    into,
    out.map((o) => o.address),
  );
  const results = out.map((o) => o.read());
  f.end();
  return results;
}

/** Runs a backward kernel whose unwanted outputs have the address 0. */
export function runWanted(
  engine: Engine,
  label: string,
  inputs: readonly Float32Array[],
  before: readonly (Float32Array | undefined)[],
  call: (inputs: number[], outputs: number[]) => void,
): (Float32Array | undefined)[] {
  const results = run(
    engine,
    label,
    inputs,
    before.filter((b) => b !== undefined),
    (into, out) => {
      const addresses = [...out];
      call(
        into,
        before.map((b) => (b === undefined ? 0 : addresses.shift()!)),
      );
    },
  );
  return before.map((b) => (b === undefined ? undefined : results.shift()));
}
