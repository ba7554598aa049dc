/**
 * Kernels whose formula fixes every bit, against sequential references of float32 steps: LoRA (linear,
 * embedding, merge), elementwise operations and reductions, MSE, RoPE's rotation, SGD and Adam. Shapes
 * cover every tail and tile; operands are misaligned and lie between guards; gradients are added to
 * buffers that hold something; a gradient at address 0 is skipped.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import { type Engine, init } from "../../../src/runtime/engine.js";
import { addProduct, draw, Frame, scaled } from "../../support/frame.js";
import { Operand, transposed } from "../../support/kernels.js";
import { madd } from "../../support/madd.js";

const f32 = Math.fround;
const WIDTHS = [1, 3, 4, 8, 15, 16, 17, 33];
const RANKS = [0, 1, 2, 4, 5, 8, 16];
const BATCHES = [0, 1, 2, 3, 5, 17];
/** sgemm takes other paths for s = 1; the other value's products are rounded. */
const SCALES = [1, f32(1.7)];

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const zeros = (length: number): Float32Array => new Float32Array(length);

/** The GEMM kernels' working space, exactly as large as asked for, between guards. */
const scratchOf = (engine: Engine): Operand => new Operand(engine.memory, 1, engine.kernels.sgemmScratchBytes() / 4);

function endScratch(scratch: Operand): void {
  scratch.assertGuards(() => "scratch");
  scratch.free();
}

interface Linear {
  n: number;
  d: number;
  k: number;
  r: number;
  s: number;
  fanInFanOut: boolean;
  bias: boolean;
  dropout: boolean;
}

/** One layer's operands; W is [d, k] or [k, d], and w the same as [d, k]. */
function linearOperands({ n, d, k, r, fanInFanOut, dropout }: Linear) {
  const x = draw(n * d);
  const W = draw(k * d);
  return {
    x,
    W,
    w: fanInFanOut ? W : transposed(W, k, d),
    xDropped: dropout ? draw(n * d) : x,
    A: draw(r * d),
    B: draw(k * r),
    bias: draw(k),
    dy: draw(n * k),
  };
}
type LinearOperands = ReturnType<typeof linearOperands>;

const hidden = ({ n, d, r, s }: Linear, { xDropped, A }: LinearOperands): Float32Array =>
  addProduct(zeros(n * r), xDropped, scaled(transposed(A, r, d), s), n, r, d);

function checkLinearForward(engine: Engine, scratch: number, c: Linear, o: LinearOperands, hs: Float32Array): void {
  const { n, d, k, r } = c;
  const y = zeros(n * k);
  if (c.bias) for (let i = 0; i < n; i++) y.set(o.bias, i * k);
  addProduct(y, o.x, o.w, n, k, d);
  addProduct(y, hs, transposed(o.B, k, r), n, k, r);

  const f = new Frame(engine, `loraLinearForward ${JSON.stringify(c)}`);
  const x = f.input("x", o.x);
  const xDropped = c.dropout ? f.input("xDropped", o.xDropped) : x;
  engine.kernels.loraLinearForward({
    n,
    d,
    k,
    r,
    s: c.s,
    x,
    xDropped,
    weight: f.input("W", o.W),
    fanInFanOut: c.fanInFanOut,
    format: 0,
    bias: c.bias ? f.input("bias", o.bias) : 0,
    a: r > 0 ? f.input("A", o.A) : 0,
    b: r > 0 ? f.input("B", o.B) : 0,
    hs: r > 0 ? f.output("hs", hs) : 0,
    y: f.output("y", y),
    scratch,
  });
  f.end();
}

interface Wanted {
  dx: boolean;
  dW: boolean;
  dbias: boolean;
  dA: boolean;
  dB: boolean;
}
const ALL: Wanted = { dx: true, dW: true, dbias: true, dA: true, dB: true };

