/**
 * Random streams against published vectors (mt19937ar.out, Random123's kat_vectors) and PyTorch's own
 * draws (test/fixtures/random_*), and the counter-based dropout's mask against itself, split anyhow.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { fillNormal, fillUniform, Generator, kaimingUniformBound } from "../../../src/random/generator.js";
import { drawUniform, manualSeed, newMask } from "../../../src/random/seed.js";
import { engine, init } from "../../../src/runtime/engine.js";
import { ArgumentError, DisposedError, DTypeError } from "../../../src/runtime/errors.js";
import { scope } from "../../../src/tensor/scope.js";
import { ones, type Tensor, zeros } from "../../../src/tensor/tensor.js";
import { BufferLike } from "../../support/buffer_like.js";
import { readGolden } from "../../support/golden.js";
import { assertSameBits, Operand, POISON } from "../../support/kernels.js";
import { loadProbes } from "../../support/probes.js";
import { randomArray } from "../../support/random.js";

const SEEDS = [0, 1, 42, 123456789];
const SIZES = [...Array.from({ length: 40 }, (_, i) => i + 1), 1000];
const NORMAL_TOLERANCE = 2e-6;

/** Dropout: probability, scale, and seed lo, seed hi, stream. */
const P = 0.3;
const SCALE = Math.fround(1 / (1 - P));
const KEY = [0xdeadbeef, 7, 5] as const;

let { kernels, memory } = await init();

/** What `fill` writes into n words: all of them, and none around them. */
function written(n: number, fill: (address: number) => void, where = memory): Uint32Array {
  const out = new Operand(where, 1, n);
  fill(out.address);
  out.assertGuards(() => `output of ${n}`);
  const words = new Uint32Array(out.read().buffer);
  out.free();
  assert.ok(!words.includes(POISON), "some outputs were not written");
  return words;
}

/** A key as the kernels name it. */
const named = ([seedLo, seedHi, stream]: readonly number[]) => ({ seedLo: seedLo!, seedHi: seedHi!, stream: stream! });

/** Runs a dropout kernel on inputs that end with linear memory; `out` holds `start`, or poison. */
function dropped(
  kernel: "dropoutForward" | "dropoutBackward",
  x: Float32Array,
  first: number,
  options: { p?: number; scale?: number; key?: readonly number[]; start?: Float32Array } = {},
): Float32Array {
  const { p = P, scale = SCALE, key = KEY, start } = options;
  const out = new Operand(memory, 1, x.length);
  if (start) out.fill(start);
  const input = new Operand(memory, 1, x.length, { atEnd: true }).fill(x);
  const mask = { n: x.length, first, threshold: Math.floor(p * 2 ** 32), scale, ...named(key) };
  if (kernel === "dropoutForward") kernels.dropoutForward({ ...mask, y: out.address, x: input.address });
  else kernels.dropoutBackward({ ...mask, dx: out.address, dy: input.address });
  out.assertGuards(() => `${kernel} of ${x.length} from ${first}`);
  input.assertUnchanged(() => kernel);
  const y = out.read();
  out.free();
  assert.ok(!new Uint32Array(y.buffer).includes(POISON), "some outputs were not written");
  return y;
}

const floats = (words: Uint32Array): Float32Array => new Float32Array(words.buffer);
const uniform = (g: Generator, n: number, low = 0, high = 1): Float32Array =>
  floats(written(n, (at) => fillUniform(g, at, n, low, high)));
const drawn = (n: number, low = 0, high = 1): Float32Array => floats(written(n, (at) => drawUniform(at, n, low, high)));
const normal = (g: Generator, n: number, mean = 0, std = 1): Float32Array =>
  floats(written(n, (at) => fillNormal(g, at, n, mean, std)));

const assertBits = (actual: Float32Array, expected: Float32Array, what: string): void =>
  assertSameBits(actual, expected, expected.length, () => what);

function assertClose(actual: Float32Array, expected: Float32Array, what: string): void {
  assert.equal(actual.length, expected.length, what);
  let worst = 0;
  for (let i = 0; i < actual.length; i++) worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!));
  assert.ok(worst <= NORMAL_TOLERANCE, `${what}: the largest difference is ${worst}`);
}

