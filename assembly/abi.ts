/**
 * Call blocks: what kernels with more than eight arguments take. Such a kernel gets the address of a block and reads
 * its fields; it never writes them, so that one block may serve several calls. For each class that an exported kernel
 * takes, the build writes into src/runtime/abi.ts an interface, and a function that fills the block as the compiler has
 * laid it out.
 *
 * A field is an output, then inputs, sizes, scalars and working space. A comment in brackets is the shape of what a
 * pointer leads to: row-major, contiguous, float32 unless it says otherwise. "or null": the address 0, for a bias that
 * is not there, or a gradient that is not wanted. Gradients are added to what their buffers hold.
 */

/** sgemm: C = alpha * op(A) * op(B) + beta * C; see gemm/sgemm.ts. */
@unmanaged
export class Sgemm {
  /** [m, n], rows ldc elements apart. */
  c: usize;
  /** NN and NT: [m, k]; TN: [k, m]; rows lda elements apart. */
  a: usize;
  /** NN and TN: [k, n]; NT: [n, k]; rows ldb elements apart. */
  b: usize;
  /** Rows of C. */
  m: i32;
  /** Columns of C. */
  n: i32;
  /** Length of each sum. */
  k: i32;
  /** Elements between the starts of two rows of C. */
  ldc: i32;
  /** The same of A as it is stored. */
  lda: i32;
  /** The same of B as it is stored. */
  ldb: i32;
  /** Factor of B. */
  alpha: f32;
  /** Factor of C before; 0 does not read C. */
  beta: f32;
  /** sgemmScratchBytes() bytes, 16-byte aligned. */
  scratch: usize;
}

/** A low-rank term of n rows, s * (x̃ Aᵀ) Bᵀ; see lora/linear.ts. */
@unmanaged
export class LoraTerm {
  /** x̃: [n, d]; x itself, or dropout(x). */
  xDropped: usize;
  /** A: [r, d]. */
  a: usize;
  /** B: [k, r]. */
  b: usize;
  /** s * x̃ Aᵀ: [n, r], written by forward and read by backward. */
  hs: usize;
  /** Rows. */
  n: i32;
  /** Inputs of a row. */
  d: i32;
  /** Outputs of a row. */
  k: i32;
  /** Rank. */
  r: i32;
  /** Scaling. */
  s: f32;
  /** sgemmScratchBytes() bytes. */
  scratch: usize;
}

/** A term that is added to y. */
@unmanaged
export class LoraBranchForward extends LoraTerm {
  /** [n, k] */
  y: usize;
}

/** The gradients of a term. */
@unmanaged
export class LoraBranchBackward extends LoraTerm {
  /** [n, d], or null. */
  dx: usize;
  /**
   * [n, d], overwritten with the term's part of dx, for the caller to mask and add; null without dropout, where that
   * part goes to dx itself.
   */
  dxDropped: usize;
  /** [r, d], or null. */
  da: usize;
  /** [k, r], or null. */
  db: usize;
  /** [n, k] */
  dy: usize;
  /** Room for s * dy B: [n, r]. */
  zs: usize;
}

/** A linear layer with one term; r = 0: with none. */
@unmanaged
export class LoraLinearForward extends LoraBranchForward {
  /** [n, d] */
  x: usize;
  /** W: [k, d], or [d, k] if fanInFanOut. */
  weight: usize;
  /** [k], or null. */
  bias: usize;
  fanInFanOut: bool;
  /** What W is stored in: 0 float32, 1 bfloat16, 2 float16, 3 of finite values, 8 to 20 blocks; see gemm/half.ts. */
  format: i32;
}

/** Its gradients. */
@unmanaged
export class LoraLinearBackward extends LoraBranchBackward {
  /** W's shape, or null. */
  dWeight: usize;
  /** [k], or null. */
  dBias: usize;
  /** [n, d] */
  x: usize;
  /** W: [k, d], or [d, k] if fanInFanOut. */
  weight: usize;
  fanInFanOut: bool;
  /** What W is stored in: 0 float32, 1 bfloat16, 2 float16, 3 of finite values, 8 to 20 blocks; see gemm/half.ts. */
  format: i32;
}

/**
 * A linear layer whose outputs are equal blocks, g >= 1 of which have a term of rank r >= 1; see lora/merged_linear.ts.
 * A: [g r, d], and B: [g k / blocks, r], are those of the enabled blocks in order; hs: [n, g r].
 */
@unmanaged
export class MergedLinearForward extends LoraLinearForward {
  /** [blocks] int32, not 0 where a block has a term. */
  enabled: usize;
  /** A divisor of k. */
  blocks: i32;
}

/** Its gradients: those of A and B in their shapes, zs: [n, g r]. */
@unmanaged
export class MergedLinearBackward extends LoraLinearBackward {
  /** [blocks] int32, not 0 where a block has a term. */
  enabled: usize;
  /** A divisor of k. */
  blocks: i32;
}

