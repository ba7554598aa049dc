/** A valid call of every op, for tests that go through all of them. */
import { ones, ops, tensor, type Tensor } from "../../src/index.js";
import { gridTensor as grid } from "./gradcheck.js";
import { positionsFrom } from "./attention.js";

/** An op's arguments, all valid. What is an object or an array of tensors is fuzzed member by member, too. */
export type Call = [op: (...args: never[]) => unknown, args: () => unknown[]];
export const int = (...values: number[]): Tensor => tensor(Int32Array.from(values));
const mask = { p: 0.5, seed: 1, stream: 0 };
const branch = (loraA: Tensor, loraB: Tensor) => ({ loraA, loraB, scaling: 0.5, mask, from: 0, to: 2 });
export const x23 = (): Tensor => grid([2, 3], 1);
export const x4 = (): Tensor => grid([1, 2, 2, 4], 2);

export const OPS: Record<string, Call> = {
  linear: [ops.linear, () => [x23(), grid([4, 3], 2), grid([4], 3), [branch(grid([2, 3], 4), grid([4, 2], 5))], false]],
  mergedLinear: [
    ops.mergedLinear,
    () => [
      x23(),
      grid([4, 3], 2),
      grid([4], 3),
      { loraA: grid([2, 3], 4), loraB: grid([2, 2], 5), scaling: 1, mask, enableLora: [true, false] },
      false,
    ],
  ],
  dropout: [ops.dropout, () => [x23(), 0.5]],
  conv: [
    ops.conv,
    () => [
      grid([2, 2, 5], 1),
      grid([4, 2, 3], 2),
      grid([4], 3),
      { stride: [1], padding: [1], dilation: [1], groups: 1 },
      [branch(grid([2, 2, 3], 4), grid([4, 2, 1], 5))],
    ],
  ],
  embedding: [
    ops.embedding,
    () => [
      int(1, 0),
      grid([5, 3], 1),
      { paddingIdx: 1, maxNorm: 100, normType: 2, scaleGradByFreq: true },
      [{ loraA: grid([2, 5], 2), loraB: grid([3, 2], 3), scaling: 1, from: 0, to: 1 }],
    ],
  ],
  add: [ops.add, () => [x23(), grid([3], 2)]],
  sub: [ops.sub, () => [x23(), grid([3], 2)]],
  mul: [ops.mul, () => [x23(), grid([3], 2)]],
  div: [ops.div, () => [x23(), grid([3], 2)]],
  scale: [ops.scale, () => [x23(), 2]],
  exp: [ops.exp, () => [x23()]],
  log: [ops.log, () => [x23()]],
  tanh: [ops.tanh, () => [x23()]],
  sigmoid: [ops.sigmoid, () => [x23()]],
  relu: [ops.relu, () => [x23()]],
  silu: [ops.silu, () => [x23()]],
  gelu: [ops.gelu, () => [x23()]],
  geluTanh: [ops.geluTanh, () => [x23()]],
  siluMul: [ops.siluMul, () => [x23(), x23()]],
  reshape: [ops.reshape, () => [x23(), [3, 2]]],
  sum: [ops.sum, () => [x23(), 0, true]],
  mean: [ops.mean, () => [x23(), 0, true]],
  argmax: [ops.argmax, () => [x23(), 0, true]],
  matmul: [ops.matmul, () => [x23(), grid([3, 2], 2)]],
  transpose: [ops.transpose, () => [x23(), 0, 1]],
  concat: [ops.concat, () => [[x23(), x23()], 1]],
  narrow: [ops.narrow, () => [x23(), 0, 0, 1]],
  layerNorm: [ops.layerNorm, () => [x23(), grid([3], 2), grid([3], 3), 1e-5]],
  rmsNorm: [ops.rmsNorm, () => [x23(), grid([3], 2), 1e-5, 1]],
  softmax: [ops.softmax, () => [x23(), 0]],
  logSoftmax: [ops.logSoftmax, () => [x23(), -1]],
  ropeFrequencies: [ops.ropeFrequencies, () => [4, 10]],
  ropeTable: [ops.ropeTable, () => [4, grid([2], 1), 1]],
  rope: [ops.rope, () => [x4(), { cos: ones([4, 2]), sin: ones([4, 2]) }, positionsFrom(1, 1, 2)]],
  attentionRanges: [
    ops.attentionRanges,
    () => [
      { batch: 1, queries: 2, keys: 3, causal: true, window: 2, attentionMask: tensor(Int32Array.of(1, 1, 0), [1, 3]) },
    ],
  ],
  attention: [
    ops.attention,
    () => [x4(), x4(), x4(), { ranges: ops.attentionRanges({ batch: 1, queries: 2 }), scale: 0.5, softcap: 2 }],
  ],
  crossEntropy: [ops.crossEntropy, () => [x23(), int(0, 2), -100, 3]],
  linearCrossEntropy: [ops.linearCrossEntropy, () => [x23(), grid([4, 3], 2), grid([4], 3), int(0, 2), 1, -100, 3]],
  mseLoss: [ops.mseLoss, () => [x23(), x23()]],
  binaryCrossEntropy: [ops.binaryCrossEntropy, () => [tensor([0.25]), tensor([1])]],
  binaryCrossEntropyWithLogits: [ops.binaryCrossEntropyWithLogits, () => [x23(), x23()]],
  channelScale: [ops.channelScale, () => [x23(), grid([3], 2), grid([3], 3), 1]],
  doraNorm: [ops.doraNorm, () => [grid([4, 3], 1), grid([2, 3], 2), grid([4, 2], 3), 1, false]],
  doraScale: [ops.doraScale, () => [grid([3], 1), ones([3])]],
};
