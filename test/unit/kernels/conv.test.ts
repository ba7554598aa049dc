/**
 * Convolution kernels against sequential Math.fround references, by bits: every remainder of positions,
 * channels, groups, strides, paddings and dilations, with and without a branch, a base and dropout.
 * Operands are misaligned and lie between guards; gradients are added to buffers that hold something.
 */
import assert from "node:assert/strict";
import { test } from "uvu";
import type { ConvShape } from "../../../src/runtime/abi.js";
import { type Engine, init } from "../../../src/runtime/engine.js";
import { addProduct, draw, Frame, scaled } from "../../support/frame.js";
import { Operand, transposed } from "../../support/kernels.js";

type Three = readonly [number, number, number];
interface Shape {
  cin: number;
  size: Three;
  cout: number;
  kernel: Three;
  stride: Three;
  padding: Three;
  dilation: Three;
  groups: number;
}
interface Case extends Shape {
  n: number;
  r: number;
  s: number;
  base: boolean;
  bias: boolean;
  dropout: boolean;
  columns: number;
}

const zeros = (length: number): Float32Array => new Float32Array(length);
const product = (sizes: readonly number[]): number => sizes.reduce((n, d) => n * d, 1);
const outOf = ({ size, kernel, stride, padding, dilation }: Shape): Three =>
  size.map(
    (z, i) => Math.floor((z + 2 * padding[i]! - dilation[i]! * (kernel[i]! - 1) - 1) / stride[i]!) + 1,
  ) as unknown as Three;

/** For each (channel, tap) and position, the element of one image that it reads, or -1 for padding. */
function columnIndices(c: Shape): Int32Array {
  const [D, H, W] = c.size;
  const [OD, OH, OW] = outOf(c);
  const indices: number[] = [];
  for (let ch = 0; ch < c.cin; ch++)
    for (let a = 0; a < c.kernel[0]; a++)
      for (let b = 0; b < c.kernel[1]; b++)
        for (let e = 0; e < c.kernel[2]; e++) {
          for (let od = 0; od < OD; od++)
            for (let oh = 0; oh < OH; oh++)
              for (let ow = 0; ow < OW; ow++) {
                const d = od * c.stride[0] + a * c.dilation[0] - c.padding[0];
                const h = oh * c.stride[1] + b * c.dilation[1] - c.padding[1];
                const w = ow * c.stride[2] + e * c.dilation[2] - c.padding[2];
                const inside = d >= 0 && d < D && h >= 0 && h < H && w >= 0 && w < W;
                indices.push(inside ? ((ch * D + d) * H + h) * W + w : -1);
              }
        }
  return Int32Array.from(indices);
}

const columnsOf = (image: Float32Array, indices: Int32Array): Float32Array =>
  Float32Array.from(indices, (i) => (i < 0 ? 0 : image[i]!));

/** dx[i] += each column value that stands for x[i], positions ascending. */
function addColumns(dx: Float32Array, columns: Float32Array, indices: Int32Array, positions: number): void {
  for (let p = 0; p < positions; p++) {
    for (let at = p; at < indices.length; at += positions)
      if (indices[at]! >= 0) dx[indices[at]!] = dx[indices[at]!]! + columns[at]!;
  }
}

function sizesOf(c: Case) {
  const positions = product(outOf(c));
  const window = c.cin * product(c.kernel);
  return {
    positions,
    window,
    image: c.cin * product(c.size),
    outs: c.cout / c.groups,
    depth: window / c.groups,
    ranks: c.r / c.groups,
  };
}

function operands(c: Case) {
  const { positions, window, image, depth, ranks } = sizesOf(c);
  const x = draw(c.n * image);
  return {
    x,
    xDropped: c.dropout ? draw(c.n * image) : x,
    W: draw(c.cout * depth),
    bias: draw(c.cout),
    A: draw(c.r * window),
    B: draw(c.cout * ranks),
    dy: draw(c.n * c.cout * positions),
    indices: columnIndices(c),
  };
}
type Operands = ReturnType<typeof operands>;

/** Part i of `parts` equal ones. */
const part = (x: Float32Array, i: number, parts: number): Float32Array =>
  x.subarray((i * x.length) / parts, ((i + 1) * x.length) / parts);

function hidden(c: Case, o: Operands): Float32Array {
  const { positions, window } = sizesOf(c);
  const h = zeros(c.n * c.r * positions);
  for (let i = 0; i < c.n; i++)
    addProduct(part(h, i, c.n), o.A, columnsOf(part(o.xDropped, i, c.n), o.indices), c.r, positions, window);
  return h;
}