function checkLinearBackward(
  engine: Engine,
  scratch: number,
  c: Linear,
  o: LinearOperands,
  hs: Float32Array,
  wanted: Wanted,
): void {
  const { n, d, k, r, s, fanInFanOut } = c;
  const f = new Frame(engine, `loraLinearBackward ${JSON.stringify(c)} wanted ${JSON.stringify(wanted)}`);
  const zs = addProduct(zeros(n * r), o.dy, scaled(o.B, s), n, r, k);
  const dyT = transposed(o.dy, n, k);
  /** A gradient's address: 0 if not wanted; its buffer holds something before and `add` says what is added. */
  const grad = (name: keyof Wanted, length: number, add: (sum: Float32Array) => void): number => {
    if (!wanted[name]) return 0;
    const before = draw(length);
    const sum = before.slice();
    add(sum);
    return f.output(name, sum, before);
  };
  const x = f.input("x", o.x);
  const lora = r > 0;
  const xDropped = c.dropout ? f.input("xDropped", o.xDropped) : x;
  const dx = grad("dx", n * d, (sum) => {
    addProduct(sum, o.dy, transposed(o.w, d, k), n, d, k);
    if (!c.dropout) addProduct(sum, zs, o.A, n, d, r);
  });
  const dW = grad("dW", k * d, (sum) => {
    if (fanInFanOut) addProduct(sum, transposed(o.x, n, d), o.dy, d, k, n);
    else addProduct(sum, dyT, o.x, k, d, n);
  });
  const dbias = grad("dbias", k, (sum) => {
    addProduct(sum, new Float32Array(n).fill(1), o.dy, 1, k, n);
  });
  const dA = lora
    ? grad("dA", r * d, (sum) => {
        addProduct(sum, transposed(zs, n, r), o.xDropped, r, d, n);
      })
    : 0;
  const dB = lora
    ? grad("dB", k * r, (sum) => {
        addProduct(sum, dyT, hs, k, r, n);
      })
    : 0;
  const dxDropped = c.dropout && wanted.dx ? f.output("dxDropped", addProduct(zeros(n * d), zs, o.A, n, d, r)) : 0;
  engine.kernels.loraLinearBackward({
    n,
    d,
    k,
    r,
    s,
    x,
    xDropped,
    weight: f.input("W", o.W),
    fanInFanOut,
    format: 0,
    a: lora ? f.input("A", o.A) : 0,
    b: lora ? f.input("B", o.B) : 0,
    hs: lora ? f.input("hs", hs) : 0,
    zs: lora ? f.room("zs", n * r).address : 0,
    dy: f.input("dy", o.dy),
    dx,
    dxDropped,
    dWeight: dW,
    dBias: dbias,
    da: dA,
    db: dB,
    scratch,
  });
  f.end();
}

for (const fanInFanOut of [false, true]) {
  test(`lora linear, forward and backward, fanInFanOut ${fanInFanOut}: every shape`, async () => {
    const engine = await init();
    const scratch = scratchOf(engine);
    for (const n of BATCHES)
      for (const d of WIDTHS)
        for (const k of WIDTHS)
          for (const r of RANKS)
            for (const s of SCALES) {
              for (const dropout of r > 0 ? [false, true] : [false]) {
                for (const bias of [false, true]) {
                  const c: Linear = { n, d, k, r, s, fanInFanOut, bias, dropout };
                  const o = linearOperands(c);
                  const hs = hidden(c, o);
                  checkLinearForward(engine, scratch.address, c, o, hs);
                  checkLinearBackward(engine, scratch.address, c, o, hs, ALL);
                }
              }
            }
    endScratch(scratch);
  });
}

test("lora linear: a null gradient skips only its own output", async () => {
  const engine = await init();
  const scratch = scratchOf(engine);
  for (const [n, d, k] of [
    [1, 4, 17],
    [3, 16, 3],
    [17, 33, 15],
  ] as const)
    for (const r of [0, 1, 5, 16])
      for (const mask of range(0, 31)) {
        const wanted: Wanted = {
          dx: !(mask & 1),
          dW: !(mask & 2),
          dbias: !(mask & 4),
          dA: !(mask & 8),
          dB: !(mask & 16),
        };
        for (const dropout of r > 0 ? [false, true] : [false])
          for (const fanInFanOut of [false, true])
            for (const s of SCALES) {
              const c: Linear = { n, d, k, r, s, fanInFanOut, bias: false, dropout };
              const o = linearOperands(c);
              checkLinearBackward(engine, scratch.address, c, o, hidden(c, o), wanted);
            }
      }
  endScratch(scratch);
});

/** Repeated, first and last rows, and row 2, the padding row, whenever n > 2. Of 7. */
const someIds = (n: number): number[] => range(0, n - 1).map((i) => [6, 0, 2, 2, 5, 6][i % 6]!);

