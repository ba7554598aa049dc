/**
 * What `init_lora_weights` of PEFT's LoraConfig does to a layer's factors, with its draws in its order.
 *
 * PEFT makes A and B as torch layers, whose constructors draw both (A, then B; U(±1/√fanIn) for linear
 * and conv layers, N(0, 1) for embeddings), and only then initialises them. So a value drawn here after
 * `manualSeed` is torch's: uniforms to the bit, normals to 2e-6.
 */
import { show } from "../io/json.js";
import type { LoraInit } from "../io/peft/config.js";
import { matmul, transpose } from "../linalg/matrix.js";
import { qr } from "../linalg/qr.js";
import { svd, svdLowrank } from "../linalg/svd.js";
import * as init from "../nn/init.js";
import { addProduct } from "../nn/merge.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, ShapeError } from "../runtime/errors.js";
import { checkInteger, checkNumber, checkTensor, checkWeight } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { Tensor } from "../tensor/tensor.js";

/** What is initialised. */
interface Factors {
  loraA: Tensor;
  loraB: Tensor;
  /** [outFeatures], or null: there is none. Default null. */
  loraBias?: Tensor | null | undefined;
}

/** The frozen layer below an adapter. */
interface LoraBase {
  /** [outFeatures, inFeatures], or transposed if fanInFanOut. */
  weight: Tensor;
  fanInFanOut: boolean;
}

const ITERATIONS = /^pissa_niter_(\d+)$/;

function refuse(where: string, kind: unknown, allowed: string): never {
  throw new ArgumentError(`${where}: initLoraWeights must be ${allowed}; got ${show(kind)}.`);
}

/**
 * Initialises a linear layer's factors in place.
 *
 * | kind | loraA | loraB | base weight |
 * |---|---|---|---|
 * | true | kaimingUniform_(√5) | 0 | |
 * | false | kaimingUniform_(√5) | kaimingUniform_(√5), so B A is not 0 | |
 * | "gaussian" | N(0, 1 / r²) | 0 | |
 * | "orthogonal" | (randn(d, r/2) Q_odd)ᵀ / 10 | randn(r/2, k)ᵀ Q_even / 10: rows of one Q, so B A = 0; r even | |
 * | "pissa" | √(S / s) Vᵀ | U √(S / s), of W's r largest singular values (Meng et al. 2024) | W - s B A |
 * | "pissa_niter_N" | the same by `svdLowrank` with N iterations: for weights too large for a full SVD | | W - s B A |
 * | "olora" | R[:r] | Q[:, :r], of W = Q R (Büyükakyüz 2024) | W - s B A |
 *
 * loraBias, which only booleans go with, is drawn as torch draws a bias of B, and is 0 for true.
 *
 * Where the base weight changes, it becomes float32 if it was stored as less, and W' + s B A gives W back to float32
 * rounding of the product and of both sums; decompositions are in float64. PEFT decomposes a fanInFanOut weight for
 * "olora" untransposed, which only fits square layers; here it is transposed.
 *
 * Source: PEFT, LoraLayer.update_layer and its *_init methods.
 * @param where the layer, for error messages
 * @param factors loraA [r, inFeatures], loraB [outFeatures, r]
 * @param scaling s
 * @throws ShapeError, DTypeError; ArgumentError on an unknown kind, an odd r for "orthogonal", an r above
 * min(inFeatures, outFeatures) for "pissa" and "olora", a scaling that is not positive for "pissa", a weight that is
 * not finite. Nothing is drawn or changed then.
 *
 * @example
 * const layer = new nn.Linear(64, 32);
 * const loraA = zeros([4, 64]), loraB = zeros([32, 4]);
 * initLoraWeights("pissa", "layer", { loraA, loraB }, { weight: layer.weight, fanInFanOut: false }, 2);
 */
