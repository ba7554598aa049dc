/** Misuse is refused with a typed error that names place, argument, expected and got, and costs no memory. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ArgumentError,
  DisposedError,
  DTypeError,
  FormatError,
  init,
  lora,
  manualSeed,
  memoryStats,
  nn,
  noGrad,
  ones,
  ops,
  optim,
  scope,
  ShapeError,
  StateError,
  type Tensor,
  tensor,
  zeros,
} from "../../../src/index.js";
import { assertBits } from "../../support/golden.js";
import { type ErrorClass, refuses } from "../../support/refuses.js";
import { positionsFrom, ropeTable } from "../../support/attention.js";

await init();

const t23 = zeros([2, 3]);
const t32 = zeros([3, 2]);
const t4 = zeros([4]);
const scalar = zeros([]);
const ids = zeros([2], "int32");
const ids23 = zeros([2, 3], "int32");
const x1322 = zeros([1, 3, 2, 2]);
const table = ropeTable(4, 2, 10);
const steps13 = positionsFrom(0, 1, 3);
const dead = zeros([2, 3]);
dead.dispose();
const nothing = null as unknown as Tensor;

/* tensor() and Tensor */
refuses("tensor: ragged", ShapeError, ["ragged", "[2]", "[1]"], () => tensor([[1, 2], [3]]));
refuses("tensor: count", ShapeError, ["3 values", "[2,2]", "expected 4"], () => tensor(new Float32Array(3), [2, 2]));
refuses("tensor: negative dimension", ShapeError, ["-1"], () => zeros([-1]));
refuses("tensor: fractional dimension", ShapeError, ["1.5"], () => ones([1.5]));
refuses("tensor: not numbers", DTypeError, ["string"], () => tensor("12" as unknown as number));
refuses("tensor: fractional index", ArgumentError, ["1.5", "at 1"], () => tensor([1, 1.5], [2], "int32"));
refuses("tensor: index above 2^31", ArgumentError, ["2147483648"], () => tensor([2147483648], [1], "int32"));
refuses("data of int32", DTypeError, ["int32", "indices"], () => ids.data);
refuses("indices of float32", DTypeError, ["float32", "data"], () => t23.indices);
refuses("item of six", ShapeError, ["[2,3]", "6", "expected 1"], () => t23.item());
refuses("set of five", ShapeError, ["5 values", "[2,3]", "expected 6"], () => t23.set([1, 2, 3, 4, 5]));
refuses("data of a disposed tensor", DisposedError, ["[2,3]", "disposed"], () => dead.data);
refuses("set of a disposed tensor", DisposedError, ["[2,3]"], () => dead.set([1, 2, 3, 4, 5, 6]));

