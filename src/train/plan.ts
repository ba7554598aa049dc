/** The memory that training will take, told before it starts. */
import { scale, softmax } from "../autograd/ops/index.js";
import { enableGrad, noGrad } from "../autograd/tape.js";
import type { LoraConfig } from "../io/peft/config.js";
import type { Module } from "../nn/module.js";
import { AdamW, type Optimizer, type OptimizerOptions } from "../optim/index.js";
import { getLoraModel } from "../peft/index.js";
import { RandomState, withStreams } from "../random/seed.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions, type Options } from "../runtime/options.js";
import { rehearse } from "../runtime/rehearsal.js";
import { checkCallback, refuseLazy } from "../runtime/synchronous.js";
import { checkInteger, shown } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { Tensor } from "../tensor/tensor.js";
import type { CausalLM } from "../models/parts/causal_lm.js";
import { createModel, type ModelConfig } from "../models/families.js";

/** What a training step is made of, and what the run does besides. */
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
  /** Held-out windows that the run looks at between steps, so many at a time. Default: none. */
  evaluation?:
    | {
        /** Sequences at a time. */
        batch: number;
        /** Tokens a sequence. */
        seq: number;
      }
    | undefined;
  /** Text that the run generates between steps. Default: none. */
  generation?:
    | {
        /** Tokens of the prompt. */
        prompt: number;
        /** Tokens to add at most. */
        maxNewTokens: number;
      }
    | undefined;
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
 * with kernels that compute nothing. It takes milliseconds and no memory, however much the answer is. `init()` must
 * have run; its engine and the random streams stay as they are. Loading the model takes nothing beside its weights, of
 * which config.dtype says how they are stored.
 *
 * @param model its configuration, or what makes it (one with loralib's layers)
 * @throws ArgumentError for an unknown option; ArgumentError, ShapeError where making the model or a step would;
 * OutOfMemoryError beyond 2^53 bytes
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * const adapter = { r: 8, targetModules: "all-linear" };
 * const plan = train.planTraining(model.config, { batch: 8, seq: 128, adapter });
 * console.log(plan.peak > plan.weights + plan.activations); // true
 */
export function planTraining(model: ModelConfig | (() => CausalLM), options: TrainingPlanOptions): TrainingPlan {
  return rehearseTraining(model, options).plan;
}

/** Blocks of memory that parts of a training take: they come along with the work, and so tell how far it is. */
export interface TrainingWork {
  /** One step, after the first. */
  step: number;
  /** The held-out windows that are looked at at a time. */
  evaluation: number;
}

/** As `planTraining`, with the work. @internal */
export function rehearseTraining(
  model: ModelConfig | (() => CausalLM),
  options: TrainingPlanOptions,
): { plan: TrainingPlan; work: TrainingWork } {
  const where = "planTraining";
  checkOptions(where, options, [
    "batch",
    "seq",
    "adapter",
    "optimizer",
    "gradientCheckpointing",
    "evaluation",
    "generation",
  ]);
  const {
    batch,
    seq,
    adapter,
    optimizer = (m) => new AdamW(m.parameters()),
    evaluation,
    generation,
  } = options ?? ({} as TrainingPlanOptions);
  checkInteger(where, "batch", batch, 1);
  checkInteger(where, "seq", seq, 1);
  checkCallback(`${where}: optimizer`, optimizer);
  checkOptions(`${where}: evaluation`, evaluation, ["batch", "seq"]);
  checkOptions(`${where}: generation`, generation, ["prompt", "maxNewTokens"]);
  if (evaluation)
    for (const [name, n] of [
      ["batch", evaluation.batch],
      ["seq", evaluation.seq],
    ] as const)
      checkInteger(where, `evaluation.${name}`, n, 1);
  if (generation)
    for (const [name, n, low] of [
      ["prompt", generation.prompt, 1],
      ["maxNewTokens", generation.maxNewTokens, 0],
    ] as const)
      checkInteger(where, `generation.${name}`, n, low);
  if (typeof model !== "function" && (typeof model !== "object" || model === null)) {
    throw new ArgumentError(
      `${where}: model must be a configuration, as model.config is, or a function that makes a model; got ` +
        `${shown(model)}.`,
    );
  }
  const make = typeof model === "function" ? model : () => createModel(where, model);
  const streams = new RandomState(0);
  streams.taken = true;
  return rehearse((stats) =>
    withStreams(streams, () =>
      enableGrad(() => {
        const live = (): number => stats().liveBytes;
        const scratch = live();
        const base = make();
        if (typeof (base as Partial<CausalLM> | null | undefined)?.loss !== "function")
          throw new ArgumentError(
            `${where}: model() gives ${shown(base)}; expected a language model, which has a loss.`,
          );
        base.gradientCheckpointing = options.gradientCheckpointing ?? base.gradientCheckpointing;
        const weights = live() - scratch;
        const trained = adapter ? getLoraModel(base, adapter) : base;
        const adapters = live() - scratch - weights;
        const updates = optimizer(trained);
        refuseLazy(`${where}: optimizer`, updates, "It is needed at once.");
        const ids = (rows: number, columns: number): Tensor => new Tensor([rows, columns], "int32");
        let activations = 0;
        let gradients = 0;
        const { memory } = engine();
        const work: TrainingWork = { step: 0, evaluation: 0 };
        /** Blocks that fn takes. */
        const blocksOf = (fn: () => void): number => {
          const before = memory.allocations;
          fn();
          return memory.allocations - before;
        };
        // The optimiser's state is made at the end of the first step.
        for (let step = 0; step < 2; step++)
          work.step = blocksOf(() =>
            scope(() => {
              const before = live();
              const loss = base.loss(ids(batch, seq), ids(batch, seq));
              activations = live() - before;
              loss.backward();
              updates.step();
              gradients = live();
              updates.zeroGrad();
              gradients -= live();
            }),
          );
        const between = (run: () => void): void => noGrad(() => scope(run));
        trained.eval();
        if (evaluation)
          work.evaluation = blocksOf(() =>
            between(() => {
              base.loss(ids(evaluation.batch, evaluation.seq), ids(evaluation.batch, evaluation.seq));
            }),
          );
        if (generation) {
          const { prompt, maxNewTokens } = generation;
          const count = Math.min(maxNewTokens, base.config.maxPositionEmbeddings - prompt);
          const cache = base.newCache();
          // As generate() has it.
          cache.limit = prompt + count - 1;
          const draw = (tokens: number): void =>
            between(() => {
              const scaled = scale(base.forward(ids(1, tokens), { cache, logitsToKeep: 1 }), 1);
              new Tensor([1]);
              softmax(scaled);
            });
          if (count !== 0) draw(prompt);
          // Then the steps in which the cache grows, that in which it is made anew, and the last.
          const { renewAt = 0 } = cache.config;
          while (count > 1 && cache.length < cache.limit) {
            const isToRenew = cache.length <= renewAt && renewAt < cache.limit;
            const length = Math.min(cache.capacity, cache.limit - 1, isToRenew ? renewAt : Infinity);
            if (isToRenew && length === renewAt) {
              cache.dispose();
              draw(renewAt + 1);
            } else {
              cache.length = length;
              draw(1);
            }
          }
          cache.dispose();
        }
        const plan = {
          weights,
          adapters,
          gradients,
          optimiser: live() - scratch - weights - adapters,
          activations,
          scratch,
          peak: stats().peakBytes,
        };
        return { plan, work };
      }),
    ),
  );
}
