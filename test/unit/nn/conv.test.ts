/** ops.conv, nn.Conv1d to Conv3d and lora.Conv1d to Conv3d: gradients, ranges of images, memory, merging, refusals. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  DTypeError,
  init,
  lora,
  manualSeed,
  memoryStats,
  nn,
  noGrad,
  ops,
  scope,
  ShapeError,
  StateError,
  tensor,
  type Tensor,
  zeros,
} from "../../../src/index.js";
import { newMask } from "../../../src/random/seed.js";
import { assertBits, assertClose } from "../../support/golden.js";
import { gradcheck, gridTensor as grid, perturb } from "../../support/gradcheck.js";
import { refuses } from "../../support/refuses.js";

await init();

/** Thirds are not on the float32 grid: every product rounds. */
function thirds<T extends Record<string, Tensor>>(tensors: T): T {
  for (const t of Object.values(tensors))
    t.data.forEach((v, i, all) => {
      all[i] = v / 3;
    });
  return tensors;
}

/** Images from .. to - 1. */
function images(t: Tensor, from: number, to: number): Tensor {
  const size = t.size / t.shape[0]!;
  const part = tensor(t.data.slice(from * size, to * size), [to - from, ...t.shape.slice(1)]);
  part.requiresGrad = t.requiresGrad;
  return part;
}

/** Copies of the gradients, which are then dropped. */
function takeGradients(tensors: Record<string, Tensor>): Record<string, Float32Array> {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, t]) => {
      const values = t.grad!.data.slice();
      t.grad!.dispose();
      t.grad = null;
      return [name, values];
    }),
  );
}

/* The op's backward against central differences. */

const cases: [name: string, x: number[], weight: number[], r: number, options: ops.ConvOptions][] = [
  ["1-D", [2, 3, 7], [4, 3, 3], 2, { stride: [2], padding: [1] }],
  ["2-D", [2, 4, 5, 4], [6, 2, 3, 2], 2, { stride: [1, 2], padding: [2, 0], dilation: [2, 1], groups: 2 }],
  ["3-D", [1, 2, 3, 4, 3], [2, 2, 2, 3, 1], 1, { padding: [1, 1, 0], dilation: [2, 1, 1] }],
];
for (const [name, xShape, wShape, r, options] of cases) {
  for (const p of [0, 0.3]) {
    for (const trainable of [false, true]) {
      test(`conv ${name}: dropout = ${p}, weight ${trainable ? "trainable" : "frozen"}`, () =>
        scope(() => {
          const x = grid(xShape, 1);
          const weight = grid(wShape, 2, trainable);
          const bias = grid([wShape[0]!], 3);
          const loraA = grid([r, xShape[1]!, ...wShape.slice(2)], 4);
          const loraB = grid([wShape[0]!, r / (options.groups ?? 1), ...wShape.slice(2).map(() => 1)], 5);
          gradcheck(name, { x, weight, bias, loraA, loraB }, () => {
            manualSeed(7);
            return ops.conv(x, weight, bias, options, [{ loraA, loraB, scaling: 1.5, mask: p ? newMask(p) : null }]);
          });
        }));
    }
  }
}

test("conv with branches for some images, without bias, and x that needs no gradient", () =>
  scope(() => {
    const x = grid([3, 2, 4, 3], 1);
    const weight = grid([2, 2, 2, 2], 2);
    const [A, B, C, D] = [
      grid([2, 2, 2, 2], 3),
      grid([2, 2, 1, 1], 4),
      grid([1, 2, 2, 2], 5),
      grid([2, 1, 1, 1], 6),
    ] as const;
    const op = (): Tensor => {
      manualSeed(7);
      return ops.conv(x, weight, null, {}, [
        { loraA: A, loraB: B, scaling: 0.5, mask: null, from: 1 },
        { loraA: C, loraB: D, scaling: -1.5, mask: newMask(0.5), from: 0, to: 2 },
      ]);
    };
    gradcheck("ranges", { x, weight, A, B, C, D }, op);
    x.requiresGrad = weight.requiresGrad = false;
    gradcheck("ranges, x constant", { x, weight, A, B, C, D }, op);
    gradcheck("plain", { x, weight }, () => ops.conv(x, grid([2, 2, 2, 2], 2)));
  }));

