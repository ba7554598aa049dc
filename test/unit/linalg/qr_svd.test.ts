/** QR and SVD: LAPACK's signs and values, known singular values, any rank and shape; the kernels between guards. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, init, manualSeed, memoryStats, ShapeError } from "../../../src/index.js";
import { matmul } from "../../../src/linalg/matrix.js";
import { qr } from "../../../src/linalg/qr.js";
import { svd, svdLowrank } from "../../../src/linalg/svd.js";
import { Operand } from "../../support/kernels.js";
import {
  assertNear,
  assertOrthonormal,
  compose,
  largest,
  orthonormal,
  product,
  transpose,
  uniform,
  type Real,
} from "../../support/float64.js";

const { kernels, memory } = await init();

const SHAPES = [
  [1, 1],
  [2, 1],
  [1, 2],
  [3, 3],
  [4, 3],
  [3, 4],
  [5, 5],
  [8, 8],
  [17, 16],
  [16, 17],
  [33, 5],
  [5, 33],
  [40, 37],
] as const;

/** numpy.linalg.qr (LAPACK dgeqrf), whose signs torch.linalg.qr has too. */
const LAPACK = [
  {
    m: 4,
    n: 3,
    a: [1, 2, 3, 4, 5, 6, 7, 8, 10, -1, 3, -2],
    q: [
      -0.12216944435630528, -0.20730102996084346, 0.9545822035760261, -0.48867777742522095, -0.12297518726490683,
      0.0692312132821151, -0.8551861104941366, -0.038649344568970685, -0.20516695323020986, 0.12216944435630524,
      -0.9697471910032653, -0.20466161590698323,
    ],
    r: [
      -8.18535277187245, -9.162708326722894, -12.094774991274218, 0, -4.247914325807783, 0.19324672284485278, 0, 0,
      1.6367875899326358,
    ],
  },
  {
    m: 3,
    n: 4,
    a: [1, 4, 7, -1, 2, 5, 8, 3, 3, 6, 10, -2],
    q: [
      -0.2672612419124243, 0.8728715609439696, 0.4082482904638629, -0.5345224838248488, 0.21821789023599236,
      -0.816496580927726, -0.8017837257372732, -0.43643578047198456, 0.40824829046386313,
    ],
    r: [
      -3.7416573867739413, -8.55235974119758, -14.164845821358494, 0.2672612419124243, 0, 1.963961012123933,
      3.491486243775882, 0.6546536707079769, 0, 0, 0.4082482904638638, -3.674234614174767,
    ],
  },
  // Nothing to eliminate: no reflection, and the diagonal keeps its sign.
  { m: 2, n: 2, a: [2, 1, 0, 3], q: [1, 0, 0, 1], r: [2, 1, 0, 3] },
];

test("qr has LAPACK's values and signs", () => {
  for (const { m, n, a, q, r } of LAPACK) {
    const ours = qr(Float64Array.from(a), m, n);
    assertNear("q", ours.q, q, 1e-14);
    assertNear("r", ours.r, r, 3e-14);
  }
});

test("qr: A = Q R, Q orthonormal, R upper triangular; also for zero and rank-one matrices", () => {
  for (const [m, n] of SHAPES) {
    const any = uniform(m + 50 * n, m * n);
    const faint = any.map((v, i) => (i % n === 0 ? v * 1e-160 : v));
    for (const a of [any, faint, new Float64Array(m * n), product(uniform(1, m), uniform(2, n), m, 1, n)]) {
      if (a === faint && n === 1) continue; // its largest magnitude is refused
      const { q, r } = qr(a, m, n);
      const rank = Math.min(m, n);
      assertNear(`qr [${m}, ${n}]`, product(q, r, m, rank, n), a, 1e-14 * (1 + largest(a)) * n);
      assertOrthonormal(`q of [${m}, ${n}]`, q, m, rank);
      for (let i = 0; i < rank; i++) for (let j = 0; j < Math.min(i, n); j++) assert.equal(r[i * n + j], 0);
    }
  }
});

