/**
 * One fine-tuning run, step by step. The same text and settings give the same bits as
 * `wasm-lora finetune --batch 8 --seq 64 --r <rank> --alpha <2 rank> --steps <steps>` does in Node.
 */
import { data, io, lora, manualSeed, models, type nn, noGrad, optim, peft, scope, tensor } from "wasm-lora";
import { BASE_ID, type Base } from "./base";
import { Refusal } from "./refusal";

export interface Settings {
  rank: number;
  steps: number;
  prompt: string;
}

/** What the model does before or after training: loss on the tenth of the text that it never trains on, and a text. */
export interface Report {
  heldOutLoss: number;
  sample: string;
}

/** All that a run needs to go on, or to be shown again. IndexedDB stores it as it is. */
export interface SavedRun {
  base: string;
  text: string;
  settings: Settings;
  losses: number[];
  factors: nn.StateDict;
  moments: nn.StateDict;
  before: Report;
  /** null while the run is not finished. */
  after: Report | null;
}

export interface Adapter {
  config: Uint8Array;
  weights: Uint8Array;
}

export const BATCH = 8,
  SEQ = 64;
const LEARNING_RATE = 5e-3;
const SEED = 0;
const SAMPLE_TOKENS = 100;
const HELD_OUT_WINDOWS = 128;
const MOST_CHARACTERS = 2_000_000;

/** A number that is not finite where there must be one: nothing that comes of it is kept. */
export class DivergedError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "DivergedError";
  }
}

export class Run {
  readonly losses: number[] = [];
  before!: Report;
  after: Report | null = null;

  private constructor(
    private readonly base: Base,
    readonly text: string,
    readonly settings: Settings,
    readonly adapted: peft.LoraModel<models.Llama>,
    private readonly train: Int32Array,
    private readonly heldOut: Int32Array,
    private readonly optimizer: optim.AdamW,
    private readonly schedule: optim.Schedule,
  ) {}

  /** @throws Refusal if the text is too short or too long */
  static begin(base: Base, text: string, settings: Settings, onSample: (text: string) => void): Run {
    const run = Run.#prepare(base, text, settings);
    try {
      run.before = run.#report(onSample);
    } catch (error) {
      run.dispose();
      throw error;
    }
    return run;
  }

  /** @throws Refusal if the run was made with another base model */
  static restore(base: Base, saved: SavedRun): Run {
    if (saved.base !== BASE_ID) {
      throw new Refusal(
        "page",
        "The saved run was made with another version of this page's model and cannot go on. Your text is still " +
          "here: train anew.",
      );
    }
    const run = Run.#prepare(base, saved.text, saved.settings);
    try {
      run.adapted.loadStateDict(saved.factors, false);
      run.optimizer.loadStateDict(saved.moments, saved.losses.length);
    } catch (error) {
      run.dispose();
      throw error;
    }
    run.losses.push(...saved.losses);
    run.before = saved.before;
    run.after = saved.after;
    return run;
  }

