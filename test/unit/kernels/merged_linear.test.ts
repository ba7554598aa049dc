/** MergedLinear's kernels to the bit: sequential Math.fround sums over the bias, W and each enabled block's factors. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { type Engine, init } from "../../../src/runtime/engine.js";
import { addProduct, draw, Frame, scaled } from "../../support/frame.js";
import { Operand, transposed } from "../../support/kernels.js";
import { madd } from "../../support/madd.js";

const f32 = Math.fround;
const PATTERNS = [[true], [true, false, true], [false, true], [true, true, true], [false, false, true, false]];

interface Case {
  n: number;
  d: number;
  width: number;
  r: number;
  s: number;
  enabled: boolean[];
  fanInFanOut: boolean;
  bias: boolean;
  dropout: boolean;
}

const zeros = (length: number): Float32Array => new Float32Array(length);

/** Columns from .. from + count - 1 of x [rows, cols]. */
function columns(x: Float32Array, rows: number, cols: number, from: number, count: number): Float32Array {
  const y = zeros(rows * count);
  for (let i = 0; i < rows; i++) y.set(x.subarray(i * cols + from, i * cols + from + count), i * count);
  return y;
}

function setColumns(x: Float32Array, rows: number, cols: number, from: number, values: Float32Array): void {
  const count = rows === 0 ? 0 : values.length / rows;
  for (let i = 0; i < rows; i++) x.set(values.subarray(i * count, (i + 1) * count), i * cols + from);
}

function check(engine: Engine, scratch: number, c: Case, wanted: (name: string) => boolean): void {
  const { n, d, width, r, s, enabled, fanInFanOut } = c;
  const blocks = enabled.length;
  const k = width * blocks;
  const on = enabled.flatMap((e, i) => (e ? [i] : []));
  const g = on.length;
  const rank = g * r;
  const x = draw(n * d);
  const w = draw(d * k);
  const A = draw(rank * d);
  const B = draw(g * width * r);
  const bias = draw(k);
  const dy = draw(n * k);
  const xDropped = c.dropout ? draw(n * d) : x;
  const W = fanInFanOut ? w : transposed(w, d, k);
  const factorB = (j: number): Float32Array => B.subarray(j * width * r, (j + 1) * width * r);
  const label = JSON.stringify(c);

  const hs = addProduct(zeros(n * rank), xDropped, scaled(transposed(A, rank, d), s), n, rank, d);
  const y = zeros(n * k);
  if (c.bias) for (let i = 0; i < n; i++) y.set(bias, i * k);
  addProduct(y, x, w, n, k, d);
  const zs = zeros(n * rank);
  on.forEach((block, j) => {
    const sum = columns(y, n, k, block * width, width);
    setColumns(
      y,
      n,
      k,
      block * width,
      addProduct(sum, columns(hs, n, rank, j * r, r), transposed(factorB(j), width, r), n, width, r),
    );
    setColumns(
      zs,
      n,
      rank,
      j * r,
      addProduct(zeros(n * r), columns(dy, n, k, block * width, width), scaled(factorB(j), s), n, r, width),
    );
  });

  const forward = new Frame(engine, `mergedLinearForward ${label}`);
  const flags = enabled.map(Number);
  const fx = forward.input("x", x);
  engine.kernels.mergedLinearForward({
    n,
    d,
    k,
    r,
    blocks,
    s,
    enabled: forward.integers("enabled", flags),
    x: fx,
    xDropped: c.dropout ? forward.input("xDropped", xDropped) : fx,
    weight: forward.input("W", W),
    fanInFanOut,
    format: 0,
    bias: c.bias ? forward.input("bias", bias) : 0,
    a: forward.input("A", A),
    b: forward.input("B", B),
    hs: forward.output("hs", hs),
    y: forward.output("y", y),
    scratch,
  });
  forward.end();

  const backward = new Frame(
    engine,
    `mergedLinearBackward ${label} wanted ${["dx", "dW", "dbias", "dA", "dB"].filter(wanted)}`,
  );
  const grad = (name: string, length: number, add: (sum: Float32Array) => void): number => {
    if (!wanted(name)) return 0;
    const before = draw(length);
    const sum = before.slice();
    add(sum);
    return backward.output(name, sum, before);
  };
  const dx = grad("dx", n * d, (sum) => {
    addProduct(sum, dy, transposed(w, d, k), n, d, k);
    if (!c.dropout) addProduct(sum, zs, A, n, d, rank);
  });
  const dW = grad("dW", k * d, (sum) => {
    if (fanInFanOut) addProduct(sum, transposed(x, n, d), dy, d, k, n);
    else addProduct(sum, transposed(dy, n, k), x, k, d, n);
  });
  const dbias = grad("dbias", k, (sum) => {
    addProduct(sum, new Float32Array(n).fill(1), dy, 1, k, n);
  });
  const dA = grad("dA", rank * d, (sum) => {
    addProduct(sum, transposed(zs, n, rank), xDropped, rank, d, n);
  });
  const dB = grad("dB", g * width * r, (sum) =>
    on.forEach((block, j) =>
      addProduct(
        sum.subarray(j * width * r, (j + 1) * width * r),
        transposed(columns(dy, n, k, block * width, width), n, width),
        columns(hs, n, rank, j * r, r),
        width,
        r,
        n,
      ),
    ),
  );
  const dxDropped =
    c.dropout && wanted("dx") ? backward.output("dxDropped", addProduct(zeros(n * d), zs, A, n, d, rank)) : 0;
  const bx = backward.input("x", x);
  engine.kernels.mergedLinearBackward({
    n,
    d,
    k,
    r,
    blocks,
    s,
    enabled: backward.integers("enabled", flags),
    x: bx,
    xDropped: c.dropout ? backward.input("xDropped", xDropped) : bx,
    weight: backward.input("W", W),
    fanInFanOut,
    format: 0,
    a: backward.input("A", A),
    b: backward.input("B", B),
    hs: backward.input("hs", hs),
    zs: backward.room("zs", n * rank).address,
    dy: backward.input("dy", dy),
    dx,
    dxDropped,
    dWeight: dW,
    dBias: dbias,
    da: dA,
    db: dB,
    scratch,
  });
  backward.end();
}

