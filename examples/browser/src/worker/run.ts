/**
 * The page's fine-tuning run: the library's, with the page's settings, reports and refusals. It is the run of
 * `wasm-lora finetune --r <rank> --alpha <2 rank> --eval-every <a tenth of the steps> --patience <patience>`, of a text
 * with `--steps <steps> --batch 8 --seq 64`, of rows with `--epochs <epochs>`, to the same bits.
 */
import { ArgumentError, data, DivergedError, exportAdapter, io, type peft, train } from "wasm-lora";
import { number } from "../format";
import { Refusal } from "../refusal";
import type { Course, Question, Report, Said, Settings, Written } from "../views";
import type { Base, Model } from "./base";
import type { Rows } from "./rows";
import { within, write, writing, type Drawing } from "./write";

/** All that a run needs to go on, or to be shown again. */
export interface SavedRun {
  /** The id of the model. */
  base: string;
  /** What it learns: one of the two. */
  text: string | null;
  rows: Rows | null;
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

/** What a run is made of, for one model. */
export type Material = { text: string; tokens: Int32Array | readonly number[] } | Rows;

export const BATCH = 8;
export const SEQ = 64;
const SEED = 0;
/** In the course of a run. */
const EVALUATIONS = 10;
const MOST_CHARACTERS = 2_000_000;

/** @throws Refusal if the text is too short or too long */
export function readText({ tokenizer }: Base, text: string): Material {
  if (text.length > MOST_CHARACTERS) {
    throw new Refusal(
      "text",
      `The text has ${number(text.length)} characters; this page takes at most ${number(MOST_CHARACTERS)}. Use a ` +
        `part of it.`,
    );
  }
  const tokens = tokenizer.encode(text);
  if (data.trainTestSplit(tokens).test.length <= SEQ) throw new Refusal("text", tooShort(tokens.length));
  return { text, tokens };
}

/** Steps between two evaluations: a tenth of all. 0: one row, of which nothing is held out. */
export function evalEvery(material: Material, { steps, epochs }: Settings): number {
  if ("tokens" in material) return Math.ceil(steps / EVALUATIONS);
  const { length } = material.tokenized.rows;
  const heldOut = train.heldOutRows(length);
  return heldOut === 0 ? 0 : Math.ceil((epochs * data.stepsPerEpoch(length - heldOut, BATCH)) / EVALUATIONS);
}

export class Run {
  before!: Report;
  after: Report | null = null;

  private constructor(
    readonly base: Base,
    readonly material: Material,
    readonly settings: Settings,
    private readonly training: train.Finetuning<Model>,
  ) {}

  /**
   * @param model one that `base` has loaded: it is the run's from now on, and ends with it
   * @throws Refusal if nothing can be learned
   */
  static begin(
    base: Base,
    model: Model,
    material: Material,
    settings: Settings,
    onSample: (text: string) => void,
    onBatch: () => void = () => {},
  ): Run {
    const run = Run.#prepare(base, model, material, settings);
    try {
      run.before = run.#learning(() => ({
        heldOutLoss: run.#measure(onBatch),
        step: 0,
        sample: run.sample(onSample),
      }));
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
    const run = Run.#prepare(base, model, saved.rows ?? readText(base, saved.text!), saved.settings);
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