for (const make of [
  () => new lora.Conv1d(4, 6, 3, { r: 2, groups: 2 }),
  () => new lora.Conv2d(2, 3, [2, 3], { r: 1, padding: 1 }),
  () => new lora.Conv3d(2, 2, [2, 1, 2], { r: 1, stride: 2 }),
]) {
  for (const loraDropout of [0, 0.3]) {
    test(`lora.Conv${make().kernelSize.length}d: gradients with dropout ${loraDropout}`, () =>
      scope(() => {
        const layer = make();
        const x = grid([2, layer.inChannels, ...layer.kernelSize.map((k) => k + 2)], 1);
        Object.assign(layer, { loraDropout });
        for (const [i, t] of [layer.weight, layer.bias!, layer.loraA!, layer.loraB!].entries())
          t.set(grid(t.shape, i + 2, false).data);
        gradcheck(
          "layer",
          { x, weight: layer.weight, bias: layer.bias!, loraA: layer.loraA!, loraB: layer.loraB! },
          () => {
            manualSeed(7);
            return layer.forward(x);
          },
        );
        layer.dispose();
      }));
  }
}

/* Sums have one order. */

const batch = () =>
  thirds({
    x: grid([5, 4, 6, 7], 1),
    weight: grid([6, 2, 3, 3], 2),
    bias: grid([6], 3),
    loraA: grid([4, 4, 3, 3], 4),
    loraB: grid([6, 2, 1, 1], 5),
    dy: grid([5, 6, 3, 7], 6, false),
  });
const moved: ops.ConvOptions = { stride: [2, 1], padding: [1, 1], groups: 2 };

test("two backward() over parts of a batch give the bits of one over the whole", () =>
  scope(() => {
    const { x, weight, bias, loraA, loraB, dy } = batch();
    const step = (from: number, to: number): void =>
      ops
        .sum(
          ops.mul(
            ops.conv(images(x, from, to), weight, bias, moved, [{ loraA, loraB, scaling: 0.7, mask: null }]),
            images(dy, from, to),
          ),
        )
        .backward();
    step(0, 5);
    const whole = takeGradients({ weight, bias, loraA, loraB });
    for (const cut of [1, 2, 4]) {
      step(0, cut);
      step(cut, 5);
      for (const [name, g] of Object.entries(takeGradients({ weight, bias, loraA, loraB })))
        assertBits(`d${name}, cut at ${cut}`, g, whole[name]!);
    }
  }));

test("an image has the same bits alone, among others, and among others that use another adapter", () =>
  scope(() => {
    const { x, weight, bias, loraA, loraB, dy } = batch();
    const other = thirds({ loraA: grid([2, 4, 3, 3], 7), loraB: grid([6, 1, 1, 1], 8) });
    const run = (input: Tensor, g: Tensor, branches: ops.ConvBranch[]): [Float32Array, Float32Array] => {
      const y = ops.conv(input, weight, bias, moved, branches);
      const values = y.data.slice();
      ops.sum(ops.mul(y, g)).backward();
      return [values, takeGradients({ input })["input"]!];
    };
    const branch = { loraA, loraB, scaling: 0.7, mask: null };
    const second = { ...other, scaling: -1.1, mask: null };
    const all = run(x, dy, [branch]);
    const mixed = run(x, dy, [
      { ...branch, from: 0, to: 3 },
      { ...second, from: 3, to: 5 },
    ]);
    for (let i = 0; i < 5; i++) {
      const alone = run(images(x, i, i + 1), images(dy, i, i + 1), [branch]);
      const alone2 = run(images(x, i, i + 1), images(dy, i, i + 1), [second]);
      for (const [j, name] of ["y", "dx"].entries()) {
        const size = alone[j]!.length;
        const of = (whole: Float32Array): Float32Array => whole.slice(i * size, (i + 1) * size);
        assertBits(`${name} of image ${i}`, of(all[j]!), alone[j]!);
        assertBits(`${name} of image ${i}, mixed`, of(mixed[j]!), i < 3 ? alone[j]! : alone2[j]!);
      }
    }
  }));

test("a branch whose B is zero changes no bit", () =>
  scope(() => {
    const { x, weight, bias, loraA, loraB } = batch();
    loraB.data.fill(0);
    assertBits(
      "y",
      ops.conv(x, weight, bias, moved, [{ loraA, loraB, scaling: 2, mask: null }]).data,
      ops.conv(x, weight, bias, moved).data,
    );
  }));