test("embedding, forward and backward", async () => {
  const engine = await init();
  const vocab = 7;
  for (const n of BATCHES)
    for (const dim of WIDTHS)
      for (const paddingIdx of [-1, 2])
        for (const factors of [false, true]) {
          const ids = someIds(n);
          const W = draw(vocab * dim);
          const dy = draw(n * dim);
          const y = zeros(n * dim);
          const before = draw(vocab * dim);
          const dW = before.slice();
          const count = (id: number): number => ids.filter((other) => other === id).length;
          const f = Float32Array.from(ids, (id) => 1 / count(id));
          ids.forEach((id, i) => {
            y.set(W.subarray(id * dim, (id + 1) * dim), i * dim);
            if (id === paddingIdx) return;
            for (let j = 0; j < dim; j++)
              dW[id * dim + j] = dW[id * dim + j]! + f32((factors ? f[i]! : 1) * dy[i * dim + j]!);
          });
          const frame = new Frame(engine, `embedding ${JSON.stringify({ n, dim, paddingIdx, factors })}`);
          const pids = frame.integers("ids", ids);
          engine.kernels.embeddingForward(frame.output("y", y), frame.input("W", W), pids, n, dim, 0);
          const pf = factors ? frame.output("f", f) : 0;
          if (factors) engine.kernels.embeddingFactors(pf, pids, n, frame.room("counts", vocab).address);
          engine.kernels.embeddingBackward(
            frame.output("dW", dW, before),
            frame.input("dy", dy),
            pids,
            pf,
            n,
            dim,
            paddingIdx,
          );
          frame.end();
        }
});

test("lora embedding, forward and backward", async () => {
  const engine = await init();
  const scratch = scratchOf(engine);
  const vocab = 7;
  for (const n of BATCHES)
    for (const dim of WIDTHS)
      for (const r of RANKS)
        for (const s of SCALES)
          for (const paddingIdx of [-1, 2]) {
            const ids = someIds(n);
            const A = draw(r * vocab);
            const B = draw(dim * r);
            const dy = draw(n * dim);
            const y0 = draw(n * dim);
            const f = draw(n);
            const label = JSON.stringify({ n, dim, r, s, paddingIdx });

            const rowsOfA = zeros(n * r);
            ids.forEach((id, i) => {
              for (let q = 0; q < r; q++) rowsOfA[i * r + q] = A[q * vocab + id]!;
            });
            const hs = scaled(rowsOfA, s);
            const y = addProduct(y0.slice(), hs, transposed(B, dim, r), n, dim, r);
            const forward = new Frame(engine, `loraEmbeddingForward ${label}`);
            engine.kernels.loraEmbeddingForward({
              n,
              dim,
              r,
              vocab,
              s,
              ids: forward.integers("ids", ids),
              a: forward.input("A", A),
              b: forward.input("B", B),
              hs: forward.output("hs", hs),
              y: forward.output("y", y, y0),
              scratch: scratch.address,
            });
            forward.end();

            const zs = addProduct(zeros(n * r), dy, scaled(B, s), n, r, dim);
            for (const mask of [0, 1, 2, 3])
              for (const factors of [false, true]) {
                const backward = new Frame(engine, `loraEmbeddingBackward ${label} mask ${mask} factors ${factors}`);
                const before = { dA: draw(r * vocab), dB: draw(dim * r) };
                const dA = before.dA.slice();
                const dB = before.dB.slice();
                ids.forEach((id, i) => {
                  if (id === paddingIdx) return;
                  for (let q = 0; q < r; q++)
                    dA[q * vocab + id] = dA[q * vocab + id]! + f32((factors ? f[i]! : 1) * zs[i * r + q]!);
                });
                addProduct(dB, transposed(dy, n, dim), hs, dim, r, n);
                engine.kernels.loraEmbeddingBackward({
                  n,
                  dim,
                  r,
                  vocab,
                  s,
                  paddingIdx,
                  ids: backward.integers("ids", ids),
                  f: factors ? backward.input("f", f) : 0,
                  b: backward.input("B", B),
                  hs: backward.input("hs", hs),
                  zs: backward.room("zs", n * r).address,
                  dy: backward.input("dy", dy),
                  da: mask & 1 ? 0 : backward.output("dA", dA, before.dA),
                  db: mask & 2 ? 0 : backward.output("dB", dB, before.dB),
                  scratch: scratch.address,
                });
                backward.end();
              }
          }
  endScratch(scratch);
});

