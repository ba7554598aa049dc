/**
 * A fine-tuning run: LoRA factors of a language model learn a text. What it computes is a function of the model, the
 * tokens and the settings, to the bit; it prints nothing, reads and writes nothing, and asks no clock.
 */
import { noGrad } from "../autograd/tape.js";
import { evenWindows, randomWindows, trainTestSplit, type TextWindows } from "../data/windows.js";
import { Sha256, type Hash } from "../io/digest.js";
import type { CausalLM } from "../models/parts/causal_lm.js";
import type { Module, Parameter, StateDict } from "../nn/module.js";
import { clipGradNorm_ } from "../optim/clip.js";
import { AdamW } from "../optim/optimizer.js";
import { cosineSchedule, type Schedule } from "../optim/schedule.js";
import { LoraModel } from "../peft/model.js";
import { adopt, RandomState, withStreams } from "../random/seed.js";
import { ArgumentError, DivergedError, FormatError, StateError } from "../runtime/errors.js";
import { checkOptions, type Options } from "../runtime/options.js";
import { shown } from "../runtime/shown.js";
import { scope } from "../tensor/scope.js";
import { tensor, type Tensor } from "../tensor/tensor.js";
import { completeSettings, type FinetuningSettings } from "./settings.js";

/**
 * Held-out windows where the settings do not say: so many that a pass takes 10^12 operations, two for each weight and
 * token, under a minute of one core, but at least 4, and at most what three digits of perplexity need.
 */
const TEST_OPERATIONS = 1e12;
const [FEWEST_WINDOWS, MOST_WINDOWS] = [4, 128];
/** Norm that gradients are clipped to, as transformers' Trainer does (max_grad_norm). */
const MAX_GRAD_NORM = 1;
/** The first of so many parts of all steps warms up. */
const WARMUP = 20;

/** All that a run's next step depends on, beside the model, the tokens and the settings. */
export interface FinetuningState {
  /** The loss of each step so far. */
  losses: number[];
  /** What is trained, by its state-dict key. */
  factors: StateDict;
  /** The optimiser's moments. */
  optimizer: StateDict;
  /** Number of dropout masks drawn so far. */
  dropoutStream: number;
}

/** @throws ArgumentError unless it is of the form that `Finetuning.state` gives. @internal */
export function checkState(where: string, state: unknown): asserts state is FinetuningState {
  const { losses, factors, optimizer, dropoutStream } = (state ?? {}) as Partial<FinetuningState>;
  const isState = (value: unknown): boolean =>
    value instanceof Map && [...value.values()].every((entry) => entry?.data instanceof Float32Array && entry.shape);
  if (Array.isArray(losses) && isState(factors) && isState(optimizer) && Number.isSafeInteger(dropoutStream)) return;
  throw new ArgumentError(
    `${where}: state must be what Finetuning.state() or decodeCheckpoint() gives; got ${shown(state)}.`,
  );
}