function checkSvd(label: string, a: Real, m: number, n: number, known?: Real): void {
  const { u, s, vt } = svd(Float64Array.from(a), m, n);
  const q = Math.min(m, n);
  assert.deepEqual([u.length, s.length, vt.length], [m * q, q, q * n]);
  const bound = 4e-15 * Math.max(m, n) * (known ? largest(known) : s[0]!);
  assertNear(label, compose(u, s, transpose(vt, q, n), m, n), a, bound);
  assertOrthonormal(`${label}: u`, u, m, q);
  assertOrthonormal(`${label}: v`, transpose(vt, q, n), n, q);
  for (let i = 1; i < q; i++) assert(s[i]! <= s[i - 1]! && s[i]! >= 0, `${label}: s descends`);
  if (known) assertNear(`${label}: s`, s, known, bound);
}

test("svd finds the singular values a matrix was made with", () => {
  for (const [m, n] of SHAPES) {
    const q = Math.min(m, n);
    const u = orthonormal(1, m, q);
    const v = orthonormal(2, n, q);
    const spectra: Record<string, (i: number) => number> = {
      descending: (i) => q - i,
      equal: () => 2,
      "two clusters": (i) => (i < q / 2 ? 5 : 1e-3),
      graded: (i) => 10 ** -i,
      "rank one": (i) => (i === 0 ? 3 : 0),
      "half rank": (i) => (2 * i < q ? 1 + q - i : 0),
      zero: () => 0,
    };
    for (const [name, f] of Object.entries(spectra)) {
      const s = Float64Array.from({ length: q }, (_, i) => f(i));
      checkSvd(`${name} [${m}, ${n}]`, compose(u, s, v, m, n), m, n, s);
    }
  }
});

test("svd: matrices whose singular values are known otherwise", () => {
  checkSvd("diagonal", [0, 0, 0, 0, -7, 0, 0, 0, 2], 3, 3, [7, 2, 0]);
  checkSvd("permutation", [0, 1, 0, 0, 0, 1, 1, 0, 0], 3, 3, [1, 1, 1]);
  checkSvd("rank one", product([3, 0, 4], [1, 2, 2], 3, 1, 3), 3, 3, [15, 0, 0]);
  checkSvd("all ones", new Float64Array(35).fill(1), 5, 7, [Math.sqrt(35), 0, 0, 0, 0]);
  const golden = (1 + Math.sqrt(5)) / 2;
  checkSvd("shear", [1, 1, 0, 1], 2, 2, [golden, 1 / golden]);
  // Hilbert's matrix of order 8; values of LAPACK's dgesdd (numpy).
  const hilbert = Float64Array.from({ length: 64 }, (_, i) => 1 / (Math.floor(i / 8) + (i % 8) + 1));
  checkSvd(
    "Hilbert",
    hilbert,
    8,
    8,
    [
      1.6959389969219496, 0.29812521131693076, 0.026212843578119035, 0.0014676881177418464, 5.4369433697510956e-5,
      1.2943320918745525e-6, 1.7988737457436075e-8, 1.1115389793345085e-10,
    ],
  );
  checkSvd(
    "columns of extremely different length",
    Float64Array.of(1e3, 0, 0, 0, 0, 1e-33, 1e-110, 0, 0, 1e-35, 1e-139, 1e-140, 0, 0, 0, 1e-171),
    4,
    4,
  );
  checkSvd(
    "columns of very different length",
    uniform(3, 60).map((v, i) => v * 10 ** (-20 * (i % 5))),
    12,
    5,
  );
  for (const scale of [1e-99, 1e99])
    checkSvd(
      `scaled by ${scale}`,
      uniform(4, 63).map((v) => v * scale),
      9,
      7,
    );
});

