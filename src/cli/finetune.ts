/**
 * wasm-lora finetune: LoRA training of a language model on one text. What is computed is in run.ts; here are files,
 * signals and talk.
 */
import { ensureWritableDirectory, exists, removeTemporaries, writeAtomic } from "../io/files.js";
import { engine, init } from "../runtime/engine.js";
import { ArgumentError, FileError } from "../runtime/errors.js";
import { checkpointPath, findCheckpoint, hasCheckpoint, previousPath, saveCheckpoint } from "./checkpoint.js";
import { count, formatTime, megabytes, oneLine, perplexity, perplexityChange, quote } from "./format.js";
import { lockFolder, type FolderLock } from "./lock.js";
import { modelOfRun, textOfRun } from "./places.js";
import { lossCurveSvg, lossCurveText } from "./plot.js";
import { passProgress, trainingProgress } from "./progress.js";
import {
  checkSound,
  finite,
  prepareRun,
  restoreRun,
  runState,
  sample,
  trainStep,
  windowLoss,
  type Places,
  type Run,
} from "./run.js";
import { SETTINGS, type FinetuneSettings } from "./settings.js";
import { programName, shellWord } from "./shell.js";

export { FINETUNE_DEFAULTS, type FinetuneSettings } from "./settings.js";

export type FinetuneCommand = FinetuneSettings & {
  out: string;
  resume?: boolean | undefined;
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
    await go(command, explicit, lock);
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

async function go(command: FinetuneCommand, explicit: ReadonlySet<string>, lock: FolderLock): Promise<void> {
  const { out, resume = false, gradientCheckpointing = false, ...given } = command;
  const found = resume ? findCheckpoint(out) : undefined;
  const saved = found?.checkpoint;
  if (saved) checkSame(given, saved.settings, explicit);
  if (found?.damage)
    console.error(
      `${oneLine(found.damage.message, 1_000)} Going on from the checkpoint before it, of step ` +
        `${found.checkpoint.step}.`,
    );
  const settings = saved?.settings ?? given;
  const places = saved ? placesOf(saved.settings, given, explicit, out) : given;

  console.log(`Loading ${oneLine(places.model)} ...`);
  const run = prepareRun(settings, places, gradientCheckpointing, (characters, read, seconds) => {
    const as = read === "utf-8" ? "" : ` (read as ${read.toUpperCase()})`;
    const time = seconds === undefined ? "" : `, about ${formatTime(seconds)}`;
    console.log(`Encoding ${oneLine(places.data)}, ${count(characters)} characters${as}${time} ...`);
  });
  if (saved && saved.inputs !== run.inputs) {
    throw new ArgumentError(
      `finetune: ${places.data} or ${places.model} is not what ${checkpointPath(out)} was written with; name the ` +
        `same (--data, --model), or start anew in another --out.`,
    );
  }
  describe(run);
  const { adapted } = run;
  adapted.eval();
  const heldOutBefore = saved?.heldOutBefore ?? heldOutLoss(run, "before", lock);
  const sampleBefore = saved?.sampleBefore ?? sample(run);
  console.log(`Held-out perplexity before: ${perplexity(heldOutBefore)}`);
  console.log(`Sample before: ${quote(sampleBefore)}\n`);
  adapted.train();

  const losses = saved?.losses ?? [];
  // A damaged checkpoint must not push out the one before it.
  let isGood = !found?.damage;
  const save = (): void => {
    lock.keep();
    checkSound(run, losses.length);
    saveCheckpoint(out, { ...runState(run), step: losses.length, heldOutBefore, sampleBefore, losses }, isGood);
    isGood = true;
  };
  if (saved) {
    restoreRun(run, saved, checkpointPath(out));
    console.log(`Resuming after step ${saved.step} of ${settings.steps}`);
  }
  if (losses.length < settings.steps && !(await trainSteps(run, losses, save, lock))) {
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
      `\nStopped after step ${losses.length}; go on with: ${programName()} ` +
        `${again.map(shellWord).join(" ")}${gradientCheckpointing ? " --gradient-checkpointing" : ""}`,
    );
    process.exitCode = 130;
    return;
  }

  adapted.eval();
  const heldOutAfter = heldOutLoss(run, "after", lock);
  lock.keep();
  // What counts comes before what is drawn of it.
  adapted.savePretrained(`${out}/adapter`);
  writeAtomic(`${out}/result.json`, `${JSON.stringify({ settings, heldOutBefore, heldOutAfter, losses }, null, 2)}\n`);
  const title =
    `LoRA r = ${settings.r} on ${settings.data}: perplexity ${perplexity(heldOutBefore)} to ` +
    `${perplexity(heldOutAfter)}`;
  writeAtomic(`${out}/loss.svg`, lossCurveSvg(losses, { title, heldOutBefore, heldOutAfter }));
  console.log(
    `\nHeld-out perplexity after: ${perplexity(heldOutAfter)} (before: ${perplexity(heldOutBefore)}; ` +
      `${perplexityChange(heldOutBefore, heldOutAfter)})`,
  );
  console.log(`Sample after: ${quote(sample(run))}\n`);
  console.log(`${lossCurveText(losses)}\n`);
  console.log(`Wrote ${oneLine(out)}/adapter (PEFT), ${oneLine(out)}/loss.svg, ${oneLine(out)}/result.json`);
  const tryIt = ["generate", "--model", places.model, "--adapter", `${out}/adapter`, "--prompt", settings.prompt];
  console.log(`Try it: ${programName()} ${tryIt.map(shellWord).join(" ")}`);
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
  saved: FinetuneSettings,
  given: FinetuneSettings,
  explicit: ReadonlySet<string>,
  out: string,
): Places {
  return {
    model: explicit.has("model") ? given.model : modelOfRun(saved.model, out),
    data: explicit.has("data") ? given.data : textOfRun(saved.data, out),
  };
}