/**
 * A LoRA fine-tuning of a language model on one text: an adapter on the model, AdamW without decay, a learning rate
 * that rises for a twentieth of the steps and falls as half a cosine, gradients clipped to norm 1, and batches of
 * random windows that `data.randomWindows` names by (seed, step). The end of the text is held out, to measure on.
 *
 * `wasm-lora finetune` is this with files and a progress bar: the same model, tokens and settings give the same bits in
 * a page, a Worker and the command line. Nothing of it waits: give other work its turn between two steps.
 *
 * Source: the recipe of PEFT's and TRL's scripts (get_peft_model, transformers' get_cosine_schedule_with_warmup).
 * @throws ArgumentError for an unknown setting, one out of range, an adapter that does not fit, a token beyond the
 * vocabulary, windows longer than the model's positions or a text too short for them; what `peft.LoraModel` throws.
 * Then the model is as it was
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
  /** All settings, with their defaults. */
  readonly settings: FinetuningSettings;
  /** The model with its adapter. */
  readonly adapted: LoraModel<M>;
  /** Tokens that are trained on. */
  readonly train: Int32Array;
  /** Tokens that are held out. */
  readonly test: Int32Array;
  /** Windows of these, spread evenly: what `evaluate` takes the mean over. */
  readonly testWindows: readonly TextWindows[];
  #losses: number[] = [];
  /** The run's own: what it draws comes from its seed, whatever others draw meanwhile. */
  readonly #streams: RandomState;
  readonly #trained: ReadonlyMap<string, Parameter>;
  readonly #optimizer: AdamW;
  readonly #schedule: Schedule;

  /**
   * @param model a model without adapters, or a LoraModel, to which one more is added and made the active one
   * @param tokens the text's ids
   * @param adapterName default "default"
   */
  constructor(
    model: M | LoraModel<M>,
    tokens: Int32Array | readonly number[],
    settings: Options<FinetuningSettings> = {},
    adapterName = "default",
  ) {
    const where = "Finetuning";
    this.settings = completeSettings(where, settings);
    const { adapter, steps, seq, lr, seed, testSize, testWindows } = this.settings;
    this.adapted = model instanceof LoraModel ? model : new LoraModel(model);
    const { config, loss } = this.adapted.model as Partial<CausalLM>;
    if (typeof loss !== "function" || !config) {
      throw new ArgumentError(
        `${where}: model must be a language model (Llama, Gpt2) or a LoraModel of one; got ` +
          `${shown(this.adapted.model)}.`,
      );
    }
    if (seq > config.maxPositionEmbeddings) {
      throw new ArgumentError(
        `${where}: seq = ${seq} is longer than the model's ${config.maxPositionEmbeddings} positions; lower seq.`,
      );
    }
    ({ train: this.train, test: this.test } = trainTestSplit(tokens, testSize));
    this.#checkTokens(where);
    const most = testWindows === "auto" ? windowsFor(this.adapted, seq) : testWindows;
    this.testWindows = testSize === 0 ? [] : evenWindows(this.test, seq, most);
    this.#streams = new RandomState(seed);
    withStreams(this.#streams, () => {
      for (const [, module] of this.adapted.namedModules()) adopt(module);
      this.adapted.addAdapter(adapterName, adapter);
    });
    this.adapted.setAdapter(adapterName);
    this.#trained = new Map([...this.adapted.namedParameters()].filter(([, p]) => p.requiresGrad));
    this.#optimizer = new AdamW([...this.#trained.values()], { lr, weightDecay: 0 });
    this.#schedule = cosineSchedule(steps, Math.ceil(steps / WARMUP));
  }

  /** The loss of each step so far: that of its batch, before it. */
  get losses(): readonly number[] {
    return this.#losses;
  }

  /** Whether all steps were taken. */
  get isComplete(): boolean {
    return this.#losses.length >= this.settings.steps;
  }

  /**
   * One optimiser step. All or nothing: after a step that ran out of memory, the same step gives the bits that it would
   * have given.
   * @returns the batch's loss before it
   * @throws DivergedError if that, a gradient or what would be made of a weight is not finite; StateError after the
   * last step; OutOfMemoryError
   */
  step(): number {
    const where = "Finetuning.step";
    const { steps, batch, seq, seed } = this.settings;
    const step = this.#losses.length;
    if (this.isComplete) throw new StateError(`${where}: the run has taken all of its ${steps} steps.`);
    const { ids, targets } = randomWindows(this.train, step, { batch, seq, seed });
    const { nextMask } = this.#streams;
    // Whoever has measured or written a text since has set evaluation mode, of either.
    if (!this.adapted.training || !this.adapted.model.training) this.adapted.train();
    try {
      const value = withStreams(this.#streams, () => scope(() => this.#update(where, step, ids, targets)));
      this.#losses.push(value);
      return value;
    } catch (error) {
      this.#streams.nextMask = nextMask;
      throw error;
    } finally {
      // Also of a step that failed: what its backward pass had added would be part of the next one's.
      this.#optimizer.zeroGrad();
    }
  }

  /**
   * The mean loss over windows of the held-out tokens, without dropout; it leaves the model in evaluation mode.
   * @param options `windows`: default all of `testWindows`. `onWindow` is called after each, with how many are done
   * @throws DivergedError if it is not finite; StateError if nothing is held out
   */
  evaluate(
    options: {
      windows?: readonly TextWindows[] | undefined;
      onWindow?: ((done: number, total: number) => void) | undefined;
    } = {},
  ): number {
    const where = "Finetuning.evaluate";
    checkOptions(where, options, ["windows", "onWindow"]);
    const { windows = this.testWindows, onWindow } = options;
    if (windows.length === 0)
      throw new StateError(`${where}: there is nothing to measure on: testSize is ${this.settings.testSize}.`);
    this.adapted.eval();
    let total = 0;
    for (const [i, { ids, targets }] of windows.entries()) {
      total += noGrad(() => scope(() => this.#loss(ids, targets, 1).item()));
      onWindow?.(i + 1, windows.length);
    }
    const mean = total / windows.length;
    if (Number.isFinite(mean)) return mean;
    const steps = this.#losses.length;
    throw this.#diverged(
      where,
      `the held-out loss ${steps === 0 ? "before training" : `after step ${steps}`} is ${mean}`,
    );
  }

  /**
   * A digest of what the run stands on, its frozen weights, as they are stored, and its tokens: kept beside a
   * checkpoint, it tells whether another run goes on with the same.
   * @param hash default a SHA-256 of our own; node:crypto's createHash("sha256") gives the same, ten times as fast
   */
  digest(hash: Hash = new Sha256()): string {
    for (const p of this.adapted.parameters()) if (!p.requiresGrad) hash.update(p.bytes);
    hash.update(this.train);
    hash.update(this.test);
    return hash.digest("hex");
  }

  /** Copies of what `restore` takes: training may go on before they are written. */
  state(): FinetuningState {
    return {
      losses: [...this.#losses],
      factors: new Map([...this.#trained].map(([key, { shape, data }]) => [key, { shape, data: data.slice() }])),
      optimizer: this.#optimizer.stateDict(),
      dropoutStream: this.#streams.nextMask,
    };
  }

  /**
   * Brings the run to where another one of the same model, tokens and settings was: what follows has the bits that it
   * would have had there. All or nothing.
   * @param name of the file that the state is from, for errors
   * @throws ArgumentError for what is no state; FormatError if it does not fit; OutOfMemoryError
   */
  restore(state: FinetuningState, name = "state"): void {
    checkState("Finetuning.restore", state);
    const { losses, factors, optimizer, dropoutStream } = state;
    for (const [key, { shape }] of this.#trained) {
      const entry = factors.get(key);
      if (!entry) throw new FormatError(`${name}: factor ${key} is missing.`);
      if (entry.shape.join() !== shape.join())
        throw new FormatError(`${name}: factor ${key} has shape [${entry.shape}]; the run needs [${shape}].`);
    }
    const { size } = this.#trained;
    const moments = [...optimizer.keys()].filter((key) => !key.endsWith(".step")).length;
    if (moments !== (losses.length === 0 ? 0 : 2 * size))
      throw new FormatError(`${name}: it holds ${moments} moments; expected 2 for each of ${size} factors.`);
    this.#optimizer.loadStateDict(optimizer, losses.length);
    for (const [key, p] of this.#trained) p.set(factors.get(key)!.data);
    this.#streams.nextMask = dropoutStream;
    this.#losses = [...losses];
  }

  /** Frees the optimiser's state. The adapter stays on the model: `adapted` saves it, merges it or deletes it. */
  dispose(): void {
    this.#optimizer.zeroGrad();
    this.#optimizer.dispose();
  }

  /** The step itself. @returns the loss before it */
  #update(where: string, step: number, ids: Int32Array, targets: Int32Array): number {
    const loss = this.#loss(ids, targets, this.settings.batch);
    const value = loss.item();
    if (!Number.isFinite(value)) throw this.#diverged(where, `the loss of step ${step + 1} is ${value}`);
    loss.backward();
    for (const group of this.#optimizer.paramGroups) group.lr = this.settings.lr * this.#schedule(step);
    try {
      clipGradNorm_([...this.#trained.values()], MAX_GRAD_NORM);
      this.#optimizer.step();
    } catch (cause) {
      if (!(cause instanceof ArgumentError)) throw cause;
      // What follows the first sentence is advice to whoever has written the loop.
      throw this.#diverged(where, `in step ${step + 1} ${cause.message.split(". ")[0]!}`, cause);
    }
    return value;
  }

  #loss(ids: Int32Array, targets: Int32Array, batch: number): Tensor {
    const shape = [batch, this.settings.seq];
    return this.adapted.model.loss(tensor(ids, shape), tensor(targets, shape));
  }

  #diverged(where: string, reason: string, cause?: unknown): DivergedError {
    return new DivergedError(
      `${where}: ${reason}: the run diverged, and nothing was updated. Lower lr (${this.settings.lr} here), or look ` +
        `at the text.`,
      reason,
      { cause },
    );
  }

  /** @throws ArgumentError */
  #checkTokens(where: string): void {
    const { train, test } = this;
    const { seq, testSize } = this.settings;
    const { vocabSize } = this.adapted.model.config;
    for (const [part, from] of [
      [train, 0],
      [test, train.length],
    ] as const) {
      const bad = part.findIndex((id) => id < 0 || id >= vocabSize);
      if (bad >= 0)
        throw new ArgumentError(
          `${where}: tokens holds ${part[bad]} at position ${from + bad}; expected an id in 0 .. ${vocabSize - 1}, ` +
            `the model's vocabulary.`,
        );
    }
    if (train.length > seq && (test.length > seq || testSize === 0)) return;
    throw new ArgumentError(
      `${where}: tokens has ${train.length + test.length} tokens, of which ${test.length} are held out; both parts ` +
        `must be longer than seq = ${seq}. Lower seq, give a longer text, or hold out less (testSize, ${testSize} ` +
        `here; 0: nothing).`,
    );
  }
}

function windowsFor(model: Module, seq: number): number {
  const weights = model.parameters().reduce((n, { size }) => n + size, 0);
  return Math.min(MOST_WINDOWS, Math.max(FEWEST_WINDOWS, Math.floor(TEST_OPERATIONS / (2 * weights * seq))));
}
