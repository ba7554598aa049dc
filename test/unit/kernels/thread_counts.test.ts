/**
 * Every kernel that is cut for threads, at a size where it is, by 2, 3, 5 and 8 threads: to the bits of one, in both
 * arithmetics, and nothing written beside its outputs. And three steps of a whole model.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { refusal } from "#spawn";
import { type Engine, init, supportsFused } from "../../../src/index.js";
import { draw, Frame, run, same } from "../../support/frame.js";
import { opened } from "../../support/eager.js";
import { convolution, fewSteps } from "../../support/few_steps.js";

const N = 200_003;
const ROWS = 301;
const DIM = 607;
const SIZE = ROWS * DIM;
const [A, B, C, D] = [draw(N), draw(N), draw(N), draw(N)].map((x) => x.slice()) as [
  Float32Array,
  Float32Array,
  Float32Array,
  Float32Array,
];
const a = (n = SIZE): Float32Array => A.subarray(0, n);
const b = (n = SIZE): Float32Array => B.subarray(0, n);
const c = (n = SIZE): Float32Array => C.subarray(0, n);
const d = (n = SIZE): Float32Array => D.subarray(0, n);
const positive = (x: Float32Array): Float32Array => x.map((v) => Math.abs(v) + 0.25);
const ints = (n: number, below: number): number[] => Array.from({ length: n }, (_, i) => (i * 7919) % below);
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const asFloats = (x: readonly number[]): Float32Array => new Float32Array(Int32Array.from(x).buffer);

/** Outputs of one call. */
type Case = (engine: Engine, label: string) => Float32Array[];
const cases = new Map<string, Case>();

/** A kernel of positional arguments: outputs, inputs, the rest. */
type Positional = (engine: Engine) => (...args: number[]) => unknown;
const plain = (
  name: string,
  kernel: Positional,
  outputs: readonly (Float32Array | number)[],
  inputs: readonly Float32Array[],
  ...rest: number[]
): void => {
  cases.set(name, (engine, label) =>
    run(engine, label, inputs, outputs, (into, out) => kernel(engine)(...out, ...into, ...rest)),
  );
};

for (const name of [
  "siluForward",
  "geluErfForward",
  "geluTanhForward",
  "reluForward",
  "sigmoidForward",
  "tanhForward",
  "expForward",
] as const)
  plain(name, (e) => e.kernels[name], [N], [A], N);
plain("logForward", (e) => e.kernels.logForward, [N], [positive(A)], N);
for (const name of [
  "siluBackward",
  "geluErfBackward",
  "geluTanhBackward",
  "reluBackward",
  "sigmoidBackward",
  "tanhBackward",
  "mulBackward",
  "divBackward",
] as const)
  plain(name, (e) => e.kernels[name], [A], [B, C], N);
for (const name of ["addForward", "mulForward", "divForward", "siluMulForward"] as const)
  plain(name, (e) => e.kernels[name], [N], [A, B], N);
plain("siluMulBackward", (e) => e.kernels.siluMulBackward, [A, B], [C, D, A], N);
plain("sscal", (e) => e.kernels.sscal, [A], [], N, 1.7);
plain("saxpy", (e) => e.kernels.saxpy, [A], [B], N, 1.7);
plain("addScalar", (e) => e.kernels.addScalar, [A], [], N, 1.7);
plain("bceForward", (e) => e.kernels.bceForward as never, [N], [A, B], N, 1);
plain("bceBackward", (e) => e.kernels.bceBackward, [A], [positive(B), C], N, 1.7);
plain("mseBackward", (e) => e.kernels.mseBackward, [A], [B, C], N, 1.7);
for (const name of ["softmaxForward", "logSoftmaxForward"] as const)
  plain(name, (e) => e.kernels[name], [SIZE], [a()], ROWS, DIM);
for (const name of ["softmaxBackward", "logSoftmaxBackward"] as const)
  plain(name, (e) => e.kernels[name], [a()], [b(), c()], ROWS, DIM);