/* Every op: no tensor, a dead one, a wrong dtype, a wrong shape. */
const unary: Record<string, (x: Tensor) => unknown> = {
  scale: (x) => ops.scale(x, 2),
  sum: (x) => ops.sum(x),
  mean: (x) => ops.mean(x, 0),
  argmax: (x) => ops.argmax(x, 0),
  exp: ops.exp,
  log: ops.log,
  tanh: ops.tanh,
  sigmoid: ops.sigmoid,
  logSoftmax: ops.logSoftmax,
  transpose: (x) => ops.transpose(x, 0, 1),
  narrow: (x) => ops.narrow(x, 0, 0, 1),
  reshape: (x) => ops.reshape(x, [6]),
  relu: ops.relu,
  silu: ops.silu,
  gelu: ops.gelu,
  geluTanh: ops.geluTanh,
  dropout: (x) => ops.dropout(x, 0.5),
  softmax: ops.softmax,
  rmsNorm: (x) => ops.rmsNorm(x, t4, 1e-5),
  layerNorm: (x) => ops.layerNorm(x, t4, t4, 1e-5),
  linear: (x) => ops.linear(x, t23),
  rope: (x) => ops.rope(x, table, steps13),
};
const binary: Record<string, [string, string, (a: Tensor, b: Tensor) => unknown]> = {
  add: ["a", "b", ops.add],
  mul: ["a", "b", ops.mul],
  sub: ["a", "b", ops.sub],
  div: ["a", "b", ops.div],
  matmul: ["a", "b", ops.matmul],
  binaryCrossEntropy: ["x", "target", ops.binaryCrossEntropy],
  binaryCrossEntropyWithLogits: ["x", "target", ops.binaryCrossEntropyWithLogits],
  siluMul: ["gate", "up", ops.siluMul],
  mseLoss: ["x", "target", ops.mseLoss],
};
for (const [name, op] of Object.entries(unary)) {
  refuses(`${name}: x is null`, DTypeError, [name, "x", "Tensor", "null"], () => op(nothing));
  refuses(`${name}: x is disposed`, DisposedError, ["[2,3]"], () => op(dead));
  refuses(`${name}: x is int32`, DTypeError, [name, "x", "float32", "int32"], () => op(ids23));
}
for (const [name, [first, second, op]] of Object.entries(binary)) {
  refuses(`${name}: first is undefined`, DTypeError, [name, first, "undefined"], () =>
    op(undefined as unknown as Tensor, t23),
  );
  refuses(`${name}: second is int32`, DTypeError, [name, second, "float32", "int32"], () => op(t23, ids23));
  refuses(`${name}: second is disposed`, DisposedError, ["[2,3]"], () => op(t23, dead));
  if (name === "matmul") continue;
  refuses(`${name}: shapes differ`, ShapeError, [name, "[2,3]", "[3,2]"], () => op(t23, t32));
  refuses(`${name}: ranks differ`, ShapeError, [name, "[2,3]", "[4]"], () => op(t23, t4));
}
for (const name of ["softmax", "logSoftmax", "rmsNorm", "layerNorm", "linear"]) {
  refuses(`${name}: x is a scalar`, ShapeError, [name, "x", "last dimension"], () => unary[name]!(scalar));
}
refuses("scale: NaN", ArgumentError, ["scale", "alpha", "NaN"], () => ops.scale(t23, NaN));
refuses("reshape: size", ShapeError, ["reshape", "[2,3]", "6", "[4]", "4"], () => ops.reshape(t23, [4]));
refuses("add: shapes that do not go together", ShapeError, ["add", "[2,3]", "[2]", "dimension 1 is 3 and 2"], () =>
  scope(() => ops.add(t23, zeros([2]))),
);
refuses("div: an inner dimension", ShapeError, ["div", "[1,3,2,2]", "[4,1,1]", "dimension 3 is 3 and 4"], () =>
  scope(() => ops.div(x1322, zeros([4, 1, 1]))),
);
refuses("sub: two numbers", DTypeError, ["sub", "a and b", "Tensor"], () => ops.sub(1, 2));
for (const c of [NaN, Infinity, 1e300])
  refuses(`mul: ${c}`, ArgumentError, ["mul", "b", "finite", String(c)], () => ops.mul(t23, c));
refuses("matmul: inner sizes", ShapeError, ["matmul", "[2,3]", "a's last dimension, 3", "b's rows, 2"], () =>
  ops.matmul(t23, t23),
);
refuses("matmul: batches", ShapeError, ["matmul", "batches", "[2]", "[3]"], () =>
  scope(() => ops.matmul(zeros([2, 1, 1]), zeros([3, 1, 1]))),
);
refuses("matmul: a scalar", ShapeError, ["matmul", "[]", "mul"], () => ops.matmul(t23, scalar));
for (const name of ["sum", "mean", "argmax"] as const) {
  refuses(`${name}: dim`, ArgumentError, [name, "dim", "-2 .. 1", "2"], () => ops[name](t23, 2));
  refuses(`${name}: keepdim`, ArgumentError, [name, "keepdim", "1"], () => ops[name](t23, 0, 1 as unknown as boolean));
}
refuses("argmax: nothing", ShapeError, ["argmax", "[2,0]"], () => scope(() => ops.argmax(zeros([2, 0]), 1)));
refuses("transpose: dim1", ArgumentError, ["transpose", "dim1", "-2 .. 1", "2"], () => ops.transpose(t23, 0, 2));
refuses("transpose: a scalar", ArgumentError, ["transpose", "dim1", "-1 .. 0"], () => ops.transpose(scalar, 0, 1));
refuses("concat: scalars", ShapeError, ["concat", "[]"], () => ops.concat([scalar, scalar]));
refuses("scale: infinite in float32", ArgumentError, ["scale", "alpha", "finite in float32", "1e+39"], () =>
  ops.scale(t23, 1e39),
);
refuses("concat: none", ArgumentError, ["concat", "tensors", "at least one"], () => ops.concat([]));
refuses("concat: not an array", ArgumentError, ["concat", "tensors", "array"], () =>
  ops.concat(t23 as unknown as Tensor[]),
);
refuses("concat: shapes", ShapeError, ["concat", "tensors[1]", "[3,2]", "[*, 3]"], () => ops.concat([t23, t32]));
refuses("concat: dim", ArgumentError, ["concat", "dim", "-2 .. 1", "2"], () => ops.concat([t23], 2));
for (const p of [-0.1, 1.5, NaN]) {
  refuses(
    `binaryCrossEntropy: ${p}`,
    ArgumentError,
    ["binaryCrossEntropy", "position 1", "0 .. 1", "binaryCrossEntropyWithLogits"],
    () => scope(() => ops.binaryCrossEntropy(tensor([0, p]), zeros([2]))),
  );
}
refuses("narrow: dim", ArgumentError, ["narrow", "dim", "-2 .. 1", "2"], () => ops.narrow(t23, 2, 0, 1));
refuses("narrow: start", ArgumentError, ["narrow", "start", "0 .. 3", "4"], () => ops.narrow(t23, 1, 4, 0));
refuses("narrow: length", ArgumentError, ["narrow", "length", "0 .. 2", "3"], () => ops.narrow(t23, -1, 1, 3));
refuses("narrow: a scalar", ShapeError, ["narrow", "x", "[]"], () => ops.narrow(scalar, 0, 0, 0));
for (const p of [1.5, -0.1, NaN])
  refuses(`dropout: p = ${p}`, ArgumentError, ["dropout", "p", "0 .. 1", String(p)], () => ops.dropout(t23, p));