function golden(seed: number, name: string): Float32Array {
  return readGolden(`random_${seed}`).tensors.get(name)!.data as Float32Array;
}

test("mt19937: the published stream of seed 5489", async () => {
  const probes = await loadProbes();
  const state = new Operand(probes.memory, 1, probes.kernels.mtStateBytes() / 4);
  probes.kernels.mtSeed(state.address, 5489);
  const words = written(10000, (at) => probes.kernels.mtFill(at, state.address, 10000), probes.memory);
  state.assertGuards(() => "state");
  state.free();
  assert.deepEqual([...words.subarray(0, 3)], [3499211612, 581869302, 3890346734]);
  assert.equal(words[9999], 4123659995);
});

for (const seed of SEEDS) {
  test(`seed ${seed}: torch's uniforms, bit for bit`, () => {
    for (const n of SIZES) {
      assertBits(uniform(new Generator(seed), n), golden(seed, `rand_${n}`), `rand_${n}`);
    }
  });

  test(`seed ${seed}: torch's normals, bit for bit below 16 and to ${NORMAL_TOLERANCE} from there`, () => {
    for (const n of SIZES) {
      const compare = n < 16 ? assertBits : assertClose;
      compare(normal(new Generator(seed), n), golden(seed, `randn_${n}`), `randn_${n}`);
    }
  });

  test(`seed ${seed}: torch's mixed sequence; the kept normal survives uniforms`, () => {
    const g = new Generator(seed);
    const parts = [normal(g, 5), uniform(g, 7), normal(g, 3), normal(g, 17), uniform(g, 4)];
    const expected = golden(seed, "seq_randn5_rand7_randn3_randn17_rand4");
    assertClose(Float32Array.from(parts.flatMap((p) => [...p])), expected, "sequence");
    assertBits(parts[1]!, expected.slice(5, 12), "rand7");
    assertBits(parts[4]!, expected.slice(32), "rand4");
  });

  test(`seed ${seed}: torch's kaiming_uniform_(a = sqrt 5), bit for bit`, () => {
    for (const [shape, fanIn] of [
      ["1x1", 1],
      ["3x5", 5],
      ["8x64", 64],
      ["4x3x3x3", 27],
    ] as const) {
      const expected = golden(seed, `kaiming_${shape}`);
      const bound = kaimingUniformBound(fanIn, Math.sqrt(5));
      manualSeed(seed);
      assertBits(drawn(expected.length, -bound, bound), expected, shape);
    }
  });
}

test("normal_: mean and std scale the standard values in both ways", () => {
  for (const n of [5, 40]) {
    const scaled = normal(new Generator(7), n, 3, 0.02);
    const expected = normal(new Generator(7), n).map((z) => z * 0.02 + 3);
    assertClose(scaled, expected, `n = ${n}`);
  }
});

test("n = 0 writes nothing and draws nothing", () => {
  const g = new Generator(3);
  const before = g.state();
  written(0, (at) => fillUniform(g, at, 0, 0, 1));
  written(0, (at) => fillNormal(g, at, 0, 0, 1));
  const mask = { n: 0, first: 3, threshold: 0, scale: 2, ...named(KEY) };
  written(0, (at) => kernels.dropoutForward({ ...mask, y: at, x: at }));
  written(0, (at) => kernels.dropoutBackward({ ...mask, dx: at, dy: at }));
  assert.deepEqual(g.state(), before);
});

test("Generator: only the low 32 bits of a seed choose the stream, and seeding drops the kept normal", () => {
  const expected = normal(new Generator(42), 3);
  const g = new Generator(42 + 5 * 2 ** 32);
  assertBits(normal(g, 3), expected, "high bits");
  assertBits(normal(g.manualSeed(42), 3), expected, "again");
});

test("Generator: uniform_ and normal_ fill a tensor and return it", () => {
  const t = zeros([2, 5]);
  const guard = zeros([64]);
  assert.equal(new Generator(4).uniform_(t, -1, 1), t);
  assertBits(t.data, uniform(new Generator(4), 10, -1, 1), "uniform_");
  assertBits(new Generator(4).uniform_(t).data, uniform(new Generator(4), 10), "uniform_ of [0, 1)");
  assertBits(new Generator(4).normal_(t, 2, 3).data, normal(new Generator(4), 10, 2, 3), "normal_");
  assertBits(new Generator(4).normal_(t).data, normal(new Generator(4), 10), "normal_ of N(0, 1)");
  assert(guard.data.every((v) => v === 0));
});

