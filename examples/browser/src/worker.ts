/** The worker: all of the model's work, and the run's place in IndexedDB. The page calls it through Comlink. */
import { expose } from "comlink";
import { del, get, set } from "idb-keyval";
import { init, io, memoryStats, type models, peft } from "wasm-lora";
import { fetchBase, type Base } from "./base";
import { Refusal } from "./refusal";
import { BATCH, Run, SEQ, write, type Adapter, type Report, type SavedRun, type Settings } from "./run";

export interface Progress { loss: number; tokensPerSecond: number; secondsLeft: number; memoryBytes: number }
export interface RunView { text: string; settings: Settings; losses: number[]; before: Report; after: Report | null }
export type Who = "base" | "trained" | "uploaded";
type OnText = (text: string) => void;

const KEY = "run";
const SAVE_EVERY_MS = 3000;
/** Steps that the speed is averaged over. */
const RECENT = 20;

class Studio {
  #base!: Base;
  #run: Run | null = null;
  #pauseWanted = false;
  #uploaded: peft.LoraModel<models.Llama> | null = null;
  #canSave = true;

  /** Loads the kernels, the model and what is left of the last run. */
  async open(): Promise<RunView | null> {
    await init();
    this.#base = await fetchBase();
    const saved = await get<SavedRun>(KEY).catch(() => {
      this.#canSave = false;
      return undefined;
    });
    if (!saved) return null;
    try {
      this.#run = Run.restore(this.#base, saved);
    } catch (error) {
      await del(KEY);
      throw error;
    }
    return this.#view();
  }

  /** Whether a reload will find the run again. */
  get canSave(): boolean { return this.#canSave; }

  /** Measures the untrained model; `train` comes next. The last run is gone once this has succeeded. */
  async begin(text: string, settings: Settings, onSample: OnText): Promise<RunView> {
    const run = Run.begin(this.#base, text, settings, onSample);
    this.#run?.dispose();
    this.#run = run;
    await this.save();
    return this.#view();
  }

  /** Trains until the last step (true) or until `pause` (false). One tab at a time: both would save to the same place. */
  async train(onProgress: (progress: Progress) => void): Promise<boolean> {
    // Locks are for secure contexts only; elsewhere there is none to take.
    if (!navigator.locks) return this.#train(onProgress);
    return navigator.locks.request("wasm-lora-run", { ifAvailable: true }, (lock) => {
      if (!lock) throw new Refusal("page", "Another tab of this page is training. Go on there, or pause it there and try again.");
      return this.#train(onProgress);
    });
  }

  async #train(onProgress: (progress: Progress) => void): Promise<boolean> {
    const run = this.#run!;
    this.#pauseWanted = false;
    const times = [performance.now()];
    let saved = times[0]!;
    while (!run.isComplete && !this.#pauseWanted) {
      run.step();
      const now = performance.now();
      times.push(now);
      if (times.length > RECENT + 1) times.shift();
      const perStep = (now - times[0]!) / (times.length - 1);
      onProgress({
        loss: run.losses.at(-1)!, tokensPerSecond: BATCH * SEQ / perStep * 1000,
        secondsLeft: (run.settings.steps - run.losses.length) * perStep / 1000, memoryBytes: memoryStats().peakBytes,
      });
      if (now - saved > SAVE_EVERY_MS) {
        await this.save();
        saved = performance.now();
      }
      await nextTask();
    }
    await this.save();
    return run.isComplete;
  }

  pause(): void { this.#pauseWanted = true; }

  /** Ends the run where it is: measures what it has learned. */
  async finish(onSample: OnText): Promise<RunView> {
    this.#run!.finish(onSample);
    await this.save();
    return this.#view();
  }

  /** Also called when the page goes out of sight, since a phone may end it there. */
  async save(): Promise<void> {
    if (!this.#run || !this.#canSave) return;
    await set(KEY, this.#run.save()).catch(() => { this.#canSave = false; });
  }

  adapter(): Adapter { return this.#run!.adapter(); }

  /** @throws Refusal if it is no adapter of this model; then the one uploaded before is still there */
  upload({ config, weights }: Adapter): void {
    io.memoryFiles.set("memory:adapter/adapter_config.json", config);
    io.memoryFiles.set("memory:adapter/adapter_model.safetensors", weights);
    const model = this.#base.load();
    try {
      const adapted = peft.LoraModel.fromPretrained(model, "memory:adapter");
      this.#uploaded?.dispose();
      this.#uploaded = adapted;
    } catch (error) {
      model.dispose();
      const reason = (error as Error).message.replaceAll("memory:", "");
      throw new Refusal("upload", `This adapter cannot be used here: ${reason} Choose one that was made on this page, or for wasm-lora's embedded base.`);
    }
  }

  write(who: Who, prompt: string, seed: number, onText: OnText): string {
    const plain = who === "base" ? this.#base.load() : null;
    try {
      const model = plain ?? (who === "trained" ? this.#run!.adapted : this.#uploaded!).model;
      return write(this.#base, model.eval(), prompt, seed, onText);
    } finally {
      plain?.dispose();
    }
  }

  #view(): RunView {
    const { text, settings, losses, before, after } = this.#run!;
    return { text, settings, losses, before, after };
  }
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