plain("rmsNormForward", (e) => e.kernels.rmsNormForward, [SIZE, ROWS], [a(), b(DIM)], ROWS, DIM, 1e-5);
plain("rmsNormBackward", (e) => e.kernels.rmsNormBackward, [a(), b(DIM)], [b(), c(), d(DIM), a(ROWS)], ROWS, DIM);
plain(
  "crossEntropyBackward",
  (e) => e.kernels.crossEntropyBackward,
  [a()],
  [positive(a(ROWS)), b(), asFloats(ints(ROWS, DIM))],
  ROWS,
  DIM,
  7,
  0.5,
);
plain("axisSum, last", (e) => e.kernels.axisSum, [ROWS], [a()], ROWS, DIM, 1, 3);
plain("axisSum, first", (e) => e.kernels.axisSum, [DIM], [a()], 1, ROWS, DIM, 3);
plain("axisMax, last", (e) => e.kernels.axisMax, [ROWS], [a()], ROWS, DIM, 1);
plain("axisMax, middle", (e) => e.kernels.axisMax, [7 * DIM], [a()], 7, ROWS / 7, DIM);
plain("embeddingForward", (e) => e.kernels.embeddingForward, [SIZE], [b(), asFloats(ints(ROWS, ROWS))], ROWS, DIM, 0);
plain(
  "embeddingBackward",
  (e) => e.kernels.embeddingBackward,
  [a()],
  [b(), asFloats(ints(ROWS, 19)), c(ROWS)],
  ROWS,
  DIM,
  3,
);
for (const inner of [1, 43])
  plain(
    `channelScaleForward, inner ${inner}`,
    (e) => e.kernels.channelScaleForward,
    [SIZE],
    [a(), b(DIM), c(DIM)],
    ROWS / inner,
    DIM,
    inner,
  );

cases.set("crossEntropyForward", (engine, label) => {
  let sum = NaN;
  const [lse] = run(engine, label, [a(), asFloats(ints(ROWS, DIM))], [new Float32Array(ROWS)], ([x, targets], [to]) => {
    sum = engine.kernels.crossEntropyForward(to!, x!, targets!, ROWS, DIM, 7);
  });
  return [lse!, new Float32Array(Float64Array.of(sum).buffer)];
});

/** A kernel that takes a block: its outputs and inputs by name, and the rest. */
const block = (
  name: string,
  call: (engine: Engine, addresses: Record<string, number>) => unknown,
  outputs: Record<string, Float32Array | number>,
  inputs: Record<string, Float32Array>,
): void => {
  cases.set(name, (engine, label) => {
    const f = new Frame(engine, label);
    const addresses: Record<string, number> = { scratch: engine.scratch };
    for (const [key, values] of Object.entries(inputs)) addresses[key] = f.input(key, values);
    const out = Object.entries(outputs).map(([key, o]) => {
      const room = typeof o === "number" ? f.room(key, o) : f.room(key, o.length, o);
      addresses[key] = room.address;
      return room;
    });
    call(engine, addresses);
    const results = out.map((o) => o.read());
    f.end();
    return results;
  });
};
/** Working space, which has no bits of its own to compare. */
const within = (engine: Engine, sizes: number[], fn: (...at: number[]) => void): void =>
  engine.memory.withBlocks(sizes, (...at) => fn(...(at as number[])));
type Block = never;

block(
  "layerNormForward",
  (e, at) => e.kernels.layerNormForward({ ...at, rows: ROWS, dim: DIM, eps: 1e-5 } as Block),
  { y: SIZE, mean: ROWS, rstd: ROWS },
  { x: a(), weight: b(DIM), bias: c(DIM) },
);
block(
  "layerNormBackward",
  (e, at) => e.kernels.layerNormBackward({ ...at, rows: ROWS, dim: DIM } as Block),
  { dx: a(), dWeight: b(DIM), dBias: c(DIM) },
  { dy: c(), x: d(), weight: a(DIM), mean: b(ROWS), rstd: c(ROWS) },
);
for (const inner of [1, 43])
  block(
    `channelScaleBackward, inner ${inner}`,
    (e, at) => e.kernels.channelScaleBackward({ ...at, outer: ROWS / inner, channels: DIM, inner } as Block),
    { dx: a(), dg: b(DIM), dBias: c(DIM) },
    { dy: b(), x: c(), g: d(DIM) },
  );
