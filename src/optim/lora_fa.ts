/** LoRA-FA: A stays as it was drawn, B's gradient is projected (Zhang et al. 2023; Wang et al. 2024, LoRA-Pro). */
import { matmul, transpose } from "../linalg/matrix.js";
import { svd } from "../linalg/svd.js";
import type { Module, Parameter } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, ShapeError } from "../runtime/errors.js";
import { checkOptions, type Options } from "../runtime/options.js";
import { checkNumber, shown } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { AdamBase, type AdamOptions, type ParamGroup, type Update } from "./optimizer.js";

/** Options of LoraFA; defaults lr 1e-3, betas 0.9, 0.999, eps 1e-6, no decay. */
export interface LoraFAOptions extends AdamOptions {
  /** s of the model's LoRA layers: loraAlpha / r, or loraAlpha / √r with rsLoRA. */
  scaling: number;
}

const DELTA = 1e-8;
/** torch.linalg.pinv counts singular values as 0 up to rows * this of the largest: float32's epsilon. */
const EPSILON = 1 / 8388608;

/**
 * AdamW on the B factors, with g = dB (A Aᵀ + 1e-8 I)⁺ / s² for gradient: of the steps that B alone can make,
 * this one moves W most nearly along the full gradient. The constructor freezes every parameter with "lora_A" in its
 * key, so no dA is computed. Other trainable parameters take plain steps. The step is Hugging Face's former AdamW:
 * p -= lr √(1 - β2ᵗ) / (1 - β1ᵗ) * m / (√v + eps), then p -= lr * weightDecay * p. Defaults: lr 1e-3, betas 0.9, 0.999,
 * eps 1e-6, no decay.
 *
 * The r x r pseudo-inverse is in float64, from A as it is at each step; PEFT's is in float32 and its product in
 * bfloat16 where the host has that. PEFT pairs factors by their order; here A is found by B's key.
 *
 * Source: PEFT, LoraFAOptimizer and create_lorafa_optimizer.
 * @throws ArgumentError on an option out of range, or if nothing is left to train; ShapeError if A's rows are not as
 * many as B's columns (a MergedLinear's of several blocks)
 *
 * @example
 * const model = new lora.Linear(8, 8, { r: 2, loraAlpha: 4 });
 * lora.markOnlyLoraAsTrainable(model);
 * const optimizer = new optim.LoraFA(model, { scaling: model.scaling, lr: 1e-3 });
 * console.log(model.loraA.requiresGrad, model.loraB.requiresGrad); // false true
 */
export class LoraFA extends AdamBase {
  /** @internal */ static readonly className: string = "LoraFA";
  /** s of the model's LoRA layers. */
  readonly scaling: number;
  readonly #model: Module;
  /** A of each B. */
  #frozen: ReadonlyMap<Tensor, Parameter>;
  protected override readonly correctsEps = false;
  /** In a step: (A Aᵀ + 1e-8 I)⁺ / s² of each B, and where it and the projected gradient are. */
  #inverses = new Map<Tensor, Float64Array>();
  #blocks: readonly [projection: number, projected: number] = [0, 0];

  constructor(model: Module, options: Options<LoraFAOptions> & { scaling: number }) {
    checkOptions("LoraFA", options, ["scaling", "lr", "betas", "eps", "weightDecay"]);
    const { scaling, ...adam } = options ?? {};
    checkNumber("LoraFA", "scaling", scaling, Number.MIN_VALUE);
    if (typeof (model as Partial<Module> | null | undefined)?.namedParameters !== "function") {
      throw new ArgumentError(`LoraFA: model must be a module, whose names tell A and B apart; got ${shown(model)}.`);
    }
    const pairs = pairsOf(model);
    const all = [...model.namedParameters()];
    super(
      all.filter(([key, p]) => p.requiresGrad && !key.includes("lora_A")).map(([, p]) => p),
      { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-6, weightDecay: 0 },
      adam,
    );
    this.scaling = scaling;
    this.#model = model;
    this.#frozen = pairs;
    freezeA(model);
  }