/** W += s * B A; see lora/merge.ts. */
@unmanaged
export class LoraMerge {
  /** W: [k, d], or [d, k] if fanInFanOut. */
  weight: usize;
  /** A: [r, d]. */
  a: usize;
  /** B: [k, r]. */
  b: usize;
  /** Rows of B. */
  k: i32;
  /** Columns of A. */
  d: i32;
  /** Rank. */
  r: i32;
  /** Scaling. */
  s: f32;
  fanInFanOut: bool;
  /** Room for some rows of W: mergeRowsBytes(its columns) bytes. */
  rows: usize;
  /** sgemmScratchBytes() bytes. */
  scratch: usize;
}

/** The same of each enabled block of a merged linear layer, whose factors lie as in MergedLinearForward. */
@unmanaged
export class MergedLinearMerge extends LoraMerge {
  /** [blocks] int32, not 0 where a block has a term. */
  enabled: usize;
  /** A divisor of k. */
  blocks: i32;
}

/** The norms of the rows of W + s * B A, or of its columns if fanInFanOut; W stays as it is. See lora/dora.ts. */
@unmanaged
export class DoraNorm extends LoraMerge {
  /** [k] */
  norm: usize;
  /** What W is stored in: 0 float32, 1 bfloat16, 2 float16, 8 to 20 blocks; see gemm/half.ts. */
  format: i32;
  /** Room for [k] float64, only if fanInFanOut. */
  sums: usize;
}

/** A low-rank term of an embedding; see lora/embedding.ts. */
@unmanaged
export class LoraEmbedding {
  /** [n] int32, each in 0 .. vocab - 1. */
  ids: usize;
  /** B: [dim, r]. */
  b: usize;
  /** s * Aᵀ[ids]: [n, r], written by forward and read by backward. */
  hs: usize;
  /** Ids. */
  n: i32;
  /** Columns of y. */
  dim: i32;
  /** Rank. */
  r: i32;
  /** Columns of A. */
  vocab: i32;
  /** Scaling. */
  s: f32;
  /** sgemmScratchBytes() bytes. */
  scratch: usize;
}

/** A term that is added to y. */
@unmanaged
export class LoraEmbeddingForward extends LoraEmbedding {
  /** [n, dim] */
  y: usize;
  /** A: [r, vocab]. */
  a: usize;
}

/** Its gradients. */
@unmanaged
export class LoraEmbeddingBackward extends LoraEmbedding {
  /** [r, vocab], or null. */
  da: usize;
  /** [dim, r], or null. */
  db: usize;
  /** [n, dim] */
  dy: usize;
  /** [n]: factors of the gradients of A's columns, or null for ones. */
  f: usize;
  /** The column of A that gets no gradient; -1: none. */
  paddingIdx: i32;
  /** Room for s * dy B: [n, r]. */
  zs: usize;
}

/** torch's embedding_renorm_; see nn/embedding_renorm.ts. */
@unmanaged
export class EmbeddingRenorm {
  /** Row i starts i * rowStride elements on; its elements are elementStride apart. */
  w: usize;
  /** [n] int32, each a row of W. */
  ids: usize;
  /** Ids. */
  n: i32;
  /** Elements of a row. */
  dim: i32;
  /** dim for a table [vocab, dim], 1 for a factor [dim, vocab]. */
  rowStride: i32;
  /** 1 for a table [vocab, dim], vocab for a factor [dim, vocab]. */
  elementStride: i32;
  /** The largest norm that a row may keep. */
  maxNorm: f64;
  /** Of the p-norm, above 0; Infinity is allowed. */
  p: f64;
  /** Room for [vocab] int32. */
  seen: usize;
}

/** A convolution's sizes; two leading ones of 1 make it 1-D, one makes it 2-D. See gemm/im2col.ts. */
@unmanaged
export class ConvShape {
  inChannels: i32;
  /** Size of x: depth. */
  id: i32;
  ih: i32;
  iw: i32;
  outChannels: i32;
  /** Size of y: depth. */
  od: i32;
  oh: i32;
  ow: i32;
  /** Size of the window: depth. */
  kd: i32;
  kh: i32;
  kw: i32;
  /** Stride: depth. */
  sd: i32;
  sh: i32;
  sw: i32;
  /** Padding: depth. */
  pd: i32;
  ph: i32;
  pw: i32;
  /** Dilation: depth. */
  dd: i32;
  dh: i32;
  dw: i32;
  groups: i32;
}