test("lora merge: both layouts, blocks of 32 rows", async () => {
  const engine = await init();
  const scratch = scratchOf(engine);
  const add = madd();
  for (const fanInFanOut of [false, true])
    for (const height of [1, 2, 31, 32, 33, 63, 64, 65])
      for (const width of WIDTHS) {
        for (const r of RANKS)
          for (const s of [...SCALES, -1]) {
            const [k, d] = fanInFanOut ? [width, height] : [height, width];
            const A = draw(r * d);
            const B = draw(k * r);
            const W = draw(k * d);
            const product = addProduct(zeros(k * d), B, A, k, d, r);
            const update = fanInFanOut ? transposed(product, k, d) : product;
            const f = new Frame(engine, `loraMerge ${JSON.stringify({ k, d, r, s, fanInFanOut })}`);
            engine.kernels.loraMerge({
              k,
              d,
              r,
              s,
              weight: f.output(
                "W",
                W.map((w, i) => add(w, s, update[i]!)),
                W,
              ),
              fanInFanOut,
              a: f.input("A", A),
              b: f.input("B", B),
              rows: f.room("rows", engine.kernels.mergeRowsBytes(width) / 4).address,
              scratch: scratch.address,
            });
            f.end();
          }
      }
  endScratch(scratch);
});

/** Sizes 0 to 19 at all combinations of three operands' offsets. */
function everyTail(visit: (n: number, offset: (index: number) => number) => void): void {
  for (const n of range(0, 19)) for (const at of range(0, 63)) visit(n, (index) => (at >> (2 * index)) & 3);
}

test("addForward, mulForward and mulBackward", async () => {
  const engine = await init();
  const { addForward, mulForward, mulBackward } = engine.kernels;
  const formulas = {
    addForward: (a: number, b: number) => f32(a + b),
    mulForward: (a: number, b: number) => f32(a * b),
  };
  everyTail((n, offset) => {
    const a = draw(n);
    const b = draw(n);
    const before = draw(n);
    for (const [name, kernel] of Object.entries({ addForward, mulForward })) {
      const y = a.map((v, i) => formulas[name as keyof typeof formulas](v, b[i]!));
      const apart = new Frame(engine, `${name} n ${n}`, offset);
      kernel(apart.output("y", y), apart.input("a", a), apart.input("b", b), n);
      apart.end();
      const onA = new Frame(engine, `${name} n ${n}, y is a`, offset);
      const both = onA.output("y", y, a);
      kernel(both, both, onA.input("b", b), n);
      onA.end();
      const onB = new Frame(engine, `${name} n ${n}, y is b`, offset);
      const target = onB.output("y", y, b);
      kernel(target, onB.input("a", a), target, n);
      onB.end();
    }
    const f = new Frame(engine, `mulBackward n ${n}`, offset);
    mulBackward(
      f.output(
        "da",
        before.map((v, i) => v + f32(a[i]! * b[i]!)),
        before,
      ),
      f.input("dy", a),
      f.input("b", b),
      n,
    );
    f.end();
  });
});

test("sscal, saxpy and addScalar", async () => {
  const engine = await init();
  everyTail((n, offset) => {
    const x = draw(n);
    const y = draw(n);
    for (const alpha of [0, 1, f32(-0.7)]) {
      const f = new Frame(engine, `sscal, saxpy, addScalar n ${n} alpha ${alpha}`, offset);
      const scaled = x.map((v) => alpha * v);
      engine.kernels.sscal(f.output("x", scaled, x), n, alpha);
      const summed = y.map((v, i) => v + f32(alpha * x[i]!));
      engine.kernels.saxpy(f.output("y", summed, y), f.input("x", x), n, alpha);
      const shifted = x.map((v) => v + alpha);
      engine.kernels.addScalar(f.output("x", shifted, x), n, alpha);
      f.end();
    }
  });
});