test("a branch is the convolution with the product of its kernels", () =>
  scope(() => {
    // groups = 1: conv1(conv(x, A), B) = conv(x, sum over ranks of B A).
    const x = grid([2, 3, 6, 5], 1);
    const weight = grid([4, 3, 3, 2], 2);
    const loraA = grid([2, 3, 3, 2], 3);
    const loraB = grid([4, 2, 1, 1], 4);
    const product = ops.linear(ops.reshape(loraB, [4, 2]), ops.reshape(loraA, [2, 18]), null, [], true);
    const merged = ops.add(weight, ops.scale(ops.reshape(product, weight.shape), 1.5));
    const options = { stride: [1, 2], dilation: [2, 1] };
    assertClose(
      "y",
      ops.conv(x, weight, null, options, [{ loraA, loraB, scaling: 1.5, mask: null }]).data,
      ops.conv(x, merged, null, options).data,
    );
  }));

test("forward and backward make no column matrix", () =>
  scope(() => {
    const x = grid([4, 8, 48, 48], 1, false);
    const layer = new nn.Conv2d(8, 8, 5, { padding: 2 });
    const loraA = grid([4, 8, 5, 5], 2);
    const loraB = grid([8, 4, 1, 1], 3);
    const columns = 4 * 8 * 25 * 48 * 48 * 4;
    const before = memoryStats().liveBytes;
    ops
      .sum(ops.conv(x, layer.weight, layer.bias, geometry(layer), [{ loraA, loraB, scaling: 1, mask: null }]))
      .backward();
    const peak = memoryStats().peakBytes - before;
    // y, its gradient, h, and tiles: less than a fifth of the columns.
    assert(peak < columns / 5, `${peak} bytes at the peak; the column matrix has ${columns}`);
    layer.dispose();
  }));

test("no gradient without requiresGrad, and an empty batch", () =>
  scope(() => {
    const x = grid([2, 3, 5], 1, false);
    const weight = grid([4, 3, 2], 2, false);
    const loraA = grid([2, 3, 2], 3);
    const loraB = grid([4, 2, 1], 4);
    ops.sum(ops.conv(x, weight, null, {}, [{ loraA, loraB, scaling: 1, mask: null }])).backward();
    assert(x.grad === null && weight.grad === null && loraA.grad && loraB.grad);
    assert.deepEqual(ops.conv(zeros([0, 3, 5]), weight).shape, [0, 4, 4]);
  }));

/* Layers. */

const geometry = ({ stride, padding, dilation, groups }: nn.ConvNd) => ({ stride, padding, dilation, groups });

test("nn.Conv2d starts with torch's bits: weight, then bias, both U(-1/sqrt(fanIn), 1/sqrt(fanIn))", () =>
  scope(() => {
    manualSeed(5);
    const layer = new nn.Conv2d(4, 6, [3, 2], { groups: 2 });
    assert.deepEqual(layer.weight.shape, [6, 2, 3, 2]);
    assert.deepEqual([...layer.stateDict().keys()], ["weight", "bias"]);
    manualSeed(5);
    // torch's Linear of the same fan-in draws the same numbers in the same order.
    const matrix = new nn.Linear(12, 6);
    assertBits("weight", layer.weight.data, matrix.weight.data);
    assertBits("bias", layer.bias!.data, matrix.bias!.data);
    layer.dispose();
    matrix.dispose();
  }));

test("numbers and tuples mean the same; outputs have torch's sizes", () =>
  scope(() => {
    const x = grid([2, 2, 9, 8], 1, false);
    manualSeed(1);
    const a = new nn.Conv2d(2, 3, 3, { stride: 2, padding: 1, dilation: 2 });
    manualSeed(1);
    const b = new nn.Conv2d(2, 3, [3, 3], { stride: [2, 2], padding: [1, 1], dilation: [2, 2] });
    assert.deepEqual(a.forward(x).shape, [2, 3, 4, 3]);
    assertBits("y", a.forward(x).data, b.forward(x).data);
    a.dispose();
    b.dispose();
  }));

const layers = (): [ConvLayer, Tensor][] => [
  [new lora.Conv1d(4, 6, 3, { r: 2, loraAlpha: 4, groups: 2, padding: 1 }), grid([2, 4, 7], 1, false)],
  [new lora.Conv2d(3, 4, 3, { r: 2, loraAlpha: -3, bias: false }), grid([2, 3, 5, 6], 1, false)],
  [new lora.Conv2d(3, 4, [1, 3], { r: 2, stride: [2, 1] }), grid([2, 3, 5, 6], 1, false)],
  [new lora.Conv3d(2, 4, [2, 3, 1], { r: 1, loraAlpha: 2 }), grid([1, 2, 3, 4, 3], 1, false)],
];
type ConvLayer = lora.Conv1d | lora.Conv2d | lora.Conv3d;