for (const name of ["ropeForward", "ropeBackward"] as const) {
  const back = name === "ropeBackward";
  block(
    name,
    (e, at) => e.kernels[name]({ ...at, rows: 160, heads: 9, dim: 46, pairs: 21 } as Block),
    { [back ? "dx" : "y"]: back ? a(160 * 9 * 46) : 160 * 9 * 46 },
    { [back ? "dy" : "x"]: b(160 * 9 * 46), cos: c(50 * 21), sin: d(50 * 21), positions: asFloats(ints(160, 50)) },
  );
}
const mask = { n: N - 2, first: 5, threshold: 2 ** 30, scale: 4 / 3, seedLo: 1, seedHi: 2, stream: 3 };
block(
  "dropoutForward",
  (e, at) => e.kernels.dropoutForward({ ...at, ...mask } as Block),
  { y: N - 2 },
  { x: a(N - 2) },
);
block(
  "dropoutBackward",
  (e, at) => e.kernels.dropoutBackward({ ...at, ...mask } as Block),
  { dx: a(N - 2) },
  { dy: b(N - 2) },
);
block(
  "sgdStep",
  (e, at) =>
    e.kernels.sgdStep({ ...at, n: N, lr: 0.1, momentum: 0.9, weightDecay: 0.1, nesterov: true, first: false } as Block),
  { p: A, buf: B },
  { g: C },
);
block(
  "adamStep",
  (e, at) =>
    e.kernels.adamStep({
      ...at,
      n: N,
      decay: 0.9,
      l2: 0.1,
      beta1: 0.9,
      rest1: 0.1,
      beta2: 0.99,
      rest2: 0.01,
      stepSize: 0.1,
      rootCorrection2: 0.9,
      eps: 1e-8,
    } as Block),
  { p: A, m: B, v: positive(C) },
  { g: D },
);
// [ROWS, DIM] copied, transposed, and added up along either dimension.
const strides: Record<string, { sizes: number[]; ys: number[]; xs: number[]; length: number }> = {
  rows: { sizes: [1, ROWS, DIM], ys: [0, DIM, 1], xs: [0, DIM, 1], length: SIZE },
  "a row": { sizes: [1, 1, SIZE], ys: [0, 0, 1], xs: [0, 0, 1], length: SIZE },
  transposed: { sizes: [1, ROWS, DIM], ys: [0, 1, ROWS], xs: [0, DIM, 1], length: SIZE },
  "transposed by tiles": {
    sizes: [7, ROWS / 7, DIM],
    ys: [SIZE / 7, DIM, 1],
    xs: [SIZE / 7, 1, ROWS / 7],
    length: SIZE,
  },
};
const sums: typeof strides = {
  "a sum of rows": { sizes: [1, ROWS, DIM], ys: [0, 0, 1], xs: [0, DIM, 1], length: DIM },
  "sums of rows": { sizes: [1, ROWS, DIM], ys: [0, 1, 0], xs: [0, DIM, 1], length: ROWS },
};
const strided = ({ sizes: [n, n1, n2], ys: [ys, ys1, ys2], xs: [xs, xs1, xs2] }: (typeof strides)[string]) => ({
  n,
  n1,
  n2,
  ys,
  ys1,
  ys2,
  xs,
  xs1,
  xs2,
});
for (const [name, s] of Object.entries(strides))
  block(
    `stridedCopy, ${name}`,
    (e, at) => e.kernels.stridedCopy({ ...at, ...strided(s) } as Block),
    { y: s.length },
    { x: a() },
  );
for (const [name, s] of Object.entries({ ...strides, ...sums }))
  block(
    `stridedAxpy, ${name}`,
    (e, at) => e.kernels.stridedAxpy({ ...at, ...strided(s), alpha: 1.7 } as Block),
    { y: b(s.length) },
    { x: a() },
  );

// Causal, with two texts in a row. Backward goes by heads of k and v in the first, by blocks of queries in the second.
for (const { name, shape, ranges } of [
  {
    name: "2 x 2 heads",
    shape: { batch: 2, queries: 70, keys: 90, heads: 6, kvHeads: 2, dim: 24 },
    ranges: range(140).flatMap((t) => [t > 100 ? 45 : 0, (t % 70) + 21]),
  },
  {
    name: "a head and many keys",
    shape: { batch: 1, queries: 70, keys: 520, heads: 4, kvHeads: 1, dim: 24 },
    ranges: range(70).flatMap((t) => [t > 40 ? 491 : 0, t + 451]),
  },
]) {
  const { batch, queries, keys, heads, kvHeads, dim } = shape;
  const q = batch * queries * heads * dim;
  const kv = batch * keys * kvHeads * dim;
  for (const softcap of [0, 5]) {
    const rest = { ...shape, scale: 0.2, softcap };
    block(
      `attentionForward, ${name}, softcap ${softcap}`,
      (e, at) =>
        within(e, [e.kernels.attentionProbsBytes(keys)], (probs) =>
          e.kernels.attentionForward({ ...at, ...rest, probs } as Block),
        ),
      { y: q },
      { q: a(q), k: b(kv), v: c(kv), ranges: asFloats(ranges) },
    );
    for (const wanted of [["dq", "dk", "dv"], ["dq"], ["dk"], ["dv"]] as const)
      block(
        `attentionBackward, ${name}, softcap ${softcap}, ${wanted}`,
        (e, at) =>
          within(e, Array(3).fill(e.kernels.attentionGradientBytes(batch * kvHeads, keys)), (probs, dprobs, tanh) =>
            e.kernels.attentionBackward({ ...at, ...rest, probs, dprobs, tanh } as Block),
          ),
        Object.fromEntries(wanted.map((key) => [key, { dq: d(q), dk: d(kv), dv: a(kv) }[key]])),
        { dy: d(q), q: a(q), k: b(kv), v: c(kv), ranges: asFloats(ranges) },
      );
  }
}

