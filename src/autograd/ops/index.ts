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
export { add, gelu, geluTanh, mul, relu, reshape, scale, silu, siluMul, sum } from "./elementwise.js";
export { narrow } from "./narrow.js";
export { layerNorm, rmsNorm, softmax } from "./norm.js";
export { causalAttention, rope, ropeTable, type RopeTable } from "./attention.js";
export { crossEntropy, linearCrossEntropy, mseLoss } from "./loss.js";
export { channelScale, doraNorm, doraScale } from "./dora.js";