function shapeOf(c: Shape): ConvShape {
  const [id, ih, iw] = c.size;
  const [od, oh, ow] = outOf(c);
  const [kd, kh, kw] = c.kernel;
  const [sd, sh, sw] = c.stride;
  const [pd, ph, pw] = c.padding;
  const [dd, dh, dw] = c.dilation;
  const [inChannels, outChannels, groups] = [c.cin, c.cout, c.groups];
  return { inChannels, id, ih, iw, outChannels, od, oh, ow, kd, kh, kw, sd, sh, sw, pd, ph, pw, dd, dh, dw, groups };
}

function checkForward(engine: Engine, scratch: number, c: Case, o: Operands, h: Float32Array): void {
  const { positions, window, outs, depth, ranks } = sizesOf(c);
  const before = draw(c.n * c.cout * positions);
  const y = c.base ? zeros(before.length) : before.slice();
  for (let i = 0; i < c.n; i++) {
    const yi = part(y, i, c.n);
    const columns = columnsOf(part(o.x, i, c.n), o.indices);
    if (c.base && c.bias) for (let j = 0; j < c.cout; j++) part(yi, j, c.cout).fill(o.bias[j]!);
    for (let g = 0; g < c.groups; g++) {
      if (c.base)
        addProduct(part(yi, g, c.groups), part(o.W, g, c.groups), part(columns, g, c.groups), outs, positions, depth);
      addProduct(
        part(yi, g, c.groups),
        part(o.B, g, c.groups),
        scaled(part(part(h, i, c.n), g, c.groups), c.s),
        outs,
        positions,
        ranks,
      );
    }
  }
  const f = new Frame(engine, `loraConvForward ${JSON.stringify(c)}`);
  const x = f.input("x", o.x);
  engine.kernels.loraConvForward({
    ...shapeOf(c),
    n: c.n,
    r: c.r,
    s: c.s,
    x,
    xDropped: c.dropout ? f.input("xDropped", o.xDropped) : x,
    weight: c.base ? f.input("W", o.W) : 0,
    bias: c.base && c.bias ? f.input("bias", o.bias) : 0,
    a: c.r ? f.input("A", o.A) : 0,
    b: c.r ? f.input("B", o.B) : 0,
    h: c.r ? f.output("h", h) : 0,
    y: c.base ? f.output("y", y) : f.output("y", y, before),
    panel: f.room("panel", engine.kernels.convPanelBytes(window) / 4).address,
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

function checkBackward(engine: Engine, scratch: number, c: Case, o: Operands, h: Float32Array, wanted: Wanted): void {
  const { n, r, s, groups } = c;
  const { positions, window, image, outs, depth, ranks } = sizesOf(c);
  const lora = r > 0;
  const sums = {
    dx: draw(n * image).slice(),
    dxDropped: zeros(n * image),
    dW: draw(o.W.length).slice(),
    dbias: draw(c.cout).slice(),
    dA: draw(o.A.length).slice(),
    dB: draw(o.B.length).slice(),
  };
  const before = Object.fromEntries(
    Object.entries(sums).map(([name, values]) => [name, values.slice()]),
  ) as typeof sums;
  for (let i = 0; i < n; i++) {
    const dy = part(o.dy, i, n);
    const dx = part(sums.dx, i, n);
    const adjoint = zeros(window * positions);
    const zs = zeros(r * positions);
    const columns = columnsOf(part(o.x, i, n), o.indices);
    const dropped = columnsOf(part(o.xDropped, i, n), o.indices);
    addProduct(sums.dbias, dy, new Float32Array(positions).fill(1), c.cout, 1, positions);
    for (let g = 0; g < groups; g++) {
      const dyg = part(dy, g, groups);
      const hg = scaled(part(part(h, i, n), g, groups), s);
      const Bg = part(o.B, g, groups);
      addProduct(
        part(sums.dW, g, groups),
        dyg,
        transposed(part(columns, g, groups), depth, positions),
        outs,
        depth,
        positions,
      );
      addProduct(part(adjoint, g, groups), transposed(part(o.W, g, groups), outs, depth), dyg, depth, positions, outs);
      addProduct(part(sums.dB, g, groups), dyg, transposed(hg, ranks, positions), outs, ranks, positions);
      addProduct(part(zs, g, groups), transposed(Bg, outs, ranks), scaled(dyg, s), ranks, positions, outs);
    }
    if (c.base) addColumns(dx, adjoint, o.indices, positions);
    if (!lora) continue;
    addProduct(sums.dA, zs, transposed(dropped, window, positions), r, window, positions);
    const branch = addProduct(zeros(window * positions), transposed(o.A, r, window), zs, window, positions, r);
    addColumns(c.dropout ? part(sums.dxDropped, i, n) : dx, branch, o.indices, positions);
  }
  const f = new Frame(engine, `loraConvBackward ${JSON.stringify(c)} wanted ${JSON.stringify(wanted)}`);
  const gradient = (name: keyof Wanted, exists: boolean): number =>
    wanted[name] && exists ? f.output(name, sums[name], before[name]) : 0;
  const x = f.input("x", o.x);
  engine.kernels.loraConvBackward({
    ...shapeOf(c),
    n,
    r,
    s,
    x,
    xDropped: c.dropout ? f.input("xDropped", o.xDropped) : x,
    weight: c.base ? f.input("W", o.W) : 0,
    a: lora ? f.input("A", o.A) : 0,
    b: lora ? f.input("B", o.B) : 0,
    h: lora ? f.input("h", h) : 0,
    zs: lora ? f.room("zs", r * positions).address : 0,
    dy: f.input("dy", o.dy),
    dx: gradient("dx", true),
    dxDropped: c.dropout && wanted.dx ? f.output("dxDropped", sums.dxDropped) : 0,
    dWeight: gradient("dW", c.base),
    dBias: gradient("dbias", c.base),
    da: gradient("dA", lora),
    db: gradient("dB", lora),
    tile: f.room("tile", window * c.columns).address,
    columns: c.columns,
    scratch,
  });
  f.end();
}

async function checkAll(cases: Iterable<Case>, wanted: readonly Wanted[] = [ALL]): Promise<void> {
  const engine = await init();
  const scratch = new Operand(engine.memory, 1, engine.kernels.sgemmScratchBytes() / 4);
  let count = 0;
  for (const c of cases) {
    const o = operands(c);
    const h = hidden(c, o);
    checkForward(engine, scratch.address, c, o, h);
    for (const w of wanted) checkBackward(engine, scratch.address, c, o, h, w);
    count++;
  }
  assert(count > 0);
  scratch.assertGuards(() => "scratch");
  scratch.free();
}

/** Plain, with a branch, with dropout on it, and the branch alone; the scaling's products are rounded. */
function* variants(shape: Shape, n: number, columns: number): Generator<Case> {
  const { groups } = shape;
  yield { ...shape, n, columns, r: 0, s: 0, base: true, bias: false, dropout: false };
  yield { ...shape, n, columns, r: groups, s: 1, base: true, bias: true, dropout: false };
  yield { ...shape, n, columns, r: 2 * groups, s: Math.fround(1.7), base: true, bias: false, dropout: true };
  yield { ...shape, n, columns, r: 3 * groups, s: Math.fround(0.3), base: false, bias: false, dropout: false };
  yield { ...shape, n, columns, r: groups, s: Math.fround(-1.3), base: false, bias: false, dropout: true };
}

const one = (x: number): Three => [1, 1, x];

test("conv kernels, 1-D: every remainder of the positions", async () => {
  await checkAll(
    (function* () {
      for (let length = 1; length <= 35; length++)
        for (const [k, stride, padding, dilation] of [
          [1, 1, 0, 1],
          [3, 1, 1, 1],
          [2, 2, 0, 1],
          [3, 1, 4, 2],
          [5, 3, 2, 1],
        ] as const) {
          if (dilation * (k - 1) + 1 > length + 2 * padding) continue;
          const shape: Shape = {
            cin: 2,
            size: one(length),
            cout: 3,
            kernel: one(k),
            stride: one(stride),
            padding: [0, 0, padding],
            dilation: one(dilation),
            groups: 1,
          };
          yield* variants(shape, 2, [1, 5, 16, 128][length % 4]!);
        }
    })(),
  );
});

test("conv kernels, 2-D: channels, groups, strides, paddings, dilations", async () => {
  await checkAll(
    (function* () {
      const windows: [kernel: Three, stride: Three, padding: Three, dilation: Three][] = [
        [
          [1, 1, 1],
          [1, 1, 1],
          [0, 0, 0],
          [1, 1, 1],
        ],
        [
          [1, 3, 3],
          [1, 1, 1],
          [0, 1, 1],
          [1, 1, 1],
        ],
        [
          [1, 3, 3],
          [1, 2, 2],
          [0, 1, 1],
          [1, 1, 1],
        ],
        [
          [1, 2, 3],
          [1, 1, 2],
          [0, 2, 0],
          [1, 3, 2],
        ],
        [
          [1, 5, 4],
          [1, 3, 1],
          [0, 4, 6],
          [1, 1, 1],
        ],
        [
          [1, 3, 2],
          [1, 2, 3],
          [0, 0, 3],
          [1, 2, 1],
        ],
      ];
      for (const [kernel, stride, padding, dilation] of windows)
        for (const [cin, cout, groups] of [
          [1, 1, 1],
          [3, 5, 1],
          [4, 6, 2],
          [3, 6, 3],
          [5, 5, 5],
          [8, 17, 1],
        ] as const) {
          for (const size of [
            [1, 5, 7],
            [1, 9, 8],
            [1, 6, 19],
          ] as const)
            yield* variants({ cin, cout, groups, size, kernel, stride, padding, dilation }, 2, 13);
        }
    })(),
  );
});

test("conv kernels, 3-D", async () => {
  await checkAll(
    (function* () {
      for (const [kernel, stride, padding, dilation] of [
        [
          [3, 3, 3],
          [1, 1, 1],
          [1, 1, 1],
          [1, 1, 1],
        ],
        [
          [2, 1, 3],
          [2, 3, 1],
          [1, 0, 2],
          [1, 1, 2],
        ],
        [
          [1, 2, 2],
          [1, 1, 2],
          [2, 1, 0],
          [3, 2, 1],
        ],
      ] as [Three, Three, Three, Three][])
        for (const [cin, cout, groups] of [
          [2, 3, 1],
          [4, 2, 2],
        ] as const)
          for (const size of [
            [3, 4, 5],
            [4, 3, 17],
          ] as Three[]) {
            yield* variants({ cin, cout, groups, size, kernel, stride, padding, dilation }, 2, 24);
          }
    })(),
  );
});

test("conv kernels: windows longer than a k-block, no image, one image", async () => {
  const shape: Shape = {
    cin: 45,
    size: [1, 5, 6],
    cout: 6,
    kernel: [1, 3, 3],
    stride: [1, 1, 1],
    padding: [0, 1, 1],
    dilation: [1, 1, 1],
    groups: 1,
  };
  await checkAll([...variants(shape, 1, 30), ...variants(shape, 0, 30), ...variants({ ...shape, cout: 3 }, 1, 7)]);
});

test("conv kernels: a null gradient skips only its own output", async () => {
  const shape: Shape = {
    cin: 4,
    size: [1, 5, 6],
    cout: 6,
    kernel: [1, 3, 3],
    stride: [1, 2, 1],
    padding: [0, 1, 1],
    dilation: [1, 1, 1],
    groups: 2,
  };
  const wanted = Array.from(
    { length: 32 },
    (_, mask): Wanted => ({ dx: !(mask & 1), dW: !(mask & 2), dbias: !(mask & 4), dA: !(mask & 8), dB: !(mask & 16) }),
  );
  await checkAll(variants(shape, 2, 11), wanted);
});

test("conv kernels: what is not finite stays in its windows, and 0 * Inf is NaN", async () => {
  const engine = await init();
  const { kernels, scratch } = engine;
  const shape: Shape = {
    cin: 1,
    size: one(40),
    cout: 1,
    kernel: one(3),
    stride: one(1),
    padding: [0, 0, 1],
    dilation: one(1),
    groups: 1,
  };
  const x = zeros(40).fill(1);
  const w = Float32Array.of(0, 0, 0);
  const y = zeros(40);
  x[20] = Infinity;
  y.fill(NaN, 19, 22);
  const f = new Frame(engine, "infinity");
  const at = f.input("x", x);
  kernels.loraConvForward({
    ...shapeOf(shape),
    n: 1,
    r: 0,
    s: 0,
    x: at,
    xDropped: at,
    weight: f.input("W", w),
    bias: 0,
    a: 0,
    b: 0,
    h: 0,
    y: f.output("y", y),
    panel: f.room("panel", kernels.convPanelBytes(3) / 4).address,
    scratch,
  });
  f.end();
});

test.run();