refuses("softmax: no columns", ShapeError, ["softmax", "x", "[2,0]"], () => scope(() => ops.softmax(zeros([2, 0]))));
refuses("rmsNorm: weight's size", ShapeError, ["rmsNorm", "x", "[2,3]", "4"], () => ops.rmsNorm(t23, t4, 1e-5));
refuses("rmsNorm: weight's rank", ShapeError, ["rmsNorm", "weight", "[2,3]"], () => ops.rmsNorm(t23, t23, 1e-5));
refuses("rmsNorm: offset", ArgumentError, ["rmsNorm", "offset", "NaN"], () =>
  scope(() => ops.rmsNorm(t23, zeros([3]), 1e-5, NaN)),
);
refuses("rmsNorm: eps", ArgumentError, ["rmsNorm", "eps", "-1"], () => scope(() => ops.rmsNorm(t23, zeros([3]), -1)));
refuses("layerNorm: weight", ShapeError, ["layerNorm", "weight", "[4]", "[3]"], () => ops.layerNorm(t23, t4, t4, 1e-5));
refuses("layerNorm: bias", ShapeError, ["layerNorm", "bias", "[4]", "[3]"], () =>
  scope(() => ops.layerNorm(t23, zeros([3]), t4, 1e-5)),
);
refuses("layerNorm: eps", ArgumentError, ["layerNorm", "eps", "NaN"], () =>
  scope(() => ops.layerNorm(t23, zeros([3]), zeros([3]), NaN)),
);

refuses("linear: x's last dimension", ShapeError, ["linear", "x", "[3,2]", "inFeatures = 3"], () =>
  ops.linear(t32, t23),
);
refuses("linear: fanInFanOut", ShapeError, ["linear", "x", "[2,3]", "inFeatures = 2"], () =>
  ops.linear(t23, t23, null, [], true),
);
refuses("linear: weight's rank", ShapeError, ["linear", "weight", "[4]", "[*, *]"], () => ops.linear(t23, t4));
refuses("linear: bias", ShapeError, ["linear", "bias", "[4]", "[2]"], () => ops.linear(t23, t23, t4));
refuses("linear: loraA", ShapeError, ["linear", "loraA", "[3,2]", "[*, 3]"], () =>
  ops.linear(t23, t23, null, [{ loraA: t32, loraB: t32, scaling: 1, mask: null }]),
);
refuses("linear: loraB", ShapeError, ["linear", "loraB", "[3,2]", "[2, 2]"], () =>
  ops.linear(t23, t23, null, [{ loraA: t23, loraB: t32, scaling: 1, mask: null }]),
);
refuses("linear: disposed bias", DisposedError, ["[2,3]"], () => ops.linear(t23, t23, dead));

