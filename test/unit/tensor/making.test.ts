/** Making tensors from what people have, and looking at them. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  clone,
  DTypeError,
  full,
  init,
  lora,
  memoryStats,
  nn,
  ones,
  ops,
  ShapeError,
  tensor,
  type Tensor,
  zeros,
  type DType,
  type NestedNumbers,
} from "../../../src/index.js";
import { refuses } from "../../support/refuses.js";

await init();

test("every typed array of numbers is taken, rounded to float32", () => {
  const float = [
    Float32Array,
    Float64Array,
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Uint32Array,
  ];
  for (const kind of float)
    assert.deepEqual(
      [tensor(kind.of(1, 2, 3)).dtype, [...tensor(kind.of(1, 2, 3)).data]],
      ["float32", [1, 2, 3]],
      kind.name,
    );
  assert.equal(tensor(Float64Array.of(0.1)).item(), Math.fround(0.1));
  assert.deepEqual(tensor(Uint8Array.of(7, 8), [2, 1], "int32").indices, Int32Array.of(7, 8));
  assert.deepEqual(tensor([1, 2]).set({ length: 2, 0: 3, 1: 4 }).data, Float32Array.of(3, 4));
  assert.deepEqual(
    [ones([2], "int32").indices, zeros([1], "int32").indices, full([1], NaN).data],
    [Int32Array.of(1, 1), Int32Array.of(0), Float32Array.of(NaN)],
  );
});

const any = (value: unknown): never => value as never;
const cyclic: unknown[] = [];
cyclic.push(cyclic);
const wrong: [string, new (...args: never[]) => Error, string[], () => unknown][] = [
  ["zeros(2, 3)", ShapeError, ["zeros", "[2, 3]", "got 2"], () => zeros(any(2), any(3))],
  ["zeros(null)", ShapeError, ["zeros", "null"], () => zeros(any(null))],
  ["zeros()", ShapeError, ["zeros", "undefined"], () => zeros(any(undefined))],
  ["zeros of a text", ShapeError, ["zeros", '"23"'], () => zeros(any("23"))],
  ["zeros of texts", ShapeError, ["zeros", '"2"'], () => zeros(any(["2"]))],
  ["zeros of bigints", ShapeError, ["zeros", "2"], () => zeros(any([2n]))],
  [
    "ones of a tensor",
    ShapeError,
    ["ones", "a Tensor"],
    () => {
      const t = zeros([1]);
      try {
        ones(any(t));
      } finally {
        t.dispose();
      }
    },
  ],
  ["full without a shape", ShapeError, ["full", "undefined"], () => full(any(undefined), 1)],
  ["full without a value", ArgumentError, ["full", "value", "undefined"], () => full([2], any(undefined))],
  ["full of a text", ArgumentError, ["full", "value", '"1"'], () => full([2], any("1"))],
  ["full of a half in int32", ArgumentError, ["full", "1.5", "32-bit integer"], () => full([2], 1.5, "int32")],
  ["full of NaN in int32", ArgumentError, ["full", "NaN"], () => full([2], NaN, "int32")],
  ["full beyond int32", ArgumentError, ["full", "2147483648"], () => full([2], 2147483648, "int32")],
  ...["int64", "float", "Float32", null, 1, {}].flatMap((dtype): typeof wrong => [
    [`zeros of dtype ${String(dtype)}`, DTypeError, ["zeros", "float32", "int32"], () => zeros([2], dtype as DType)],
    [`ones of dtype ${String(dtype)}`, DTypeError, ["ones", "dtype"], () => ones([2], dtype as DType)],
    [`tensor of dtype ${String(dtype)}`, DTypeError, ["tensor", "dtype"], () => tensor([1, 2], [2], dtype as DType)],
  ]),
  ["tensor([1, 2], 2)", ShapeError, ["tensor", "shape", "got 2"], () => tensor([1, 2], any(2))],
  ["tensor([1, 2], dtype)", ShapeError, ["tensor", "shape", '"int32"'], () => tensor([1, 2], any("int32"))],
  ["tensor of an array in itself", ShapeError, ["tensor", "64", "itself"], () => tensor(any(cyclic))],
  ["tensor of bigints", DTypeError, ["tensor", "BigInt64Array"], () => tensor(any(new BigInt64Array(2)))],
  [
    "tensor of a view of bytes",
    DTypeError,
    ["tensor", "DataView"],
    () => tensor(any(new DataView(new ArrayBuffer(8)))),
  ],
  ["tensor of a buffer", DTypeError, ["tensor", "ArrayBuffer"], () => tensor(any(new ArrayBuffer(8)))],
  ["tensor of a set", DTypeError, ["tensor", "a Set"], () => tensor(any(new Set([1])))],
  ["tensor of nothing", DTypeError, ["tensor", "undefined"], () => tensor(any(undefined))],
  ["tensor of texts", DTypeError, ["tensor", "string"], () => tensor(any(["1"]))],
  ["tensor of booleans", DTypeError, ["tensor", "boolean"], () => tensor(any([[true]]))],
  ["tensor of holes", DTypeError, ["tensor", "undefined"], () => tensor(any([1, undefined, 2]))],
  ["clone of an array", DTypeError, ["clone", "an array of 1"], () => clone(any([1]))],
  ["clone of nothing", DTypeError, ["clone", "undefined"], () => clone(any(undefined))],
  ["Parameter of a number", ShapeError, ["Parameter", "3"], () => new nn.Parameter(any(3))],
  [
    "Parameter with options",
    ArgumentError,
    ["Parameter", "requiresGrad", "an object"],
    () => new nn.Parameter([1], any({ requiresGrad: false })),
  ],
  [
    "train of a text",
    ArgumentError,
    ["train", "mode", '"eval"'],
    () => {
      const m = new nn.RMSNorm(1);
      try {
        m.train(any("eval"));
      } finally {
        m.dispose();
      }
    },
  ],
  ["Parameter of halves", ShapeError, ["Parameter", "2.5"], () => new nn.Parameter([2.5])],
];
for (const [name, error, words, fn] of wrong) refuses(name, any(error), words, fn);

test("set: what holds no numbers changes nothing", () => {
  const t = tensor([1, 2]);
  for (const values of [
    null,
    undefined,
    3,
    "ab",
    ["a", "b"],
    [1, undefined],
    { length: 2 },
    new BigInt64Array(2),
    new Map([[1, 2]]),
    () => 1,
  ]) {
    assert.throws(() => t.set(any(values)), DTypeError);
  }
  assert.deepEqual(t.data, Float32Array.of(1, 2));
});

test("a tensor prints its values, shape and dtype; a large one its ends; a disposed one says so", () => {
  const cases: [Tensor, string][] = [
    [tensor(3), "Tensor(3, [], float32)"],
    [tensor([1.5, -0.1]), "Tensor([1.5, -0.1], [2], float32)"],
    [zeros([0, 2]), "Tensor([], [0, 2], float32)"],
    [
      tensor([
        [1, 2],
        [3, 4.25],
      ]),
      "Tensor([[1, 2],\n        [3, 4.25]], [2, 2], float32)",
    ],
    [
      tensor([
        [[1], [2]],
        [[3], [4]],
      ]),
      "Tensor([[[1],\n         [2]],\n        [[3],\n         [4]]], [2, 2, 1], float32)",
    ],
    [tensor(Int32Array.of(-7)), "Tensor([-7], [1], int32)"],
    [tensor([NaN, Infinity, 1e-20, 123456.7]), "Tensor([NaN, Infinity, 1e-20, 123460], [4], float32)"],
    [new nn.Parameter([1]).set([2]), "Parameter([2], [1], float32, requiresGrad)"],
    [zeros([1001]), "Tensor([0, 0, 0, ..., 0, 0, 0], [1001], float32)"],
    [
      tensor(
        Float32Array.from({ length: 1200 }, (_, i) => i),
        [300, 4],
      ),
      "Tensor([[0, 1, 2, 3],\n        [4, 5, 6, 7],\n        [8, 9, 10, 11],\n        ...,\n        [1188, 1189, " +
        "1190, 1191],\n        [1192, 1193, 1194, 1195],\n        [1196, 1197, 1198, 1199]], [300, 4], float32)",
    ],
  ];
  for (const [t, text] of cases) {
    assert.equal(String(t), text);
    for (const name of ["nodejs.util.inspect.custom", "Deno.customInspect"]) {
      assert.equal(
        (t as unknown as Record<symbol, (...args: unknown[]) => string>)[Symbol.for(name)]!(2, {}, null),
        text,
      );
    }
  }
  assert.equal(String(zeros([40, 40])).split("...").length, 8);
  const gone = tensor([[1]]);
  gone.dispose();
  assert.equal(String(gone), "Tensor([1, 1], float32, disposed)");
  const before = memoryStats();
  assert.deepEqual(JSON.parse(JSON.stringify({ t: tensor([[1, 2]]) })), {
    t: { dtype: "float32", shape: [1, 2], data: [1, 2] },
  });
  const y = ops.sum(new nn.Parameter([1]).set([2]));
  assert.match(String(y), /^Tensor\(2, \[\], float32, requiresGrad\)$/);
  assert.equal(before.blocks + 3, memoryStats().blocks);
});

test("a tensor cannot be cloned into another thread, where it would have no values", () => {
  for (const t of [tensor([1]), new nn.Parameter([1]), { batch: [tensor([1])] }]) {
    assert.throws(
      () => structuredClone(t),
      (e: Error) => e.name === "DataCloneError",
    );
  }
});

test("a module prints its tree with names and shapes", () => {
  class Net extends nn.Module {
    fc = new lora.Linear(3, 2, { r: 1 });
    blocks = [[new nn.RMSNorm(2)]];
    gain = new nn.Parameter([1]);
    self: nn.Module = this;
  }
  const text =
    "Net(\n  gain [1]\n  fc: Linear(weight [2, 3], bias [2], lora_A [1, 3], lora_B [2, 1])\n  blocks.0.0: " +
    "RMSNorm(weight [2])\n  self: ...\n)";
  assert.equal(String(new Net()), text);
  class Outer extends nn.Module {
    net = new Net();
  }
  assert.equal(String(new Outer()), `Outer(\n  net: ${text.replaceAll("\n", "\n  ")}\n)`);
});

test("disposing of a module disposes of what its modules hold besides parameters", () => {
  class Table extends nn.Module {
    weight = new nn.Parameter([2]);
    readonly angles = zeros([3]).keep();
    override dispose(): void {
      super.dispose();
      this.angles.dispose();
    }
  }
  class Net extends nn.Module {
    tables = { a: new Table(), b: [new Table()] };
    again = this.tables.a;
    parent: nn.Module = this;
  }
  const live = memoryStats().liveBytes;
  new Net().dispose();
  assert.equal(memoryStats().liveBytes, live);
});

test("markOnlyLoraAsTrainable lets factors train that were frozen, and freezes all else", () => {
  class Net extends nn.Module {
    a = new lora.Linear(2, 2, { r: 1 });
    b = new lora.Embedding(3, 2, { r: 1 });
    c = new nn.Linear(2, 2);
  }
  for (const [bias, expected] of [
    ["none", []],
    ["all", ["a.bias", "c.bias"]],
    ["lora_only", ["a.bias"]],
  ] as const) {
    const net = new Net();
    for (const p of net.parameters()) p.requiresGrad = false;
    lora.markOnlyLoraAsTrainable(net, bias);
    const trained = [...net.namedParameters()].filter(([, p]) => p.requiresGrad).map(([key]) => key);
    assert.deepEqual(trained.sort(), ["a.lora_A", "a.lora_B", ...expected, "b.lora_A", "b.lora_B"].sort());
  }
});

test("nested arrays of any kind still give their shape", () => {
  const deep = (n: number): NestedNumbers => (n === 0 ? 1 : [deep(n - 1)]);
  assert.deepEqual(tensor(deep(64)).shape, new Array<number>(64).fill(1));
  assert.throws(() => tensor(deep(65)), ShapeError);
  assert.deepEqual(tensor([[], []]).shape, [2, 0]);
});

test.run();