test("Generator: the default seed is torch's", () => {
  assert.equal(new Generator().seed, 67280421310721);
});

test("manualSeed: the default stream and the dropout masks start over", () => {
  manualSeed(9);
  const values = drawn(3);
  const masks = [newMask(P), newMask(P)];
  assert.notDeepEqual(masks[0], masks[1]);
  manualSeed(9);
  assertBits(drawn(3), values, "stream");
  assert.deepEqual([newMask(P), newMask(P)], masks);
  manualSeed(10);
  assert.notDeepEqual(newMask(P), masks[0]);
});

test("Generator: a saved state repeats the draws, in another generator too", () => {
  const g = new Generator(11);
  normal(g, 3);
  uniform(g, 700);
  const saved = g.state();
  const draw = (from: Generator): Float32Array[] => [normal(from, 4), uniform(from, 1000), normal(from, 33)];
  const expected = draw(g);
  for (const other of [g, new Generator(12)]) {
    other.setState(saved);
    assert.equal(other.seed, 11);
    draw(other).forEach((values, i) => assertBits(values, expected[i]!, `draw ${i}`));
  }
});

test("Generator: arguments out of range are refused by name", () => {
  const g = new Generator(1);
  for (const seed of [-1, 1.5, NaN, 2 ** 53]) {
    assert.throws(
      () => manualSeed(seed),
      (e) => e instanceof ArgumentError && e.message.includes(`got ${seed}`),
    );
    assert.throws(() => new Generator(seed), ArgumentError);
  }
  const t = ones([2]);
  const gone = ones([2]);
  const ids = zeros([2], "int32");
  gone.dispose();
  assert.throws(() => g.uniform_(t, 1, 0), ArgumentError);
  assert.throws(() => g.uniform_(t, 0, NaN), ArgumentError);
  assert.throws(() => g.uniform_(t, -3e38, 3e38), ArgumentError);
  assert.throws(() => g.normal_(t, 0, -1), ArgumentError);
  assert.throws(() => g.normal_(t, NaN, 1), ArgumentError);
  for (const draw of [g.uniform_.bind(g), g.normal_.bind(g)]) {
    for (const other of [t.address, undefined, null, [t], t.data, ids])
      assert.throws(() => draw(other as unknown as Tensor), DTypeError);
    assert.throws(() => draw(gone), DisposedError);
  }
  assert.deepEqual([...t.data], [1, 1]);
  for (const seed of ["0", null, undefined, 1n, Symbol("s"), {}, () => 0])
    assert.throws(() => manualSeed(seed as number), ArgumentError);
  assert.throws(() => kaimingUniformBound(0, 1), ArgumentError);
  const saved = g.state();
  assert.throws(() => g.setState(saved.subarray(1)), ArgumentError);
  assert.throws(() => g.setState(new Uint8Array(saved.length).fill(255)), ArgumentError);
  assert.deepEqual(g.state(), saved);
});

test("Generator: a state is copied, whatever bytes it comes in", () => {
  const saved = new Generator(3).state();
  const bytes = BufferLike.from(saved);
  const g = new Generator(4);
  g.setState(bytes);
  bytes.fill(255);
  assert.deepEqual(g.state(), saved);
  const drawn = scope(() => g.uniform_(zeros([5])).data.slice());
  assert(bytes.every((byte) => byte === 255));
  g.setState(saved);
  assert.deepEqual(
    scope(() => g.uniform_(zeros([5])).data.slice()),
    drawn,
  );
});

test("Generator: it holds no linear memory, a new engine goes on with its stream, and dispose() ends it", async () => {
  const live = memory.stats().liveBytes;
  const disposed = new Generator(5);
  uniform(disposed, 1);
  assert.equal(memory.stats().liveBytes, live);
  disposed.dispose();
  assert.throws(() => disposed.uniform_(zeros([1])), DisposedError);
  assert.throws(() => disposed.state(), DisposedError);

  const g = new Generator(5);
  const expected = uniform(new Generator(5), 40);
  assertBits(uniform(g, 20), expected.subarray(0, 20), "before");
  engine().close();
  ({ kernels, memory } = await init());
  assertBits(uniform(g, 20), expected.subarray(20), "after init()");
});