test("strides: copies, and multiples added where they repeat", async () => {
  const engine = await init();
  type Dim = [size: number, ys: number, xs: number];
  const one: Dim = [1, 0, 0];
  const cases: [Dim, Dim, Dim][] = [
    [one, one, one],
    [one, one, [5, 1, 1]],
    [one, [3, 5, 7], [5, 1, 1]],
    [
      [2, 21, 33],
      [3, 7, 11],
      [7, 1, 1],
    ],
    // Transposed, with every remainder of four; a column repeated, a row, one element.
    [one, [5, 7, 1], [7, 1, 5]],
    [
      [2, 48, 48],
      [6, 8, 1],
      [8, 1, 6],
    ],
    [one, [9, 4, 1], [4, 1, 9]],
    [
      [3, 15, 1],
      [5, 3, 3],
      [3, 1, 15],
    ],
    [one, [4, 6, 1], [6, 1, 0]],
    [
      [3, 20, 0],
      [4, 5, 0],
      [5, 1, 1],
    ],
    [one, [3, 4, 0], [4, 1, 0]],
    [
      [2, 12, 4],
      [3, 4, 0],
      [4, 1, 1],
    ],
    [
      [0, 1, 1],
      [3, 1, 1],
      [2, 1, 1],
    ],
    [
      [2, 0, 0],
      [3, 2, 2],
      [0, 1, 1],
    ],
  ];
  const extent = (dims: readonly Dim[], which: 1 | 2): number =>
    dims.some(([n]) => n === 0) ? 0 : 1 + dims.reduce((sum, d) => sum + (d[0] - 1) * d[which], 0);
  const named = ([[n, ys, xs], [n1, ys1, xs1], [n2, ys2, xs2]]: [Dim, Dim, Dim]) => {
    return { n, ys, xs, n1, ys1, xs1, n2, ys2, xs2 };
  };
  for (const dims of cases) {
    const visit = (run: (y: number, x: number) => void): void => {
      for (let i = 0; i < dims[0][0]; i++)
        for (let j = 0; j < dims[1][0]; j++)
          for (let k = 0; k < dims[2][0]; k++) {
            run(i * dims[0][1] + j * dims[1][1] + k * dims[2][1], i * dims[0][2] + j * dims[1][2] + k * dims[2][2]);
          }
    };
    const small = draw(extent(dims, 2));
    const large = draw(extent(dims, 1));
    const label = JSON.stringify(dims);
    const copied = large.slice();
    visit((y, x) => {
      copied[y] = small[x]!;
    });
    const f = new Frame(engine, `stridedCopy ${label}`);
    engine.kernels.stridedCopy({ y: f.output("y", copied, large), x: f.input("x", small), ...named(dims) });
    f.end();
    // y repeats x's elements, and x y's.
    const changedOver = dims.map(([n, ys, xs]) => [n, xs, ys] as const) as unknown as [Dim, Dim, Dim];
    for (const alpha of [1, -1, f32(0.3)])
      for (const adjoint of [false, true]) {
        const [from, to] = adjoint ? [large, small.slice()] : [small, large.slice()];
        const before = to.slice();
        const used = adjoint ? changedOver : dims;
        visit((y, x) => {
          const [at, of] = adjoint ? [x, y] : [y, x];
          to[at] = to[at]! + f32(alpha * from[of]!);
        });
        const g = new Frame(engine, `stridedAxpy ${label}, alpha ${alpha}, adjoint ${adjoint}`);
        engine.kernels.stridedAxpy({
          alpha,
          y: g.output("y", to, before),
          x: g.input("x", from),
          ...named(used),
        });
        g.end();
      }
  }
});

test("axisSum: four lanes in float64 along any axis; axisMax: the first largest, or NaN", async () => {
  const engine = await init();
  for (const outer of [0, 1, 3])
    for (const n of [0, 1, 2, 3, 4, 5, 7, 8, 33])
      for (const inner of [0, 1, 2, 3, 4, 5, 17])
        for (const divisor of [1, 3]) {
          const x = draw(outer * n * inner).map((v, i) => v * 2 ** (((i * 7) % 60) - 30));
          const y = zeros(outer * inner);
          const at = new Int32Array(outer * inner);
          // Few values, so that some are equal.
          const ties = x.map((_, i) => ((i * 13) % 7 === 0 && n % 3 === 0 ? NaN : (i * 5) % 4));
          for (let o = 0; o < outer; o++)
            for (let i = 0; i < inner; i++) {
              const lanes = [0, 0, 0, 0];
              const place = (j: number): number => (o * n + j) * inner + i;
              for (let j = 0; j < n; j++) lanes[j % 4] = lanes[j % 4]! + x[place(j)]!;
              y[o * inner + i] = (lanes[0]! + lanes[1]! + (lanes[2]! + lanes[3]!)) / divisor;
              const column = Array.from({ length: n }, (_, j) => ties[place(j)]!);
              at[o * inner + i] = column.some(Number.isNaN)
                ? column.findIndex(Number.isNaN)
                : column.indexOf(Math.max(...column));
            }
          const f = new Frame(engine, `axisSum ${JSON.stringify({ outer, n, inner, divisor })}`);
          engine.kernels.axisSum(f.output("y", y), f.input("x", x), outer, n, inner, divisor);
          if (n > 0)
            engine.kernels.axisMax(f.output("at", new Float32Array(at.buffer)), f.input("ties", ties), outer, n, inner);
          f.end();
        }
});

