/**
 * wasm-lora finetune: LoRA training of a language model on one text. What is computed is in train/; here are
 * files, signals and talk.
 */
import { ensureWritableDirectory, exists, removeTemporaries, writeAtomic } from "../io/files.js";
import { engine, init } from "../runtime/engine.js";
import { ArgumentError, DivergedError, FileError } from "../runtime/errors.js";
import {
  checkpointPath,
  findCheckpoint,
  hasCheckpoint,
  previousPath,
  saveCheckpoint,
  type FoundCheckpoint,
} from "./checkpoint.js";
import { count, megabytes, oneLine, perplexity, perplexityChange, quote } from "./format.js";
import { findFolder } from "./hub.js";
import { lockFolder, type FolderLock } from "./lock.js";
import { modelOfRun, textOfRun } from "./places.js";
import { lossCurveSvg, lossCurveText } from "./plot.js";
import { passProgress, textProgress, trainingProgress, watched } from "./progress.js";
import { prepareRun, sample, type Places, type Run } from "./run.js";
import { SETTINGS, type FinetuneSettings } from "./settings.js";
import type { EncodingWatch } from "./text.js";
import { programName, shellWord } from "./shell.js";
import { SIGNALS } from "./signals.js";

export { FINETUNE_DEFAULTS, type FinetuneSettings } from "./settings.js";

export type FinetuneCommand = FinetuneSettings & {
  out: string;
  resume?: boolean | undefined;
  /** Decides no bits either. */
  offline?: boolean | undefined;
  /** Decides no bits: a resumed run may change it. */
  gradientCheckpointing?: boolean | undefined;
};

/** @param explicit names of the options that the user gave: with resume they must agree with the checkpoint */
export async function finetune(command: FinetuneCommand, explicit: ReadonlySet<string>): Promise<void> {
  await init();
  const { out, resume = false } = command;
  for (const file of ["config.json", "adapter_config.json"]) {
    if (exists(`${out}/${file}`))
      throw new FileError(
        `finetune: ${out} is the folder of a model or an adapter (it holds ${file}); choose another --out.`,
      );
  }
  if (resume && !hasCheckpoint(out))
    throw new FileError(
      `finetune: cannot read ${checkpointPath(out)}: it does not exist; leave out --resume to start anew.`,
    );
  ensureWritableDirectory(out);
  const lock = lockFolder("finetune", out);
  try {
    if (!resume) refuseToStartOver(out);
    for (const folder of [out, `${out}/adapter`]) removeTemporaries(folder);
    const found = resume ? findCheckpoint(out) : undefined;
    await go(command, explicit, lock, found).catch((error: unknown) => {
      throw advised(error, found?.checkpoint.settings.lr ?? command.lr);
    });
  } finally {
    lock.release();
  }
}

function refuseToStartOver(out: string): void {
  const path = [checkpointPath(out), previousPath(out)].find(exists);
  if (path)
    throw new FileError(`finetune: ${path} is there already. Add --resume to go on from it, or choose another --out.`);
  if (exists(`${out}/adapter/adapter_config.json`))
    throw new FileError(`finetune: ${out}/adapter holds an adapter already; choose another --out.`);
}

