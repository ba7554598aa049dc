/** The memory that training will take, told before it starts. */
import type { LoraConfig } from "../io/peft/config.js";
import type { Module } from "../nn/module.js";
import { AdamW, type Optimizer, type OptimizerOptions } from "../optim/index.js";
import { ArgumentError } from "../runtime/errors.js";
import { checkOptions, type Options } from "../runtime/options.js";
import { checkCallback } from "../runtime/synchronous.js";
import { checkInteger, shown } from "../tensor/check.js";
import type { CausalLM } from "../models/parts/causal_lm.js";
import { createModel, type ModelConfig } from "../models/families.js";
import type { RowData } from "./batches.js";
import { largestBatches } from "./largest_batches.js";
import { configOf, rehearseRun, type TrainingPlan, type TrainingWork } from "./rehearsed_run.js";
import { RowBatches, rowSettings } from "./row_batches.js";
import type { FinetuningSettings } from "./settings.js";

/** Text that a run generates between steps. */
export interface PlannedGeneration {
  /** Tokens of the prompt. */
  prompt: number;
  /** Tokens to add at most. */
  maxNewTokens: number;
}

/** What a training step is made of, and what the run does besides. */
export interface TrainingPlanOptions {
  /** Sequences a shard. */
  batch: number;
  /** Tokens a sequence. */
  seq: number;
  /** Shards a step, whose gradients are added (gradient_accumulation_steps). Default 1. */
  accumulation?: number | undefined;
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
  generation?: PlannedGeneration | undefined;
}

/** What a run on rows does besides training. */
export interface RowPlanOptions {
  /** Default: as the model has it. */
  gradientCheckpointing?: boolean | undefined;
  /** Text that the run generates between steps. Default: none. */
  generation?: PlannedGeneration | undefined;
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

/** As `planTraining`, with the work. @internal */
export function rehearseTraining(
  model: ModelConfig | (() => CausalLM),
  options: TrainingPlanOptions,
): { plan: TrainingPlan; work: TrainingWork } {
  const where = "planTraining";
  checkOptions(where, options, [
    "batch",
    "seq",
    "accumulation",
    "adapter",
    "optimizer",
    "gradientCheckpointing",
    "evaluation",
    "generation",
  ]);
  const {
    batch,
    seq,
    accumulation = 1,
    optimizer = (m) => new AdamW(m.parameters()),
    evaluation,
    generation,
    ...rest
  } = options ?? ({} as TrainingPlanOptions);
  checkInteger(where, "batch", batch, 1);
  checkInteger(where, "seq", seq, 1);
  checkInteger(where, "accumulation", accumulation, 1);
  checkCallback(`${where}: optimizer`, optimizer);
  checkOptions(`${where}: evaluation`, evaluation, ["batch", "seq"]);
  if (evaluation)
    for (const [name, n] of [
      ["batch", evaluation.batch],
      ["seq", evaluation.seq],
    ] as const)
      checkInteger(where, `evaluation.${name}`, n, 1);
  checkGeneration(where, generation);
  const shard = { shape: [batch, seq] as const };
  return rehearseRun(where, makerOf(where, model), {
    ...rest,
    optimizer,
    generation,
    // All further shards are as the second.
    first: accumulation === 1 ? [shard] : [shard, shard],
    later: accumulation === 1 ? [{ batch: shard, isFirst: true }] : [{ batch: shard, isFirst: false }],
    shardsPerStep: accumulation,
    before: [],
    after: evaluation ? [{ shape: [evaluation.batch, evaluation.seq] }] : [],
  });
}

/**
 * The memory of a run on rows, as `planTraining` tells that of sequences of one length: by the shards of all steps, of
 * which those are rehearsed that may be the largest, and by the rows that are held out, on which it measures before the
 * first step and later. It is exact to the byte, but for a shard of more than 65,536 places, of which it is taken that
 * all are scored, and for a run that takes more than 500,000 rows, of which it is taken that the longest meet in one
 * shard.
 *
 * @param model its configuration, or what makes it
 * @param rows as for `train.Finetuning`
 * @param settings those of the run
 * @throws what `planTraining` and `train.Finetuning` throw
 *
 * @example
 * const { model } = models.loadModel("models/base");
 * const row = (length) => ({ ids: new Int32Array(length), labels: new Int32Array(length), where: "here" });
 * const peak = (...lengths) => train.planRows(model.config, { train: lengths.map(row), test: [] }, { batch: 2 }).peak;
 * console.log(peak(100, 90) > peak(100, 10)); // true
 */
export function planRows(
  model: ModelConfig | (() => CausalLM),
  rows: RowData,
  settings: Options<FinetuningSettings> = {},
  options: RowPlanOptions = {},
): TrainingPlan {
  return rehearseRows(model, rows, settings, options).plan;
}

/** As `planRows`, with the work. @internal */
export function rehearseRows(
  model: ModelConfig | (() => CausalLM),
  rows: RowData,
  settings: Options<FinetuningSettings> = {},
  options: RowPlanOptions = {},
): { plan: TrainingPlan; work: TrainingWork } {
  const where = "planRows";
  checkOptions(where, options, ["gradientCheckpointing", "generation"]);
  checkGeneration(where, options.generation);
  const make = makerOf(where, model);
  const complete = rowSettings(where, rows, settings);
  const config = typeof model === "function" ? configOf(make) : model;
  const batches = new RowBatches(where, rows, complete, config as CausalLM["config"]);
  const { first, later, heldOut } = largestBatches(batches);
  return rehearseRun(where, make, {
    ...options,
    adapter: complete.adapter,
    optimizer: (m) => new AdamW(m.parameters()),
    first,
    later,
    shardsPerStep: first.length,
    before: heldOut,
    after: heldOut,
  });
}

function checkGeneration(where: string, generation: PlannedGeneration | undefined): void {
  checkOptions(`${where}: generation`, generation, ["prompt", "maxNewTokens"]);
  if (generation)
    for (const [name, n, low] of [
      ["prompt", generation.prompt, 1],
      ["maxNewTokens", generation.maxNewTokens, 0],
    ] as const)
      checkInteger(where, `generation.${name}`, n, low);
}

/** @throws ArgumentError for what makes no language model */
function makerOf(where: string, model: ModelConfig | (() => CausalLM)): () => CausalLM {
  if (typeof model !== "function" && (typeof model !== "object" || model === null)) {
    throw new ArgumentError(
      `${where}: model must be a configuration, as model.config is, or a function that makes a model; got ` +
        `${shown(model)}.`,
    );
  }
  return () => {
    const base = typeof model === "function" ? model() : createModel(where, model);
    if (typeof (base as Partial<CausalLM> | null | undefined)?.loss !== "function")
      throw new ArgumentError(`${where}: model() gives ${shown(base)}; expected a language model, which has a loss.`);
    return base as CausalLM;
  };
}
