/** The worker: all of the model's work, and the run's place in IndexedDB. The page calls it through Comlink. */
import { expose } from "comlink";
import { data, DivergedError, init, io, memoryStats, peft } from "wasm-lora";
import { EMBEDDED, openBase, sourceOf, type Base, type Model, type Source } from "./base";
import { printable } from "./format";
import { deleteRuns, readRuns, returnToBefore, revisionOf, seal, unseal, writeRun, type KeptRun } from "./kept";
import { Refusal } from "./refusal";
import {
  BATCH,
  otherModel,
  readText,
  Run,
  SEQ,
  write,
  type Adapter,
  type Report,
  type SavedRun,
  type Settings,
} from "./run";

export interface Progress {
  step: number;
  loss: number;
  tokensPerSecond: number;
  secondsLeft: number;
  memoryBytes: number;
  /** Why the run could not be saved, or null. */
  unkept: string | null;
  /** What the model writes by now, at some of the steps. */
  sample: string | null;
}
/** The model that the next run begins with. */
export interface ModelView {
  name: string;
  isEmbedded: boolean;
  weights: number;
  /** Of an adapter, for each rank. */
  weightsOfRank: number;
}
/** How far the loading of a model is: in words, and as a share if that is known. */
export interface Loading {
  done: string;
  share: number | null;
}
export interface RunView {
  text: string;
  settings: Settings;
  losses: number[];
  before: Report;
  after: Report | null;
}
/** A saved run that does not open. It stays as it is until the visitor decides. */
export interface Trouble {
  sentence: string;
  /** Step of the run that was saved before it, if that one is whole. */
  before: number | null;
  /** Whether opening it again may succeed. */
  mayPass: boolean;
}
export interface Opened {
  model: ModelView;
  run: RunView | null;
  trouble: Trouble | null;
}
export type Who = "base" | "trained" | "uploaded";
type OnText = (text: string) => void;

const SAVE_EVERY_MS = 3000;
const LOCK_PATIENCE_MS = 3000;
/** Steps that the speed is averaged over. */
const RECENT = 20;
/** Samples in the course of a run. */
const SAMPLES = 10;

class Studio {
  #base!: Base;
  #run: Run | null = null;
  #pauseWanted = false;
  #uploaded: { base: Base; adapted: peft.LoraModel<Model> } | null = null;
  /** The last good state, wherever it could be kept. */
  #last: SavedRun | null = null;
  /** Of the record in IndexedDB, as this tab saw it last. */
  #seen: number | null = null;
  #unkept: string | null = null;
  #saving: Promise<void> = Promise.resolve();
  #onUnkept: (held: KeptRun | null) => void = () => {};