test("svdLowrank: the leading part, exactly if the rank is no larger than q", () => {
  for (const [m, n] of [
    [30, 20],
    [20, 30],
    [20, 20],
  ] as const) {
    const s = Float64Array.of(9, 7, 5, 3);
    const u = orthonormal(5, m, 4);
    const v = orthonormal(6, n, 4);
    const a = compose(u, s, v, m, n);
    manualSeed(3);
    const got = svdLowrank(a, m, n, 4, 0);
    assertNear("s", got.s, s, 1e-12);
    assertNear("product", compose(got.u, got.s, transpose(got.vt, 4, n), m, n), a, 1e-12);
    assertOrthonormal("u", got.u, m, 4);
    assertOrthonormal("v", transpose(got.vt, 4, n), n, 4);
  }
  const full = uniform(8, 40 * 25);
  const exact = svd(full, 40, 25);
  manualSeed(3);
  const near = svdLowrank(full, 40, 25, 10, 60);
  assertNear("60 power iterations", near.s.subarray(0, 5), exact.s.subarray(0, 5), 1e-6);
});

test("the same input gives the same bits, and nothing stays in linear memory", () => {
  const a = uniform(9, 21 * 34);
  const before = memoryStats().liveBytes;
  const first = svd(a, 21, 34);
  const second = svd(a, 21, 34);
  assert.deepEqual(first, second);
  manualSeed(1);
  const random = svdLowrank(a, 21, 34, 3);
  manualSeed(1);
  assert.deepEqual(svdLowrank(a, 21, 34, 3), random);
  qr(a, 21, 34);
  // The generator's own state may have been made meanwhile.
  assert(memoryStats().liveBytes - before <= 4096);
});

test("what is refused", () => {
  assert.throws(() => svd(new Float64Array(5), 2, 3), ShapeError);
  assert.throws(() => qr(new Float64Array(0), 0, 3), ArgumentError);
  assert.throws(() => svd(Float32Array.of(1, NaN), 1, 2), /svd: a holds NaN at \[0, 1\]/);
  assert.throws(() => qr(Float64Array.of(Infinity), 1, 1), ArgumentError);
  assert.throws(() => svd(Float64Array.of(1e-200), 1, 1), /scale it/);
  for (const q of [0, 3, 1.5]) assert.throws(() => svdLowrank(Float64Array.of(1, 2, 3, 4), 2, 2, q), ArgumentError);
  assert.throws(() => svdLowrank(Float64Array.of(1, 2, 3, 4), 2, 2, 1, -1), ArgumentError);
  assert.throws(() => matmul(new Float64Array(4), new Float64Array(5), 2, 2, 3), ShapeError);
});

/** float64 operands between guards, an odd number of floats off a boundary. */
function guarded(values: Float64Array): Operand {
  return new Operand(memory, 1, values.length * 2, { offset: 1 }).fill(
    new Float32Array(values.buffer, values.byteOffset, values.length * 2),
  );
}
const read = (o: Operand): Float64Array => new Float64Array(o.read().buffer);

test("dgemm: every tail, both layouts of A, the bits of a sequential sum", () => {
  for (const m of [1, 2, 5])
    for (const n of [1, 2, 7, 8, 9, 16, 19])
      for (const k of [1, 2, 5, 16])
        for (const transposed of [false, true]) {
          const a = uniform(m + k, m * k);
          const b = uniform(n + k, k * n);
          const pa = guarded(transposed ? transpose(a, m, k) : a);
          const pb = guarded(b);
          const pc = guarded(new Float64Array(m * n));
          kernels.dgemm(pc.address, pa.address, pb.address, m, n, k, transposed);
          assert.deepEqual(read(pc), product(a, b, m, k, n));
          pc.assertGuards(() => "c");
          pc.free();
          for (const o of [pa, pb]) {
            o.assertUnchanged(() => "input");
            o.free();
          }
        }
});

test("the QR and SVD kernels write only their operands", () => {
  for (const [m, n] of SHAPES) {
    if (m < n) continue;
    const operands = [
      uniform(7, m * n),
      new Float64Array(m * n),
      new Float64Array(n),
      new Float64Array(n * n),
      new Float64Array(kernels.svdWorkBytes(n) / 8),
    ].map(guarded);
    const [a, u, s, v, work] = operands.map((o) => o.address);
    assert(kernels.svdTall(u!, s!, v!, a!, m, n, work!) > 0);
    operands.forEach((o, i) => {
      o.assertGuards(() => `svdTall [${m}, ${n}], operand ${i}`);
      o.free();
    });
  }
});

test.run();
