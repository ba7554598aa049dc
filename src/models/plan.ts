/** The memory that training will take, told before it starts. */
import { enableGrad } from "../autograd/tape.js";
import type { Gpt2Config, LlamaConfig } from "../io/huggingface.js";
import type { LoraConfig } from "../io/peft.js";
import type { Module } from "../nn/module.js";
import { AdamW, type Optimizer, type OptimizerOptions } from "../optim/index.js";
import { getLoraModel } from "../peft/index.js";
import { RandomState, withStreams } from "../random/seed.js";
import type { Options } from "../runtime/options.js";
import { rehearse } from "../runtime/rehearsal.js";
import { checkInteger } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import type { CausalLM } from "./causal_lm.js";
import { Gpt2 } from "./gpt2.js";
import { Llama } from "./llama.js";

/** What a training step is made of. */
export interface TrainingPlanOptions {
  /** Sequences a step. */
  batch: number;
  /** Tokens a sequence. */
  seq: number;
  /** As for `peft.getLoraModel`. Left out: the model trains as it is. */
  adapter?: Options<LoraConfig> | undefined;
  /** Default: AdamW on what is trainable. */
  optimizer?: ((model: Module) => Pick<Optimizer<OptimizerOptions>, "step" | "zeroGrad">) | undefined;
  /** Default: as the model has it. */
  gradientCheckpointing?: boolean | undefined;
}

/** Bytes of linear memory. The parts are not there all at once: gradients come as activations go. */
export interface TrainingPlan {
  /** The model, trained or frozen, with its tables. */
  weights: number;
  /** Factors, and copies for modulesToSave. */
  adapters: number;
  /** Of what is trained, at the end of backward. */
  gradients: number;
  /** The optimiser's state. */
  optimiser: number;
  /** What forward leaves for backward, the batch too. */
  activations: number;
  /** The kernels' working space. */
  scratch: number;
  /** The most that is there at any time: `memoryStats().peakBytes` of an engine that does nothing else. */
  peak: number;
}

/**
 * The memory of training a language model, before it is loaded: making it and two steps are rehearsed on shapes alone,
 * with kernels that compute nothing. `init()` must have run; its engine and the random streams stay as they are.
 *
 * @param model its configuration, or what makes it (a GPT-2 with loralib's layers)
 * @throws ArgumentError, ShapeError where making the model or a step would
 *
 * @example
 * const { model } = models.loadLlama("models/base");
 * const plan = models.planTraining(model.config, { batch: 8, seq: 128, adapter: { r: 8, targetModules: "all-linear" } });
 * console.log(plan.peak > plan.weights + plan.activations); // true
 */
export function planTraining(model: LlamaConfig | Gpt2Config | (() => CausalLM), options: TrainingPlanOptions): TrainingPlan {
  const { batch, seq, adapter, optimizer = (m) => new AdamW(m.parameters().filter((p) => p.requiresGrad)) } = options;
  checkInteger("planTraining", "batch", batch, 1);
  checkInteger("planTraining", "seq", seq, 1);
  const make = typeof model === "function" ? model : () => ("rmsNormEps" in model ? new Llama(model) : new Gpt2(model));
  const streams = new RandomState(0);
  streams.taken = true;
  return rehearse((stats) => withStreams(streams, () => enableGrad(() => {
    const live = (): number => stats().liveBytes;
    const scratch = live();
    const base = make();
    base.gradientCheckpointing = options.gradientCheckpointing ?? base.gradientCheckpointing;
    const weights = live() - scratch;
    // Inits that look at the weights find none here; they give factors of the same shapes.
    const trained = adapter ? getLoraModel(base, { ...adapter, initLoraWeights: true }) : base;
    const adapters = live() - scratch - weights;
    const updates = optimizer(trained);
    const ids = new Int32Array(batch * seq);
    let activations = 0, gradients = 0;
    // The optimiser's state is made at the end of the first step.
    for (let step = 0; step < 2; step++) scope(() => {
      const before = live(), loss = base.loss(tensor(ids, [batch, seq]), tensor(ids, [batch, seq]));
      activations = live() - before;
      loss.backward();
      updates.step();
      gradients = live();
      updates.zeroGrad();
      gradients -= live();
    });
    return { weights, adapters, gradients, optimiser: live() - scratch - weights - adapters, activations, scratch, peak: stats().peakBytes };
  })));
}