  /**
   * Loads the kernels, the model and what is left of the last run.
   * @param held what a worker before this one could not save
   * @param onUnkept gets what this one cannot save, and null once it can
   * @param onLoading is told how far the model of the last run is, where that is another than the page's
   */
  async open(
    held: KeptRun | null,
    onUnkept: (held: KeptRun | null) => void,
    onLoading: (loading: Loading) => void,
  ): Promise<Opened> {
    this.#onUnkept = onUnkept;
    // The page before this one may still be saving.
    const settled = alone(async () => {}).catch(() => {});
    await init();
    await settled;
    const { latest, before } = await readRuns().catch((error: Error) => {
      this.#unkept = notKept(error);
      return { latest: undefined, before: undefined };
    });
    this.#seen = revisionOf(latest);
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

  async #load(source: Source, onLoading: (loading: Loading) => void): Promise<void> {
    let last = 0;
    const tell = watched(onLoading);
    // One large model at a time.
    this.#base?.release();
    this.#base = await openBase(source, (done, share) => {
      const now = performance.now();
      // A page does not need to hear of every packet.
      if (share !== 1 && now - last < 100) return;
      last = now;
      tell({ done, share });
    });
  }

  #model(): ModelView {
    const { id, name, weights, weightsOfRank } = this.#base;
    return { name, isEmbedded: sourceOf(id) === EMBEDDED, weights, weightsOfRank };
  }

  /**
   * Takes another model for the runs to come. A saved run that waits for it goes on.
   * @throws Refusal saying what is the matter with it; then the model is the one that it was
   */
  async choose(source: Source, onLoading: (loading: Loading) => void): Promise<Opened> {
    await this.#load(source, onLoading);
    const model = this.#model();
    if (this.#run) return { model, run: null, trouble: null };
    const { latest, before } = await readRuns().catch(() => ({ latest: undefined, before: undefined }));
    if (unseal(latest)?.base !== this.#base.id) return { model, run: null, trouble: null };
    this.#seen = revisionOf(latest);
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
      this.#last = saved;
      return null;
    } catch (error) {
      const other = !missing && saved.base !== this.#base.id;
      const { message } = error as Error;
      const sentence = other
        ? message
        : `The saved run, at step ${saved.state.metrics.length} of ${saved.settings.steps}, could not be opened ` +
          `(${message}). It is kept as it is: close other tabs and try again.`;
      return { sentence, before: null, mayPass: !other };
    }
  }

  /** Why the last save did not succeed, or null. */
  get unkept(): string | null {
    return this.#unkept;
  }

  /** What becomes of a saved run that does not open. @returns the one saved before it, if that was wanted */
  recover(choice: "before" | "delete"): Promise<RunView | null> {
    return alone(async () => {
      if (choice === "delete") {
        await deleteRuns(this.#seen);
        this.#seen = null;
        return null;
      }
      const { before: record } = await readRuns();
      const before = unseal(record);
      if (!before)
        throw new Refusal(
          "page",
          "The run that was saved before it is damaged too. Delete the saved run, and train anew.",
        );
      const run = Run.restore(this.#base, await this.#base.load(), before);
      await returnToBefore(record as KeptRun, this.#seen).catch((error) => {
        run.dispose();
        throw error;
      });
      [this.#run, this.#last, this.#seen] = [run, before, revisionOf(record)];
      return this.view();
    });
  }

  /** @throws Refusal if they are no text */
  textOf(bytes: Uint8Array, name: string): string {
    try {
      return data.decodeText(bytes, name);
    } catch (error) {
      const reason = printable((error as Error).message).replace(/^.*?: (byte \d+ is [^;]*).*$/s, "$1");
      throw new Refusal(
        "text",
        `${name} is not a plain text file: ${reason}. Save it as UTF-8 text (.txt) and try again, or paste its text.`,
      );
    }
  }

  /** Measures the untrained model; `train` comes next. The last run is gone once this has succeeded. */
  begin(text: string, settings: Settings, onSample: OnText): Promise<RunView> {
    return alone(async () => {
      const base = this.#base;
      const reading = readText(base, text);
      const run = Run.begin(base, await base.load(), reading, settings, watched(onSample));
      const former = this.#run;
      const last = this.#last;
      this.#run = run;
      try {
        await this.#save(true);
      } catch (error) {
        [this.#run, this.#last] = [former, last];
        run.dispose();
        throw error;
      }
      former?.dispose();
      return this.view();
    });
  }

  /**
   * Trains until the last step (true) or until `pause` (false). One tab at a time: both would save to the same place.
   */
  train(onProgress: (progress: Progress) => void): Promise<boolean> {
    // Not later: a pause that comes while the lock is waited for would be forgotten.
    this.#pauseWanted = false;
    return alone(() => this.#train(watched(onProgress)));
  }

  async #train(onProgress: (progress: Progress) => void): Promise<boolean> {
    const run = this.#run!;
    const { steps } = run.settings;
    const sampleEvery = Math.ceil(steps / SAMPLES);
    const times = [performance.now()];
    let saved = times[0]!;
    while (!run.isComplete && !this.#pauseWanted) {
      await this.#step(run);
      const now = performance.now();
      const step = run.losses.length;
      times.push(now);
      if (times.length > RECENT + 1) times.shift();
      const perStep = (now - times[0]!) / (times.length - 1);
      onProgress({
        step,
        loss: run.losses.at(-1)!,
        tokensPerSecond: ((BATCH * SEQ) / perStep) * 1000,
        secondsLeft: ((steps - step) * perStep) / 1000,
        memoryBytes: memoryStats().peakBytes,
        unkept: this.#unkept,
        sample: step % sampleEvery === 0 && !run.isComplete ? sampleOf(run) : null,
      });
      if (now - saved > SAVE_EVERY_MS) {
        await this.#save();
        saved = performance.now();
      }
      await nextTask();
    }
    await this.#save();
    return run.isComplete;
  }

  async #step(run: Run): Promise<void> {
    const step = run.losses.length + 1;
    try {
      run.step();
    } catch (error) {
      if ((error as Error).name === "OutOfMemoryError") {
        throw new Refusal(
          "page",
          `This device ran out of memory in step ${step}. The run is as it was before that step: close other tabs, ` +
            `and resume.`,
        );
      }
      if (!(error instanceof DivergedError)) throw error;
      const last = this.#last!;
      run.dispose();
      this.#run = null;
      this.#run = Run.restore(run.base, await run.base.load(), last);
      throw new Refusal(
        "page",
        `Training has diverged: ${error.reason}. The run is back at step ${last.state.metrics.length}, the last one ` +
          "that was saved. Stop here to keep what it has learned so far, or train anew with fewer steps, a smaller " +
          "rank or a longer text.",
      );
    }
  }

  pause(): void {
    this.#pauseWanted = true;
  }

  /** Ends the run where it is: measures what it has learned. */
  finish(onSample: OnText): Promise<RunView> {
    return alone(async () => {
      this.#run!.finish(watched(onSample));
      // What was learned is there, also if it cannot be saved.
      await this.#save().catch((error: Error) => {
        this.#unkept = error.message;
      });
      return this.view();
    });
  }

  /** Also called when the page goes out of sight, since a phone may end it there. */
  save(): Promise<void> {
    return this.#save();
  }

  /**
   * Saves follow one another, each of the run that is there by then.
   * @throws Refusal where another tab has saved meanwhile
   */
  #save(withDraft = false): Promise<void> {
    const saving = this.#saving.then(() => this.#write(withDraft));
    this.#saving = saving.catch(() => {});
    return saving;
  }

  async #write(withDraft: boolean): Promise<void> {
    if (!this.#run) return;
    const saved = this.#run.save();
    const kept = seal(saved);
    const {
      text,
      settings: { rank, steps, prompt },
    } = saved;
    try {
      await writeRun(
        kept,
        this.#seen,
        withDraft ? { text, rank: String(rank), steps: String(steps), prompt } : undefined,
      );
      this.#seen = kept.revision;
      this.#unkept = null;
    } catch (error) {
      if (error instanceof Refusal) throw error;
      this.#unkept = notKept(error as Error);
    }
    this.#last = saved;
    this.#onUnkept(this.#unkept === null ? null : kept);
  }

  adapter(): Adapter {
    return this.#run!.adapter();
  }

  /** @throws Refusal if it is no adapter of this model; then the one uploaded before is still there */
  async upload({ config, weights }: Adapter): Promise<void> {
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

  async write(who: Who, prompt: string, seed: number, onText: OnText): Promise<string> {
    const plain = who === "base" ? await this.#base.load() : null;
    try {
      const { base, adapted } =
        who === "trained" ? this.#run! : who === "uploaded" ? this.#uploaded! : { base: this.#base, adapted: null };
      const model = plain ?? adapted!.model;
      return write(base, model.eval(), prompt, seed, watched(onText));
    } catch (error) {
      if ((error as Error).name !== "StateError") throw error;
      throw new Refusal(
        "write",
        `Nothing can be written with this model: ${printable((error as Error).message)} Choose another.`,
      );
    } finally {
      plain?.dispose();
    }
  }

  view(): RunView {
    const { text, settings, losses, before, after } = this.#run!;
    return { text, settings, losses: [...losses], before, after };
  }
}

