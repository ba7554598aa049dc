/** All of the model's work: what is loaded, the run, and who writes. */
import { data, DivergedError, init, io, memoryStats, peft } from "wasm-lora";
import { number, printable } from "../format";
import { Refusal } from "../refusal";
import type {
  Loading,
  LossOn,
  ModelView,
  Opened,
  Progress,
  RowsView,
  RunView,
  Said,
  Settings,
  Trouble,
  Who,
  Written,
} from "../views";
import { EMBEDDED, openBase, sourceOf, type Base, type Model, type Source } from "./base";
import { Clock } from "./clock";
import { Keeper } from "./keeper";
import { unseal, type KeptRun } from "./kept";
import { readRowsFile, tokenizeRows, viewRows, type Rows, type RowsFile } from "./rows";
import { otherModel, readText, Run, type Adapter, type Material } from "./run";
import { alive, alone, nextTask, seldom, watched } from "./turns";
import { endEarly, writing, type Drawing } from "./write";

type OnText = (text: string) => void;
type OnLoading = (loading: Loading) => void;

const SAVE_EVERY_MS = 3000;
/** Samples in the course of a run. */
const SAMPLES = 10;

export class Studio {
  readonly #keeper = new Keeper();
  #base!: Base;
  #threads = 1;
  #file: RowsFile | null = null;
  #rows: Rows | null = null;
  #run: Run | null = null;
  #uploaded: { base: Base; adapted: peft.LoraModel<Model> } | null = null;
  #pauseWanted = false;
  #hushWanted = false;