/** A convolution of n images with a low-rank term; see lora/conv.ts. */
@unmanaged
export class LoraConv extends ConvShape {
  /** [n, inChannels, id, ih, iw] */
  x: usize;
  /** x̃, of x's shape: x itself, or dropout(x). */
  xDropped: usize;
  /** W: [outChannels, inChannels / groups, kd, kh, kw]; null leaves it out, and the term alone is added to y and dx. */
  weight: usize;
  /** A: [r, inChannels, kd, kh, kw]. */
  a: usize;
  /** B: [outChannels, r / groups]. */
  b: usize;
  /** conv(x̃, A): [n, r, od, oh, ow], written by forward and read by backward. */
  h: usize;
  /** Images. */
  n: i32;
  /** Rank; 0: the plain convolution. */
  r: i32;
  /** Scaling. */
  s: f32;
  /** sgemmScratchBytes() bytes. */
  scratch: usize;
}

/** Forward. */
@unmanaged
export class LoraConvForward extends LoraConv {
  /** [n, outChannels, od, oh, ow] */
  y: usize;
  /** [outChannels], or null. */
  bias: usize;
  /** convPanelBytes(inChannels * kd * kh * kw) bytes. */
  panel: usize;
}

/** Its gradients. */
@unmanaged
export class LoraConvBackward extends LoraConv {
  /** x's shape, or null. */
  dx: usize;
  /**
   * x's shape, overwritten with the term's part of dx, for the caller to mask and add; null without dropout, where that
   * part goes to dx itself.
   */
  dxDropped: usize;
  /** W's shape, or null. */
  dWeight: usize;
  /** [outChannels], or null. */
  dBias: usize;
  /** A's shape, or null. */
  da: usize;
  /** B's shape, or null. */
  db: usize;
  /** [n, outChannels, od, oh, ow] */
  dy: usize;
  /** Of the columns that are made at a time; it changes no bit. */
  columns: i32;
  /** Room for [r, od, oh, ow]. */
  zs: usize;
  /** Room for [inChannels * kd * kh * kw, columns]. */
  tile: usize;
}

/** Cross-entropy of a linear layer's outputs, by chunks; see lora/linear_loss.ts. */
@unmanaged
export class LinearCrossEntropy {
  /** [n, d], or null. */
  dx: usize;
  /** [classes, d], or null. */
  dWeight: usize;
  /** [classes], or null. */
  dBias: usize;
  /** [n, d] */
  x: usize;
  /** W: [classes, d]. */
  weight: usize;
  /** [classes], or null. */
  bias: usize;
  /** [n] int32, in 0 .. classes - 1 or ignoreIndex. */
  targets: usize;
  /** Rows. */
  n: i32;
  /** Inputs of a row. */
  d: i32;
  /** Outputs of a row. */
  classes: i32;
  /** Rows whose logits are there at a time; it changes no bit. */
  chunk: i32;
  /** Rows with this target do not count. */
  ignoreIndex: i32;
  /** Gradient of the sum. */
  scale: f32;
  /** What W is stored in: 0 float32, 1 bfloat16, 2 float16, 3 of finite values, 8 to 20 blocks; see gemm/half.ts. */
  format: i32;
  /** Room for the rows' losses: [n] float64. */
  losses: usize;
  /** Room for [chunk, classes]. */
  logits: usize;
  /** sgemmScratchBytes() bytes. */
  scratch: usize;
}

/** Attention; see nn/attention.ts. */
@unmanaged
export class Attention {
  /** [batch, queries, heads, dim] */
  q: usize;
  /** [batch, keys, kvHeads, dim] */
  k: usize;
  /** k's shape. */
  v: usize;
  /** [batch, queries, 2] int32: each query sees the keys from .. to - 1, 0 <= from <= to <= keys. */
  ranges: usize;
  batch: i32;
  queries: i32;
  /** Rows of k and v; any of them may be seen by no query. */
  keys: i32;
  /** A multiple of kvHeads. */
  heads: i32;
  kvHeads: i32;
  dim: i32;
  /** Of the scores. */
  scale: f32;
  /** Scores s become softcap * tanh(s / softcap); 0: they stay. */
  softcap: f32;
  /** attentionProbsBytes(keys) bytes; in backward attentionGradientBytes(batch * kvHeads, keys). */
  probs: usize;
  /** sgemmScratchBytes() bytes. */
  scratch: usize;
}

/** Forward. */
@unmanaged
export class AttentionForward extends Attention {
  /** q's shape. */
  y: usize;
}

/** Its gradients. */
@unmanaged
export class AttentionBackward extends Attention {
  /** q's shape, or null. */
  dq: usize;
  /** k's shape, or null. */
  dk: usize;
  /** v's shape, or null. */
  dv: usize;
  /** q's shape. */
  dy: usize;
  /** As many bytes as probs. */
  dprobs: usize;
  /** As many bytes as probs, only with a softcap. */
  tanh: usize;
}