  static #prepare(base: Base, text: string, settings: Settings): Run {
    if (text.length > MOST_CHARACTERS) {
      throw new Refusal(
        "text",
        `The text has ${text.length.toLocaleString("en-US")} characters; this page takes at most ` +
          `${MOST_CHARACTERS.toLocaleString("en-US")}. Use a part of it.`,
      );
    }
    // Before the model is made: its initialisation draws from the seed too.
    manualSeed(SEED);
    const model = base.load();
    const adapted = peft.getLoraModel(model, {
      r: settings.rank,
      loraAlpha: 2 * settings.rank,
      targetModules: "all-linear",
      baseModelNameOrPath: "models/base",
      taskType: "CAUSAL_LM",
    });
    const ids = Int32Array.from(base.tokenizer.encode(text));
    const cut = Math.floor(ids.length * 0.9);
    if (ids.length - cut < SEQ + 1) {
      adapted.dispose();
      throw new Refusal("text", tooShort(ids.length));
    }
    const optimizer = new optim.AdamW(
      adapted.parameters().filter((p) => p.requiresGrad),
      { lr: LEARNING_RATE, weightDecay: 0 },
    );
    const schedule = optim.cosineSchedule(settings.steps, Math.ceil(settings.steps / 20));
    return new Run(base, text, settings, adapted, ids.subarray(0, cut), ids.subarray(cut), optimizer, schedule);
  }

  get isComplete(): boolean {
    return this.losses.length === this.settings.steps;
  }

  /**
   * One optimiser step; its loss is added to `losses`. All or nothing: after a step that ran out of memory, the same
   * step gives the bits that it would have given.
   * @throws DivergedError if the loss is not finite, ArgumentError if a gradient or a new weight is not
   */
  step(): void {
    const step = this.losses.length;
    const trained = this.optimizer.paramGroups.flatMap((g) => g.params);
    const { ids, targets } = data.randomWindows(this.train, step, { batch: BATCH, seq: SEQ, seed: SEED });
    this.adapted.train();
    try {
      this.losses.push(
        scope(() => {
          const loss = this.adapted.model.loss(tensor(ids, [BATCH, SEQ]), tensor(targets, [BATCH, SEQ]));
          const value = loss.item();
          if (!Number.isFinite(value)) throw new DivergedError(`the loss of step ${step + 1} is ${value}`);
          loss.backward();
          optim.clipGradNorm_(trained, 1);
          for (const g of this.optimizer.paramGroups) g.lr = LEARNING_RATE * this.schedule(step);
          this.optimizer.step();
          return value;
        }),
      );
    } finally {
      // Also of a step that failed: what its backward pass had added would be part of the next one's.
      this.optimizer.zeroGrad();
    }
  }

  /** What the model writes now, in the middle of training. */
  sample(): string {
    this.adapted.eval();
    return write(this.base, this.adapted.model, this.settings.prompt, SEED, () => {});
  }

  /** Ends the run here, complete or not. */
  finish(onSample: (text: string) => void): void {
    this.after = this.#report(onSample);
  }

  #report(onSample: (text: string) => void): Report {
    this.adapted.eval();
    const windows = data.evenWindows(this.heldOut, SEQ, HELD_OUT_WINDOWS);
    const losses = windows.map(({ ids, targets }) =>
      noGrad(() => scope(() => this.adapted.model.loss(tensor(ids, [1, SEQ]), tensor(targets, [1, SEQ])).item())),
    );
    const heldOutLoss = losses.reduce((a, b) => a + b, 0) / losses.length;
    if (!Number.isFinite(heldOutLoss)) throw new DivergedError(`the loss on the text's last tenth is ${heldOutLoss}`);
    return { heldOutLoss, sample: write(this.base, this.adapted.model, this.settings.prompt, SEED, onSample) };
  }

  /** Copies: training may go on before they are written. */
  save(): SavedRun {
    const { text, settings, before, after } = this;
    return {
      base: BASE_ID,
      text,
      settings,
      losses: [...this.losses],
      factors: lora.loraStateDict(this.adapted),
      moments: this.optimizer.stateDict(),
      before,
      after,
    };
  }

  /** As PEFT saves it. */
  adapter(): Adapter {
    this.adapted.savePretrained("memory:trained");
    const file = (name: string): Uint8Array => io.memoryFiles.get(`memory:trained/${name}`)!;
    return { config: file("adapter_config.json"), weights: file("adapter_model.safetensors") };
  }

  dispose(): void {
    this.optimizer.dispose();
    this.adapted.dispose();
  }
}

/**
 * A text that begins with `prompt`; `onText` gets it again and again as it grows.
 * @throws Refusal if the prompt is too long
 */
export function write(
  base: Base,
  model: models.Llama,
  prompt: string,
  seed: number,
  onText: (text: string) => void,
): string {
  const { tokenizer, eosTokenIds } = base;
  const ids = tokenizer.encode(prompt);
  const room = model.config.maxPositionEmbeddings - SAMPLE_TOKENS;
  if (ids.length === 0) throw new Refusal("prompt", "Write a word or two for the model to begin with.");
  if (ids.length > room) {
    throw new Refusal(
      "prompt",
      `The beginning is ${ids.length} tokens long (pieces of words); at most ${room} fit. Shorten it.`,
    );
  }
  let text = "";
  const more = models.generate(model, ids, { maxNewTokens: SAMPLE_TOKENS, seed, stopToken: eosTokenIds });
  for (const piece of tokenizer.decodeStream(withMore(ids, more), { skipSpecialTokens: true })) {
    onText((text += piece));
  }
  return text;
}

function* withMore(ids: readonly number[], more: Iterable<number>): Generator<number> {
  yield* ids;
  yield* more;
}

function tooShort(tokens: number): string {
  const needed = 10 * (SEQ + 1);
  const words = Math.ceil((needed - tokens) / 2 / 10) * 10;
  return (
    `The text is too short to learn from: it has ${tokens} tokens (pieces of words), and ${needed} are ` +
    `needed. Add about ${words} words.`
  );
}
