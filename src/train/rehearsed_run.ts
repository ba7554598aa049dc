/** A run on shapes alone: its steps, what it measures and writes, with kernels that compute nothing. */
import { scale, softmax } from "../autograd/ops/index.js";
import { enableGrad, noGrad } from "../autograd/tape.js";
import type { LoraConfig } from "../io/peft/config.js";
import type { CausalLM } from "../models/parts/causal_lm.js";
import type { Module } from "../nn/module.js";
import type { Optimizer, OptimizerOptions } from "../optim/index.js";
import { getLoraModel } from "../peft/index.js";
import { RandomState, withStreams } from "../random/seed.js";
import { engine } from "../runtime/engine.js";
import type { MemoryStats } from "../runtime/memory.js";
import type { Options } from "../runtime/options.js";
import { rehearse } from "../runtime/rehearsal.js";
import { refuseLazy } from "../runtime/synchronous.js";
import { scope } from "../tensor/scope.js";
import { tensor, Tensor } from "../tensor/tensor.js";
import { GradientSum } from "./shards.js";

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

/** Blocks of memory that parts of a training take: they come along with the work, and so tell how far it is. */
export interface TrainingWork {
  /** One step, after the first. */
  step: number;
  /** A batch that is held out. */
  evaluation: number;
}

/** A batch, or the shape of one whose targets are all scored. */
export interface PlannedBatch {
  readonly shape: readonly [number, number];
  readonly ids?: Int32Array | undefined;
  readonly targets?: Int32Array | undefined;
  readonly attentionMask?: Int32Array | null | undefined;
}

/** What is rehearsed, in this order. */
export interface PlannedRun {
  adapter?: Options<LoraConfig> | undefined;
  optimizer: (model: Module) => Pick<Optimizer<OptimizerOptions>, "step" | "zeroGrad">;
  gradientCheckpointing?: boolean | undefined;
  /** Measured on before the first step. */
  before: readonly PlannedBatch[];
  /** The shards of the first step, which makes the optimiser's state. */
  first: readonly PlannedBatch[];
  /** Shards of later steps, each of a step of its own; before those that are not their step's first there are sums. */
  later: readonly { readonly batch: PlannedBatch; readonly isFirst: boolean }[];
  /** Shards of most steps. */
  shardsPerStep: number;
  /** Measured on after the steps. */
  after: readonly PlannedBatch[];
  generation?: { prompt: number; maxNewTokens: number } | undefined;
}

/** Runs fn as `rehearse` does, without a draw from the streams in force: there are no values to draw. */
function rehearseApart<T>(fn: (stats: () => MemoryStats) => T): T {
  const streams = new RandomState(0);
  streams.taken = true;
  return rehearse((stats) => withStreams(streams, () => fn(stats)));
}

/** The configuration of the model that is made. */
export function configOf(make: () => CausalLM): CausalLM["config"] {
  return rehearseApart(() => make().config);
}

/** The memory and the work of a run. */
export function rehearseRun(
  where: string,
  make: () => CausalLM,
  run: PlannedRun,
): { plan: TrainingPlan; work: TrainingWork } {
  return rehearseApart((stats) =>
    enableGrad(() => {
      const live = (): number => stats().liveBytes;
      const { memory } = engine();
      /** Blocks that fn takes. */
      const blocksOf = (fn: () => void): number => {
        const before = memory.allocations;
        fn();
        return memory.allocations - before;
      };
      const scratch = live();
      const base = make();
      base.gradientCheckpointing = run.gradientCheckpointing ?? base.gradientCheckpointing;
      const weights = live() - scratch;
      const trained = run.adapter ? getLoraModel(base, run.adapter) : base;
      const adapters = live() - scratch - weights;
      const updates = run.optimizer(trained);
      refuseLazy(`${where}: optimizer`, updates, "It is needed at once.");
      const parameters = trained.parameters();
      const work: TrainingWork = { step: 0, evaluation: 0 };
      let activations = 0;
      let gradients = 0;

      const between = (fn: () => void): void => noGrad(() => scope(fn));
      const measure = (batches: readonly PlannedBatch[]): void => {
        trained.eval();
        for (const batch of batches) work.evaluation = blocksOf(() => between(() => void lossOf(base, batch)));
        trained.train();
      };
      const shard = (batch: PlannedBatch, sum: GradientSum): void => {
        scope(() => {
          const before = live();
          const loss = lossOf(base, batch);
          activations = Math.max(activations, live() - before);
          loss.backward();
        });
        sum.take(parameters);
      };
      const update = (sum: GradientSum): void => {
        sum.give();
        updates.step();
        const before = live();
        updates.zeroGrad();
        gradients = before - live();
      };

      measure(run.before);
      const sum = new GradientSum();
      work.step = blocksOf(() => {
        for (const batch of run.first) shard(batch, sum);
        update(sum);
      });
      for (const { batch, isFirst } of run.later) {
        if (!isFirst) {
          for (const p of parameters) if (p.requiresGrad) p.grad = new Tensor(p.shape).keep();
          sum.take(parameters);
        }
        const ofShard = blocksOf(() => shard(batch, sum));
        work.step = run.shardsPerStep * ofShard + blocksOf(() => update(sum));
      }
      measure(run.after);
      if (run.generation) generate(base, run.generation, between);
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
  );
}

function lossOf(model: CausalLM, { shape, ids, targets, attentionMask }: PlannedBatch): Tensor {
  const values = (given: Int32Array | undefined): Tensor => (given ? tensor(given, shape) : new Tensor(shape, "int32"));
  const options = attentionMask ? { attentionMask: tensor(attentionMask, shape) } : {};
  return model.loss(values(ids), values(targets), options);
}

/** As models.generate has it. */
function generate(
  model: CausalLM,
  { prompt, maxNewTokens }: { prompt: number; maxNewTokens: number },
  between: (fn: () => void) => void,
): void {
  model.eval();
  const count = Math.min(maxNewTokens, model.config.maxPositionEmbeddings - prompt);
  const cache = model.newCache();
  cache.limit = prompt + count - 1;
  const draw = (tokens: number): void =>
    between(() => {
      const scaled = scale(model.forward(new Tensor([1, tokens], "int32"), { cache, logitsToKeep: 1 }), 1);
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
