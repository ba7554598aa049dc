/**
 * A fine-tuning run: LoRA factors of a language model learn a text, or rows. What it computes is a function of the
 * model, the data and the settings, to the bit; it prints nothing, reads and writes nothing, and asks no clock.
 */
import { noGrad } from "../autograd/tape.js";
import type { Batch } from "../data/collate.js";
import type { TrainingRow } from "../data/labels.js";
import { Sha256, type Hash } from "../io/digest.js";
import type { CausalLM } from "../models/parts/causal_lm.js";
import type { Parameter, StateDict } from "../nn/module.js";
import { clipGradNorm_ } from "../optim/clip.js";
import { loraPlusGroups } from "../optim/lora_plus.js";
import { AdamW } from "../optim/optimizer.js";
import { constantSchedule, cosineSchedule, linearSchedule, type Schedule } from "../optim/schedule.js";
import { LoraModel } from "../peft/model.js";
import { adopt, RandomState, withStreams } from "../random/seed.js";
import { engine } from "../runtime/engine.js";
import { ArgumentError, DivergedError, FormatError, StateError } from "../runtime/errors.js";
import { checkOptions, type Options } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { checkCallback, refuseLazy } from "../runtime/synchronous.js";
import { checkInteger } from "../tensor/check.js";
import { scope } from "../tensor/scope.js";
import { tensor } from "../tensor/tensor.js";
import type { Batches, BatchesOf, RowData } from "./batches.js";
import { Evaluations, type Evaluation } from "./evaluations.js";
import { meanLoss } from "./mean_loss.js";
import { isRowData, RowBatches, rowSettings } from "./row_batches.js";
import { autoLearningRate, completeSettings, warmupSteps, type FinetuningSettings } from "./settings.js";
import { checkShards, giveGradients, GradientSum, type Shard } from "./shards.js";
import { checkFit, checkState, type FinetuningState, type StepMetrics } from "./state.js";
import { TextBatches } from "./text_batches.js";

/** Of a run whose gradients are not clipped: larger than any norm. */
const NO_CLIPPING = Number.MAX_VALUE;

/**
 * A LoRA fine-tuning of a language model on one text, or on rows: an adapter on the model, AdamW, a learning rate that
 * rises and then falls, clipped gradients. A text's batches are random windows that `data.randomWindows` names by
 * (seed, step), and its end is held out, to measure on. Rows are taken once each epoch, in an order that the seed
 * draws, and some are held out, or come apart.
 *
 * A step is `accumulation` shards of `batch` rows each. A shard's gradient is that of the sum of its scored tokens'
 * losses over their number in the whole step; it begins at zero, and shards are added in ascending order. So the number
 * of shards decides bits, and who computes them, in what order or how often, does not.
 *
 * `wasm-lora finetune` is this with files and a progress bar: the same model, data and settings give the same bits in
 * a page, a Worker and the command line. Nothing of it waits: give other work its turn between two steps.
 *
 * Source: the recipe of PEFT's and TRL's scripts (get_peft_model, SFTTrainer, transformers' Trainer).
 * @throws ArgumentError for an unknown setting, one out of range or of the other kind of data, an adapter that does not
 * fit, a token beyond the vocabulary, windows or rows longer than the model's positions, a text too short, no rows, or
 * one of which nothing is scored; what `peft.LoraModel` throws. Then the model is as it was
 *
 * @example
 * const { model, tokenizer } = await models.loadBase();
 * const tokens = tokenizer.encode("Fresh bread comes out of the oven at seven. ".repeat(8));
 * const run = new train.Finetuning(model, tokens, { steps: 20, batch: 4, seq: 8 });
 * const before = run.evaluate();
 * while (!run.isComplete) run.step();
 * console.log(run.losses.length, run.evaluate() < before); // 20 true
 * run.adapted.savePretrained("bakery");
 * run.dispose();
 */