refuses("embedding: ids are float32", DTypeError, ["embedding", "ids", "int32", "float32"], () =>
  ops.embedding(t4, t23),
);
refuses("embedding: id too large", ArgumentError, ["embedding", "ids", "2", "position 1", "0 .. 1"], () =>
  scope(() => ops.embedding(tensor(new Int32Array([0, 2])), t23)),
);
refuses("embedding: negative id", ArgumentError, ["embedding", "ids", "-1", "position 0"], () =>
  scope(() => ops.embedding(tensor(new Int32Array([-1])), t23)),
);
refuses("embedding: weight's rank", ShapeError, ["embedding", "weight", "[4]"], () => ops.embedding(ids, t4));
refuses("embedding: loraA", ShapeError, ["embedding", "loraA", "[2,3]", "[*, 2]"], () =>
  ops.embedding(ids, t23, {}, [{ loraA: t23, loraB: t32, scaling: 1 }]),
);
refuses("embedding: loraB", ShapeError, ["embedding", "loraB", "[2,3]", "[3, 3]"], () =>
  ops.embedding(ids, t23, {}, [{ loraA: t32, loraB: t23, scaling: 1 }]),
);

refuses("embedding: paddingIdx", ArgumentError, ["embedding", "paddingIdx", "-2 .. 1", "-3"], () =>
  ops.embedding(ids, t23, { paddingIdx: -3 }),
);
refuses("embedding: maxNorm", ArgumentError, ["embedding", "maxNorm", "-1"], () =>
  ops.embedding(ids, t23, { maxNorm: -1 }),
);
refuses("embedding: normType", ArgumentError, ["embedding", "normType", "0"], () =>
  ops.embedding(ids, t23, { normType: 0 }),
);
refuses("embedding: a branch's range", ArgumentError, ["embedding", "to", "0 .. 2", "3"], () =>
  scope(() => ops.embedding(ids, t23, {}, [{ loraA: zeros([1, 2]), loraB: zeros([3, 1]), scaling: 1, to: 3 }])),
);
refuses("embedding: a branch's range backwards", ArgumentError, ["embedding", "to", "1 .. 2", "0"], () =>
  scope(() =>
    ops.embedding(ids, t23, {}, [{ loraA: zeros([1, 2]), loraB: zeros([3, 1]), scaling: 1, from: 1, to: 0 }]),
  ),
);

refuses("ropeFrequencies: odd", ShapeError, ["ropeFrequencies", "dim", "even", "3"], () => ops.ropeFrequencies(3, 10));
refuses("ropeFrequencies: theta", ArgumentError, ["ropeFrequencies", "theta", "NaN"], () =>
  ops.ropeFrequencies(2, NaN),
);
refuses("ropeTable: positions", ArgumentError, ["ropeTable", "positions", "0"], () => scope(() => ropeTable(0, 2, 10)));
refuses("ropeTable: frequencies", ShapeError, ["ropeTable", "frequencies", "[2,3]"], () => ops.ropeTable(4, t23));
refuses("ropeTable: attentionFactor", ArgumentError, ["ropeTable", "attentionFactor", "1e+39"], () =>
  scope(() => ops.ropeTable(4, zeros([2]), 1e39)),
);
refuses("rope: rank", ShapeError, ["rope", "x", "[2,3]"], () => ops.rope(t23, table, ids23));
refuses("rope: too many pairs", ShapeError, ["rope", "1 pairs", "[1,3,2,1]", "0"], () =>
  scope(() => ops.rope(zeros([1, 3, 2, 1]), table, steps13)),
);
refuses("rope: positions' shape", ShapeError, ["rope", "positions", "[2,3]", "[1, 3]"], () =>
  ops.rope(x1322, table, ids23),
);
refuses("rope: too far", ArgumentError, ["rope", "positions", "4", "0 .. 3"], () =>
  scope(() => ops.rope(x1322, table, positionsFrom(2, 1, 3))),
);

const ranges132 = ops.attentionRanges({ batch: 1, queries: 3 });
const masked = (...mask: number[]): Tensor =>
  ops.attentionRanges({ batch: 1, queries: 4, attentionMask: tensor(Int32Array.from(mask), [1, 4]) });