test("philox4x32-10: Random123's known answers", () => {
  const ff = 0xffffffff;
  const cases: [number[], number[], number[]][] = [
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [ff, ff, ff, ff],
      [ff, ff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  for (const [c, k, expected] of cases) {
    const words = written(4, (at) => kernels.philox4x32(at, c[0]!, c[1]!, c[2]!, c[3]!, k[0]!, k[1]!));
    assert.deepEqual([...words], expected);
  }
});

test("dropout: each element follows its own lane of its own block", () => {
  const x = randomArray(1, 45);
  const dx = randomArray(2, 45);
  for (const first of [0, 1, 2, 3, 1000001]) {
    const keep = (i: number): boolean => {
      const block = written(4, (at) => kernels.philox4x32(at, (first + i) >>> 2, 0, KEY[2], 0, KEY[0], KEY[1]));
      return block[(first + i) & 3]! >= Math.floor(P * 2 ** 32);
    };
    const kept = x.map((v, i) => (keep(i) ? v * SCALE : 0));
    for (const n of [1, 2, 3, 4, 5, 7, 8, 45]) {
      const part = x.slice(0, n);
      const start = dx.slice(0, n);
      const label = `first ${first}, n ${n}`;
      assertBits(dropped("dropoutForward", part, first), kept.slice(0, n), `forward, ${label}`);
      assertBits(
        dropped("dropoutBackward", part, first, { start }),
        start.map((v, i) => v + kept[i]!),
        `backward, ${label}`,
      );
    }
  }
});

test("dropout: the whole is its pieces", () => {
  const x = randomArray(3, 203);
  const whole = dropped("dropoutForward", x, 6);
  for (const size of [1, 2, 3, 4, 5, 13, 64]) {
    const pieces: number[] = [];
    for (let i = 0; i < x.length; i += size) pieces.push(...dropped("dropoutForward", x.slice(i, i + size), 6 + i));
    assertBits(Float32Array.from(pieces), whole, `pieces of ${size}`);
  }
});

test("dropout: y may be x", () => {
  const x = randomArray(4, 39);
  const inPlace = new Operand(memory, 1, 39).fill(x);
  const mask = { n: 39, first: 5, threshold: Math.floor(P * 2 ** 32), scale: SCALE, ...named(KEY) };
  kernels.dropoutForward({ ...mask, y: inPlace.address, x: inPlace.address });
  assertBits(inPlace.read(), dropped("dropoutForward", x, 5), "in place");
  inPlace.free();
});

test("dropout: a dropped NaN is 0, and p = 0 keeps everything", () => {
  const y = dropped("dropoutForward", new Float32Array(64).fill(NaN), 0);
  assert.ok(y.includes(0) && y.includes(NaN));
  const x = randomArray(5, 64);
  assertBits(dropped("dropoutForward", x, 0, { p: 0, scale: 1 }), x, "p = 0");
});

test("dropout: the kept fraction is 1 - p to 5 sigma; seeds and streams are independent", () => {
  const n = 16000;
  const ones = new Float32Array(n).fill(1);
  const mask = (key: number[], p = P): Float32Array => dropped("dropoutForward", ones, 0, { p, scale: 1, key });
  const assertShare = (found: Float32Array, share: number, what: string): void => {
    const count = found.reduce((sum, v) => sum + v, 0);
    assert.ok(Math.abs(count - n * share) <= 5 * Math.sqrt(n * share * (1 - share)), `${what}: ${count} of ${n}`);
  };
  for (const p of [0.05, 0.5, 0.9]) assertShare(mask([1, 0, 0], p), 1 - p, `p = ${p}`);
  const base = mask([1, 0, 0]);
  for (const key of [
    [2, 0, 0],
    [1, 1, 0],
    [1, 0, 1],
  ]) {
    const other = mask(key);
    assertShare(
      base.map((v, i) => (v === other[i] ? 1 : 0)),
      P * P + (1 - P) * (1 - P),
      `agreement with ${key}`,
    );
  }
});

test.run();