export class Finetuning<M extends CausalLM = CausalLM> {
  /** @internal */ static readonly className: string = "Finetuning";
  /** All settings of the data's kind, with their defaults; what is "auto" stays so. */
  readonly settings: FinetuningSettings;
  /** The model with its adapter. */
  readonly adapted: LoraModel<M>;
  /** The highest learning rate: `settings.lr`, or what "auto" is of this model. */
  readonly learningRate: number;
  readonly #batches: Batches;
  #metrics: StepMetrics[] = [];
  #evaluations: Evaluations;
  #bestFactors: StateDict | null = null;
  /** The run's own: what it draws comes from its seed, whatever others draw meanwhile. */
  readonly #streams: RandomState;
  readonly #trained: ReadonlyMap<string, Parameter>;
  readonly #optimizer: AdamW;
  /** Of each of the optimiser's groups, before the schedule. */
  readonly #rates: readonly number[];
  readonly #schedule: Schedule;
  #masksPerShard: number | null = null;

  /**
   * @param model a model without adapters, or a LoraModel, to which one more is added and made the active one
   * @param data a text's ids, or rows as `data.tokenizeExamples` gives them
   * @param adapterName default "default"
   */
  constructor(
    model: M | LoraModel<M>,
    data: Int32Array | readonly number[] | RowData,
    settings: Options<FinetuningSettings> = {},
    adapterName = "default",
  ) {
    const where = "Finetuning";
    const given = dataOf(where, data, settings);
    this.settings = given.settings;
    const { adapter, lr, loraplusLrRatio, weightDecay, seed } = this.settings;
    this.adapted = model instanceof LoraModel ? model : new LoraModel(model);
    const { config, loss } = this.adapted.model as Partial<CausalLM>;
    if (typeof loss !== "function" || !config) {
      throw new ArgumentError(
        `${where}: model must be a language model (Llama, Gpt2) or a LoraModel of one; got ` +
          `${shown(this.adapted.model)}.`,
      );
    }
    const weights = this.adapted.parameters().reduce((n, { size }) => n + size, 0);
    this.#batches = given.batches({ ...config, weights });
    this.#checkEvaluations(where);
    this.learningRate = lr === "auto" ? autoLearningRate(weights) : lr;
    this.#evaluations = new Evaluations(this.settings, this.steps);
    this.#streams = new RandomState(seed);
    withStreams(this.#streams, () => {
      for (const [, module] of this.adapted.namedModules()) adopt(module);
      this.adapted.addAdapter(adapterName, adapter);
    });
    this.adapted.setAdapter(adapterName);
    this.#trained = new Map([...this.adapted.namedParameters()].filter(([, p]) => p.requiresGrad));
    const rate = { lr: this.learningRate, weightDecay };
    this.#optimizer =
      loraplusLrRatio === null
        ? new AdamW([...this.#trained.values()], rate)
        : new AdamW(loraPlusGroups(this.adapted, { ...rate, loraplusLrRatio }));
    this.#rates = this.#optimizer.paramGroups.map((group) => group.lr);
    this.#schedule = scheduleOf(this.settings, this.steps);
  }

  /** Steps in all, unless it stops early. */
  get steps(): number {
    return this.#batches.steps;
  }

  /** What is trained on: a text's ids, or rows. */
  get train(): Int32Array | readonly TrainingRow[] {
    return this.#batches.train;
  }

  /** What is held out: a text's ids, or rows. */
  get test(): Int32Array | readonly TrainingRow[] {
    return this.#batches.test;
  }

  /** What is known of each step so far. */
  get metrics(): readonly StepMetrics[] {
    return this.#metrics;
  }

  /** The loss of each step so far: that of its batch, before it. */
  get losses(): readonly number[] {
    return this.#metrics.map(({ loss }) => loss);
  }

  /** What `evaluate` found before the first step, where it was due, and after the last. */
  get evaluations(): readonly Evaluation[] {
    return this.#evaluations.list;
  }

  /** The lowest of `evaluations`, of which the run keeps the factors; null where `evalEvery` is 0, or without any. */
  get best(): Evaluation | null {
    return this.#evaluations.best;
  }

  /** Whether `patience` ended the run. */
  get stoppedEarly(): boolean {
    return this.#evaluations.isHopeless;
  }

  /** Whether no step is left: all were taken, or the run stopped early. */
  get isComplete(): boolean {
    return this.#metrics.length >= this.steps || this.stoppedEarly;
  }

  /** Whether `evaluate` must be called before the next step: after every `evalEvery` of them, and the last. */
  get isEvaluationDue(): boolean {
    return this.#evaluations.isDue(this.#metrics.length);
  }

  /** Batches that `evaluate` measures on; 0: nothing is held out. */
  get evaluationBatches(): number {
    return this.#batches.evaluations;
  }

  /**
   * Shards of the next step: `accumulation`, but of an epoch's last step as many as have rows.
   * @throws StateError if no step is left
   */
  get shardCount(): number {
    this.#checkStep("Finetuning.shardCount");
    return this.#batches.shards(this.#metrics.length).length;
  }

  /**
   * One optimiser step: `computeShard` of all of its shards, and `applyShards`. All or nothing: after a step that ran
   * out of memory, the same step gives the bits that it would have given.
   * @returns the loss before it, of its rows
   * @throws DivergedError if that, a gradient or what would be made of a weight is not finite; StateError after the
   * last step, or while an evaluation is due; OutOfMemoryError
   */
  step(): number {
    const where = "Finetuning.step";
    return this.#take(where, this.#begin(where), (index) => this.#backward(where, index));
  }

  /**
   * A shard of the next step. It changes nothing, and is decided by the run's state alone: another run that was
   * restored from the same state, in whatever process, gives the same bits.
   * @param index in 0 .. shardCount - 1
   * @throws ArgumentError for another index; DivergedError if its loss is not finite; StateError as `step`;
   * OutOfMemoryError
   *
   * @example
   * const { model, tokenizer } = await models.loadBase();
   * const tokens = tokenizer.encode("Fresh bread comes out of the oven at seven. ".repeat(8));
   * const run = new train.Finetuning(model, tokens, { steps: 4, batch: 2, accumulation: 2, seq: 8 });
   * const shards = [run.computeShard(1), run.computeShard(0)]; // perhaps each on another machine
   * console.log(run.applyShards(shards) === run.losses[0]); // true
   */
  computeShard(index: number): Shard {
    const where = "Finetuning.computeShard";
    const count = this.#begin(where);
    checkInteger(where, "index", index, 0, count - 1);
    try {
      const loss = this.#backward(where, index);
      const gradients: StateDict = new Map();
      for (const [key, { shape, grad }] of this.#trained)
        if (grad) gradients.set(key, { shape, data: grad.data.slice() });
      return { step: this.#metrics.length, index, loss, gradients };
    } finally {
      this.#optimizer.zeroGrad();
    }
  }

  /**
   * The optimiser step of all shards, in any order given. All or nothing.
   * @returns the loss before it, of all rows
   * @throws ArgumentError unless each shard of this step is there once, with gradients that fit; otherwise as `step`
   */
  applyShards(shards: readonly Shard[]): number {
    const where = "Finetuning.applyShards";
    const count = this.#begin(where);
    const trained = this.#trained;
    const ordered = checkShards(where, shards, { step: this.#metrics.length, count, trained });
    return this.#take(where, count, (index) => giveGradients(ordered[index]!, trained));
  }

  /**
   * The mean loss of all that is held out, without dropout: of a text, over its windows; of rows, over their scored
   * tokens. It leaves the model in evaluation mode. Before the first step, where it is due and after the last step it
   * is kept in `evaluations`, once, and counts for `best` and `patience`.
   * @param options `onBatch` is called after each batch, with how many are done
   * @throws DivergedError if it is not finite; StateError if nothing is held out; OutOfMemoryError
   */
  evaluate(options: { onBatch?: ((done: number, total: number) => void) | undefined } = {}): number {
    const where = "Finetuning.evaluate";
    checkOptions(where, options, ["onBatch"]);
    const total = this.evaluationBatches;
    if (total === 0) throw new StateError(`${where}: there is nothing to measure on: nothing is held out (testSize).`);
    const loss = this.#heldOutLoss(where, total, options.onBatch);
    const step = this.#metrics.length;
    if (this.#evaluations.lacks(step) && this.#evaluations.add({ step, loss })) this.#bestFactors = this.#factors();
    return loss;
  }

  /**
   * Weights may be finite and the next loss not: a look at the first batch that is held out, or where none is, at one
   * that is trained on, before the state is kept in place of an older one. It leaves the model in evaluation mode.
   * @throws DivergedError; OutOfMemoryError
   */
  checkFinite(): void {
    const where = "Finetuning.checkFinite";
    if (this.evaluationBatches > 0) this.#heldOutLoss(where, 1);
    else {
      const [first] = this.#batches.shards(Math.max(0, this.#metrics.length - 1));
      this.#checkMeasured(where, "loss", this.#measure(first!));
    }
  }

  /**
   * Runs fn with the best factors in the adapter, and puts the last ones back. Without a best, the last ones are there.
   * @param fn synchronous, such as saving the adapter, or a text that is generated
   * @throws what fn throws; StateError if it is asynchronous
   */
  withBest<T>(fn: () => T): T {
    const where = "Finetuning.withBest";
    checkCallback(where, fn);
    const best = this.#bestFactors;
    if (best === null) return fn();
    const last = this.#factors();
    this.#setFactors(best);
    try {
      const result = fn();
      refuseLazy(where, result, "It would go on with the last factors.");
      return result;
    } finally {
      this.#setFactors(last);
    }
  }

  /**
   * A digest of what the run stands on, its frozen weights, as they are stored, and its data: kept beside a
   * checkpoint, it tells whether another run goes on with the same.
   * @param hash default a SHA-256 of our own; node:crypto's createHash("sha256") gives the same, ten times as fast
   */
  digest(hash: Hash = new Sha256()): string {
    for (const p of this.adapted.parameters()) if (!p.requiresGrad) hash.update(p.bytes);
    this.#batches.update(hash);
    return hash.digest("hex");
  }

  /** Copies of what `restore` takes: training may go on before they are written. */
  state(): FinetuningState {
    return {
      arithmetic: engine().arithmetic,
      metrics: this.#metrics.map((metrics) => ({ ...metrics })),
      evaluations: this.evaluations.map((evaluation) => ({ ...evaluation })),
      factors: this.#factors(),
      bestFactors: this.#bestFactors && copyOf(this.#bestFactors, this.#trained.keys()),
      optimizer: this.#optimizer.stateDict(),
    };
  }

  /**
   * Brings the run to where another one of the same model, data and settings was: what follows has the bits that it
   * would have had there. All or nothing.
   * @param name of the file that the state is from, for errors
   * @throws ArgumentError for what is no state; FormatError if it does not fit; OutOfMemoryError
   */
  restore(state: FinetuningState, name = "state"): void {
    checkState("Finetuning.restore", state);
    const { metrics, factors, bestFactors, optimizer } = state;
    const fail = (message: string): never => {
      throw new FormatError(`${name}: ${message}.`);
    };
    checkFit(state, engine().arithmetic, this.steps, this.#trained, fail);
    const evaluations = new Evaluations(this.settings, this.steps);
    evaluations.addAll(state.evaluations, metrics.length, fail);
    if ((evaluations.best === null) !== (bestFactors === null))
      fail(`it ${bestFactors ? "has" : "lacks"} best factors; the run ${bestFactors ? "keeps none" : "needs them"}`);
    this.#optimizer.loadStateDict(optimizer, metrics.length);
    this.#setFactors(factors);
    this.#metrics = metrics.map((m) => ({ ...m }));
    this.#evaluations = evaluations;
    this.#bestFactors = bestFactors && copyOf(bestFactors, this.#trained.keys());
  }

  /** Frees the optimiser's state. The adapter stays on the model: `adapted` saves it, merges it or deletes it. */
  dispose(): void {
    this.#optimizer.zeroGrad();
    this.#optimizer.dispose();
  }

  /** @returns the shards of the next step, which may be taken @throws StateError */
  #begin(where: string): number {
    this.#checkStep(where);
    if (this.isEvaluationDue)
      throw new StateError(
        `${where}: an evaluation is due after step ${this.#metrics.length} (evalEvery is ` +
          `${this.settings.evalEvery}): call evaluate() first.`,
      );
    return this.#batches.shards(this.#metrics.length).length;
  }

  #checkStep(where: string): void {
    if (this.#metrics.length >= this.steps)
      throw new StateError(`${where}: the run has taken all of its ${this.steps} steps.`);
    if (this.stoppedEarly)
      throw new StateError(
        `${where}: the run has stopped early, after step ${this.#metrics.length}: ${this.settings.patience} ` +
          `evaluations brought no better loss (patience).`,
      );
  }

  /** A step of so many shards, each of which `part` gives the gradients of, and the loss. @returns their sum */
  #take(where: string, count: number, part: (index: number) => number): number {
    const sum = new GradientSum();
    try {
      let loss = 0;
      for (let index = 0; index < count; index++) {
        loss += part(index);
        sum.take(this.#trained.values());
      }
      this.#checkLoss(where, loss);
      sum.give();
      this.#update(where, loss);
      return loss;
    } finally {
      sum.dispose();
      this.#optimizer.zeroGrad();
    }
  }

  /** The gradients of a shard of the next step. @returns its loss */
  #backward(where: string, index: number): number {
    const step = this.#metrics.length;
    const shards = this.#batches.shards(step);
    const numItemsInBatch = shards.reduce((n, { scored }) => n + scored, 0);
    // Whoever has measured or written a text since has set evaluation mode, of either.
    if (!this.adapted.training || !this.adapted.model.training) this.adapted.train();
    const streams = this.#streams;
    const first = this.#masksOfShard() * (step * this.settings.accumulation + index);
    streams.nextMask = first;
    return withStreams(streams, () =>
      scope(() => {
        const loss = this.#loss(shards[index]!, numItemsInBatch);
        const value = loss.item();
        this.#checkLoss(where, value);
        loss.backward();
        return value;
      }),
    );
  }

  /** Dropout masks that a forward draws, so that a shard's follow from its number: one of a single token tells. */
  #masksOfShard(): number {
    const streams = this.#streams;
    streams.nextMask = 0;
    this.#masksPerShard ??= withStreams(streams, () =>
      noGrad(() => {
        scope(() => void this.adapted.model.forward(tensor(Int32Array.of(0), [1, 1])));
        return streams.nextMask;
      }),
    );
    return this.#masksPerShard;
  }

  /** The optimiser's step with the gradients that are there, of the next step's shards, whose loss that is. */
  #update(where: string, loss: number): void {
    const step = this.#metrics.length;
    const { maxGradNorm } = this.settings;
    const trained = [...this.#trained.values()];
    const factor = this.#schedule(step);
    for (const [i, group] of this.#optimizer.paramGroups.entries()) group.lr = this.#rates[i]! * factor;
    const { kernels } = engine();
    for (const [key, { grad }] of this.#trained)
      if (grad && kernels.countNonFinite(grad.address, grad.size) > 0)
        throw this.#diverged(where, `the gradient of ${key} in step ${step + 1} is not finite`);
    let gradNorm: number;
    try {
      gradNorm = clipGradNorm_(trained, maxGradNorm === 0 ? NO_CLIPPING : maxGradNorm);
      this.#optimizer.step();
    } catch (cause) {
      if (!(cause instanceof ArgumentError)) throw cause;
      // What follows the first sentence is advice to whoever has written the loop.
      throw this.#diverged(where, `in step ${step + 1} ${cause.message.split(". ")[0]!}`, cause);
    }
    const shards = this.#batches.shards(step);
    const { stepsPerEpoch } = this.#batches;
    this.#metrics.push({
      step: step + 1,
      epoch: stepsPerEpoch === null ? null : (step + 1) / stepsPerEpoch,
      loss,
      gradNorm,
      learningRate: this.learningRate * factor,
      tokens: shards.reduce((n, { tokens }) => n + tokens, 0),
      scored: shards.reduce((n, { scored }) => n + scored, 0),
    });
  }

  #loss({ ids, targets, attentionMask, shape }: Batch, numItemsInBatch?: number) {
    return this.adapted.model.loss(tensor(ids, shape), tensor(targets, shape), {
      attentionMask: attentionMask ? tensor(attentionMask, shape) : undefined,
      numItemsInBatch,
    });
  }

  #measure(batch: Batch): number {
    this.adapted.eval();
    return noGrad(() => scope(() => this.#loss(batch).item()));
  }

  /** Of the first batches that are held out. @throws DivergedError */
  #heldOutLoss(where: string, batches: number, onBatch?: (done: number, total: number) => void): number {
    const mean = meanLoss(
      batches,
      (i) => this.#batches.evaluation(i),
      (batch) => this.#measure(batch),
      onBatch,
    );
    this.#checkMeasured(where, "held-out loss", mean);
    return mean;
  }

  #checkMeasured(where: string, what: string, loss: number): void {
    if (Number.isFinite(loss)) return;
    const steps = this.#metrics.length;
    throw this.#diverged(where, `the ${what} ${steps === 0 ? "before training" : `after step ${steps}`} is ${loss}`);
  }

  #checkLoss(where: string, loss: number): void {
    if (!Number.isFinite(loss)) throw this.#diverged(where, `the loss of step ${this.#metrics.length + 1} is ${loss}`);
  }