  /**
   * Loads the kernels, the model and what is left of the last run.
   * @param held what a worker before this one could not save
   * @param onUnkept gets what this one cannot save, and null once it can
   * @param onLoading is told how far the model of the last run is, where that is another than the page's
   */
  async open(held: KeptRun | null, onUnkept: (held: KeptRun | null) => void, onLoading: OnLoading): Promise<Opened> {
    this.#keeper.onUnkept = onUnkept;
    // The page before this one may still be saving.
    const settled = alone(async () => {}).catch(() => {});
    // On all cores where the page is isolated; elsewhere there is one thread, and no need to warn of it.
    this.#threads = (await init({ threads: crossOriginIsolated ? "auto" : 1 })).threads;
    await settled;
    const { latest, before } = await this.#keeper.read();
    const saved = held ?? latest;
    const source = sourceOf(unseal(saved)?.base ?? "");
    let missing: Error | null = null;
    if (source && source.kind !== "embedded")
      await this.#load(source, onLoading).catch((error: Error) => {
        missing = error;
      });
    this.#base ??= await openBase(EMBEDDED, () => {});
    const model = this.#model();
    if (saved === undefined) return { model, run: null, trouble: null };
    const trouble = await this.#restore(saved, before, missing);
    return { model, run: trouble ? null : this.view(), trouble };
  }

  async #load(source: Source, onLoading: OnLoading): Promise<void> {
    const tell = watched(onLoading);
    // One large model at a time.
    this.#base?.release();
    this.#base = await openBase(
      source,
      seldom((done, share) => tell({ done, share })),
    );
  }

  #model(): ModelView {
    const { id, name, weights, weightsOfRank, tokenizer } = this.#base;
    const canChat = tokenizer.chatTemplate !== null;
    const isEmbedded = sourceOf(id) === EMBEDDED;
    const threads = this.#threads;
    return { name, isEmbedded, weights, weightsOfRank, threads, canChat, hasRun: this.#isOfRun };
  }

  /**
   * Takes another model for the runs to come. A saved run that waits for it goes on.
   * @throws Refusal saying what is the matter with it; then the model is the one that it was
   */
  async choose(source: Source, onLoading: OnLoading): Promise<Opened> {
    this.hush();
    await this.#load(source, onLoading);
    this.#rows = null;
    this.#uploaded?.adapted.dispose();
    this.#uploaded = null;
    const model = this.#model();
    if (this.#run) return { model, run: null, trouble: null };
    const { latest, before } = await this.#keeper.read();
    if (unseal(latest)?.base !== this.#base.id) return { model, run: null, trouble: null };
    const trouble = await this.#restore(latest, before, null);
    return { model, run: trouble ? null : this.view(), trouble };
  }

  async #restore(record: unknown, recordBefore: unknown, missing: Error | null): Promise<Trouble | null> {
    const saved = unseal(record);
    if (!saved) {
      const before = unseal(recordBefore);
      const step = before?.base === this.#base.id ? before.state.metrics.length : null;
      const found =
        step === null ? "None was saved before it." : `The one that was saved before it, at step ${step}, is whole.`;
      const sentence =
        `The saved run is damaged: its contents do not have the digest that was saved with them. ` + `${found}`;
      return { sentence, before: step, mayPass: false };
    }
    try {
      if (missing) throw missing;
      if (saved.base !== this.#base.id) throw new Refusal("page", otherModel(saved.base));
      this.#run = Run.restore(this.#base, await this.#base.load(), saved);
      this.#keeper.last = saved;
      return null;
    } catch (error) {
      const other = !missing && saved.base !== this.#base.id;
      const { message } = error as Error;
      const sentence = other
        ? message
        : `The saved run, at step ${saved.state.metrics.length}, could not be opened ` +
          `(${message}). It is kept as it is: close other tabs and try again.`;
      return { sentence, before: null, mayPass: !other };
    }
  }

  /** Why the last save did not succeed, or null. */
  get unkept(): string | null {
    return this.#keeper.unkept;
  }

  /** What becomes of a saved run that does not open. @returns the one saved before it, if that was wanted */
  recover(choice: "before" | "delete"): Promise<RunView | null> {
    return alone(async () => {
      if (choice === "delete") {
        await this.#keeper.delete();
        return null;
      }
      const { saved, take } = await this.#keeper.before();
      const run = Run.restore(this.#base, await this.#base.load(), saved);
      await take().catch((error) => {
        run.dispose();
        throw error;
      });
      this.#run = run;
      return this.view();
    });
  }

  /** @throws Refusal if they are no text */
  textOf(bytes: Uint8Array, name: string): string {
    try {
      return data.decodeText(bytes, name);
    } catch (error) {
      const reason = printable((error as Error).message).replace(/^.*?: (byte \d+ [^;]*).*$/s, "$1");
      throw new Refusal(
        "file",
        `${name} is not a plain text file: ${reason}. Save it as UTF-8 text (.txt) and try again, or paste its text.`,
      );
    }
  }

  /** The rows of a file, for the model that is there. @throws Refusal naming the place of what is wrong */
  async readRows(bytes: Uint8Array, name: string, onReading: OnLoading): Promise<RowsView> {
    const file = await readRowsFile(bytes, name);
    const rows = this.#tokenize(file, "answers", onReading);
    [this.#file, this.#rows] = [file, rows];
    return viewRows(rows, this.#base);
  }

  /** The same for another model, or with another choice of what is scored. */
  async scoreRows(lossOn: LossOn, onReading: OnLoading): Promise<RowsView> {
    if (!this.#file)
      throw new Refusal("file", "Open the file again: of a run that was saved, only its tokens are kept.");
    this.#rows = this.#tokenize(this.#file, lossOn, onReading);
    return viewRows(this.#rows, this.#base);
  }

  #tokenize(file: RowsFile, lossOn: LossOn, onReading: OnLoading): Rows {
    const tell = seldom((done, share) => watched(onReading)({ done, share }));
    return tokenizeRows(this.#base, file, lossOn, (done, all) =>
      tell(`Row ${number(done)} of ${number(all)}`, done / all),
    );
  }

  /**
   * Measures the untrained model; `train` comes next. The last run is gone once this has succeeded.
   * @param text null: it learns the rows that were read last
   */
  begin(text: string | null, settings: Settings, onSample: OnText): Promise<RunView> {
    this.hush();
    return alone(async () => {
      const base = this.#base;
      const material: Material = text === null ? this.#material() : readText(base, text);
      const run = Run.begin(base, await base.load(), material, settings, watched(onSample), alive);
      const former = this.#run;
      const { last } = this.#keeper;
      this.#run = run;
      try {
        await this.#save(true);
      } catch (error) {
        this.#run = former;
        this.#keeper.last = last;
        run.dispose();
        throw error;
      }
      former?.dispose();
      return this.view();
    });
  }

  #material(): Rows {
    if (this.#rows) return this.#rows;
    // Of a run that was saved there are the rows, but not their file.
    const { base, material } = this.#run ?? {};
    if (base === this.#base && material && !("tokens" in material)) return material;
    throw new Refusal("file", "There are no rows any more. Open the file again.");
  }

  /**
   * Trains until the end (true) or until `pause` (false). One tab at a time: both would save to the same place.
   */
  train(onProgress: (progress: Progress) => void): Promise<boolean> {
    this.hush();
    // Not later: a pause that comes while the lock is waited for would be forgotten.
    this.#pauseWanted = false;
    return alone(() => this.#train(watched(onProgress)));
  }

  async #train(onProgress: (progress: Progress) => void): Promise<boolean> {
    const clock = new Clock();
    const run = this.#run!;
    const sampleEvery = Math.ceil(run.course.steps / SAMPLES);
    let saved = performance.now();
    // What is due is measured before anything ends: its result is a part of the run.
    while (!run.isComplete && (run.isEvaluationDue || !this.#pauseWanted)) {
      const isStep = !run.isEvaluationDue;
      await this.#advance(run, clock);
      const { course } = run;
      const left = course.steps - run.stepsDone;
      onProgress({
        ...course,
        tokensPerSecond: clock.tokensPerSecond,
        secondsLeft: clock.secondsLeft(left, Math.ceil(left / Math.max(1, run.evalEvery))),
        memoryBytes: memoryStats().peakBytes,
        unkept: this.#keeper.unkept,
        sample: isStep && run.stepsDone % sampleEvery === 0 && left > 0 ? sampleOf(run) : null,
      });
      if (performance.now() - saved > SAVE_EVERY_MS) {
        await this.#save();
        saved = performance.now();
      }
      await nextTask();
    }
    await this.#save();
    return run.isComplete;
  }

  /** One step, or the evaluation that is due. */
  async #advance(run: Run, clock: Clock): Promise<void> {
    const step = run.stepsDone + 1;
    const began = performance.now();
    try {
      if (run.isEvaluationDue) {
        run.evaluate(alive);
        clock.evaluation(performance.now() - began);
      } else {
        run.step();
        clock.step(performance.now() - began, run.tokens);
      }
    } catch (error) {
      if ((error as Error).name === "OutOfMemoryError") {
        throw new Refusal(
          "page",
          `This device ran out of memory in step ${step}. The run is as it was before that step: close other tabs, ` +
            `and resume.`,
        );
      }
      if (!(error instanceof DivergedError)) throw error;
      const last = this.#keeper.last!;
      run.dispose();
      this.#run = null;
      this.#run = Run.restore(run.base, await run.base.load(), last);
      throw new Refusal(
        "page",
        `Training has diverged: ${error.reason}. The run is back at step ${last.state.metrics.length}, the last one ` +
          "that was saved. Stop here to keep what it has learned so far, or train anew with fewer steps, a smaller " +
          "rank or other data.",
      );
    }
  }

  pause(): void {
    this.#pauseWanted = true;
  }

  /** Ends the run where it is: measures what it has learned. */
  finish(onSample: OnText): Promise<RunView> {
    return alone(async () => {
      this.#run!.finish(watched(onSample), alive);
      // What was learned is there, also if it cannot be saved.
      await this.#save().catch((error: Error) => this.#keeper.failed(error));
      return this.view();
    });
  }

  /** Also called when the page goes out of sight, since a phone may end it there. */
  save(): Promise<void> {
    return this.#save();
  }

  #save(withDraft = false): Promise<void> {
    return this.#keeper.save(() => this.#run, withDraft);
  }

  /** The run's adapter: of its end ("best": of the best evaluation, where that is better), or of its last step. */
  adapter(who: "best" | "last"): Adapter {
    return this.#run!.adapter(who);
  }

  /** As `adapter("best")`, for llama.cpp and Ollama. */
  exported(): Map<string, Uint8Array> | null {
    return this.#run!.exported();
  }

  /** @throws Refusal if it is no adapter of this model; then the one uploaded before is still there */
  async upload({ config, weights }: Adapter): Promise<void> {
    this.hush();
    const files = { "memory:adapter/adapter_config.json": config, "memory:adapter/adapter_model.safetensors": weights };
    for (const [name, bytes] of Object.entries(files)) io.memoryFiles.set(name, bytes);
    const base = this.#base;
    const model = await base.load();
    try {
      const adapted = peft.LoraModel.fromPretrained(model, "memory:adapter");
      this.#uploaded?.adapted.dispose();
      this.#uploaded = { base, adapted };
    } catch (error) {
      model.dispose();
      const reason = printable((error as Error).message).replaceAll("memory:", "");
      throw new Refusal(
        "upload",
        `This adapter cannot be used here: ${reason} Choose one that was made for this model, which ` +
          `is ${base.name}.`,
      );
    } finally {
      for (const name of Object.keys(files)) io.memoryFiles.delete(name);
    }
  }

  /** What a model says, until its end or until `hush`. @param onText gets it as it grows */
  async answer(who: Who, said: Said, drawing: Drawing, onText: OnText): Promise<Written> {
    this.#hushWanted = false;
    const tell = watched(onText);
    const { pieces, end } = await this.#writer(who, said, drawing);
    try {
      let text = "";
      for (;;) {
        const next = pieces.next();
        if (next.done) return next.value;
        tell((text = next.value));
        await nextTask();
        if (this.#hushWanted) return { text, isWhole: false };
      }
    } catch (error) {
      if ((error as Error).name !== "StateError") throw error;
      throw new Refusal(
        "chat",
        `Nothing can be written with this model: ${printable((error as Error).message)} Choose another.`,
      );
    } finally {
      endEarly(pieces);
      end();
    }
  }

  async #writer(
    who: Who,
    said: Said,
    drawing: Drawing,
  ): Promise<{ pieces: Generator<string, Written>; end: () => void }> {
    const base = this.#base;
    const run = this.#run;
    const nothing = (): void => {};
    if (who === "uploaded") {
      const { base, adapted } = this.#uploaded!;
      return { pieces: writing(base, adapted.model, said, drawing), end: nothing };
    }
    // A run has the model already: a large one is not loaded twice.
    if (who !== "base" || this.#isOfRun) return { pieces: run!.writing(who, said, drawing), end: nothing };
    const model = await base.load();
    return { pieces: writing(base, model, said, drawing), end: () => base.giveBack(model) };
  }

  /** Whether the run that is here is one of the model that is here. */
  get #isOfRun(): boolean {
    return this.#run?.base.id === this.#base.id;
  }

  /** Ends what is being said: a visitor wants no more of it, or something else of the model. */
  hush(): void {
    this.#hushWanted = true;
  }

  view(): RunView {
    const { base, material, settings, before, after, course } = this.#run!;
    const [text, rows] = "tokens" in material ? [material.text, null] : [null, viewRows(material, base)];
    return { ...course, text, rows, settings, before, after };
  }
}

/** A sample for which there is no memory is left out: it must not end the training. */
function sampleOf(run: Run): string | null {
  try {
    return run.sample().text;
  } catch (error) {
    if ((error as Error).name === "OutOfMemoryError") return null;
    throw error;
  }
}