function describe({ adapted, settings, train, heldOutTokens, plan, model }: Run): void {
  const [trainable, all] = adapted.getNbTrainableParameters();
  console.log(
    `Model ${oneLine(settings.model)}: ${count(all - trainable)} weights frozen, ${count(trainable)} trained ` +
      `(${((100 * trainable) / all).toFixed(2)} %), r = ${settings.r}`,
  );
  console.log(
    `Data ${oneLine(settings.data)}: ${count(train.length)} tokens to train on, ${count(heldOutTokens)} held out`,
  );
  console.log(
    `Memory: ${megabytes(plan.peak)} MB at the peak, as planned (weights ${megabytes(plan.weights)}, adapter ` +
      `${megabytes(plan.adapters)}, ` +
      `optimiser ${megabytes(plan.optimiser)}, activations ` +
      `${megabytes(plan.activations)}${model.gradientCheckpointing ? " between checkpoints" : ""})`,
  );
}

/** Trains from step losses.length on. Returns false if the user stopped it; either way the state is saved. */
async function trainSteps(run: Run, losses: number[], save: () => void, lock: FolderLock): Promise<boolean> {
  const { batch, seq, steps, checkpointEvery } = run.settings;
  let stopped = false;
  const stop = (): void => {
    stopped = true;
  };
  for (const signal of SIGNALS) process.once(signal, stop);
  engine().memory.resetPeak();
  const progress = trainingProgress(steps, losses.length);
  try {
    let mark = performance.now();
    while (losses.length < steps && !stopped) {
      const loss = trainStep(run, losses.length);
      const now = performance.now();
      losses.push(loss);
      progress.step({ loss: loss.toFixed(3), rate: Math.round(((batch * seq) / (now - mark)) * 1000) });
      mark = now;
      if (losses.length % checkpointEvery === 0 && losses.length < steps) save();
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

/** That ask a run to end: Ctrl-C, kill, a terminal that closes. */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Mean loss over evenly spread windows of the held-out tokens. */
function heldOutLoss(run: Run, when: string, lock: FolderLock): number {
  const { heldOut } = run;
  const label = `Held-out loss ${when}`;
  console.log(`${label}: ${heldOut.length} windows ...`);
  const progress = passProgress(label, heldOut.length);
  let total = 0;
  try {
    for (const window of heldOut) {
      total += windowLoss(run, window);
      progress.step();
      lock.keep();
    }
  } finally {
    progress.stop();
  }
  const mean = total / heldOut.length;
  if (when === "before" && !Number.isFinite(mean))
    throw new ArgumentError(
      `finetune: the model's held-out loss is ${mean} before any training: its weights are damaged, or not this ` +
        `model's.`,
    );
  return finite(mean, `the held-out loss ${when}`, run);
}