refuses("attention: rank", ShapeError, ["attention", "q", "[2,3]"], () =>
  ops.attention(t23, t23, t23, { ranges: ranges132 }),
);
refuses("attention: dtype", DTypeError, ["attention", "k", "float32", "int32"], () =>
  ops.attention(x1322, ids, x1322, { ranges: ranges132 }),
);
refuses("attention: fewer keys", ArgumentError, ["attention", "query 2 of row 0", "0 .. 3", "2 keys"], () =>
  scope(() => {
    const k = zeros([1, 2, 2, 2]);
    ops.attention(x1322, k, k, { ranges: ranges132 });
  }),
);
refuses("attention: heads", ShapeError, ["attention", "heads = 2", "kvHeads = 3"], () =>
  scope(() => {
    const k = zeros([1, 3, 3, 2]);
    ops.attention(x1322, k, k, { ranges: ranges132 });
  }),
);
refuses("attention: v", ShapeError, ["attention", "v", "[1,4,2,2]", "[1, 3, 2, 2]"], () =>
  scope(() => ops.attention(x1322, x1322, zeros([1, 4, 2, 2]), { ranges: ranges132 })),
);
refuses("attention: ranges' shape", ShapeError, ["attention", "ranges", "[1,3]", "[1, 3, 2]"], () =>
  ops.attention(x1322, x1322, x1322, { ranges: steps13 }),
);
refuses("attention: no ranges", DTypeError, ["attention", "ranges", "undefined"], () =>
  ops.attention(x1322, x1322, x1322, {} as never),
);
for (const [from, to] of [
  [-1, 2],
  [2, 1],
  [0, 4],
] as const)
  refuses("attention: a range", ArgumentError, ["attention", "query 0 of row 0", `${from} .. ${to}`, "3 keys"], () =>
    scope(() => {
      const ranges = tensor(Int32Array.of(from, to, 0, 1, 0, 1), [1, 3, 2]);
      ops.attention(x1322, x1322, x1322, { ranges });
    }),
  );
refuses("attention: softcap", ArgumentError, ["attention", "softcap", "0"], () =>
  ops.attention(x1322, x1322, x1322, { ranges: ranges132, softcap: 0 }),
);
refuses("attentionRanges: keys", ArgumentError, ["attentionRanges", "keys", "3 .. 2147483647", "2"], () =>
  ops.attentionRanges({ batch: 1, queries: 3, keys: 2 }),
);
refuses("attentionRanges: window", ArgumentError, ["attentionRanges", "window", "0"], () =>
  ops.attentionRanges({ batch: 1, queries: 3, window: 0 }),
);
refuses("attentionRanges: mask's shape", ShapeError, ["attentionRanges", "attentionMask", "[2,3]", "[1, 4]"], () =>
  ops.attentionRanges({ batch: 1, queries: 4, attentionMask: ids23 }),
);
refuses("attentionRanges: a negative mask", ArgumentError, ["attentionRanges", "attentionMask", "-1", "[0, 1]"], () =>
  scope(() => masked(1, -1, 1, 1)),
);
refuses("attentionRanges: a hole", ArgumentError, ["attentionRanges", "attentionMask", "1 at [0, 3]", "one run"], () =>
  scope(() => masked(1, 1, 0, 1)),
);

refuses("crossEntropy: targets' shape", ShapeError, ["crossEntropy", "targets", "[2]", "[3,2]"], () =>
  ops.crossEntropy(t32, ids),
);
refuses("crossEntropy: targets' dtype", DTypeError, ["crossEntropy", "targets", "int32"], () =>
  ops.crossEntropy(t23, t4),
);
refuses(
  "crossEntropy: target out of range",
  ArgumentError,
  ["crossEntropy", "targets", "3", "position 1", "0 .. 2"],
  () => scope(() => ops.crossEntropy(t23, tensor(new Int32Array([0, 3])))),
);
refuses("crossEntropy: negative target", ArgumentError, ["crossEntropy", "targets", "-1"], () =>
  scope(() => ops.crossEntropy(t23, tensor(new Int32Array([-1, 0])))),
);
refuses("crossEntropy: scalar logits", ShapeError, ["crossEntropy", "targets"], () => ops.crossEntropy(scalar, ids));

/* backward */
const leaf = ones([2]);
leaf.requiresGrad = true;
refuses("backward of a vector", ShapeError, ["backward", "[2]", "one element"], () =>
  scope(() => ops.scale(leaf, 2).backward()),
);
refuses("backward without a graph", StateError, ["backward", "requiresGrad"], () => scalar.backward());
refuses("backward under noGrad", StateError, ["backward", "noGrad"], () =>
  scope(() => noGrad(() => ops.sum(leaf)).backward()),
);
refuses("backward twice", StateError, ["backward", "already ran"], () =>
  scope(() => {
    const loss = ops.sum(leaf);
    loss.backward();
    leaf.grad?.dispose();
    leaf.grad = null;
    loss.backward();
  }),
);
refuses("a tensor that backward freed", DisposedError, ["[2]", "backward", "keep()"], () =>
  scope(() => {
    const h = ops.scale(leaf, 2);
    ops.sum(h).backward();
    leaf.grad?.dispose();
    leaf.grad = null;
    return h.data;
  }),
);

