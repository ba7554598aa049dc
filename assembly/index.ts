/**
 * The ABI: every kernel the wrapper may call, grouped by room. Arguments stand in one order, in calls and in call
 * blocks: outputs, inputs, sizes, scalars, working space. BLAS's order is another one.
 */

/** First address that the module's own data does not use. */
export function heapBase(): usize {
  return __heap_base;
}

export { enterCall, leaveCall, threadControlBytes, useThread } from "./threads";

export { sgemmNN, sgemmNT, sgemmTN, sgemmScratchBytes } from "./gemm/threaded";
export { useBigTile, usesBigTile } from "./gemm/sgemm";
export { isFinite16 } from "./gemm/half";
export { widen } from "./gemm/blocks";
export { quantise } from "./gemm/quantise";

export { loraLinearForward, loraLinearBackward, loraBranchForward, loraBranchBackward } from "./lora/linear";
export { loraEmbeddingForward, loraEmbeddingBackward } from "./lora/embedding";
export { convPanelBytes, loraConvForward, loraConvBackward } from "./lora/conv";
export { mergedLinearForward, mergedLinearBackward, mergedLinearMerge } from "./lora/merged_linear";
export { loraMerge, mergeRowsBytes } from "./lora/merge";
export { doraNorm } from "./lora/dora";
export { linearCrossEntropy } from "./lora/linear_loss";

export { qrFactor, qrApply } from "./linalg/qr";
export { svdTall, svdWorkBytes } from "./linalg/svd";
export { dgemm } from "./linalg/dgemm";

export { exp64, log64 } from "./math/double";

export { mtStateBytes, mtSeed } from "./random/mt19937";
export { uniformFill } from "./random/uniform";
export { normalFill } from "./random/normal";
export { philox4x32, dropoutForward, dropoutBackward } from "./random/dropout";

export { stridedCopy, stridedAxpy } from "./nn/strided";
export { axisSum, axisMax } from "./nn/reduce";
export { embeddingForward, embeddingBackward, embeddingFactors } from "./nn/embedding";
export { embeddingRenorm } from "./nn/embedding_renorm";
export {
  addForward,
  mulForward,
  mulBackward,
  divForward,
  divBackward,
  sscal,
  saxpy,
  addScalar,
  sum,
  sumSquares,
  countNonFinite,
} from "./nn/elementwise";
export {
  siluForward,
  siluBackward,
  siluMulForward,
  siluMulBackward,
  geluErfForward,
  geluErfBackward,
  geluTanhForward,
  geluTanhBackward,
  reluForward,
  reluBackward,
  expForward,
  logForward,
  sigmoidForward,
  sigmoidBackward,
  tanhForward,
  tanhBackward,
} from "./nn/activation";
export { channelScaleForward, channelScaleBackward } from "./nn/channel_scale";
export { softmaxForward, softmaxBackward, logSoftmaxForward, logSoftmaxBackward } from "./nn/softmax";
export { rmsNormForward, rmsNormBackward } from "./nn/rms_norm";
export { layerNormForward, layerNormBackward } from "./nn/layer_norm";
export { ropeTable, ropeForward, ropeBackward } from "./nn/rope";
export { attentionForward, attentionBackward, attentionProbsBytes, attentionGradientBytes } from "./nn/attention";
export { crossEntropyForward, crossEntropyBackward, mseForward, mseBackward } from "./nn/loss";
export { bceForward, bceBackward } from "./nn/bce";

export { sgdStep } from "./optim/sgd";
export { adamStep } from "./optim/adamw";
export { cosineDecay } from "./optim/schedule";
