/** LoRA-FA: A stays as it was drawn, B's gradient is projected (Zhang et al. 2023; Wang et al. 2024, LoRA-Pro). */
import { matmul, transpose } from "../linalg/matrix.js";
import { svd } from "../linalg/svd.js";
import type { Module, Parameter } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { ShapeError } from "../runtime/errors.js";
import { checkNumber } from "../tensor/check.js";
import type { Tensor } from "../tensor/tensor.js";
import { AdamBase, type AdamOptions } from "./optimizer.js";

/** Options of LoraFA; defaults lr 1e-3, betas 0.9, 0.999, eps 1e-6, no decay. */
export interface LoraFAOptions extends AdamOptions {
  /** s of the model's LoRA layers: loraAlpha / r, or loraAlpha / √r with rsLoRA. */
  scaling: number;
}

const DELTA = 1e-8;
/** What torch.linalg.pinv cuts off, for each row: float32's epsilon. */
const EPSILON = 1 / 8388608;

/**
 * AdamW on the B factors, with g = dB (A Aᵀ + 1e-8 I)⁺ / s² for gradient: of the steps that B alone can make,
 * this one moves W most nearly along the full gradient. The constructor freezes every parameter with "lora_A" in its
 * key, so no dA is computed. Other trainable parameters take plain steps. The step is Hugging Face's former AdamW:
 * p -= lr √(1 - β2ᵗ) / (1 - β1ᵗ) * m / (√v + eps), then p -= lr * weightDecay * p. Defaults: lr 1e-3, betas 0.9, 0.999,
 * eps 1e-6, no decay.
 *
 * The r x r pseudo-inverse is in float64, from A as it is at each step; PEFT's is in float32 and its product in bfloat16
 * where the host has that. PEFT pairs factors by their order; here A is found by B's key.
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
  /** s of the model's LoRA layers. */
  readonly scaling: number;
  /** A of each B. */
  readonly #frozen: ReadonlyMap<Parameter, Parameter>;

  constructor(model: Module, options: Partial<LoraFAOptions> & { scaling: number }) {
    const { scaling, ...adam } = options;
    checkNumber("LoraFA", "scaling", scaling, Number.MIN_VALUE);
    const pairs = pairsOf(model), all = [...model.namedParameters()];
    super("LoraFA", all.filter(([key, p]) => p.requiresGrad && !key.includes("lora_A")).map(([, p]) => p), { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-6, weightDecay: 0, ...adam });
    this.scaling = scaling;
    this.#frozen = pairs;
    for (const [key, p] of all) if (key.includes("lora_A")) p.requiresGrad = false;
  }

  protected update(p: Parameter, g: Tensor, o: AdamOptions): void {
    const { kernels, memory, scratch } = engine();
    const a = this.#frozen.get(p);
    if (a) {
      const r = a.shape[0]!, k = p.size / r, inverse = inverseGram(a).map((v) => v / (this.scaling * this.scaling));
      memory.withBlocks([r * r * 4, p.size * 4], (projection, projected) => {
        memory.f32(projection!, r * r).set(inverse);
        kernels.sgemmNN(k, r, r, 1, g.address, r, projection!, r, 0, projected!, r, scratch);
        this.adam(p, projected!, o, 1, 0, true);
      });
    } else {
      this.adam(p, g.address, o, 1, 0, true);
    }
    if (o.weightDecay > 0) kernels.saxpy(p.size, -o.lr * o.weightDecay, p.address, p.address);
  }
}

/** "x.lora_B.name" -> "x.lora_A.name" */
function pairsOf(model: Module): Map<Parameter, Parameter> {
  const all = new Map(model.namedParameters()), pairs = new Map<Parameter, Parameter>();
  for (const [key, b] of all) {
    const a = key.includes("lora_B") ? all.get(key.replace("lora_B", "lora_A")) : undefined;
    if (!a) continue;
    if (b.size !== b.shape[0]! * a.shape[0]!) {
      throw new ShapeError(`LoraFA: ${key} has shape [${b.shape}]; expected [*, ${a.shape[0]}] beside lora_A of shape [${a.shape}].`);
    }
    pairs.set(b, a);
  }
  return pairs;
}

/** (A Aᵀ + DELTA I)⁺ for A [r, ...]; singular values up to r * EPSILON of the largest count as 0. */
function inverseGram(a: Parameter): Float64Array {
  const r = a.shape[0]!, d = a.size / r, values = a.data.slice();
  const gram = matmul(values, transpose(values, r, d), r, d, r);
  for (let i = 0; i < r; i++) gram[i * r + i]! += DELTA;
  const { u, s, vt } = svd(gram, r, r);
  const scaled = vt.map((v, i) => {
    const sigma = s[Math.floor(i / r)]!;
    return sigma > r * EPSILON * s[0]! ? v / sigma : 0;
  });
  return matmul(u, scaled, r, r, r);
}