/** Runs fn while no other tab trains or saves. A page that was just left, or reloaded, lets go a moment later. */
async function alone<T>(fn: () => Promise<T>): Promise<T> {
  // Locks are for secure contexts only. Elsewhere a tab still does not save over what another has saved.
  if (!navigator.locks) return fn();
  let begun = false;
  try {
    return (await navigator.locks.request("wasm-lora-run", { signal: AbortSignal.timeout(LOCK_PATIENCE_MS) }, () => {
      begun = true;
      return fn();
    })) as T;
  } catch (error) {
    if (begun || !["TimeoutError", "AbortError"].includes((error as Error).name)) throw error;
    throw new Refusal("page", "Another tab of this page is training. Go on there, or pause it there and try again.");
  }
}

/** Tells the page that the worker is alive, whenever it has something to say. */
function watched<T>(say: (value: T) => void): (value: T) => void {
  return (value) => {
    postMessage("alive");
    say(value);
  };
}

/** A sample for which there is no memory is left out: it must not end the training. */
function sampleOf(run: Run): string | null {
  try {
    return run.sample();
  } catch (error) {
    if ((error as Error).name === "OutOfMemoryError") return null;
    throw error;
  }
}

function notKept(error: Error): string {
  return (
    `This browser does not let the page keep data (${printable(error.message || error.name)}), so a reload would ` +
    `lose the run. ` +
    "Keep this tab open until you have downloaded the adapter."
  );
}

/** Lets messages in. Unlike a timer, it is not slowed down when the tab is hidden. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

export type { Studio };
expose(new Studio());