test("lora convolutions start as their base, to the bit; B A fits every kernel", () =>
  scope(() => {
    for (const [layer, x] of layers()) {
      assert.equal(layer.loraB!.shape[0]! * layer.loraA!.shape[1]!, layer.weight.size);
      assert(layer.loraA!.data.every((v) => v !== 0) && layer.loraB!.data.every((v) => v === 0));
      assert(!layer.weight.requiresGrad);
      const base = ops.conv(x, layer.weight, layer.bias, geometry(layer)).data.slice();
      assertBits("training", layer.forward(x).data, base);
      layer.eval();
      assertBits("merged", layer.forward(x).data, base);
      layer.dispose();
    }
  }));

test("eval() merges, train() restores the bits, without drift", () =>
  scope(() => {
    for (const [layer, x] of layers()) {
      perturb(layer.weight, layer.loraA, layer.loraB);
      const weight = layer.weight.data.slice();
      const y = layer.forward(x).data.slice();
      layer.eval();
      const merged = layer.weight.data.slice();
      assert(layer.merged && merged.some((v, i) => v !== weight[i]));
      // W + s B A is rounded alike whether merged or made for one pass.
      assertBits("merged y", layer.forward(x).data, y);
      assertBits("checkpoint while merged", layer.stateDict().get("weight")!.data, weight);
      assert.throws(() => layer.loadStateDict(layer.stateDict()), StateError);
      for (let i = 0; i < 20; i++) {
        layer.train();
        assertBits("weight", layer.weight.data, weight);
        layer.eval();
        assertBits("merged weight", layer.weight.data, merged);
      }
      layer.train();
      assertBits("y", layer.forward(x).data, y);
      assert.deepEqual(
        [...layer.stateDict().keys()],
        layer.bias ? ["weight", "bias", "lora_A", "lora_B"] : ["weight", "lora_A", "lora_B"],
      );
      layer.dispose();
    }
    const unmerging = new lora.Conv2d(2, 2, 3, { r: 1, mergeWeights: false });
    assert(!unmerging.eval().merged);
    unmerging.dispose();
  }));

test("dropout acts on the branch, and only in training", () =>
  scope(() => {
    const layer = new lora.Conv2d(3, 4, 3, { r: 2, loraDropout: 0.5, mergeWeights: false });
    const x = grid([2, 3, 6, 6], 1, false);
    assertBits("B = 0", layer.forward(x).data, ops.conv(x, layer.weight, layer.bias).data);
    perturb(layer.loraB);
    const first = layer.forward(x).data.slice();
    const second = layer.forward(x).data.slice();
    assert(
      first.some((v, i) => v !== second[i]),
      "each call draws its own mask",
    );
    manualSeed(3);
    const seeded = layer.forward(x).data.slice();
    manualSeed(3);
    assertBits("the same seed, the same mask", layer.forward(x).data, seeded);
    const plain = new lora.Conv2d(3, 4, 3, { r: 2, mergeWeights: false });
    plain.loadStateDict(layer.stateDict());
    assertBits("evaluation", layer.eval().forward(x).data, plain.forward(x).data);
    layer.dispose();
    plain.dispose();
  }));

test("r = 0 is the plain layer and trains", () =>
  scope(() => {
    const layer = new lora.Conv2d(2, 3, 2);
    const x = grid([1, 2, 4, 4], 1, false);
    assert(layer.loraA === null && layer.weight.requiresGrad);
    assertBits("y", layer.forward(x).data, ops.conv(x, layer.weight, layer.bias).data);
    assert(!layer.eval().merged);
    layer.dispose();
  }));

/* Refusals: a typed error with these words, and no memory lost. */