/* Layers */
for (const r of [-1, 1.5, NaN]) {
  refuses(`lora.Linear: r = ${r}`, ArgumentError, ["lora.Linear", "r ", String(r)], () => new lora.Linear(4, 4, { r }));
}
for (const loraDropout of [1.5, -0.5, NaN]) {
  refuses(
    `lora.Linear: loraDropout = ${loraDropout}`,
    ArgumentError,
    ["lora.Linear", "loraDropout", "0 .. 1", String(loraDropout)],
    () => new lora.Linear(4, 4, { r: 2, loraDropout }),
  );
}
refuses(
  "lora.Linear: loraAlpha",
  ArgumentError,
  ["lora.Linear", "loraAlpha", "NaN"],
  () => new lora.Linear(4, 4, { r: 2, loraAlpha: NaN }),
);
refuses("lora.Linear: inFeatures", ArgumentError, ["lora.Linear", "inFeatures", "0"], () => new lora.Linear(0, 4));
refuses("Linear: outFeatures", ArgumentError, ["Linear", "outFeatures", "2.5"], () => new nn.Linear(4, 2.5));
refuses(
  "Embedding: paddingIdx",
  ArgumentError,
  ["Embedding", "paddingIdx", "-4 .. 3", "4"],
  () => new nn.Embedding(4, 2, { paddingIdx: 4 }),
);
refuses("RMSNorm: dim", ArgumentError, ["RMSNorm", "dim", "0"], () => new nn.RMSNorm(0));
for (const seed of [-1, 1.5, NaN])
  refuses(`manualSeed(${seed})`, ArgumentError, ["manualSeed", "seed", String(seed)], () => manualSeed(seed));
refuses("markOnlyLoraAsTrainable: bias", ArgumentError, ["markOnlyLoraAsTrainable", "bias", "some"], () =>
  lora.markOnlyLoraAsTrainable(layer, "some" as "all"),
);
refuses("loraStateDict: bias", ArgumentError, ["loraStateDict", "bias", "some"], () =>
  lora.loraStateDict(layer, "some" as "all"),
);

const layer = new lora.Linear(3, 2, { r: 2 });
const merged = new lora.Linear(3, 2, { r: 2 }).eval();
refuses("lora.Linear.forward: x", ShapeError, ["lora.Linear.forward", "x", "[3,2]", "inFeatures = 3"], () =>
  layer.forward(t32),
);

/** loadStateDict(state) throws and no parameter changes. */
function refusesState(
  label: string,
  error: ErrorClass,
  words: string[],
  change: (s: nn.StateDict) => void,
  target = layer,
): void {
  refuses(label, error, words, () => {
    const before = target.stateDict();
    const weight = target.weight.data.slice();
    // Every value differs, so that whatever is loaded shows.
    const state: nn.StateDict = new Map(
      [...before].map(([key, { shape, data }]) => [key, { shape, data: data.map((v) => v + 1) }]),
    );
    change(state);
    try {
      target.loadStateDict(state);
    } finally {
      for (const [key, { data }] of target.stateDict()) assertBits(`${label}: ${key}`, data, before.get(key)!.data);
      assertBits(`${label}: weight`, target.weight.data, weight);
    }
  });
}
refusesState("loadStateDict: missing", FormatError, ["missing keys: lora_B", "unexpected keys: none"], (s) =>
  s.delete("lora_B"),
);
refusesState("loadStateDict: unexpected", FormatError, ["missing keys: none", "unexpected keys: extra"], (s) =>
  s.set("extra", { shape: [1], data: new Float32Array(1) }),
);
refusesState("loadStateDict: shape", ShapeError, ["lora_B", "[2,3]", "[2,2]"], (s) =>
  s.set("lora_B", { shape: [2, 3], data: new Float32Array(6) }),
);
refusesState("loadStateDict: merged", StateError, ["merged", "train()"], () => {}, merged);