test("sum and sumSquares: four lanes in float64", async () => {
  const engine = await init();
  const lanes = (x: Float32Array, term: (v: number) => number): number => {
    const l = [0, 0, 0, 0];
    x.forEach((v, i) => {
      l[i % 4] = l[i % 4]! + term(v);
    });
    return l[0]! + l[1]! + (l[2]! + l[3]!);
  };
  for (const n of [...range(0, 19), 1000, 4099])
    for (const offset of range(0, 3)) {
      // Magnitudes that vary widely, so that another order gives other bits.
      const x = draw(n).map((v, i) => v * 2 ** (((i * 7) % 60) - 30));
      const f = new Frame(engine, `sum n ${n}`, () => offset);
      const address = f.input("x", x);
      assert.ok(
        Object.is(
          engine.kernels.sum(address, n),
          lanes(x, (v) => v),
        ),
        `sum n ${n}`,
      );
      assert.ok(
        Object.is(
          engine.kernels.sumSquares(address, n),
          lanes(x, (v) => v * v),
        ),
        `sumSquares n ${n}`,
      );
      f.end();
    }
});

test("mse, forward and backward", async () => {
  const engine = await init();
  everyTail((n, offset) => {
    const x = draw(n);
    const target = draw(n);
    const before = draw(n);
    const g = f32(0.3);
    const difference = x.map((v, i) => v - target[i]!);
    const f = new Frame(engine, `mse n ${n}`, offset);
    const px = f.input("x", x);
    const pt = f.input("target", target);
    const loss = difference.reduce((sum, v) => sum + v * v, 0) / n;
    assert.ok(Object.is(engine.kernels.mseForward(px, pt, n), f32(loss)), `mse n ${n}`);
    const scale = f32(f32(g * 2) / n);
    engine.kernels.mseBackward(
      f.output(
        "dx",
        before.map((v, i) => v + f32(scale * difference[i]!)),
        before,
      ),
      px,
      pt,
      n,
      g,
    );
    f.end();
  });
});

test("rope: rotation and its inverse, at any positions, the rest passed through", async () => {
  const engine = await init();
  for (const pairs of [1, 2, 3, 4, 9, 16])
    for (const rest of [0, 1, 6])
      for (const rows of [0, 1, 7])
        for (const heads of [1, 3]) {
          const dim = 2 * pairs + rest;
          const size = rows * heads * dim;
          const cos = draw(5 * pairs);
          const sin = draw(5 * pairs);
          const positions = Array.from({ length: rows }, (_, i) => (i * 3 + 4) % 5);
          const x = draw(size);
          const before = draw(size);
          const y = x.slice();
          const dx = before.map((b, i) => b + x[i]!);
          for (let row = 0; row < rows * heads; row++) {
            for (let j = 0; j < pairs; j++) {
              const c = cos[positions[Math.floor(row / heads)]! * pairs + j]!;
              const s = sin[positions[Math.floor(row / heads)]! * pairs + j]!;
              const i1 = row * dim + j;
              const i2 = i1 + pairs;
              y[i1] = f32(x[i1]! * c) - f32(x[i2]! * s);
              y[i2] = f32(x[i2]! * c) + f32(x[i1]! * s);
              dx[i1] = before[i1]! + f32(f32(x[i1]! * c) + f32(x[i2]! * s));
              dx[i2] = before[i2]! + f32(f32(x[i2]! * c) - f32(x[i1]! * s));
            }
          }
          const f = new Frame(engine, `rope ${JSON.stringify({ pairs, dim, rows, heads })}`);
          const px = f.input("x", x);
          const pc = f.input("cos", cos);
          const ps = f.input("sin", sin);
          const pp = f.integers("positions", positions);
          engine.kernels.ropeForward({
            y: f.output("y", y),
            x: px,
            cos: pc,
            sin: ps,
            positions: pp,
            rows,
            heads,
            dim,
            pairs,
          });
          engine.kernels.ropeBackward({
            dx: f.output("dx", dx, before),
            dy: px,
            cos: pc,
            sin: ps,
            positions: pp,
            rows,
            heads,
            dim,
            pairs,
          });
          f.end();
        }
});