async function go(
  command: FinetuneCommand,
  explicit: ReadonlySet<string>,
  lock: FolderLock,
  found: FoundCheckpoint | undefined,
): Promise<void> {
  const { out, resume: _, offline, gradientCheckpointing = false, ...given } = command;
  const saved = found?.checkpoint;
  if (saved) checkSame(given, saved.settings, explicit);
  if (found?.damage)
    console.error(
      `${oneLine(found.damage.message, 1_000)} Going on from the checkpoint before it, of step ` +
        `${found.checkpoint.metrics.length}.`,
    );
  const settings = saved?.settings ?? given;
  const places = saved ? placesOf(saved, given, explicit, out) : given;
  const { path: model, commit: modelCommit } = await findFolder("finetune", places.model, "model", {
    offline,
    keep: lock.keep,
  });

  console.log(`Loading ${oneLine(places.model)}${model === places.model ? "" : ` (${oneLine(model)})`} ...`);
  const run = prepareRun(settings, { ...places, model }, gradientCheckpointing, encodingWatch(places.data));
  const { training, inputs } = run;
  if (saved && saved.inputs !== inputs) {
    throw new ArgumentError(
      `finetune: ${places.data} or ${places.model} is not what ${checkpointPath(out)} was written with; name the ` +
        `same (--data, --model), or start anew in another --out.`,
    );
  }
  describe(run);
  const heldOutBefore = saved?.heldOutBefore ?? heldOutLoss(run, "before", lock);
  const sampleBefore = saved?.sampleBefore ?? sample(run, "Sample before");
  console.log(`Held-out perplexity before: ${perplexity(heldOutBefore)}`);
  console.log(`Sample before: ${quote(sampleBefore)}\n`);

  // A damaged checkpoint must not push out the one before it.
  let isGood = !found?.damage;
  const save = (): void => {
    lock.keep();
    // Weights may be finite and the next loss not: looked at before they take a good checkpoint's place.
    training.checkFinite();
    saveCheckpoint(out, { ...training.state(), settings, modelCommit, inputs, heldOutBefore, sampleBefore }, isGood);
    isGood = true;
  };
  if (saved) {
    training.restore(saved, checkpointPath(out));
    console.log(`Resuming after step ${saved.metrics.length} of ${settings.steps}`);
  }
  if (!training.isComplete && !(await trainSteps(run, save, lock))) {
    const again = [
      "finetune",
      "--data",
      places.data,
      ...(places.model === settings.model ? [] : ["--model", places.model]),
      "--out",
      out,
      "--resume",
    ];
    console.error(
      `\nStopped after step ${training.losses.length}; go on with: ${programName()} ` +
        `${again.map(shellWord).join(" ")}${gradientCheckpointing ? " --gradient-checkpointing" : ""}${
          offline ? " --offline" : ""
        }`,
    );
    process.exitCode = 130;
    return;
  }

  const heldOutAfter = heldOutLoss(run, "after", lock);
  lock.keep();
  // What counts comes before what is drawn of it.
  training.adapted.savePretrained(`${out}/adapter`);
  const { losses } = training;
  writeAtomic(
    `${out}/result.json`,
    `${JSON.stringify({ settings, modelCommit, heldOutBefore, heldOutAfter, losses }, null, 2)}\n`,
  );
  const title =
    `LoRA r = ${settings.r} on ${settings.data}: perplexity ${perplexity(heldOutBefore)} to ` +
    `${perplexity(heldOutAfter)}`;
  writeAtomic(`${out}/loss.svg`, lossCurveSvg(losses, { title, heldOutBefore, heldOutAfter }));
  console.log(
    `\nHeld-out perplexity after: ${perplexity(heldOutAfter)} (before: ${perplexity(heldOutBefore)}; ` +
      `${perplexityChange(heldOutBefore, heldOutAfter)})`,
  );
  console.log(`Sample after: ${quote(sample(run, "Sample after"))}\n`);
  console.log(`${lossCurveText(losses)}\n`);
  console.log(`Wrote ${oneLine(out)}/adapter (PEFT), ${oneLine(out)}/loss.svg, ${oneLine(out)}/result.json`);
  const tryIt = ["generate", "--model", places.model, "--adapter", `${out}/adapter`, "--prompt", settings.prompt];
  console.log(`Try it: ${programName()} ${tryIt.map(shellWord).join(" ")}`);
}

/** A run that diverged, in the command's words. */
function advised(error: unknown, lr: number | "auto"): unknown {
  if (!(error instanceof DivergedError)) return error;
  return new ArgumentError(
    `finetune: the run diverged (not all of it is finite), and nothing more is written: ${error.reason}. Lower the ` +
      `learning rate (--lr, ${lr} here), in another --out.`,
  );
}

/** Of the settings all must be the checkpoint's but the places, which the digest of their contents judges. */
function checkSame(given: FinetuneSettings, saved: FinetuneSettings, explicit: ReadonlySet<string>): void {
  for (const key of Object.keys(SETTINGS) as (keyof FinetuneSettings)[]) {
    if (
      key !== "model" &&
      key !== "data" &&
      explicit.has(key) &&
      JSON.stringify(given[key]) !== JSON.stringify(saved[key])
    ) {
      throw new ArgumentError(
        `finetune: --resume goes on with ${key} = ${JSON.stringify(saved[key])}; got ${JSON.stringify(given[key])}. ` +
          "Leave it out, or start anew in another --out.",
      );
    }
  }
}