/* Optimisers */
const p = layer.loraA!;
const q = layer.loraB!;
for (const lr of [NaN, -1e-3, Infinity]) {
  for (const O of [optim.SGD, optim.Adam, optim.AdamW])
    refuses(`${O.name}: lr = ${lr}`, ArgumentError, [O.name, "lr", String(lr)], () => new O([p], { lr }));
}
for (const O of [optim.SGD, optim.Adam, optim.AdamW]) {
  refuses(
    `${O.name}: weightDecay`,
    ArgumentError,
    [O.name, "weightDecay", "-1"],
    () => new O([p], { weightDecay: -1 }),
  );
  refuses(`${O.name}: no parameters`, ArgumentError, [O.name, "no parameters"], () => new O([]));
  refuses(`${O.name}: twice in a group`, ArgumentError, [O.name, "two groups", "[2,3]"], () => new O([p, q, p]));
  refuses(
    `${O.name}: in two groups`,
    ArgumentError,
    [O.name, "two groups", "[2,3]"],
    () => new O([{ params: [p, q] }, { params: [p], lr: 1 }]),
  );
  refuses(
    `${O.name}: a group's lr`,
    ArgumentError,
    [O.name, "lr", "NaN"],
    () => new O([{ params: [p] }, { params: [q], lr: NaN }]),
  );
}
for (const betas of [
  [NaN, 0.9],
  [0.9, -0.1],
  [1, 0.9],
  [0.9, 1.5],
] as const) {
  for (const O of [optim.Adam, optim.AdamW])
    refuses(`${O.name}: betas = ${betas}`, ArgumentError, [O.name, "betas"], () => new O([p], { betas }));
}
refuses("AdamW: eps", ArgumentError, ["AdamW", "eps", "NaN"], () => new optim.AdamW([p], { eps: NaN }));
refuses("SGD: momentum", ArgumentError, ["SGD", "momentum", "-0.5"], () => new optim.SGD([p], { momentum: -0.5 }));
refuses(
  "SGD: nesterov without momentum",
  ArgumentError,
  ["SGD", "nesterov", "momentum"],
  () => new optim.SGD([p], { nesterov: true }),
);

test("step() with a learning rate that became NaN changes nothing", () =>
  scope(() => {
    const optimizer = new optim.AdamW([q], { lr: 1e-3 });
    const before = q.data.slice();
    ops.sum(q).backward();
    optimizer.paramGroups[0]!.lr = NaN;
    assert.throws(() => optimizer.step(), ArgumentError);
    assertBits("parameter", q.data, before);
    assert.equal(optimizer.steps, 0);
    optimizer.zeroGrad();
  }));

refuses("clipGradNorm_: maxNorm", ArgumentError, ["clipGradNorm_", "maxNorm", "0"], () => optim.clipGradNorm_([p], 0));
test("clipGradNorm_ with a NaN gradient leaves every gradient as it was", () =>
  scope(() => {
    ops.add(ops.sum(ops.scale(p, 3)), ops.sum(ops.scale(q, 2))).backward();
    q.grad!.data[1] = NaN;
    const grads = [p, q].map((t) => t.grad!.data.slice());
    const before = memoryStats().liveBytes;
    assert.throws(
      () => optim.clipGradNorm_([p, q], 1),
      (e: Error) => e instanceof ArgumentError && /clipGradNorm_.*NaN.*finite/.test(e.message),
    );
    assertBits("dA", p.grad!.data, grads[0]!);
    assertBits("dB", q.grad!.data, grads[1]!);
    assert.equal(memoryStats().liveBytes, before);
  }));

refuses("linearSchedule: totalSteps", ArgumentError, ["linearSchedule", "totalSteps", "0"], () =>
  optim.linearSchedule(0),
);
refuses("cosineSchedule: warmupSteps", ArgumentError, ["cosineSchedule", "warmupSteps", "0 .. 10", "11"], () =>
  optim.cosineSchedule(10, 11),
);
refuses("cosineSchedule: minimum", ArgumentError, ["cosineSchedule", "minimum", "2"], () =>
  optim.cosineSchedule(10, 0, 2),
);

test("a name of a megabyte makes no message of a megabyte, and its end is kept", () => {
  const { message } = new FormatError(`${"n".repeat(1e6)} is not there; name another.`);
  assert.ok(message.length < 2100, `${message.length} characters`);
  assert.ok(message.startsWith("nnnn") && message.endsWith(" is not there; name another."));
});

test.run();