  static #prepare(base: Base, model: Model, material: Material, settings: Settings): Run {
    const { rank, steps, epochs, patience } = settings;
    const adapter = { r: rank, loraAlpha: 2 * rank, baseModelNameOrPath: base.peftName };
    const every = evalEvery(material, settings);
    const common = { adapter, batch: BATCH, seed: SEED, evalEvery: every, patience: every === 0 ? 0 : patience };
    try {
      const training =
        "tokens" in material
          ? new train.Finetuning(model, material.tokens, { ...common, steps, seq: SEQ })
          : new train.Finetuning(model, { train: material.tokenized.rows }, { ...common, epochs });
      return new Run(base, material, settings, training);
    } catch (error) {
      model.dispose();
      if (!("tokens" in material) && (error as Error).name === "ArgumentError")
        throw new Refusal("file", `These rows cannot be learned: ${(error as Error).message}`);
      throw error;
    }
  }

  get adapted(): peft.LoraModel<Model> {
    return this.training.adapted;
  }

  get course(): Course {
    const { losses, steps, evaluations, best, stoppedEarly } = this.training;
    return { losses: [...losses], steps, evaluations: [...evaluations], best, stoppedEarly };
  }

  get stepsDone(): number {
    return this.training.metrics.length;
  }

  get isComplete(): boolean {
    return this.training.isComplete && !this.training.isEvaluationDue;
  }

  get evalEvery(): number {
    return this.training.settings.evalEvery;
  }

  get isEvaluationDue(): boolean {
    return this.training.isEvaluationDue;
  }

  /** Of the last step. */
  get tokens(): number {
    return this.training.metrics.at(-1)!.tokens;
  }

  /** One optimiser step, all or nothing. @throws DivergedError, OutOfMemoryError */
  step(): void {
    this.training.step();
  }

  /** The evaluation that is due. @throws DivergedError */
  evaluate(onBatch: () => void): void {
    this.training.evaluate({ onBatch });
  }

  /** The loss on what is held out; null: nothing is. */
  #measure(onBatch: () => void): number | null {
    return this.training.evaluationBatches === 0 ? null : this.training.evaluate({ onBatch });
  }

  /** @throws Refusal where a loss is not finite: nothing that comes of it is kept */
  #learning<T>(fn: () => T): T {
    try {
      return fn();
    } catch (error) {
      if (!(error instanceof DivergedError)) throw error;
      throw new Refusal(
        "tokens" in this.material ? "text" : "file",
        `The model cannot learn from this (${error.reason}). Use other data, fewer steps or a smaller rank.`,
      );
    }
  }

  /** What the model writes now, in the middle of training. */
  sample(onText: (text: string) => void = () => {}): Written {
    const { said, drawing } = this.#question;
    return write(this.base, this.adapted.model, said, drawing, onText);
  }

  /**
   * Ends the run here, complete or not. Its adapter is that of its best evaluation, or the last one, if that is no
   * worse.
   */
  finish(onSample: (text: string) => void, onBatch: () => void = () => {}): void {
    const { best, evaluations, losses } = this.training;
    this.after = this.#learning(() => {
      const latest = evaluations.at(-1);
      const loss = latest?.step === losses.length ? latest.loss : this.#measure(onBatch);
      return best && loss !== null && best.loss < loss
        ? { heldOutLoss: best.loss, step: best.step, sample: this.training.withBest(() => this.sample(onSample)) }
        : { heldOutLoss: loss, step: losses.length, sample: this.sample(onSample) };
    });
  }

  /** What the run's model writes, with its adapter: that of the end ("best"), or of the last step; or without. */
  writing(who: "base" | "best" | "last", said: Said, drawing: Drawing): Generator<string, Written> {
    const pieces = writing(this.base, this.adapted.model, said, drawing);
    return within((fn) => (who === "base" ? this.adapted.disableAdapter(fn) : this.#with(who, fn)), pieces);
  }

  /** As PEFT saves it. */
  adapter(who: "best" | "last"): Adapter {
    return this.#with(who, () => {
      this.adapted.savePretrained("memory:trained");
      const file = (name: string): Uint8Array => io.memoryFiles.get(`memory:trained/${name}`)!;
      return { config: file("adapter_config.json"), weights: file("adapter_model.safetensors") };
    });
  }

  /** The adapter of the end for llama.cpp and Ollama, files by their names; null: they have no such model. */
  exported(): Map<string, Uint8Array> | null {
    const { tokenizer } = this.base;
    try {
      return this.#with("best", () => exportAdapter(this.adapted, { to: "ollama", tokenizer }).files);
    } catch (error) {
      if (error instanceof ArgumentError) return null;
      throw error;
    }
  }

  /** A copy: training may go on before it is written. */
  save(): SavedRun {
    const { base, material, settings, before, after } = this;
    const [text, rows] = "tokens" in material ? [material.text, null] : [null, material];
    return { base: base.id, text, rows, settings, before, after, state: this.training.state() };
  }

  dispose(): void {
    this.training.dispose();
    this.adapted.dispose();
  }

  #with<T>(who: "best" | "last", fn: () => T): T {
    const { best, losses } = this.training;
    const step = this.after?.step ?? best?.step ?? losses.length;
    return who === "last" || step === losses.length ? fn() : this.training.withBest(fn);
  }

  /** The samples' question: rows are asked for the likeliest answer, a text goes on at random. */
  get #question(): { said: Said; drawing: Drawing } {
    const { material, settings } = this;
    if ("tokens" in material)
      return { said: { text: settings.prompt }, drawing: { seed: SEED, temperature: TEXT_TEMPERATURE } };
    return { said: saidTo(material.question, settings.prompt), drawing: { seed: SEED, temperature: 0 } };
  }
}

/** Where nothing is said, as the library has it. */
const TEXT_TEMPERATURE = 0.8;

function saidTo({ isChat, system }: Question, prompt: string): Said {
  if (!isChat) return { text: prompt };
  return { messages: [...(system ? [{ role: "system", content: system }] : []), { role: "user", content: prompt }] };
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

function tooShort(tokens: number): string {
  const needed = 10 * (SEQ + 1);
  const words = Math.ceil((needed - tokens) / 2 / 10) * 10;
  return (
    `The text is too short to learn from: it has ${tokens} tokens (pieces of words), and ${needed} are ` +
    `needed. Add about ${words} words.`
  );
}