/** Rotary position embedding; see nn/rope.ts. */
@unmanaged
export class Rope {
  /** [table rows, pairs] */
  cos: usize;
  /** [table rows, pairs] */
  sin: usize;
  /** [rows] int32: the table's row for each. */
  positions: usize;
  /** batch * steps */
  rows: i32;
  heads: i32;
  dim: i32;
  /** At most dim / 2: what is behind the pairs passes through. */
  pairs: i32;
}

/** Forward. */
@unmanaged
export class RopeForward extends Rope {
  /** [rows, heads, dim] */
  y: usize;
  /** y's shape. */
  x: usize;
}

/** Its gradient. */
@unmanaged
export class RopeBackward extends Rope {
  /** [rows, heads, dim] */
  dx: usize;
  /** dx's shape. */
  dy: usize;
}

/** LayerNorm; see nn/layer_norm.ts. */
@unmanaged
export class LayerNormForward {
  /** [rows, dim] */
  y: usize;
  /** [rows], kept for backward. */
  mean: usize;
  /** [rows], kept for backward. */
  rstd: usize;
  /** [rows, dim] */
  x: usize;
  /** [dim] */
  weight: usize;
  /** [dim], or null: none. */
  bias: usize;
  rows: i32;
  dim: i32;
  eps: f32;
}

/** Its gradients. */
@unmanaged
export class LayerNormBackward {
  /** [rows, dim], or null. */
  dx: usize;
  /** [dim], or null. */
  dWeight: usize;
  /** [dim], or null. */
  dBias: usize;
  /** [rows, dim] */
  dy: usize;
  /** [rows, dim] */
  x: usize;
  /** [dim] */
  weight: usize;
  /** [rows], of forward. */
  mean: usize;
  /** [rows], of forward. */
  rstd: usize;
  rows: i32;
  dim: i32;
}

/** The gradients of a factor and a summand for each channel; see nn/channel_scale.ts. */
@unmanaged
export class ChannelScaleBackward {
  /** [outer, channels, inner], or null. */
  dx: usize;
  /** [channels], or null. */
  dg: usize;
  /** [channels], or null. */
  dBias: usize;
  /** [outer, channels, inner] */
  dy: usize;
  /** [outer, channels, inner] */
  x: usize;
  /** [channels] */
  g: usize;
  outer: i32;
  channels: i32;
  /** 1: channels last. */
  inner: i32;
}

/** Elements by strides, which count elements; y and x must not overlap. See nn/strided.ts. */
@unmanaged
export class StridedCopy {
  y: usize;
  x: usize;
  /** The outer dimension's size. */
  n: i32;
  ys: i32;
  xs: i32;
  /** The middle dimension's size. */
  n1: i32;
  ys1: i32;
  xs1: i32;
  /** The inner dimension's size. */
  n2: i32;
  ys2: i32;
  xs2: i32;
}

/** y += alpha * x instead. */
@unmanaged
export class StridedAxpy extends StridedCopy {
  alpha: f32;
}

/** A dropout mask, and where it begins; see random/dropout.ts. */
@unmanaged
export class Dropout {
  /** Elements. */
  n: i32;
  /** Flat index of element 0; first + n <= 2^32. */
  first: u32;
  /** floor(p * 2^32) */
  threshold: u32;
  /** 1 / (1 - p) */
  scale: f32;
  /** The key. */
  seedLo: u32;
  seedHi: u32;
  stream: u32;
}

/** Forward. */
@unmanaged
export class DropoutForward extends Dropout {
  /** [n] */
  y: usize;
  /** [n]; may be y. */
  x: usize;
}

/** Its gradient. */
@unmanaged
export class DropoutBackward extends Dropout {
  /** [n] */
  dx: usize;
  /** [n] */
  dy: usize;
}

/** A step of SGD; see optim/sgd.ts. */
@unmanaged
export class SgdStep {
  /** [n] */
  p: usize;
  /** [n]; null where momentum = 0. */
  buf: usize;
  /** [n], not changed. */
  g: usize;
  n: i32;
  lr: f32;
  momentum: f32;
  weightDecay: f32;
  nesterov: bool;
  /** Whether buf holds nothing yet. */
  first: bool;
}

/** A step of Adam or AdamW; see optim/adamw.ts. */
@unmanaged
export class AdamStep {
  /** [n] */
  p: usize;
  /** [n] */
  m: usize;
  /** [n] */
  v: usize;
  /** [n], not changed. */
  g: usize;
  n: i32;
  /** 1 - lr * weightDecay with AdamW, otherwise 1. */
  decay: f32;
  /** weightDecay with Adam, otherwise 0. */
  l2: f32;
  beta1: f32;
  /** 1 - beta1 */
  rest1: f32;
  beta2: f32;
  /** 1 - beta2 */
  rest2: f32;
  /** lr / (1 - beta1^t) */
  stepSize: f32;
  /** sqrt(1 - beta2^t) */
  rootCorrection2: f32;
  eps: f32;
}