function placesOf(
  { settings: saved, modelCommit }: FoundCheckpoint["checkpoint"],
  given: FinetuneSettings,
  explicit: ReadonlySet<string>,
  out: string,
): Places {
  return {
    model: explicit.has("model") ? given.model : modelOfRun(saved.model, modelCommit, out),
    data: explicit.has("data") ? given.data : textOfRun(saved.data, out),
  };
}

/** Says what is encoded, and on a terminal how far that has come: a long text takes seconds. */
function encodingWatch(path: string): EncodingWatch {
  let bar: ReturnType<typeof textProgress> | undefined;
  return {
    began: (characters, read) => {
      const as = read === "utf-8" ? "" : ` (read as ${read.toUpperCase()})`;
      console.log(`Encoding ${oneLine(path)}, ${count(characters)} characters${as} ...`);
    },
    progress: (done, all) => {
      if (done < all) (bar ??= textProgress(all)).at(done);
    },
    ended: () => bar?.stop(),
  };
}

function describe({ training, settings, plan }: Run): void {
  const { adapted, train, test } = training;
  const [trainable, all] = adapted.getNbTrainableParameters();
  console.log(
    `Model ${oneLine(settings.model)}: ${count(all - trainable)} weights frozen, ${count(trainable)} trained ` +
      `(${((100 * trainable) / all).toFixed(2)} %), r = ${settings.r}`,
  );
  console.log(
    `Data ${oneLine(settings.data)}: ${count(train.length)} tokens to train on, ${count(test.length)} held out`,
  );
  console.log(
    `Memory: ${megabytes(plan.peak)} MB at the peak, as planned (weights ${megabytes(plan.weights)}, adapter ` +
      `${megabytes(plan.adapters)}, ` +
      `optimiser ${megabytes(plan.optimiser)}, activations ` +
      `${megabytes(plan.activations)}${adapted.model.gradientCheckpointing ? " between checkpoints" : ""})`,
  );
}

/** Takes the steps that are left. Returns false if the user stopped it; either way the state is saved. */
async function trainSteps({ training, settings, work }: Run, save: () => void, lock: FolderLock): Promise<boolean> {
  const { batch, seq, steps, checkpointEvery } = settings;
  let stopped = false;
  const stop = (): void => {
    stopped = true;
  };
  for (const signal of SIGNALS) process.once(signal, stop);
  engine().memory.resetPeak();
  const progress = trainingProgress(steps, training.losses.length);
  try {
    let mark = performance.now();
    while (!training.isComplete && !stopped) {
      const before = training.losses.length;
      const loss = watched(
        work.step,
        (share) => {
          progress.at(before + share);
          lock.keep();
        },
        () => training.step(),
      );
      const now = performance.now();
      progress.at(before + 1, { loss: loss.toFixed(3), rate: Math.round(((batch * seq) / (now - mark)) * 1000) });
      mark = now;
      if (training.losses.length % checkpointEvery === 0 && !training.isComplete) save();
      lock.keep();
      // Lets signals and the terminal in.
      await new Promise((resolve) => setImmediate(resolve));
    }
    save();
  } finally {
    progress.stop();
    for (const signal of SIGNALS) process.off(signal, stop);
  }
  return !stopped;
}

/** Mean loss over evenly spread windows of the held-out tokens. */
function heldOutLoss({ training, work }: Run, when: "before" | "after", lock: FolderLock): number {
  const label = `Held-out loss ${when}`;
  const length = training.evaluationBatches;
  console.log(`${label}: ${length} windows ...`);
  const progress = passProgress(label, length);
  try {
    return watched(
      length * work.evaluation,
      (share) => {
        progress.at(share * length);
        lock.keep();
      },
      () => training.evaluate(),
    );
  } catch (error) {
    if (when === "before" && error instanceof DivergedError)
      throw new ArgumentError(
        `finetune: ${error.reason}, not a finite number: the model's weights are damaged, or not this model's.`,
      );
    throw error;
  } finally {
    progress.stop();
  }
}