export function initLoraWeights(
  kind: LoraInit,
  where: string,
  factors: Factors,
  base: LoraBase,
  scaling: number,
): void {
  const { loraA, loraB } = factors;
  const { isRehearsal } = engine();
  checkTensor(where, "loraA", loraA, "float32", [null, null]);
  const [r, d] = loraA.shape as [number, number];
  checkTensor(where, "loraB", loraB, "float32", [null, r]);
  checkInteger(where, "r", r, 1);
  const k = loraB.shape[0]!;
  checkWeight(where, "weight", base.weight, base.fanInFanOut ? [d, k] : [k, d]);
  if (typeof kind === "boolean" || kind === "gaussian") return drawFactors(kind, factors);
  if (kind === "orthogonal") {
    if (r % 2 !== 0) throw new ArgumentError(`${where}: "orthogonal" needs an even r; got ${r}.`);
    construct(factors);
    if (isRehearsal) return;
    return orthogonal(loraA, loraB, r, d, k);
  }
  const pissa = kind === "pissa" || (typeof kind === "string" && ITERATIONS.test(kind));
  if (!pissa && kind !== "olora")
    refuse(where, kind, 'true, false, "gaussian", "orthogonal", "pissa", "pissa_niter_<number>" or "olora"');
  checkInteger(where, `r of "${kind}"`, r, 1, Math.min(d, k));
  if (pissa) checkNumber(where, `scaling of "${kind}"`, scaling, Number.MIN_VALUE);
  // A rehearsal has no values to look at; what is made of them is as large.
  if (isRehearsal) {
    construct(factors);
    return addProduct(base.weight, loraA, loraB, -scaling, base.fanInFanOut);
  }
  const stored = base.weight.toFloat32();
  const bad = stored.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0)
    throw new ArgumentError(`${where}: weight holds ${stored[bad]} at ${bad}; "${kind}" needs finite values.`);

  const w = base.fanInFanOut ? transpose(stored, d, k) : stored;
  construct(factors);
  if (kind === "olora") {
    const { q, r: upper } = qr(w, k, d);
    const width = Math.min(d, k);
    loraA.data.set(upper.subarray(0, r * d));
    loraB.data.forEach((_, i, b) => {
      b[i] = q[Math.floor(i / r) * width + (i % r)]!;
    });
  } else {
    const iterations = ITERATIONS.exec(kind)?.[1];
    const { u, s, vt } = iterations === undefined ? svd(w, k, d) : svdLowrank(w, k, d, r, Number(iterations));
    const root = s.subarray(0, r).map((v) => Math.sqrt(v / scaling));
    loraA.data.forEach((_, i, a) => {
      a[i] = root[Math.floor(i / d)]! * vt[i]!;
    });
    loraB.data.forEach((_, i, b) => {
      b[i] = u[Math.floor(i / r) * s.length + (i % r)]! * root[i % r]!;
    });
  }
  addProduct(base.weight, loraA, loraB, -scaling, base.fanInFanOut);
}

/**
 * Initialises an embedding's factors: loraA [r, numEmbeddings] zeros, loraB [embeddingDim, r] N(0, 1); with
 * `false` both N(0, 1). As in PEFT, the other kinds mean `true` here.
 * @throws ShapeError, DTypeError
 */
export function initLoraEmbedding(kind: LoraInit, where: string, { loraA, loraB }: Factors): void {
  checkTensor(where, "loraA", loraA, "float32", [null, null]);
  checkTensor(where, "loraB", loraB, "float32", [null, loraA.shape[0]!]);
  init.normal_(loraA);
  init.normal_(loraB);
  if (kind === false) return;
  init.zeros_(loraA);
  init.normal_(loraB);
}

/**
 * Initialises a convolution's factors: loraA [r, inChannels, ...kernel] as for a linear layer, its fan-in being
 * inChannels times the kernel's size, loraB [outChannels, r / groups, 1, ...].
 * @param kind true, false or "gaussian"
 * @throws ShapeError, DTypeError, ArgumentError on another kind
 */
export function initLoraConv(kind: LoraInit, where: string, factors: Factors): void {
  const { loraA, loraB } = factors;
  checkTensor(where, "loraA", loraA);
  checkTensor(where, "loraB", loraB, "float32", [null, null, ...loraA.shape.slice(2).map(() => 1)]);
  if (loraA.shape[0]! % loraB.shape[1]! !== 0) {
    throw new ShapeError(
      `${where}: loraB has shape [${loraB.shape}]; its second dimension must divide r = ${loraA.shape[0]}.`,
    );
  }
  if (typeof kind !== "boolean" && kind !== "gaussian")
    refuse(where, kind, 'true, false or "gaussian" for a convolution');
  drawFactors(kind, factors);
}

/** The draws of the constructors of A and B. */
function construct({ loraA, loraB, loraBias }: Factors): void {
  init.kaimingUniform_(loraA);
  init.kaimingUniform_(loraB);
  const bound = 1 / Math.sqrt(loraB.size / loraB.shape[0]!);
  if (loraBias) init.uniform_(loraBias, -bound, bound);
}

function drawFactors(kind: boolean | "gaussian", factors: Factors): void {
  const { loraA, loraB, loraBias } = factors;
  construct(factors);
  if (kind === false) return;
  if (kind === "gaussian") init.normal_(loraA, 0, 1 / loraA.shape[0]!);
  else init.kaimingUniform_(loraA);
  init.zeros_(loraB);
  if (loraBias) init.zeros_(loraBias);
}

function orthogonal(loraA: Tensor, loraB: Tensor, r: number, d: number, k: number): void {
  const half = r / 2;
  const { q } = qr(randn(r * r), r, r);
  const rowsOfQ = (first: number): Float64Array =>
    Float64Array.from({ length: half * r }, (_, i) => q[(2 * Math.floor(i / r) + first) * r + (i % r)]!);
  const a = matmul(randn(d * half), rowsOfQ(0), d, half, r);
  const b = matmul(transpose(randn(half * k), half, k), rowsOfQ(1), k, half, r);
  loraA.set(transpose(a, d, r).map((v) => v / 10));
  loraB.set(b.map((v) => v / 10));
}

function randn(n: number): Float32Array {
  return scope(() => init.normal_(new Tensor([n])).data.slice());
}