  #checkEvaluations(where: string): void {
    const { evalEvery } = this.settings;
    if (evalEvery > 0 && this.evaluationBatches === 0)
      throw new ArgumentError(
        `${where}: evalEvery = ${evalEvery} asks for evaluations, and nothing is held out to measure on. Hold some ` +
          `of the data out (testSize), give rows of their own, or leave evalEvery out.`,
      );
  }

  #factors(): StateDict {
    return new Map([...this.#trained].map(([key, { shape, data }]) => [key, { shape, data: data.slice() }]));
  }

  #setFactors(factors: StateDict): void {
    for (const [key, p] of this.#trained) p.set(factors.get(key)!.data);
  }

  #diverged(where: string, reason: string, cause?: unknown): DivergedError {
    return new DivergedError(
      `${where}: ${reason}: the run diverged, and nothing was updated. Lower lr (${this.learningRate} here), or look ` +
        `at the data.`,
      reason,
      { cause },
    );
  }
}

/** Settings and batches of the data's kind. */
function dataOf(
  where: string,
  data: Int32Array | readonly number[] | RowData,
  given: Options<FinetuningSettings>,
): { settings: FinetuningSettings; batches: (model: BatchesOf) => Batches } {
  if (!isRowData(where, data)) {
    const settings = completeSettings(where, "text", given);
    return { settings, batches: (model) => new TextBatches(where, data, settings, model) };
  }
  const settings = rowSettings(where, data, given);
  return { settings, batches: (model) => new RowBatches(where, data, settings, model) };
}

function scheduleOf({ schedule, warmupRatio }: FinetuningSettings, steps: number): Schedule {
  const warmup = warmupSteps(steps, warmupRatio);
  if (schedule === "constant") return constantSchedule(warmup);
  return (schedule === "cosine" ? cosineSchedule : linearSchedule)(steps, warmup);
}

function copyOf(state: StateDict, keys: Iterable<string>): StateDict {
  return new Map(
    Array.from(keys, (key) => {
      const { shape, data } = state.get(key)!;
      return [key, { shape, data: data.slice() }];
    }),
  );
}