  /** As of every optimiser. First freezes all A factors that the model has by now: those of a new adapter, too. */
  override addParamGroup(group: ParamGroup<AdamOptions>): void {
    const pairs = pairsOf(this.#model);
    super.addParamGroup(group);
    this.#frozen = pairs;
    freezeA(this.#model);
  }

  protected decays(): [number, number] {
    return [1, 0];
  }

  protected override withWork(updates: readonly Update<AdamOptions>[], fn: () => void): void {
    let largest = 0;
    let rank = 0;
    this.#inverses = new Map();
    for (const { p } of updates) {
      const a = this.#frozen.get(p);
      if (!a) continue;
      this.#inverses.set(
        p,
        inverseGram(a).map((v) => v / (this.scaling * this.scaling)),
      );
      [largest, rank] = [Math.max(largest, p.size), Math.max(rank, a.shape[0]!)];
    }
    engine().memory.withBlocks([rank * rank * 4, largest * 4], (projection, projected) => {
      this.#blocks = [projection, projected];
      fn();
    });
  }

  protected override gradient({ p, g }: Update<AdamOptions>): number {
    const { kernels, memory, scratch } = engine();
    const inverse = this.#inverses.get(p);
    const [projection, projected] = this.#blocks;
    if (!inverse) return g.address;
    const r = this.#frozen.get(p)!.shape[0]!;
    const k = p.size / r;
    memory.f32(projection, r * r).set(inverse);
    kernels.sgemmNN({
      c: projected,
      a: g.address,
      b: projection,
      m: k,
      n: r,
      k: r,
      ldc: r,
      lda: r,
      ldb: r,
      alpha: 1,
      beta: 0,
      scratch,
    });
    return projected;
  }

  protected override largest(update: Update<AdamOptions>, p: number, g: number, mean: number): number {
    const before = super.largest(update, p, g, mean);
    return before * (1 + update.o.lr * update.o.weightDecay);
  }

  protected override kernel(
    update: Update<AdamOptions>,
    n: number,
    p: number,
    g: number,
    slots: readonly number[],
  ): void {
    super.kernel(update, n, p, g, slots);
    const { lr, weightDecay } = update.o;
    if (weightDecay > 0) engine().kernels.saxpy(p, p, n, -lr * weightDecay);
  }
}

function freezeA(model: Module): void {
  for (const [key, p] of model.namedParameters()) if (key.includes("lora_A")) p.requiresGrad = false;
}

/** "x.lora_B.name" -> "x.lora_A.name" */
function pairsOf(model: Module): Map<Parameter, Parameter> {
  const all = new Map(model.namedParameters());
  const pairs = new Map<Parameter, Parameter>();
  for (const [key, b] of all) {
    const a = key.includes("lora_B") ? all.get(key.replace("lora_B", "lora_A")) : undefined;
    if (!a) continue;
    if (b.size !== b.shape[0]! * a.shape[0]!) {
      throw new ShapeError(
        `LoraFA: ${key} has shape [${b.shape}]; expected [*, ${a.shape[0]}] beside lora_A of shape [${a.shape}].`,
      );
    }
    pairs.set(b, a);
  }
  return pairs;
}

/** (A Aᵀ + DELTA I)⁺ for A [r, ...]; singular values up to r * EPSILON of the largest count as 0. */
function inverseGram(a: Parameter): Float64Array {
  const r = a.shape[0]!;
  const d = a.size / r;
  const values = a.data.slice();
  if (engine().isRehearsal) return new Float64Array(r * r);
  const gram = matmul(values, transpose(values, r, d), r, d, r);
  for (let i = 0; i < r; i++) gram[i * r + i]! += DELTA;
  const { u, s, vt } = svd(gram, r, r);
  const scaled = vt.map((v, i) => {
    const sigma = s[Math.floor(i / r)]!;
    return sigma > r * EPSILON * s[0]! ? v / sigma : 0;
  });
  return matmul(u, scaled, r, r, r);
}
