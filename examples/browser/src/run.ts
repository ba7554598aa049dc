/**
 * The page's fine-tuning run: the library's, with the page's settings, reports and refusals. It is the run of
 * `wasm-lora finetune --batch 8 --seq 64 --r <rank> --alpha <2 rank> --steps <steps>`, to the same bits.
 */
import { data, DivergedError, io, models, type peft, train } from "wasm-lora";
import type { Base, Model } from "./base";
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

/** All that a run needs to go on, or to be shown again. */
export interface SavedRun {
  /** The id of the model. */
  base: string;
  text: string;
  settings: Settings;
  before: Report;
  /** null while the run is not finished. */
  after: Report | null;
  state: train.FinetuningState;
}

export interface Adapter {
  config: Uint8Array;
  weights: Uint8Array;
}

export const BATCH = 8;
export const SEQ = 64;
const SEED = 0;
const SAMPLE_TOKENS = 100;
const MOST_CHARACTERS = 2_000_000;

/** A text for a model: what a run is made of. */
export interface Reading {
  text: string;
  tokens: Int32Array | readonly number[];
}

/** @throws Refusal if the text is too short or too long */
export function readText({ tokenizer }: Base, text: string): Reading {
  if (text.length > MOST_CHARACTERS) {
    throw new Refusal(
      "text",
      `The text has ${text.length.toLocaleString("en-US")} characters; this page takes at most ` +
        `${MOST_CHARACTERS.toLocaleString("en-US")}. Use a part of it.`,
    );
  }
  const tokens = tokenizer.encode(text);
  if (data.trainTestSplit(tokens).test.length <= SEQ) throw new Refusal("text", tooShort(tokens.length));
  return { text, tokens };
}

export class Run {
  before!: Report;
  after: Report | null = null;

  private constructor(
    readonly base: Base,
    readonly text: string,
    readonly settings: Settings,
    private readonly training: train.Finetuning<Model>,
  ) {}

  /**
   * @param model one that `base` has loaded: it is the run's from now on, and ends with it
   * @throws Refusal if nothing can be learned from the text
   */
  static begin(base: Base, model: Model, reading: Reading, settings: Settings, onSample: (text: string) => void): Run {
    const run = Run.#prepare(base, model, reading, settings);
    try {
      run.before = run.#report(onSample);
    } catch (error) {
      run.dispose();
      throw error;
    }
    return run;
  }

  /** @throws Refusal if the run was made with another model */
  static restore(base: Base, model: Model, saved: SavedRun): Run {
    if (saved.base !== base.id) {
      model.dispose();
      throw new Refusal("page", otherModel(saved.base));
    }
    const run = Run.#prepare(base, model, readText(base, saved.text), saved.settings);
    try {
      run.training.restore(saved.state);
    } catch (error) {
      run.dispose();
      throw error;
    }
    run.before = saved.before;
    run.after = saved.after;
    return run;
  }

  static #prepare(base: Base, model: Model, { text, tokens }: Reading, settings: Settings): Run {
    const { rank, steps } = settings;
    const adapter = { r: rank, loraAlpha: 2 * rank, baseModelNameOrPath: base.peftName };
    try {
      const training = new train.Finetuning(model, tokens, { adapter, steps, batch: BATCH, seq: SEQ, seed: SEED });
      return new Run(base, text, settings, training);
    } catch (error) {
      model.dispose();
      throw error;
    }
  }

  get adapted(): peft.LoraModel<Model> {
    return this.training.adapted;
  }

  get losses(): readonly number[] {
    return this.training.losses;
  }

  get isComplete(): boolean {
    return this.training.isComplete;
  }

  /** One optimiser step, all or nothing; its loss is added to `losses`. @throws DivergedError, OutOfMemoryError */
  step(): void {
    this.training.step();
  }

  /** What the model writes now, in the middle of training. */
  sample(onText: (text: string) => void = () => {}): string {
    return write(this.base, this.adapted.model.eval(), this.settings.prompt, SEED, onText);
  }

  /** Ends the run here, complete or not. */
  finish(onSample: (text: string) => void): void {
    this.after = this.#report(onSample);
  }

  /** @throws Refusal where the loss is not finite: nothing that comes of it is kept */
  #report(onSample: (text: string) => void): Report {
    try {
      return { heldOutLoss: this.training.evaluate(), sample: this.sample(onSample) };
    } catch (error) {
      if (!(error instanceof DivergedError)) throw error;
      throw new Refusal(
        "text",
        `The model cannot learn from this (${error.reason}). Use another text, fewer steps or a smaller rank.`,
      );
    }
  }

  /** A copy: training may go on before it is written. */
  save(): SavedRun {
    const { text, settings, before, after } = this;
    return { base: this.base.id, text, settings, before, after, state: this.training.state() };
  }

  /** As PEFT saves it. */
  adapter(): Adapter {
    this.adapted.savePretrained("memory:trained");
    const file = (name: string): Uint8Array => io.memoryFiles.get(`memory:trained/${name}`)!;
    return { config: file("adapter_config.json"), weights: file("adapter_model.safetensors") };
  }

  dispose(): void {
    this.training.dispose();
    this.adapted.dispose();
  }
}

/**
 * A text that begins with `prompt`; `onText` gets it again and again as it grows.
 * @throws Refusal if the prompt is too long
 */
export function write(base: Base, model: Model, prompt: string, seed: number, onText: (text: string) => void): string {
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

/** Why a saved run does not go on with the model that is here. */
export function otherModel(id: string): string {
  const [, folder] = /^folder:(.*):[0-9a-f]+$/.exec(id) ?? [];
  if (folder !== undefined)
    return `The saved run was made with the model in your folder ${folder}. Open that folder again, and it goes on.`;
  return id.startsWith("hub:")
    ? `The saved run was made with ${id.slice("hub:".length)} of the hub. Load that model, and it goes on.`
    : "The saved run was made with another version of this page's model and cannot go on. Your text is still here: " +
        "train anew.";
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