async function withScratch(visit: (engine: Engine, scratch: number) => void): Promise<void> {
  const engine = await init();
  const scratch = new Operand(engine.memory, 1, engine.kernels.sgemmScratchBytes() / 4);
  visit(engine, scratch.address);
  scratch.assertGuards(() => "scratch");
  scratch.free();
}

for (const fanInFanOut of [false, true]) {
  test(`merged linear, forward and backward, fanInFanOut ${fanInFanOut}: every shape`, () =>
    withScratch((engine, scratch) => {
      for (const enabled of PATTERNS)
        for (const n of [0, 1, 2, 5, 17])
          for (const d of [1, 4, 15, 33])
            for (const width of [1, 3, 8, 17]) {
              for (const r of [1, 2, 5, 8])
                for (const s of [1, f32(1.7)])
                  for (const dropout of [false, true]) {
                    check(
                      engine,
                      scratch,
                      { n, d, width, r, s, enabled, fanInFanOut, bias: (n + r) % 2 === 0, dropout },
                      () => true,
                    );
                  }
            }
    }));
}

test("merged linear: a null gradient skips only its own output", () =>
  withScratch((engine, scratch) => {
    const names = ["dx", "dW", "dbias", "dA", "dB"];
    for (let mask = 0; mask < 32; mask++)
      for (const fanInFanOut of [false, true])
        for (const dropout of [false, true]) {
          check(
            engine,
            scratch,
            { n: 3, d: 7, width: 5, r: 2, s: 2, enabled: [true, false, true], fanInFanOut, bias: true, dropout },
            (name) => (mask >> names.indexOf(name)) % 2 === 0,
          );
        }
  }));

test("merged linear's merge: the rows, or columns, of enabled blocks and no others", () =>
  withScratch((engine, scratch) => {
    for (const fanInFanOut of [false, true])
      for (const enabled of PATTERNS)
        for (const d of [1, 31, 33, 65])
          for (const width of [1, 4, 33])
            for (const r of [1, 5]) {
              const blocks = enabled.length;
              const k = width * blocks;
              const g = enabled.filter(Boolean).length;
              const s = f32(-1.3);
              const w = draw(k * d);
              const A = draw(g * r * d);
              const B = draw(g * width * r);
              const merged = w.slice();
              let j = 0;
              for (let block = 0; block < blocks; block++) {
                if (!enabled[block]) continue;
                const product = addProduct(
                  zeros(width * d),
                  B.subarray(j * width * r, (j + 1) * width * r),
                  A.subarray(j * r * d, (j + 1) * r * d),
                  width,
                  d,
                  r,
                );
                for (let i = 0; i < width * d; i++)
                  merged[block * width * d + i] = madd()(merged[block * width * d + i]!, s, product[i]!);
                j++;
              }
              assert.equal(j, g);
              const layout = (t: Float32Array): Float32Array => (fanInFanOut ? transposed(t, k, d) : t);
              const f = new Frame(engine, `mergedLinearMerge ${JSON.stringify({ fanInFanOut, enabled, d, width, r })}`);
              engine.kernels.mergedLinearMerge({
                d,
                k,
                r,
                blocks,
                s,
                enabled: f.integers("enabled", enabled.map(Number)),
                weight: f.output("W", layout(merged), layout(w)),
                fanInFanOut,
                a: f.input("A", A),
                b: f.input("B", B),
                rows: f.room("rows", engine.kernels.mergeRowsBytes(fanInFanOut ? width : d) / 4).address,
                scratch,
              });
              f.end();
            }
  }));

test.run();
