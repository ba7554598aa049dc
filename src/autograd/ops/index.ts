/**
 * Functions on tensors that leave a graph for `backward()`. Layers compute through them; each is checks, one forward
 * kernel and one backward kernel.
 * @module
 */
export { linear, type LoraBranch } from "./linear.js";
export { mergedLinear, type MergedLoraFactors } from "./merged_linear.js";
export { dropout } from "./dropout.js";
export { conv, type ConvBranch, type ConvOptions } from "./conv.js";
export { embedding, type EmbeddingBranch, type EmbeddingOptions } from "./embedding.js";
export { add, div, mul, sub } from "./arithmetic.js";
export { exp, gelu, geluTanh, log, relu, reshape, scale, sigmoid, silu, siluMul, tanh } from "./elementwise.js";
export { argmax, mean, sum } from "./reduce.js";
export { matmul } from "./matmul.js";
export { concat, narrow, transpose } from "./arrange.js";
export { layerNorm, logSoftmax, rmsNorm, softmax } from "./norm.js";
export { attention, attentionRanges, type AttentionOptions, type AttentionRangesOptions } from "./attention.js";
export { rope, ropeFrequencies, ropeTable, type RopeTable } from "./rope.js";
export { binaryCrossEntropy, binaryCrossEntropyWithLogits, crossEntropy, linearCrossEntropy, mseLoss } from "./loss.js";
export { channelScale, doraNorm, doraScale } from "./dora.js";