const x4 = zeros([2, 4, 5, 6]);
const w4 = zeros([6, 4, 3, 3]);
const w2 = zeros([6, 2, 3, 3]);
const A = zeros([3, 4, 3, 3]);
const B = zeros([6, 3, 1, 1]);
const branch = { loraA: A, loraB: B, scaling: 1, mask: null };
refuses("conv: x of rank 2", ShapeError, ["conv", "x", "[2,4]", "spatial"], () =>
  scope(() => ops.conv(zeros([2, 4]), w4)),
);
refuses("conv: x of rank 6", ShapeError, ["[1,1,1,1,1,1]"], () => scope(() => ops.conv(zeros([1, 1, 1, 1, 1, 1]), w4)));
refuses("conv: an int32 x", DTypeError, ["x", "float32", "int32"], () =>
  scope(() => ops.conv(zeros([2, 4, 5, 6], "int32"), w4)),
);
refuses("conv: a weight of another rank", ShapeError, ["weight", "[6,4,3]"], () =>
  scope(() => ops.conv(x4, zeros([6, 4, 3]))),
);
refuses("conv: an empty weight", ShapeError, ["weight", "empty"], () => scope(() => ops.conv(x4, zeros([6, 4, 0, 3]))));
refuses("conv: other channels", ShapeError, ["[2,4,5,6]", "2 (weight's)", "groups = 1"], () => ops.conv(x4, w2));
refuses("conv: groups that do not divide outChannels", ShapeError, ["outChannels = 6", "groups = 4"], () =>
  scope(() => ops.conv(x4, zeros([6, 1, 3, 3]), null, { groups: 4 })),
);
refuses("conv: groups = 0", ArgumentError, ["groups", "at least 1", "0"], () => ops.conv(x4, w4, null, { groups: 0 }));
refuses("conv: a bias of another size", ShapeError, ["bias", "[6]"], () => scope(() => ops.conv(x4, w4, zeros([4]))));
refuses("conv: a stride of 0", ArgumentError, ["stride", "0"], () => ops.conv(x4, w4, null, { stride: [0, 1] }));
refuses("conv: a negative padding", ArgumentError, ["padding", "-1"], () =>
  ops.conv(x4, w4, null, { padding: [0, -1] }),
);
refuses("conv: a fractional dilation", ArgumentError, ["dilation", "1.5"], () =>
  ops.conv(x4, w4, null, { dilation: [1.5, 1] }),
);
refuses("conv: one stride for two dimensions", ArgumentError, ["stride", "2 numbers", "[2]"], () =>
  ops.conv(x4, w4, null, { stride: [2] }),
);
refuses("conv: a window larger than x", ShapeError, ["7 elements", "dimension 0", "has 5"], () =>
  ops.conv(x4, w4, null, { dilation: [3, 1] }),
);
refuses("conv: an A of another window", ShapeError, ["loraA", "[3,4,3,2]"], () =>
  scope(() => ops.conv(x4, w4, null, {}, [{ ...branch, loraA: zeros([3, 4, 3, 2]) }])),
);
refuses("conv: a rank that groups do not divide", ShapeError, ["loraA", "rank 3", "groups = 2"], () =>
  ops.conv(x4, w2, null, { groups: 2 }, [branch]),
);
refuses("conv: a B of another rank", ShapeError, ["loraB", "[6, 3, 1, 1]"], () =>
  scope(() => ops.conv(x4, w4, null, {}, [{ ...branch, loraB: zeros([6, 2, 1, 1]) }])),
);
refuses("conv: a scaling that is no number", ArgumentError, ["scaling", "NaN"], () =>
  ops.conv(x4, w4, null, {}, [{ ...branch, scaling: NaN }]),
);
refuses("conv: images outside x", ArgumentError, ["to", "1 .. 2", "3"], () =>
  ops.conv(x4, w4, null, {}, [{ ...branch, from: 1, to: 3 }]),
);
refuses("conv: a layer's wrong input", ShapeError, ["lora.Conv2d.forward", "[2,4,5,6]"], () => {
  const layer = new lora.Conv2d(3, 4, 3, { r: 1 });
  try {
    noGrad(() => scope(() => layer.forward(x4)));
  } finally {
    layer.dispose();
  }
});
refuses(
  "conv: reflecting padding",
  ArgumentError,
  ["Conv2d", "no option", "paddingMode"],
  () => new nn.Conv2d(1, 1, 3, { paddingMode: "reflect" } as object),
);
refuses(
  "conv: padding by name",
  ArgumentError,
  ["padding", "same"],
  () => new nn.Conv1d(1, 1, 3, { padding: "same" as unknown as number }),
);
refuses("conv: a kernel of 0", ArgumentError, ["kernelSize", "0"], () => new nn.Conv3d(1, 1, [1, 0, 1]));
refuses(
  "conv: a kernel of two sizes in three dimensions",
  ArgumentError,
  ["kernelSize", "3 numbers", "[1,2]"],
  () => new nn.Conv3d(1, 1, [1, 2]),
);
refuses(
  "conv: groups that do not divide the channels",
  ArgumentError,
  ["groups = 2", "inChannels = 3"],
  () => new nn.Conv2d(3, 4, 1, { groups: 2 }),
);
refuses("conv: a negative rank", ArgumentError, ["lora.Conv1d", "r", "-1"], () => new lora.Conv1d(1, 1, 1, { r: -1 }));

test.run();