test("sgdStep: five steps of each variant", async () => {
  const engine = await init();
  const lr = f32(0.05);
  for (const n of [0, 1, 2, 3, 4, 5, 17])
    for (const momentum of [0, f32(0.9)])
      for (const weightDecay of [0, f32(0.01)]) {
        for (const nesterov of momentum === 0 ? [false] : [false, true]) {
          let p = draw(n).slice();
          let buf = new Float32Array(n).fill(NaN);
          for (const step of range(1, 5)) {
            const g = draw(n);
            const first = step === 1;
            const before = { p, buf };
            p = p.slice();
            buf = buf.slice();
            for (let i = 0; i < n; i++) {
              let d = g[i]!;
              if (weightDecay !== 0) d = f32(d + f32(weightDecay * p[i]!));
              if (momentum !== 0) {
                buf[i] = first ? d : f32(momentum * buf[i]!) + d;
                d = nesterov ? f32(d + f32(momentum * buf[i]!)) : buf[i]!;
              }
              p[i] = p[i]! - f32(lr * d);
            }
            const f = new Frame(engine, `sgdStep ${JSON.stringify({ n, momentum, weightDecay, nesterov, step })}`);
            engine.kernels.sgdStep({
              p: f.output("p", p, before.p),
              g: f.input("g", g),
              buf: momentum === 0 ? 0 : f.output("buf", buf, before.buf),
              n,
              lr,
              momentum,
              weightDecay,
              nesterov,
              first,
            });
            f.end();
          }
        }
      }
});

test("adamStep: five steps of Adam, Adam with L2 and AdamW", async () => {
  const engine = await init();
  const lr = 0.01;
  const beta1 = f32(0.9);
  const beta2 = f32(0.999);
  const rest1 = f32(0.1);
  const rest2 = f32(0.001);
  const eps = f32(1e-8);
  for (const n of [0, 1, 2, 3, 4, 5, 17])
    for (const [decay, l2] of [
      [1, 0],
      [1, f32(0.02)],
      [f32(1 - lr * 0.1), 0],
    ] as const) {
      let p = draw(n).slice();
      let m = zeros(n);
      let v = zeros(n);
      for (const step of range(1, 5)) {
        const g = draw(n);
        const before = { p, m, v };
        const stepSize = f32(lr / (1 - 0.9 ** step));
        const root = f32(Math.sqrt(1 - 0.999 ** step));
        p = p.slice();
        m = m.slice();
        v = v.slice();
        for (let i = 0; i < n; i++) {
          const w = f32(p[i]! * decay);
          const d = f32(g[i]! + f32(l2 * w));
          m[i] = f32(beta1 * m[i]!) + f32(rest1 * d);
          v[i] = f32(beta2 * v[i]!) + f32(rest2 * f32(d * d));
          const denominator = f32(f32(f32(Math.sqrt(v[i]!)) / root) + eps);
          p[i] = w - f32(f32(stepSize * m[i]!) / denominator);
        }
        const f = new Frame(engine, `adamStep ${JSON.stringify({ n, decay, l2, step })}`);
        engine.kernels.adamStep({
          p: f.output("p", p, before.p),
          g: f.input("g", g),
          m: f.output("m", m, before.m),
          v: f.output("v", v, before.v),
          n,
          decay,
          l2,
          beta1,
          rest1,
          beta2,
          rest2,
          stepSize,
          rootCorrection2: root,
          eps,
        });
        f.end();
      }
    }
});

test("cosineDecay: half a cosine, exact at its ends", async () => {
  const { kernels } = await init();
  assert.equal(kernels.cosineDecay(0), 1);
  assert.ok(Math.abs(kernels.cosineDecay(1)) <= 1e-7);
  for (const i of range(0, 1000)) {
    const expected = (1 + Math.cos((Math.PI * i) / 1000)) / 2;
    assert.ok(Math.abs(kernels.cosineDecay(i / 1000) - expected) <= 1e-6, `cosineDecay(${i / 1000})`);
  }
});

test.run();