const merge = { k: ROWS, d: DIM, r: 8, s: 1.7 };
for (const fanInFanOut of [false, true])
  block(
    `loraMerge, fanInFanOut ${fanInFanOut}`,
    (e, at) =>
      within(e, [e.kernels.mergeRowsBytes(fanInFanOut ? ROWS : DIM)], (rows) =>
        e.kernels.loraMerge({ ...at, ...merge, fanInFanOut, rows } as Block),
      ),
    { weight: a() },
    { a: b(8 * DIM), b: c(8 * ROWS) },
  );
const ids = asFloats(ints(3000, 200));
const embedding = { n: 3000, dim: 64, r: 8, vocab: 200, s: 1.7 };
block(
  "loraEmbeddingForward",
  (e, at) => e.kernels.loraEmbeddingForward({ ...at, ...embedding } as Block),
  { y: a(3000 * 64), hs: 3000 * 8 },
  { ids, a: b(8 * 200), b: c(8 * 64) },
);
block(
  "loraEmbeddingBackward",
  (e, at) => e.kernels.loraEmbeddingBackward({ ...at, ...embedding, paddingIdx: 3, f: 0 } as Block),
  { da: a(8 * 200), db: b(8 * 64), zs: 3000 * 8 },
  { ids, dy: c(3000 * 64), hs: d(3000 * 8), b: d(8 * 64) },
);
for (const name of ["sgemmNN", "sgemmNT", "sgemmTN"] as const) {
  const [m, n, k] = [150, 200, 300];
  block(
    name,
    (e, at) =>
      e.kernels[name]({
        ...at,
        m,
        n,
        k,
        lda: name === "sgemmTN" ? m : k,
        ldb: name === "sgemmNT" ? k : n,
        ldc: n,
        alpha: 1.7,
        beta: 0.3,
      } as Block),
    { c: a(m * n) },
    { a: b(m * k), b: c(k * n) },
  );
}
cases.set("dgemm", (engine, label) => {
  const [m, n, k] = [90, 100, 80];
  return run(engine, label, [a(2 * m * k).map((x) => x), b(2 * k * n)], [2 * m * n], ([x, y], [to]) => {
    // As float64, whatever these bits are, but for the alignment that the frame takes from them.
    engine.kernels.dgemm(to!, x!, y!, m, n, k, false);
  });
});
for (const fanInFanOut of [false, true])
  for (const [format, weight] of [
    [0, a()],
    [1, a(Math.ceil(SIZE / 2))],
  ] as const)
    block(
      `doraNorm, fanInFanOut ${fanInFanOut}, format ${format}`,
      (e, at) =>
        within(e, [e.kernels.mergeRowsBytes(fanInFanOut ? ROWS : DIM), ROWS * 8], (rows, sums) =>
          e.kernels.doraNorm({ ...at, ...merge, fanInFanOut, format, rows, sums } as Block),
        ),
      { norm: ROWS },
      { weight, a: b(8 * DIM), b: c(8 * ROWS) },
    );
for (const [name, format, bytes] of [
  ["bfloat16", 1, 2],
  ["float16", 2, 2],
] as const)
  plain(`widen, ${name}`, (e) => e.kernels.widen, [N], [a(Math.ceil((N * bytes) / 4))], N, format);
cases.set("a convolution", convolution);
cases.set("three steps of a model", fewSteps);

const results = async (options: { fused: boolean; threads: number }): Promise<Map<string, Float32Array[]>> => {
  const engine = await init(options);
  const all = new Map<string, Float32Array[]>();
  try {
    for (const [name, compute] of cases) {
      const before = engine.threads > 1 ? opened(engine) : 0;
      all.set(name, compute(engine, `${name}, ${options.threads} threads`));
      if (engine.threads > 1) assert(opened(engine) > before, `${name} was not cut for ${engine.threads} threads`);
    }
  } finally {
    engine.close();
  }
  return all;
};

for (const fused of [false, true])
  test(`the bits of one thread, ${fused ? "fused" : "separate"} arithmetic`, async () => {
    if (refusal() !== undefined || (fused && !(await supportsFused()))) return;
    const one = await results({ fused, threads: 1 });
    for (const threads of [2, 3, 5, 8]) {
      const many = await results({ fused, threads });
      for (const [name, outputs] of one)
        for (const [i, expected] of outputs.entries())
          same(`${name}, output ${i}, ${threads} threads`, many.get(name)![i]!, expected);
    }
  });

test.run();
