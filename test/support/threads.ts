/** Work that is large enough to be divided among threads, of every kind of kernel. */
import { lora, manualSeed, nn, ops, optim, scope, tensor, zeros, type Tensor } from "../../src/index.js";
import { blockParameter } from "./blocks.js";

/** Counts of threads whose bits are compared with those of one. */
export const COUNTS = [2, 3, 5, 8];

const normal = (shape: readonly number[]): Tensor => {
  const x = nn.normal_(zeros(shape), 0, 1);
  x.requiresGrad = true;
  return x;
};
const ids = (count: number, values: number, shape: readonly number[] = [count]): Tensor =>
  tensor(
    Int32Array.from({ length: count }, (_, i) => (i * 37 + 11) % values),
    shape,
  );

const causal = (q: Tensor, k: Tensor, v: Tensor): Tensor =>
  ops.attention(q, k, v, { ranges: ops.attentionRanges({ batch: q.shape[0]!, queries: q.shape[1]! }) });

/** Ops of drawn tensors; sizes are odd, so that parts end everywhere. */
const OPS: [(...xs: Tensor[]) => Tensor, ...(readonly number[])[]][] = [
  [(a, b) => ops.matmul(a, b), [203, 333], [333, 151]],
  [(a, b) => ops.matmul(a, b), [3, 65, 70], [3, 70, 129]],
  [(a, b) => ops.matmul(a, b), [1, 700], [700, 1001]],
  [ops.gelu, [301, 517]],
  [ops.geluTanh, [301, 517]],
  [ops.silu, [301, 517]],
  [ops.relu, [301, 517]],
  [(x) => ops.softmax(x), [301, 517]],
  [(x) => ops.logSoftmax(x), [301, 517]],
  [ops.siluMul, [301, 517], [301, 517]],
  [ops.add, [301, 517], [301, 517]],
  [ops.mul, [301, 517], [1, 517]],
  [(x) => ops.dropout(x, 0.3), [301, 517]],
  [(x, w, b) => ops.layerNorm(x, w!, b!, 1e-5), [301, 517], [517], [517]],
  [(x, w) => ops.rmsNorm(x, w!, 1e-5), [301, 517], [517]],
  [(x) => ops.crossEntropy(x, ids(301, 517)), [301, 517]],
  [ops.mseLoss, [301, 517], [301, 517]],
  [(x) => ops.transpose(x, 0, 1), [301, 517]],
  [causal, [2, 133, 6, 16], [2, 133, 3, 16], [2, 133, 3, 16]],
];

/** Layers with LoRA, whose B is drawn, too. */
const LAYERS: [() => nn.Module & { forward(x: Tensor): Tensor }, () => Tensor][] = [
  [() => new lora.Linear(256, 389, { r: 8, loraAlpha: 16, loraDropout: 0.1 }), () => normal([131, 256])],
  [() => new lora.MergedLinear(160, 312, { r: 4, enableLora: [true, false, true] }), () => normal([131, 160])],
  [() => new lora.Conv2d(8, 24, 3, { r: 2, padding: 1 }), () => normal([2, 8, 37, 41])],
  [() => new lora.Embedding(997, 130, { r: 4 }), () => ids(600, 997, [3, 200])],
];

/** Frozen weights in blocks, of which a thread may take 64 columns out of a block of 256. */
function* inBlocks(): Generator<Float32Array> {
  for (const [i, dtype] of (["q8_0", "q4_k", "q6_k", "nf4"] as const).entries())
    for (const rows of [1, 9, 133])
      for (const fanInFanOut of [false, true]) {
        const weight = blockParameter([512, 768], dtype, i + 1);
        const x = normal([rows, fanInFanOut ? 512 : 768]);
        const y = ops.linear(x, weight, null, [], fanInFanOut);
        yield y.data;
        ops.sum(ops.mul(y, y)).backward();
        yield x.grad!.data;
        yield ops.embedding(ids(600, 512), weight).data;
      }
}

/** The results of all of it, forward and backward, and of some optimiser steps. */
export function* dividedWork(): Generator<Float32Array> {
  manualSeed(11);
  for (const [op, ...shapes] of OPS) {
    const xs = shapes.map(normal);
    const y = op(...xs);
    yield y.data;
    (y.size === 1 ? y : ops.sum(ops.mul(y, normal(y.shape)))).backward();
    // A target has none.
    for (const x of xs) if (x.grad) yield x.grad.data;
  }
  for (const [make, input] of LAYERS) {
    const layer = make();
    for (const [key, p] of layer.namedParameters()) if (key.endsWith("lora_B")) nn.normal_(p, 0, 0.1);
    const parameters = layer.parameters().filter((p) => p.requiresGrad);
    const optimizer = new optim.AdamW(parameters, { lr: 1e-2, weightDecay: 0.1 });
    const x = input();
    for (let step = 0; step < 2; step++) {
      scope(() => {
        const y = layer.forward(x);
        ops.sum(ops.mul(y, normal(y.shape))).backward();
      });
      for (const p of parameters) yield p.grad!.data;
      optim.clipGradNorm_(parameters, 1);
      optimizer.step();
      optimizer.zeroGrad();
    }
    for (const p of parameters) yield p.data;
    layer.eval(); // which merges
    yield layer.forward(x).data;
  }
  yield* inBlocks();
}
